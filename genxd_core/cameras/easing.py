"""Speed along a path: how progress in time maps to progress on the way."""

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError

__all__ = ["Easing", "eased"]

Easing = Literal["linear", "ease-in", "ease-out", "ease-in-out"]


def eased(progress: Float[Tensor, " n"], easing: Easing) -> Float[Tensor, " n"]:
    """Progress on the way, 0 to 1, for progress in time, 0 to 1.

    Args:
        progress: in [0, 1].
        easing: ``"linear"`` keeps the speed, ``"ease-in"`` starts from rest (s^2), ``"ease-out"``
            comes to rest, ``"ease-in-out"`` does both (3 s^2 - 2 s^3).

    Raises:
        InvalidInputError: there is no such easing.
    """
    if easing == "linear":
        return progress
    if easing == "ease-in":
        return progress**2
    if easing == "ease-out":
        return 1 - (1 - progress) ** 2
    if easing == "ease-in-out":
        return progress**2 * (3 - 2 * progress)
    raise InvalidInputError(
        f"easing is {easing!r}; expected one of {', '.join(map(repr, get_args(Easing)))}."
    )
