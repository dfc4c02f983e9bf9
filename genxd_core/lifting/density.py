"""Where Gaussians are too few they are cloned and split; where they are useless they are moved.

Works with what any rasteriser reports (Kerbl et al. 2023, Sec. 5; relocation after Kheradmand et
al. 2024). All randomness comes from one generator on the CPU.

Dimension letters: n Gaussians.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..cameras.rotations import quat_to_rotation
from .parameters import FreeGaussians
from .rasterize import TensorRendering
from .recipes import Densify

__all__ = ["DEAD", "Densifier", "lower_opacities", "relocate"]

DEAD = 0.005
"""Gaussians with an opacity below this contribute next to nothing."""

_RESET_TO = 0.01
_SHRINK = 1.6  # of the two halves of a Gaussian that is split
_TOO_LARGE = 0.5  # of its distance: veils over the whole picture


class Densifier:
    """Collects how much each Gaussian's centre wants to move, and adds where that is much.

    Args:
        settings: thresholds.
        max_gaussians: never more than these.
        distance: of the scene from the cameras, in scene units; what is farther away is measured by
            its own distance.
        middle: (3,) of the cameras.
        size: (width, height) of the pictures.
        generator: on the CPU.
    """

    def __init__(
        self,
        settings: Densify,
        *,
        max_gaussians: int,
        distance: float,
        middle: Float[Tensor, "3"],
        size: tuple[int, int],
        generator: torch.Generator,
    ) -> None:
        self._settings = settings
        self._max = max_gaussians
        self._distance, self._middle = distance, middle
        self._half_size = (size[0] / 2, size[1] / 2)
        self._generator = generator
        self._sums: Tensor | None = None
        self._counts: Tensor | None = None

    @torch.no_grad()
    def collect(self, rendering: TensorRendering) -> None:
        """Take note of a rendering's gradients, after ``backward()`` and before the step."""
        gradients = rendering.means2d_gradients()
        scaled = gradients * gradients.new_tensor(self._half_size)
        norms, seen = scaled.norm(dim=-1).sum(0), (rendering.radii > 0).sum(0)
        if self._sums is None or self._counts is None:
            self._sums, self._counts = norms, seen
        else:
            self._sums += norms
            self._counts += seen

    @torch.no_grad()
    def grow(self, free: FreeGaussians) -> int:
        """Clone and split by what was collected, and begin to collect anew.

        Returns:
            How many Gaussians there are more than before.
        """
        if self._sums is None or self._counts is None:
            return 0
        mean = self._sums / self._counts.clamp_min(1)
        self._sums = self._counts = None
        before = len(free)
        distances = (free["means"] - self._middle).norm(dim=-1).clamp_min(self._distance)
        sizes = free.scales.amax(-1) / distances
        useless = (free.opacities < DEAD) | (sizes > _TOO_LARGE)
        wanted = (mean > self._settings.gradient) & ~useless
        index = wanted.nonzero()[:, 0]
        # Where the cap binds, those that want most.
        room = max(0, self._max - before + int(useless.sum()))
        if len(index) > room:
            index = index[mean[index].argsort(descending=True, stable=True)[:room]]
        large = sizes[index] > self._settings.large
        cloned, split = index[~large], index[large]
        added = [free.copies(cloned), *self._halves(free, split)]
        keep = ~useless
        keep[split] = False
        if not bool(keep.any()) and not len(index):
            return 0  # all are useless: relocation, and the loss, have the word
        free.append({name: torch.cat([part[name] for part in added]) for name in added[0]})
        total = torch.cat([keep, keep.new_ones(len(free) - before)])
        free.keep(total)
        return len(free) - before

    def _halves(self, free: FreeGaussians, index: Tensor) -> list[dict[str, Tensor]]:
        """Two smaller ones for each, placed at random within it."""
        parts = []
        for _ in range(2):
            part = free.copies(index)
            noise = torch.randn(len(index), 3, generator=self._generator).to(part["means"])
            local = (part["log_scales"].exp() * noise)[:, :, None]
            part["means"] = part["means"] + (quat_to_rotation(part["quats"]) @ local)[:, :, 0]
            part["log_scales"] = part["log_scales"] - math.log(_SHRINK)
            parts.append(part)
        return parts


@torch.no_grad()
def relocate(free: FreeGaussians, generator: torch.Generator) -> int:
    """Move Gaussians too faint to be seen onto others, chosen by opacity; those are halved.

    Returns:
        How many were moved.
    """
    opacities = free.opacities
    dead, alive = (opacities < DEAD).nonzero()[:, 0], (opacities >= DEAD).nonzero()[:, 0]
    if len(dead) == 0 or len(alive) == 0:
        return 0
    chosen = alive[_drawn(opacities[alive], len(dead), generator)]
    # The n of them together cover what the one did: 1 - (1 - o')^n = o.
    sharers = 1 + torch.bincount(chosen, minlength=len(opacities))[chosen]
    shared = 1 - (1 - opacities[chosen]).clamp_min(1e-6) ** (1 / sharers)
    copies = free.copies(chosen)
    copies["logits"] = torch.logit(shared.clamp(DEAD, 1 - 1e-4))
    free.overwrite(chosen, {"logits": copies["logits"]})
    free.overwrite(dead, copies)
    return len(dead)


def _drawn(
    weights: Float[Tensor, " n"], count: int, generator: torch.Generator
) -> Int[Tensor, " k"]:
    """Indices by weight; each at most once while there are enough."""
    many = count > len(weights)
    drawn = torch.multinomial(weights.double().cpu(), count, replacement=many, generator=generator)
    return drawn.to(weights.device)


@torch.no_grad()
def lower_opacities(free: FreeGaussians) -> None:
    """Make all Gaussians faint, so that only those that are needed come back."""
    logits = free["logits"].detach().clamp_max(math.log(_RESET_TO / (1 - _RESET_TO)))
    free.overwrite(torch.arange(len(free), device=logits.device), {"logits": logits})
