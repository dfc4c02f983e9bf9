"""Colours as words of the command line."""

from ..errors import InvalidInputError

__all__ = ["read_colour"]

_NAMED = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


def read_colour(text: str, name: str) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1] of "white", "black" or "0.2,0.5,1".

    Args:
        text: as given.
        name: of the option, for messages.

    Raises:
        InvalidInputError: it is none of these.
    """
    if text in _NAMED:
        return _NAMED[text]
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        red = green = blue = -1.0
    if not all(0.0 <= value <= 1.0 for value in (red, green, blue)):
        raise InvalidInputError(
            f"{name} is {text!r}; expected white, black, or red,green,blue from 0 to 1, such as "
            "0.2,0.5,1."
        )
    return red, green, blue
