"""State-dict keys of SVD's VAE: diffusers' layout to SVD's own, which ComfyUI uses."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from ..genxd_core.errors import WeightsError

__all__ = ["VAELayout", "convert_vae_keys", "from_diffusers", "from_svd"]

_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_TIME = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
}
_RENAMED = (
    ("spatial_res_block.", ""),
    ("time_mixer.mix_factor", "mix_factor"),
    ("decoder.time_conv_out.", "decoder.conv_out.time_mix_conv."),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
)
# With one layer a block, diffusers' decoder has one middle block and never applies its attention;
# ComfyUI's has two and applies it. With zero outputs both are the identity.
_SECOND_MIDDLE = ("decoder.mid.block_2.", "decoder.mid.attn_1.proj_out.")


@dataclass(frozen=True)
class VAELayout:
    """A temporal VAE's weights under ComfyUI's keys, and what shapes the network for them.

    Attributes:
        state: the tensors.
        widths: channels of each level, outermost first.
        layers: residual blocks of a level of the encoder; the decoder has one more.
        zeroed: prefixes of the network's tensors that are zero whatever the file says.
    """

    state: dict[str, Tensor]
    widths: tuple[int, ...]
    layers: int
    zeroed: tuple[str, ...] = ()


def from_diffusers(state: dict[str, Tensor], source: str) -> VAELayout:
    """Convert an ``AutoencoderKLTemporalDecoder``.

    Args:
        state: its tensors.
        source: names the file in messages.

    Raises:
        WeightsError: levels of the encoder, or the layer behind it, are missing or misshaped.
    """
    shapes = [
        tuple(state[f"quant_conv.{leaf}"].shape)
        for leaf in ("weight", "bias")
        if f"quant_conv.{leaf}" in state
    ]
    if shapes != [(8, 8, 1, 1), (8,)]:
        raise WeightsError(
            f"{source} does not hold a whole GenXD VAE: quant_conv has the shapes {shapes}, "
            "expected (8, 8, 1, 1) and (8). Download or copy it again."
        )
    widths, layers = _shape(state, r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", source)
    converted = convert_vae_keys(state, len(widths))
    return VAELayout(converted, widths, layers, zeroed=_SECOND_MIDDLE if layers == 1 else ())


def from_svd(state: dict[str, Tensor], source: str) -> VAELayout:
    """Take a VAE that is in SVD's layout already, such as one that ComfyUI saved.

    Raises:
        WeightsError: as `from_diffusers`.
    """
    widths, layers = _shape(state, r"encoder\.down\.(\d+)\.block\.(\d+)\.", source)
    return VAELayout(dict(state), widths, layers)


def _shape(state: dict[str, Tensor], blocks: str, source: str) -> tuple[tuple[int, ...], int]:
    """Widths and depth, read off the encoder's second convolutions."""
    found: dict[int, int] = {}
    layers = 0
    for key, value in state.items():
        match = re.match(blocks + r"conv2\.weight$", key)
        if match:
            found[int(match[1])] = value.shape[0]
            layers = max(layers, int(match[2]) + 1)
    widths = tuple(found[level] for level in sorted(found))
    if not widths or sorted(found) != list(range(len(widths))):
        raise WeightsError(
            f"{source} does not hold a whole GenXD VAE: levels of the encoder are missing (found "
            f"{sorted(found)}). Download or copy it again."
        )
    return widths, layers


def convert_vae_keys(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """From diffusers' ``AutoencoderKLTemporalDecoder`` to the layout of SVD and ComfyUI.

    The 1x1 ``quant_conv`` is folded into the encoder's last layer (in float64; exact).

    Args:
        state: diffusers' tensors, ``quant_conv`` among them.
        levels: resolution levels of the network.
    """
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("quant_conv."):
            continue
        new = _convert_key(key, levels)
        if ".mid.attn_1." in new and new.endswith("weight") and value.dim() == 2:
            value = value[:, :, None, None]
        out[new] = value
    matrix, offset = (state[f"quant_conv.{leaf}"].double() for leaf in ("weight", "bias"))
    matrix = matrix.flatten(1)
    weight, bias = (out.get(f"encoder.conv_out.{leaf}") for leaf in ("weight", "bias"))
    if weight is not None and bias is not None:
        folded = torch.einsum("oi,ichw->ochw", matrix, weight.double())
        out["encoder.conv_out.weight"] = folded.to(weight.dtype)
        out["encoder.conv_out.bias"] = (matrix @ bias.double() + offset).to(bias.dtype)
    return out


def _convert_key(key: str, levels: int) -> str:
    key = re.sub(r"mid_block\.resnets\.(\d+)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", key)
    key = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)\.", r"down.\1.block.\2.", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", key)
    key = re.sub(
        r"up_blocks\.(\d+)\.resnets\.(\d+)\.",
        lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}.",
        key,
    )
    key = re.sub(
        r"up_blocks\.(\d+)\.upsamplers\.0\.",
        lambda m: f"up.{levels - 1 - int(m[1])}.upsample.",
        key,
    )
    if "mid_block.attentions.0." in key:
        head, tail = key.split("mid_block.attentions.0.")
        name, leaf = tail.rsplit(".", 1)
        return f"{head}mid.attn_1.{_ATTENTION.get(name, name)}.{leaf}"
    if ".temporal_res_block." in key:
        head, tail = key.split("temporal_res_block.")
        name, leaf = tail.rsplit(".", 1)
        return f"{head}time_stack.{_TIME.get(name, name)}.{leaf}"
    for old, new in _RENAMED:
        key = key.replace(old, new)
    return key
