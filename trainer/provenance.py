"""What a weights file says of itself: how it was trained, of what, and whose terms come with it."""

from collections.abc import Mapping
from typing import Literal, get_args

from genxd_core.errors import InvalidInputError

__all__ = ["Origin", "origin_of", "provenance"]

Origin = Literal["scratch", "svd", "released", "unknown"]
"""What a training started from: nothing, Stable Video Diffusion, the released GenXD weights, or
weights whose file does not say where they come from."""

_TERMS: dict[str, str] = {
    "svd": "Derived from Stable Video Diffusion: Stability AI's licence of those weights applies "
    "to these too. Read it before you use them or pass them on, above all commercially.",
    "released": "Derived from the released GenXD weights, which were trained starting from Stable "
    "Video Diffusion: the terms of both apply to these too. Read them before you use these or pass "
    "them on, above all commercially.",
    "unknown": "Derived from weights whose file does not say where they come from: their terms "
    "apply to these too.",
}


def provenance(*, origin: Origin, recipe: str, steps: int) -> dict[str, str]:
    """Metadata of a weights file: ``origin``, ``recipe``, ``steps``, and ``license`` as a hint.

    There is no ``license`` where the training started from nothing: whoever trained decides.

    Args:
        origin: what the training started from; `origin_of` tells it of a file.
        recipe: name of the recipe.
        steps: optimiser steps that the weights have seen.

    Raises:
        InvalidInputError: there is no such origin, or the steps are negative.
    """
    if origin not in get_args(Origin):
        raise InvalidInputError(
            f"origin is {origin!r}, expected one of {', '.join(map(repr, get_args(Origin)))}."
        )
    if steps < 0:
        raise InvalidInputError(f"steps is {steps}, expected a number from 0 on.")
    terms = {"license": _TERMS[origin]} if origin in _TERMS else {}
    return {"origin": origin, "recipe": recipe, "steps": str(steps), **terms}


def origin_of(metadata: Mapping[str, str]) -> Origin:
    """What weights with this metadata started from, so that what is trained of them says it too."""
    for origin in get_args(Origin):
        if metadata.get("origin") == origin:
            known: Origin = origin
            return known
    return "unknown"
