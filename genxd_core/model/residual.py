"""The multi-view temporal residual block (Sec. 4.1, "MultiView-Temporal ResBlock" of Fig. 4).

Layouts: ``(b v) c h w`` between blocks; ``b c v (h w)`` for the convolutions over frames.
"""

import functools
from types import EllipsisType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from .config import NORM_GROUPS
from .fusion import FusionBlender, FusionPlan

__all__ = ["FrameResBlock", "MVTemporalResBlock", "SpatialResBlock"]


@functools.cache
def frame_conv_class(conv3d: type) -> type:
    """A (3, 1, 1) convolution with 5-D weights that runs as a 2-D one over (frames, pixels).

    Deriving it from the injected 3-D layer keeps that layer's handling of weights (casting,
    offloading, quantisation); only the arithmetic differs, and it is faster.
    """

    class FrameConv(conv3d):  # type: ignore[misc]
        def _conv_forward(
            self, x: Tensor, weight: Tensor, bias: Tensor | None, *_: Any, **__: Any
        ) -> Tensor:
            if x.dim() == 5:
                out: Tensor = super()._conv_forward(x, weight, bias)
                return out
            if x.device.type == "cpu" and 2 * x.shape[2] * x.shape[3] <= weight.shape[0]:
                return _as_one_product(x, weight, bias)
            return F.conv2d(x, weight[..., 0], bias, padding=(1, 0))

    return FrameConv


def _as_one_product(
    x: Float[Tensor, "b i v hw"], weight: Float[Tensor, "o i 3 1 1"], bias: Tensor | None
) -> Float[Tensor, "b o v hw"]:
    """The same convolution for few pixels: a CPU library would spend its time packing weights."""
    frames, pixels = x.shape[2:]
    taps = F.pad(x, (0, 0, 1, 1)).unfold(2, 3, 1)  # b i v hw 3
    rows = rearrange(taps, "b i v p t -> b (i t) (v p)")
    out = torch.matmul(weight.flatten(1), rows)
    if bias is not None:
        out = out + bias[:, None].to(out.dtype)  # autocast leaves the bias in float32
    return out.view(x.shape[0], -1, frames, pixels)


class SpatialResBlock(nn.Module):
    """Residual block of 3x3 convolutions on each frame by itself."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int,
        eps: float,
        *,
        operations: ModuleType | Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        ops = operations
        self.norm1 = ops.GroupNorm(NORM_GROUPS, in_channels, eps=eps, **factory)
        self.conv1 = ops.Conv2d(in_channels, out_channels, 3, padding=1, **factory)
        self.time_emb_proj = ops.Linear(temb_channels, out_channels, **factory)
        self.norm2 = ops.GroupNorm(NORM_GROUPS, out_channels, eps=eps, **factory)
        self.conv2 = ops.Conv2d(out_channels, out_channels, 3, padding=1, **factory)
        self.conv_shortcut = (
            ops.Conv2d(in_channels, out_channels, 1, **factory)
            if in_channels != out_channels
            else None
        )

    def forward(
        self, x: Float[Tensor, "bv i h w"], temb: Float[Tensor, "bv e"]
    ) -> Float[Tensor, "bv o h w"]:
        """Run on frames ``x`` with an activated embedding ``temb`` per frame."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(temb)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        skip = x if self.conv_shortcut is None else self.conv_shortcut(x)
        out: Tensor = skip + h
        return out


class FrameResBlock(nn.Module):
    """Residual block of (3, 1, 1) convolutions over the frame axis: the multi-view or temporal one.

    Its group norms see all frames of a sample together.
    """

    def __init__(
        self,
        channels: int,
        temb_channels: int,
        eps: float,
        *,
        operations: ModuleType | Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        ops = operations
        conv = frame_conv_class(ops.Conv3d)
        self.norm1 = ops.GroupNorm(NORM_GROUPS, channels, eps=eps, **factory)
        self.conv1 = conv(channels, channels, (3, 1, 1), padding=(1, 0, 0), **factory)
        self.time_emb_proj = ops.Linear(temb_channels, channels, **factory)
        self.norm2 = ops.GroupNorm(NORM_GROUPS, channels, eps=eps, **factory)
        self.conv2 = conv(channels, channels, (3, 1, 1), padding=(1, 0, 0), **factory)

    def forward(
        self, x: Float[Tensor, "b c v hw"], temb: Float[Tensor, "b v e"]
    ) -> Float[Tensor, "b c v hw"]:
        """Run on samples ``x`` with an activated embedding ``temb`` per frame."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(temb).transpose(1, 2)[..., None]
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = x + h
        return out


class MVTemporalResBlock(nn.Module):
    """Spatial, multi-view and temporal residual blocks in cascade, alpha-fused.

    The time embedding feeds the spatial and the multi-view block. The temporal block takes the
    motion embedding instead where there is one, and the time embedding where there is none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int,
        eps: float,
        *,
        operations: ModuleType | Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        options = {"operations": operations, **factory}
        self.spatial_res_block = SpatialResBlock(
            in_channels, out_channels, temb_channels, eps, **options
        )
        self.temporal_res_block = FrameResBlock(out_channels, temb_channels, eps, **options)
        self.mv_res_block = FrameResBlock(out_channels, temb_channels, eps, **options)
        self.time_mixer = FusionBlender(**factory)

    def forward(
        self,
        x: Float[Tensor, "bv i h w"],
        temb: Float[Tensor, "bv e"],
        motion_emb: Float[Tensor, "bv e"] | None,
        plan: FusionPlan,
    ) -> Float[Tensor, "bv o h w"]:
        """Run on the frames of a batch.

        Args:
            x: frames; those of one sample are adjacent.
            temb: time embedding of every frame.
            motion_emb: motion embedding of every frame, or None.
            plan: frames per sample and the samples' modes.
        """
        temb = F.silu(temb)
        x = self.spatial_res_block(x, temb)
        height = x.shape[-2]
        x_s = rearrange(x, "(b v) c h w -> b c v (h w)", v=plan.num_frames)
        temb = rearrange(temb, "(b v) e -> b v e", v=plan.num_frames)
        x_mv = self.mv_res_block(x_s, temb)

        def temporal(x_rows: Tensor, rows: tuple[int, ...] | EllipsisType) -> Tensor:
            emb = temb
            if motion_emb is not None:
                emb = rearrange(F.silu(motion_emb), "(b v) e -> b v e", v=plan.num_frames)
            emb = emb if rows is ... else emb[list(rows)]
            out: Tensor = self.temporal_res_block(x_rows, emb)
            return out

        fused = self.time_mixer(x_s, x_mv, temporal, plan)
        out: Tensor = rearrange(fused, "b c v (h w) -> (b v) c h w", h=height)
        return out
