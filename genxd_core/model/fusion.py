"""Alpha fusion of the spatial, multi-view and temporal branches (Sec. 4.1, Fig. 4).

The three branches form a cascade, ``x_s -> x_mv -> x_t``. A sample's mode, its *indicator*,
decides what of them comes out:

    3D    (0)  y = s x_s + (1 - s) x_mv                             alpha = 0
    video (1)  y = x_t
    4D    (2)  y = g (s x_s + (1 - s) x_mv) + (1 - g) x_t           alpha = 1 - g

with ``s = sigmoid(spatial_mv_factor)`` and ``g = sigmoid(gamma)``. What would be multiplied by
zero is not computed: the temporal branch runs on the samples that are not 3D, and on none of
them when all are 3D.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MODE_3D", "MODE_4D", "MODE_VIDEO", "FusionBlender", "FusionPlan"]

MODE_3D, MODE_VIDEO, MODE_4D = 0, 1, 2


@dataclass(frozen=True)
class FusionPlan:
    """Which samples of a batch need which branch; made once for a forward pass.

    Attributes:
        indicators: the mode of each sample, 0, 1 or 2.
        num_frames: frames of each sample.
    """

    indicators: tuple[int, ...]
    num_frames: int

    def rows(self, *modes: int) -> tuple[int, ...]:
        """The samples in one of these modes."""
        return tuple(i for i, mode in enumerate(self.indicators) if mode in modes)

    @property
    def needs_temporal(self) -> bool:
        """Whether any sample uses the temporal branch."""
        return any(mode != MODE_3D for mode in self.indicators)


class FusionBlender(nn.Module):
    """The learned weights of one fusion, and the fusion itself."""

    def __init__(self, *, dtype: torch.dtype | None = None, device: Any = None) -> None:
        super().__init__()
        self.spatial_mv_factor = nn.Parameter(torch.full((1,), 0.5, dtype=dtype, device=device))
        self.gamma = nn.Parameter(torch.full((1,), 5.0, dtype=dtype, device=device))

    def forward(
        self,
        x_s: Tensor,
        x_mv: Tensor,
        temporal: Callable[[Tensor, tuple[int, ...] | EllipsisType], Tensor],
        plan: FusionPlan,
    ) -> Tensor:
        """Fuse the branches of a batch whose first axis is the sample.

        Args:
            x_s: (B, ...) output of the spatial layer.
            x_mv: (B, ...) output of the multi-view layer.
            temporal: ``temporal(x_mv_rows, rows)`` gives the temporal layer's output for some
                samples; ``rows`` is ``...`` for all of them. Not called when all are 3D.
            plan: the modes of the samples.
        """
        modes = set(plan.indicators)
        if modes == {MODE_3D}:
            return self._spatial_mv(x_s, x_mv)
        if modes == {MODE_VIDEO}:
            return temporal(x_mv, ...)
        if modes == {MODE_4D}:
            return self._with_temporal(x_s, x_mv, temporal(x_mv, ...))
        return self._mixed(x_s, x_mv, temporal, plan)

    def _mixed(
        self,
        x_s: Tensor,
        x_mv: Tensor,
        temporal: Callable[[Tensor, tuple[int, ...] | EllipsisType], Tensor],
        plan: FusionPlan,
    ) -> Tensor:
        moving = plan.rows(MODE_VIDEO, MODE_4D)
        x_t = temporal(x_mv[list(moving)], moving)
        out: list[Tensor] = []
        for row, mode in enumerate(plan.indicators):
            one = slice(row, row + 1)
            if mode == MODE_3D:
                out.append(self._spatial_mv(x_s[one], x_mv[one]))
                continue
            t_row = moving.index(row)
            t = x_t[t_row : t_row + 1]
            out.append(t if mode == MODE_VIDEO else self._with_temporal(x_s[one], x_mv[one], t))
        return torch.cat(out)

    def _spatial_mv(self, x_s: Tensor, x_mv: Tensor) -> Tensor:
        return torch.lerp(x_mv, x_s, _weight(self.spatial_mv_factor, x_s))

    def _with_temporal(self, x_s: Tensor, x_mv: Tensor, x_t: Tensor) -> Tensor:
        return torch.lerp(x_t, self._spatial_mv(x_s, x_mv), _weight(self.gamma, x_t))


def _weight(factor: Tensor, like: Tensor) -> Tensor:
    """The sigmoid of a factor as a scalar beside ``like``: a parameter may live elsewhere."""
    return factor.to(device=like.device).float().sigmoid().to(like.dtype).reshape(())
