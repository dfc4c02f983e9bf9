"""A deformation field over space and time: six feature planes and a small network.

After 4D Gaussian splatting (Wu et al. 2024), which the paper's App. H uses; numbers for short
schedules are this project's.

Dimension letters: n Gaussians, c channels.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .gaussians_4d import FreeValues, Motion

__all__ = ["HexPlaneField"]

_PAIRS = tuple(combinations(range(4), 2))  # xy, xz, xt, yz, yt, zt
_TIME = 3
_FIRST_SPACE = (0.1, 0.5)
_SMALL = 0.01  # so that nothing moves at first
_MARGIN = 0.1  # of the box of the Gaussians, on each side


class HexPlaneField(Motion):
    """What is added to each Gaussian at a time: place, size, turn; if asked, opacity, colours.

    The features of a place and time are the product of those of six planes, joined over levels.

    Args:
        low: (3,) corner of the box in which the Gaussians rest.
        high: (3,) the opposite corner.
        channels: of each plane.
        cells: along each axis of space, one number a level.
        time_cells: along the axis of time.
        width: of the network's layers.
        moves_opacity: whether opacities change too.
        moves_sh: how many spherical-harmonic coefficients of the colours change too: 0 for none,
            1 for the base colours, up to 16.
    """

    kind = "hexplane"

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        *,
        channels: int = 16,
        cells: Sequence[int] = (32, 64),
        time_cells: int = 6,
        width: int = 64,
        moves_opacity: bool = False,
        moves_sh: int = 0,
    ) -> None:
        super().__init__()
        self._config: dict[str, Any] = {
            "low": [float(value) for value in low],
            "high": [float(value) for value in high],
            "channels": channels,
            "cells": list(cells),
            "time_cells": time_cells,
            "width": width,
            "moves_opacity": moves_opacity,
            "moves_sh": moves_sh,
        }
        self.box: Tensor
        self.register_buffer("box", torch.tensor([self._config["low"], self._config["high"]]))
        self.planes = nn.ParameterList(
            self._plane(pair, channels, count, time_cells) for count in cells for pair in _PAIRS
        )
        self.trunk = nn.Linear(len(cells) * channels, width)
        heads = {"means": 3, "log_scales": 3, "quats": 4}
        if moves_opacity:
            heads["logits"] = 1
        if moves_sh:
            heads["sh"] = 3 * moves_sh
        self.heads = nn.ModuleDict({name: _head(width, size) for name, size in heads.items()})

    @classmethod
    def around(
        cls, means: Float[Tensor, "n 3"], *, seed: int = 0, **settings: Any
    ) -> "HexPlaneField":
        """A field for Gaussians that rest in these places, on their device."""
        # What lies far out would leave most of the planes empty.
        low, high = means.quantile(0.01, dim=0), means.quantile(0.99, dim=0)
        margin = _MARGIN * (high - low) + 1e-6
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            field = cls((low - margin).tolist(), (high + margin).tolist(), **settings)
        return field.to(means.device)

    def config(self) -> dict[str, Any]:
        """The arguments it was made with."""
        return dict(self._config)

    def forward(self, values: FreeValues, time: float) -> FreeValues:
        """The values at a time.

        Args:
            values: at rest.
            time: in [0, 1].
        """
        hidden = self.trunk(self._features(values.means, time))
        moved = {name: head(hidden) for name, head in self.heads.items()}
        return FreeValues(
            values.means + moved["means"] * self._extent(),
            F.normalize(values.quats + moved["quats"], dim=-1),
            values.log_scales + moved["log_scales"],
            values.logits + moved["logits"][:, 0] if "logits" in moved else values.logits,
            moved["sh"].unflatten(1, (-1, 3)) if "sh" in moved else None,
        )

    def roughness(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """How bent the planes of space are, how bent those of time along time, and how far from 1.

        Means of squared second differences, and of absolute differences, summed over planes.
        """
        space = time = still = self.trunk.weight.new_zeros(())
        for index, plane in enumerate(self.planes):
            # The first axis of a pair is the picture's width: the last dimension.
            if _TIME not in _PAIRS[index % len(_PAIRS)]:
                space = space + _bend(plane, -1)
            else:
                time = time + _bend(plane, -2)
                still = still + (1 - plane).abs().mean()
        return space, time, still

    def groups(self, *, planes: float, network: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimiser, with their learning rates."""
        rest = [*self.trunk.parameters(), *self.heads.parameters()]
        return [
            {"params": list(self.planes), "lr": planes},
            {"params": rest, "lr": network},
        ]

    def _extent(self) -> Tensor:
        return 0.5 * (self.box[1] - self.box[0]).amax()

    def _features(self, means: Tensor, time: float) -> Float[Tensor, "n f"]:
        low, high = self.box
        place = 2 * (means - low) / (high - low) - 1
        at = torch.cat([place, place.new_full((len(place), 1), 2 * time - 1)], 1)
        levels = []
        for first in range(0, len(self.planes), len(_PAIRS)):
            product: Tensor | None = None
            for plane, pair in zip(self.planes[first:], _PAIRS, strict=False):
                found = F.grid_sample(
                    plane,
                    at[None, None, :, list(pair)],
                    mode="bilinear",
                    padding_mode="border",
                    align_corners=True,
                )[0, :, 0].T
                product = found if product is None else product * found
            assert product is not None
            levels.append(product)
        return torch.cat(levels, 1)

    @staticmethod
    def _plane(pair: tuple[int, int], channels: int, cells: int, time_cells: int) -> nn.Parameter:
        columns, rows = (time_cells if axis == _TIME else cells for axis in pair)
        plane = torch.empty(1, channels, rows, columns)
        if _TIME in pair:
            return nn.Parameter(nn.init.ones_(plane))
        return nn.Parameter(nn.init.uniform_(plane, *_FIRST_SPACE))


def _bend(plane: Tensor, axis: int) -> Tensor:
    if plane.shape[axis] < 3:
        return plane.new_zeros(())
    return plane.diff(n=2, dim=axis).square().mean()


def _head(width: int, size: int) -> nn.Sequential:
    last = nn.Linear(width, size)
    nn.init.xavier_uniform_(last.weight, gain=_SMALL)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)
