"""The multi-view temporal transformer (Sec. 4.1): self-attention in space, across views, over time.

There is no cross-attention. Layouts: ``(b v) (h w) c`` tokens of a frame for the spatial layer,
``b (v h w) c`` for the multi-view layer, ``(b h w) v c`` for the temporal one.
"""

from collections.abc import Callable
from types import EllipsisType, ModuleType
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from .config import NORM_GROUPS
from .embeddings import EmbeddingMLP, sinusoid
from .fusion import FusionBlender, FusionPlan

__all__ = ["AttentionFunction", "AttentionHooks", "MVTemporalTransformer", "sdpa"]

AttentionFunction = Callable[..., Tensor]
"""``attention(q, k, v, heads, **call_options)`` on (n, tokens, heads * head_dim) tensors."""


@runtime_checkable
class AttentionHooks(Protocol):
    """What a host may change around every self-attention; passed as the option ``hooks``."""

    def before(
        self, x: Float[Tensor, "n l c"], **options: Any
    ) -> tuple[Float[Tensor, "n l c"], Float[Tensor, "n s c"], Float[Tensor, "n s c"]]:
        """What queries, keys and values are projected from, instead of ``x``."""
        ...

    def after(self, x: Float[Tensor, "n l c"], **options: Any) -> Float[Tensor, "n l c"]:
        """The attention's output, changed."""
        ...


def sdpa(
    q: Float[Tensor, "n l d"],
    k: Float[Tensor, "n s d"],
    v: Float[Tensor, "n s d"],
    heads: int,
    **_: Any,
) -> Float[Tensor, "n l d"]:
    """PyTorch's scaled dot product attention; call options are ignored."""
    q, k, v = (rearrange(t, "n l (a d) -> n a l d", a=heads) for t in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "n a l d -> n l (a d)")


class GEGLUFeedForward(nn.Module):
    """Gated feed-forward: value half first, exact GELU on the gate."""

    class _Proj(nn.Module):
        def __init__(
            self, dim: int, inner: int, *, operations: ModuleType | Any, **factory: Any
        ) -> None:
            super().__init__()
            self.proj = operations.Linear(dim, 2 * inner, **factory)

        def forward(self, x: Tensor) -> Tensor:
            value, gate = self.proj(x).chunk(2, dim=-1)
            out: Tensor = value * F.gelu(gate)
            return out

    def __init__(self, dim: int, *, operations: ModuleType | Any, **factory: Any) -> None:
        super().__init__()
        inner = 4 * dim
        # The empty slot holds the original's dropout, so that the keys keep their numbers.
        self.net = nn.ModuleList(
            [
                self._Proj(dim, inner, operations=operations, **factory),
                nn.Identity(),
                operations.Linear(inner, dim, **factory),
            ]
        )

    def forward(self, x: Float[Tensor, "n l c"]) -> Float[Tensor, "n l c"]:
        """Run on tokens."""
        out: Tensor = self.net[2](self.net[0](x))
        return out


class SelfAttention(nn.Module):
    """Multi-head self-attention through an injected attention function."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        attention: AttentionFunction,
        operations: ModuleType | Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        ops = operations
        self.heads, self.attention = heads, attention
        self.to_q = ops.Linear(dim, dim, bias=False, **factory)
        self.to_k = ops.Linear(dim, dim, bias=False, **factory)
        self.to_v = ops.Linear(dim, dim, bias=False, **factory)
        self.to_out = nn.ModuleList([ops.Linear(dim, dim, **factory)])

    def forward(
        self, x: Float[Tensor, "n l c"], *, hooks: AttentionHooks | None = None, **options: Any
    ) -> Float[Tensor, "n l c"]:
        """Attend among the tokens of each row."""
        q = k = v = x
        if hooks is not None:
            q, k, v = hooks.before(x, heads=self.heads, **options)
        attended = self.attention(self.to_q(q), self.to_k(k), self.to_v(v), self.heads, **options)
        out: Tensor = self.to_out[0](attended)
        return out if hooks is None else hooks.after(out, heads=self.heads, **options)


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward, each with a residual; with a feed-forward before (``wide``).

    The spatial layer is plain, the multi-view and temporal ones are wide.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        wide: bool,
        attention: AttentionFunction,
        operations: ModuleType | Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        ops = operations
        if wide:
            self.norm_in = ops.LayerNorm(dim, **factory)
            self.ff_in = GEGLUFeedForward(dim, operations=ops, **factory)
        self.wide = wide
        self.norm1 = ops.LayerNorm(dim, **factory)
        self.attn1 = SelfAttention(dim, heads, attention=attention, operations=ops, **factory)
        self.norm3 = ops.LayerNorm(dim, **factory)
        self.ff = GEGLUFeedForward(dim, operations=ops, **factory)

    def forward(self, x: Float[Tensor, "n l c"], **options: Any) -> Float[Tensor, "n l c"]:
        """Run on the tokens of each row; ``options`` go to the attention function."""
        if self.wide:
            x = x + self.ff_in(self.norm_in(x))
        x = x + self.attn1(self.norm1(x), **options)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class MVTemporalTransformer(nn.Module):
    """Spatial, multi-view and temporal transformer blocks in cascade, alpha-fused."""

    def __init__(
        self,
        channels: int,
        heads: int,
        num_layers: int = 1,
        *,
        attention: AttentionFunction = sdpa,
        operations: ModuleType | Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        options = {"attention": attention, "operations": operations, **factory}
        self.channels = channels

        def blocks(wide: bool) -> nn.ModuleList:
            return nn.ModuleList(
                TransformerBlock(channels, heads, wide=wide, **options) for _ in range(num_layers)
            )

        self.norm = operations.GroupNorm(NORM_GROUPS, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        self.transformer_blocks = blocks(wide=False)
        self.temporal_transformer_blocks = blocks(wide=True)
        self.multiview_transformer_blocks = blocks(wide=True)
        self.time_pos_embed = EmbeddingMLP(
            channels, 4 * channels, channels, operations=operations, **factory
        )
        self.time_mixer = FusionBlender(**factory)
        self.proj_out = operations.Linear(channels, channels, **factory)

    def forward(
        self, x: Float[Tensor, "bv c h w"], plan: FusionPlan, **options: Any
    ) -> Float[Tensor, "bv c h w"]:
        """Run on the frames of a batch.

        Args:
            x: frames; those of one sample are adjacent.
            plan: frames per sample and the samples' modes.
            options: passed to the attention function with ``branch`` ("spatial", "multiview" or
                "temporal") added.
        """
        height, views = x.shape[-2], plan.num_frames
        tokens = self.proj_in(rearrange(self.norm(x), "n c h w -> n (h w) c"))
        frame_emb = self._frame_embedding(tokens, views) if plan.needs_temporal else None
        for spatial, temporal, multiview in zip(
            self.transformer_blocks,
            self.temporal_transformer_blocks,
            self.multiview_transformer_blocks,
            strict=True,
        ):
            x_s = spatial(tokens, branch="spatial", **options)
            x_s = rearrange(x_s, "(b v) l c -> b (v l) c", v=views)
            x_mv = multiview(x_s, branch="multiview", **options)

            def over_time(
                x_rows: Tensor,
                _rows: tuple[int, ...] | EllipsisType,
                temporal: nn.Module = temporal,
            ) -> Tensor:
                assert frame_emb is not None
                per_pixel = rearrange(x_rows, "b (v l) c -> (b l) v c", v=views)
                per_pixel = temporal(per_pixel + frame_emb, branch="temporal", **options)
                over: Tensor = rearrange(per_pixel, "(b l) v c -> b (v l) c", b=x_rows.shape[0])
                return over

            fused = self.time_mixer(x_s, x_mv, over_time, plan)
            tokens = rearrange(fused, "b (v l) c -> (b v) l c", v=views)
        out: Tensor = x + rearrange(self.proj_out(tokens), "n (h w) c -> n c h w", h=height)
        return out

    def _frame_embedding(self, like: Tensor, views: int) -> Tensor:
        numbers = torch.arange(views, device=like.device)
        out: Tensor = self.time_pos_embed(sinusoid(numbers, self.channels).to(like.dtype))
        return out
