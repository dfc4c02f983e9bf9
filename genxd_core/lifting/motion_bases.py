"""Motion by a few rigid bases that all moving Gaussians share (the paper's App. E).

After Shape of Motion (Wang et al. 2024): each Gaussian mixes SE(3) bases with weights of its own,
so that what is near moves alike; what belongs to the background stands still.

Dimension letters: n Gaussians, m of them that move, b bases, t frames.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..cameras.rotations import rotation_to_quat
from .gaussians import multiply_quats
from .gaussians_4d import FreeValues, Motion

__all__ = ["MotionBases", "cluster_means"]

_NEAR = 1.0  # how fast a weight falls with the distance from a cluster, in typical distances
_FIRST_NOISE = 0.01  # so that bases can part from each other
_CLUSTER_ROUNDS = 20


class MotionBases(Motion):
    """Rigid motions over time, and how much of each every moving Gaussian has.

    The moving Gaussians come first. Between frames bases are interpolated linearly.

    Args:
        num_moving: Gaussians that move; the others stand still.
        times: of the frames, increasing, in [0, 1].
        num_bases: shared by all.
    """

    kind = "motion_bases"

    def __init__(self, *, num_moving: int, times: Sequence[float], num_bases: int = 6) -> None:
        super().__init__()
        self._config: dict[str, Any] = {
            "num_moving": num_moving,
            "times": [float(time) for time in times],
            "num_bases": num_bases,
        }
        count = len(self._config["times"])
        self.weights = nn.Parameter(torch.zeros(num_moving, num_bases))
        # Two columns of a rotation, and a shift.
        still = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        self.turns = nn.Parameter(still.repeat(num_bases, count, 1))
        self.shifts = nn.Parameter(torch.zeros(num_bases, count, 3))
        self.centre: Tensor
        self.extent: Tensor
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("extent", torch.ones(()))

    @classmethod
    def around(
        cls,
        means: Float[Tensor, "m 3"],
        *,
        times: Sequence[float],
        num_bases: int = 6,
        path: Float[Tensor, "t 3"] | None = None,
        seed: int = 0,
    ) -> "MotionBases":
        """Bases for Gaussians in these places, one around each of as many clusters of them.

        Args:
            means: where they are.
            times: of the frames, increasing, in [0, 1].
            num_bases: at most as many as there are Gaussians.
            path: how far all have gone at each time, in scene units; ``None`` for nowhere.
            seed: of the clusters and the noise.
        """
        num_bases = min(num_bases, len(means))
        generator = torch.Generator().manual_seed(seed)
        clusters = cluster_means(means, num_bases, generator)
        motion = cls(num_moving=len(means), times=times, num_bases=num_bases).to(means.device)
        with torch.no_grad():
            distance = torch.cdist(means, clusters)
            typical = distance.amin(1).mean().clamp_min(1e-9)
            motion.weights.copy_(-_NEAR * distance / typical)
            noise = torch.randn(motion.turns.shape, generator=generator)
            motion.turns.add_(_FIRST_NOISE * noise.to(means.device))
            motion.centre.copy_(means.mean(0))
            motion.extent.copy_((means - means.mean(0)).norm(dim=-1).mean().clamp_min(1e-9))
            if path is not None:
                motion.shifts.add_(path.to(means) / motion.extent)
        return motion

    def config(self) -> dict[str, Any]:
        """The arguments it was made with."""
        return dict(self._config)

    @property
    def num_moving(self) -> int:
        """How many Gaussians move."""
        return len(self.weights)

    def forward(self, values: FreeValues, time: float) -> FreeValues:
        """The values at a time.

        Args:
            values: at rest; the moving ones first.
            time: in [0, 1].
        """
        rotation, shift = self._rigid(time)
        count = self.num_moving
        means = values.means[:count] - self.centre
        moved = (rotation @ means[:, :, None])[:, :, 0] + self.centre + shift
        turned = multiply_quats(rotation_to_quat(rotation), values.quats[:count])
        return FreeValues(
            torch.cat([moved, values.means[count:]]),
            torch.cat([turned, values.quats[count:]]),
            values.log_scales,
            values.logits,
        )

    def _rigid(self, time: float) -> tuple[Float[Tensor, "m 3 3"], Float[Tensor, "m 3"]]:
        """The rotation and shift of every moving Gaussian: mixed first, then made rigid."""
        before, after, share = self._frames(time)
        turns = torch.lerp(self.turns[:, before], self.turns[:, after], share)
        shifts = torch.lerp(self.shifts[:, before], self.shifts[:, after], share)
        weights = self.weights.softmax(-1)
        moved: Tensor = self.extent * (weights @ shifts)
        return orthonormal(weights @ turns), moved

    def _frames(self, time: float) -> tuple[int, int, float]:
        times = self._config["times"]
        after = next((index for index, at in enumerate(times) if at >= time), len(times) - 1)
        before = max(0, after - 1)
        span = times[after] - times[before]
        share = 1.0 if span <= 0 else min(1.0, max(0.0, (time - times[before]) / span))
        return before, after, share

    def acceleration(self) -> Float[Tensor, ""]:
        """Mean size of the bases' second differences over the frames: turns, and twice shifts."""
        if self.turns.shape[1] < 3:
            return self.turns.new_zeros(())
        turns = self.turns.diff(n=2, dim=1).norm(dim=-1).mean()
        both: Tensor = turns + 2 * self.shifts.diff(n=2, dim=1).norm(dim=-1).mean()
        return both

    def off_path(
        self,
        offsets: Float[Tensor, "t 3"],
        rays: Float[Tensor, "t 3"],
        distances: Float[Tensor, " t"],
    ) -> Float[Tensor, ""]:
        """Mean square of how far all together have left a path along its rays, per distance.

        Args:
            offsets: of the path from where it starts, at every frame.
            rays: unit directions.
            distances: what counts as 1.
        """
        share = self.weights.softmax(-1).mean(0)[:, None, None]
        moved = self.extent * (share * self.shifts).sum(0)
        along: Tensor = ((moved - offsets) * rays).sum(-1) / distances
        return along.square().mean()

    def groups(self, *, bases: float, weights: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimiser, with their learning rates."""
        return [
            {"params": [self.turns, self.shifts], "lr": bases},
            {"params": [self.weights], "lr": weights},
        ]


def orthonormal(columns: Float[Tensor, "m 6"]) -> Float[Tensor, "m 3 3"]:
    """Rotations from their first two columns (Gram-Schmidt)."""
    first = F.normalize(columns[:, :3], dim=-1)
    second = columns[:, 3:] - (first * columns[:, 3:]).sum(-1, keepdim=True) * first
    second = F.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def cluster_means(
    points: Float[Tensor, "m 3"], count: int, generator: torch.Generator
) -> Float[Tensor, "b 3"]:
    """The centres of clusters of points (k-means).

    Args:
        points: at least ``count``.
        count: of clusters.
        generator: on the CPU.
    """
    found = points.detach().cpu()
    centres = found[torch.randperm(len(found), generator=generator)[:count]].clone()
    for _ in range(_CLUSTER_ROUNDS):
        nearest = torch.cdist(found, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, found)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
    return centres.to(points.device)
