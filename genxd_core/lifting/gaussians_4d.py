"""`Gaussians4D`: Gaussians at rest and how they move; a scene for every time in [0, 1].

Dimension letters: n Gaussians.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError
from .gaussians import Gaussians

__all__ = [
    "FreeValues",
    "Gaussians4D",
    "Motion",
    "check_time",
    "free_values",
    "shifted_sh",
    "time_of",
]

_LEAST = 1e-6  # of opacities, whose logits are to stay finite
_LEAST_SCALE = 1e-12


class FreeValues(NamedTuple):
    """Values of N Gaussians that motions change: without bounds, so that anything may be added.

    Attributes:
        means: centres in scene units.
        quats: wxyz, of unit length.
        log_scales: natural logarithms of the scales.
        logits: of the opacities.
        sh_shift: what is added to the first spherical-harmonic coefficients; ``None`` for nothing.
    """

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    log_scales: Float[Tensor, "n 3"]
    logits: Float[Tensor, " n"]
    sh_shift: Float[Tensor, "n k 3"] | None = None


class Motion(nn.Module, ABC):
    """How Gaussians move.

    Attributes:
        kind: its name in files.
    """

    kind: ClassVar[str]

    @abstractmethod
    def forward(self, values: FreeValues, time: float) -> FreeValues:
        """The values at a time in [0, 1]."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that it is built from, for files."""


class Gaussians4D:
    """N Gaussians that move.

    Attributes:
        canonical: the Gaussians that the motion starts from, in the motion's world.
        motion: where they are at a time (a deformation field, or shared motion bases).
        rotation: (3, 3) from the motion's world to the scene's, float64 on the CPU.
    """

    def __init__(
        self, canonical: Gaussians, motion: Motion, rotation: Tensor | None = None
    ) -> None:
        """Put Gaussians and motion together; both are kept as they are, not copied."""
        self.canonical, self.motion = canonical, motion
        self.rotation = torch.eye(3, dtype=torch.float64) if rotation is None else rotation

    def at(self, time: float) -> Gaussians:
        """The scene at one time, without gradients.

        Args:
            time: in [0, 1].

        Raises:
            InvalidInputError: ``time`` is outside of that.
        """
        check_time(time)
        with torch.no_grad():
            moved = self.motion(free_values(self.canonical), float(time))
            there = Gaussians(
                moved.means,
                moved.quats,
                moved.log_scales.exp(),
                moved.logits.sigmoid(),
                shifted_sh(self.canonical.sh, moved.sh_shift),
            )
        return there if self._is_unturned() else there.transformed(self.rotation)

    def turned(self, rotation: Float[Tensor, "3 3"]) -> "Gaussians4D":
        """The same scene turned about the world's origin: ``x -> rotation @ x``."""
        return Gaussians4D(self.canonical, self.motion, rotation.cpu().double() @ self.rotation)

    def to(self, device: torch.device | str | None) -> "Gaussians4D":
        """A copy on a device; the one given keeps its own."""
        motion = copy.deepcopy(self.motion).to(device)
        return Gaussians4D(self.canonical.to(device), motion, self.rotation)

    @property
    def device(self) -> torch.device:
        """Where the Gaussians lie."""
        return self.canonical.device

    def _is_unturned(self) -> bool:
        return bool((self.rotation == torch.eye(3, dtype=torch.float64)).all())

    def __len__(self) -> int:
        return len(self.canonical)

    def __repr__(self) -> str:
        return f"Gaussians4D({len(self)}, {self.motion.kind}, {self.device})"


def shifted_sh(
    sh: Float[Tensor, "n k 3"], shift: Float[Tensor, "n j 3"] | None
) -> Float[Tensor, "n k 3"]:
    """Coefficients with a motion's shift added to the first of them, as many as both have."""
    if shift is None:
        return sh
    count = min(sh.shape[1], shift.shape[1])
    return torch.cat([sh[:, :count] + shift[:, :count], sh[:, count:]], 1)


def free_values(gaussians: Gaussians) -> FreeValues:
    """The values without bounds of activated Gaussians."""
    return FreeValues(
        gaussians.means,
        gaussians.quats,
        gaussians.scales.clamp_min(_LEAST_SCALE).log(),
        torch.logit(gaussians.opacities.clamp(_LEAST, 1 - _LEAST)),
    )


def check_time(time: float) -> None:
    """Refuse what is no time.

    Raises:
        InvalidInputError: ``time`` is not in [0, 1].
    """
    if not 0.0 <= float(time) <= 1.0:
        raise InvalidInputError(
            f"time is {time}; expected 0 (the first frame) to 1 (the last frame)."
        )


def time_of(camera: Cameras) -> float:
    """The time of a single camera; 0 for one without."""
    return 0.0 if camera.times is None else float(camera.times[0])
