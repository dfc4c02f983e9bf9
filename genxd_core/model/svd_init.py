"""The first stage's start: a GenXD network made of an SVD UNet (Sec. 5.1).

Spatial layers are SVD's; the multi-view and the temporal layers both come from SVD's temporal
ones; cross-attention is left out; new input channels start at zero.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import WeightsError
from .config import GenXDUNetConfig
from .unet import GenXDUNet

__all__ = ["init_unet_from_svd", "svd_source"]

_RESIZED = ("conv_in.weight", "add_embedding.linear_1.weight")  # in their input channels
_TWINS = (
    (".mv_res_block.", ".temporal_res_block."),
    (".multiview_transformer_blocks.", ".temporal_transformer_blocks."),
)


def svd_source(key: str) -> str:
    """The SVD key that a GenXD key is initialised from, if SVD has it."""
    for ours, svds in _TWINS:
        key = key.replace(ours, svds)
    return key


@torch.no_grad()
def init_unet_from_svd(
    svd_unet_state_dict: Mapping[str, Tensor], config: GenXDUNetConfig
) -> GenXDUNet:
    """Make a GenXD network of an SVD UNet's weights.

    What SVD lacks (the motion embedding and the fusion weights) keeps its initial value.

    Args:
        svd_unet_state_dict: in the diffusers layout (``unet/`` of an SVD folder).
        config: the network to make; its widths must be the SVD network's.

    Raises:
        WeightsError: these are not SVD's weights, or their widths are not the config's.
    """
    unet = GenXDUNet(config)
    if not any(key.endswith("time_mixer.mix_factor") for key in svd_unet_state_dict):
        raise WeightsError(
            f"these {len(svd_unet_state_dict)} tensors are not an SVD UNet in the diffusers "
            "layout (none is named ...time_mixer.mix_factor); give the state dict of its unet/."
        )
    state = unet.state_dict()
    wrong: list[str] = []
    for key, value in state.items():
        source = svd_unet_state_dict.get(svd_source(key))
        if source is None:
            continue
        if source.shape == value.shape:
            value.copy_(source)
        elif key in _RESIZED and source.shape[0] == value.shape[0]:
            shared = min(value.shape[1], source.shape[1])
            value.zero_()
            value[:, :shared] = source[:, :shared]
        else:
            wrong.append(f"{key} {list(source.shape)} instead of {list(value.shape)}")
    if wrong:
        raise WeightsError(
            f"{len(wrong)} tensors of the SVD UNet do not have the configuration's shapes "
            f"({', '.join(wrong[:10])}); give a config with SVD's widths."
        )
    return unet
