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
        inside: of neighbours made together, in one group; None without any.
        joined: of neighbours one of which the other was made from, such as an anchor and the camera
            next to it; None without any.
        across: of neighbours that no group shows together; None without any.
        num_inside: pairs counted for ``inside``.
        num_joined: pairs counted for ``joined``.
        num_across: pairs counted for ``across``.
    """

    inside: float | None
    joined: float | None
    across: float | None
    num_inside: int
    num_joined: int
    num_across: int


def measure_seams(frames: Float[Tensor, "v 3 H W"], plan: PathPlan) -> Seams:
    """Compare neighbouring views inside groups and from one group to another.

    Without seams, all three differences are about equal. It is for paths whose neighbours stand
    about equally far apart: a farther step differs more.

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
    made = [set(group.targets) for group in plan.groups]
    found: dict[str, list[float]] = {"inside": [], "joined": [], "across": []}
    for pair in itertools.pairwise(range(len(frames))):
        if any(set(pair) <= cameras for cameras in made):
            kind = "inside"
        else:
            kind = "joined" if any(set(pair) <= cameras for cameras in shown) else "across"
        found[kind].append(float((frames[pair[1]] - frames[pair[0]]).abs().mean()))
    inside, joined, across = found["inside"], found["joined"], found["across"]
    return Seams(
        inside=_mean(inside),
        joined=_mean(joined),
        across=_mean(across),
        num_inside=len(inside),
        num_joined=len(joined),
        num_across=len(across),
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
