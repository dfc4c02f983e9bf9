"""The GenXD UNet (Sec. 4.1): SVD's without cross-attention, with multi-view layers added."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InvalidInputError
from .config import NORM_GROUPS, GenXDUNetConfig
from .embeddings import EmbeddingMLP, sinusoid
from .fusion import FusionPlan
from .residual import MVTemporalResBlock
from .transformer import AttentionFunction, MVTemporalTransformer, sdpa

__all__ = ["GenXDUNet"]


class Resample(nn.Module):
    """A 3x3 convolution behind the key ``conv``: strided down, or after nearest doubling up."""

    def __init__(
        self, channels: int, *, up: bool, operations: ModuleType | Any, **factory: Any
    ) -> None:
        super().__init__()
        self.up = up
        self.conv = operations.Conv2d(
            channels, channels, 3, stride=1 if up else 2, padding=1, **factory
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Halve or double height and width."""
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        out: Tensor = self.conv(x)
        return out


class Level(nn.Module):
    """One resolution of the UNet: residual blocks, attention behind each if any, a resampler."""

    def __init__(
        self,
        resnets: list[MVTemporalResBlock],
        attentions: list[MVTemporalTransformer],
        *,
        downsampler: Resample | None = None,
        upsampler: Resample | None = None,
    ) -> None:
        super().__init__()
        # The released state dict lists attentions first; an empty list has no keys.
        self.attentions = nn.ModuleList(attentions)
        self.resnets = nn.ModuleList(resnets)
        self.downsamplers = nn.ModuleList([downsampler] if downsampler else [])
        self.upsamplers = nn.ModuleList([upsampler] if upsampler else [])


class GenXDUNet(nn.Module):
    """The denoiser of GenXD.

    `state_dict` has the keys, shapes and order of the released weights. There are no buffers, so
    the network can be built under ``torch.device("meta")`` and filled afterwards.

    Args:
        config: what shapes the network.
        operations: namespace with ``Linear``, ``Conv2d``, ``Conv3d``, ``GroupNorm`` and
            ``LayerNorm``: ``torch.nn``, or a host's own layers.
        dtype: of the parameters.
        device: of the parameters.
        attention: ``attention(q, k, v, heads, **call_options)`` on (n, tokens, channels) tensors;
            None for PyTorch's scaled dot product attention.
    """

    def __init__(
        self,
        config: GenXDUNetConfig,
        *,
        operations: ModuleType | Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attention: AttentionFunction | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        factory: dict[str, Any] = {"dtype": dtype, "device": device}
        options: dict[str, Any] = {"operations": operations, **factory}
        widths, emb = config.block_out_channels, config.time_embed_dim

        self.conv_in = operations.Conv2d(config.in_channels, widths[0], 3, padding=1, **factory)
        self.time_embedding = EmbeddingMLP(widths[0], emb, emb, **options)
        self.add_embedding = EmbeddingMLP(
            config.projection_class_embeddings_input_dim, emb, emb, **options
        )
        if config.motion_condition:
            self.motion_embedding = EmbeddingMLP(widths[0], emb, emb, **options)

        build = _LevelBuilder(config, attention or sdpa, options)
        self.down_blocks = nn.ModuleList(build.down(level) for level in range(config.levels))
        self.up_blocks = nn.ModuleList(build.up(level) for level in reversed(range(config.levels)))
        self.mid_block = build.mid()

        self.conv_norm_out = operations.GroupNorm(NORM_GROUPS, widths[0], eps=1e-5, **factory)
        self.conv_out = operations.Conv2d(widths[0], config.out_channels, 3, padding=1, **factory)

    def forward(
        self,
        sample: Float[Tensor, "b v i h w"],
        timestep: Num[Tensor, "*b1"] | float,
        *,
        added_time_ids: Num[Tensor, "b *v1 k"],
        indicator: Num[Tensor, "b"] | Sequence[int],
        motion_ids: Num[Tensor, "b"] | None = None,
        **attention_options: Any,
    ) -> Float[Tensor, "b v o h w"]:
        """Predict v for every frame.

        Args:
            sample: channels: 4 latent (noisy ones scaled by 1/sqrt(sigma^2+1), conditioned ones
                clean), 4 zeros, 6 Plücker ray, 1 mask (1 = conditioned). h and w are multiples of
                the network's stride (8 for the released configuration).
            timestep: 0.25 * ln(sigma), one for all or one a sample.
            added_time_ids: one row a sample or one a frame.
            indicator: mode of each sample: 0 = 3D, 1 = video, 2 = 4D. Keep it on the CPU (or pass
                ints): which layers run depends on it.
            motion_ids: motion strength of each sample; None feeds the temporal blocks the time
                embedding instead.
            attention_options: passed to every call of the attention function, with ``block``
                (("input" | "middle" | "output", n)) and ``branch`` ("spatial", "multiview" or
                "temporal") added. ``hooks`` is an `AttentionHooks`.

        Raises:
            InvalidInputError: a shape, an indicator or a combination that cannot work.
        """
        batch, views = sample.shape[:2]
        base = self.config.block_out_channels[0]
        time = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device)
        time = time.expand(batch) if time.dim() == 0 else time
        ids = added_time_ids if added_time_ids.dim() == 3 else added_time_ids[:, None]
        added = sinusoid(ids, self.config.addition_time_embed_dim).flatten(-2)
        return self.forward_embedded(
            sample,
            time_sinusoid=sinusoid(time, base),
            added_sinusoids=added.expand(batch, views, -1),
            motion_sinusoid=None if motion_ids is None else sinusoid(motion_ids, base),
            indicator=indicator,
            **attention_options,
        )

    def forward_embedded(
        self,
        sample: Float[Tensor, "b v i h w"],
        *,
        time_sinusoid: Float[Tensor, "b c0"],
        added_sinusoids: Float[Tensor, "b v d"],
        indicator: Num[Tensor, "b"] | Sequence[int],
        motion_sinusoid: Float[Tensor, "b c0"] | None = None,
        **attention_options: Any,
    ) -> Float[Tensor, "b v o h w"]:
        """`forward` for callers that embed their scalars in float32 before a cast.

        Args:
            sample: as in `forward`.
            time_sinusoid: `sinusoid` of the timestep, width ``block_out_channels[0]``.
            added_sinusoids: sinusoids of the added ids of every frame, side by side.
            indicator: as in `forward`.
            motion_sinusoid: sinusoid of the motion strength, or None.
            attention_options: as in `forward`.
        """
        plan = self._plan(sample, indicator, has_motion=motion_sinusoid is not None)
        views, dtype = plan.num_frames, sample.dtype
        temb = self.add_embedding(rearrange(added_sinusoids.to(dtype), "b v d -> (b v) d"))
        temb = temb + repeat(
            self.time_embedding(time_sinusoid.to(dtype)), "b e -> (b v) e", v=views
        )
        motion = None
        if motion_sinusoid is not None and plan.needs_temporal:
            motion = self.motion_embedding(motion_sinusoid.to(dtype))
            motion = repeat(motion, "b e -> (b v) e", v=views)

        x = self.conv_in(rearrange(sample, "b v c h w -> (b v) c h w"))
        x, skip = self.after_input_layer(x, ("input", 0), attention_options)
        skips = [skip]
        for level in cast("list[Level]", self.down_blocks):
            for layer in range(len(level.resnets)):
                block = ("input", len(skips))
                x = self._layer(level, layer, x, temb, motion, plan, block, attention_options)
                x, skip = self.after_input_layer(x, block, attention_options)
                skips.append(skip)
            for downsampler in level.downsamplers:
                block = ("input", len(skips))
                x, skip = self.after_input_layer(downsampler(x), block, attention_options)
                skips.append(skip)
        x = self._middle(x, temb, motion, plan, attention_options)
        total = len(skips)
        for level in cast("list[Level]", self.up_blocks):
            for layer in range(len(level.resnets)):
                block = ("output", total - len(skips))
                x, skip = self.before_output_layer(x, skips.pop(), block, attention_options)
                x = torch.cat([x, skip], dim=1)
                x = self._layer(level, layer, x, temb, motion, plan, block, attention_options)
            for upsampler in level.upsamplers:
                x = upsampler(x)
        predicted: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        out: Tensor = predicted.unflatten(0, (-1, views))
        return out

    def after_input_layer(
        self, x: Tensor, block: tuple[str, int], options: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """For hosts to override: the features behind a layer on the way down, and their skip.

        Args:
            x: (b v) c h w features.
            block: ("input", n); n counts the skip connections: the input convolution's is 0, then
                one for every layer and every downsampling.
            options: the attention options of this call.
        """
        return x, x

    def before_output_layer(
        self, x: Tensor, skip: Tensor, block: tuple[str, int], options: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """For hosts to override: features and skip connection before a layer on the way up.

        Args:
            x: (b v) c h w features from below.
            skip: what is joined to them.
            block: ("output", n), n from 0.
            options: the attention options of this call.
        """
        return x, skip

    def enable_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Trade time for memory in training: layers are recomputed in the backward pass."""
        self.gradient_checkpointing = enabled

    def _layer(
        self,
        level: Level,
        layer: int,
        x: Tensor,
        temb: Tensor,
        motion: Tensor | None,
        plan: FusionPlan,
        block: tuple[str, int],
        options: dict[str, Any],
    ) -> Tensor:
        x = self._run(level.resnets[layer], x, temb, motion, plan)
        if level.attentions:
            x = self._run(level.attentions[layer], x, plan, block=block, **options)
        return x

    def _middle(
        self,
        x: Tensor,
        temb: Tensor,
        motion: Tensor | None,
        plan: FusionPlan,
        options: dict[str, Any],
    ) -> Tensor:
        x = self._run(self.mid_block.resnets[0], x, temb, motion, plan)
        for index, attention in enumerate(self.mid_block.attentions):
            x = self._run(attention, x, plan, block=("middle", 0), **options)
            x = self._run(self.mid_block.resnets[index + 1], x, temb, motion, plan)
        return x

    def _run(self, module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(module, *args, use_reentrant=False, **kwargs)
        else:
            out = module(*args, **kwargs)
        return out

    def _plan(
        self, sample: Tensor, indicator: Tensor | Sequence[int], *, has_motion: bool
    ) -> FusionPlan:
        batch, views, channels, height, width = sample.shape
        modes = indicator.tolist() if isinstance(indicator, Tensor) else list(indicator)
        modes = [int(mode) for mode in modes]
        if channels != self.config.in_channels:
            raise InvalidInputError(
                f"sample has {channels} channels, expected {self.config.in_channels}: latent, "
                "zeros, rays and mask."
            )
        stride = self.config.stride
        if height % stride or width % stride:
            raise InvalidInputError(
                f"sample is {height}x{width} latent pixels; height and width must be multiples "
                f"of {stride}. Choose picture sizes that are multiples of {8 * stride}."
            )
        if len(modes) != batch or any(mode not in (0, 1, 2) for mode in modes):
            raise InvalidInputError(
                f"indicator is {modes}, expected {batch} values of 0 (3D), 1 (video) or 2 (4D)."
            )
        if has_motion and not self.config.motion_condition:
            raise InvalidInputError(
                "motion_ids was given, but this network has no motion embedding; pass None."
            )
        return FusionPlan(tuple(modes), views)


class _LevelBuilder:
    """Builds the levels; knows the widths and the norms' epsilons of the released network."""

    def __init__(
        self, config: GenXDUNetConfig, attention: AttentionFunction, options: dict[str, Any]
    ) -> None:
        self.config, self.attention, self.options = config, attention, options
        self.widths = config.block_out_channels
        self.heads = config.per_level("num_attention_heads")
        self.layers = config.per_level("layers_per_block")
        self.depth = config.per_level("transformer_layers_per_block")

    def down(self, level: int) -> Level:
        config, width = self.config, self.widths[level]
        attend = config.has_attention(level)
        # 1e-6 where a level has attention, 1e-5 where it has none: the original's own mixture.
        eps = 1e-6 if attend else 1e-5
        first = self.widths[max(level - 1, 0)]
        ins = [first] + [width] * (self.layers[level] - 1)
        last = level == config.levels - 1
        return Level(
            [self._resnet(i, width, eps) for i in ins],
            [self._transformer(level) for _ in ins] if attend else [],
            downsampler=None if last else Resample(width, up=False, **self.options),
        )

    def up(self, level: int) -> Level:
        width, layers = self.widths[level], self.layers[level] + 1
        below = self.widths[min(level + 1, self.config.levels - 1)]
        skips = [width] * (layers - 1) + [self.widths[max(level - 1, 0)]]
        ins = [below] + [width] * (layers - 1)
        attend = self.config.has_attention(level, up=True)
        return Level(
            [self._resnet(i + skip, width, 1e-6) for i, skip in zip(ins, skips, strict=True)],
            [self._transformer(level) for _ in ins] if attend else [],
            upsampler=None if level == 0 else Resample(width, up=True, **self.options),
        )

    def mid(self) -> Level:
        level = self.config.levels - 1
        width = self.widths[level]
        return Level(
            [self._resnet(width, width, 1e-5) for _ in range(2)], [self._transformer(level)]
        )

    def _resnet(self, in_channels: int, out_channels: int, eps: float) -> MVTemporalResBlock:
        return MVTemporalResBlock(
            in_channels, out_channels, self.config.time_embed_dim, eps, **self.options
        )

    def _transformer(self, level: int) -> MVTemporalTransformer:
        return MVTemporalTransformer(
            self.widths[level],
            self.heads[level],
            self.depth[level],
            attention=self.attention,
            **self.options,
        )
