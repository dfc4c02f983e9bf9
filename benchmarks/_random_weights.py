"""Networks with random weights of a trained one's size: speed does not depend on their values."""

import torch

from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.unet import GenXDUNet

__all__ = ["random_unet"]


@torch.no_grad()
def random_unet(
    config: GenXDUNetConfig, *, dtype: torch.dtype, device: torch.device | str
) -> GenXDUNet:
    """A network whose activations stay in a trained one's range, filled where it lies.

    Args:
        config: its shape; the default one is the released model's.
        dtype: of the weights.
        device: where it lies.
    """
    with torch.device("meta"):
        unet = GenXDUNet(config, dtype=dtype)
    unet = unet.to_empty(device=device).eval().requires_grad_(False)
    torch.manual_seed(0)
    for name, weight in unet.named_parameters():
        if weight.dim() > 1:
            weight.normal_(std=0.5 * weight[0].numel() ** -0.5)
        elif name.endswith("weight"):
            weight.fill_(1.0)
        else:
            weight.zero_()
    return unet
