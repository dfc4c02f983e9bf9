"""How visible the seams between groups are."""

import itertools
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from .plan import PathPlan

__all__ = ["Seams", "measure_seams"]


@dataclass(frozen=True)
class Seams:
    """Mean absolute differences between neighbouring views of a path, in [0, 1].

    Attributes:
        inside: of neighbours that one group shows, as targets or conditions; None without any.
        across: of neighbours that no group shows together: the seams; None without any.
        num_inside: pairs counted for ``inside``.
        num_across: pairs counted for ``across``.
    """

    inside: float | None
    across: float | None
    num_inside: int
    num_across: int

    @property
    def ratio(self) -> float | None:
        """``across`` / ``inside``: 1 where seams cannot be seen; None where one is missing."""
        if self.inside is None or self.across is None or self.inside == 0.0:
            return None
        return self.across / self.inside


def measure_seams(frames: Float[Tensor, "v 3 H W"], plan: PathPlan) -> Seams:
    """Compare neighbouring views across and inside groups.

    It is for paths whose neighbours stand about equally far apart: a farther step differs more.

    Args:
        frames: all views of the path, in [0, 1].
        plan: the groups that they were made in.

    Raises:
        InvalidInputError: the plan is for another number of views.
    """
    if len(frames) != plan.num_cameras:
        raise InvalidInputError(
            f"frames has {len(frames)} views, but plan is for {plan.num_cameras}; give all views "
            "of the path that was planned."
        )
    shown = [plan.cameras_of(group) for group in plan.groups]
    differences: dict[bool, list[float]] = {True: [], False: []}
    for before, after in itertools.pairwise(range(len(frames))):
        together = any({before, after} <= cameras for cameras in shown)
        differences[together].append(float((frames[after] - frames[before]).abs().mean()))
    inside, across = differences[True], differences[False]
    return Seams(_mean(inside), _mean(across), len(inside), len(across))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
