"""Errors that name the node and the input."""

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from ..genxd_core.errors import InvalidInputError, WeightsError

__all__ = ["check_images", "named_errors", "parse_indices"]

F = TypeVar("F", bound=Callable[..., Any])


def named_errors(execute: F) -> F:
    """Put the node's name in front of every message that a user's mistake causes."""

    @functools.wraps(execute)
    def wrapper(cls: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return execute(cls, *args, **kwargs)
        except (InvalidInputError, WeightsError) as error:
            name = cls.GET_SCHEMA().display_name
            if str(error).startswith(name):
                raise
            raise type(error)(f"{name}: {error}") from error

    return wrapper  # type: ignore[return-value]


def parse_indices(text: str) -> tuple[int, ...]:
    """Positions written as "0, 5, 11".

    Raises:
        InvalidInputError: something between the commas is not a whole number.
    """
    parts = [part for part in re.split(r"[\s,;]+", text.strip()) if part]
    for part in parts:
        if not re.fullmatch(r"[+-]?\d{1,6}", part):
            raise InvalidInputError(
                f'indices is "{text}", and "{part}" is not a whole number; write positions '
                'separated by commas, such as "0" or "0, 5, 11".'
            )
    if not parts:
        raise InvalidInputError('indices is empty; write at least one position, such as "0".')
    return tuple(int(part) for part in parts)


def check_images(images: Tensor, name: str = "images") -> None:
    """Refuse an IMAGE that no node can use.

    Raises:
        InvalidInputError: it is empty or holds values that are not finite.
    """
    if images.dim() != 4 or 0 in images.shape:
        raise InvalidInputError(
            f"{name} has shape {tuple(images.shape)}; expected at least one picture "
            "(batch, height, width, 3)."
        )
    if not bool(images.isfinite().all()):
        raise InvalidInputError(
            f"{name} holds values that are not finite (NaN or infinity); look at the node before."
        )
