"""What every node checks before it runs, and errors that name the node and the input.

ComfyUI checks the numbers that are typed into a node, not those that come through a link, and lets
NaN pass. `checked` repeats the schema's own promises on what really arrives.
"""

import functools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from comfy_api.latest import Types, io
from torch import Tensor

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.errors import InvalidInputError, WeightsError
from ..genxd_core.fitting import FitRecord
from ..genxd_core.lifting.gaussians_4d import Gaussians4D
from ..genxd_core.lifting.perceptual import PerceptualModel
from ..genxd_core.lifting.point_cloud import PointCloud
from ._types import (
    CamerasSocket,
    DepthSocket,
    FitSocket,
    PerceptualSocket,
    PointsSocket,
    Splat4DSocket,
)

__all__ = [
    "check_choice",
    "check_images",
    "check_mask",
    "check_position",
    "checked",
    "parse_colour",
    "parse_indices",
    "why_not_a_choice",
    "why_not_a_colour",
]

F = TypeVar("F", bound=Callable[..., Any])
_MOST_NAMED = 20


def checked(execute: F) -> F:
    """Check a node's inputs against its schema, and put its name in front of what is wrong."""

    @functools.wraps(execute)
    def wrapper(cls: Any, *args: Any, **kwargs: Any) -> Any:
        schema = cls.define_schema()  # not GET_SCHEMA: the class is locked while it runs
        try:
            check_values(schema.inputs, kwargs)
            return execute(cls, *args, **kwargs)
        except (InvalidInputError, WeightsError) as error:
            if str(error).startswith(schema.display_name):
                raise
            raise type(error)(f"{schema.display_name}: {error}") from error

    return wrapper  # type: ignore[return-value]


def check_values(inputs: Iterable[Any], values: dict[str, Any], prefix: str = "") -> None:
    """Hold values against the inputs that they are for.

    Args:
        inputs: a schema's inputs.
        values: by name; a dynamic combo's is a dict with the choice under its own name.
        prefix: what stands before the names of nested inputs, such as ``path.``.

    Raises:
        InvalidInputError: one is missing, of the wrong kind, not finite, out of bounds or not
            among the choices.
    """
    for item in inputs:
        name, value = prefix + item.id, values.get(item.id)
        if isinstance(item, io.DynamicCombo.Input):
            _check_dynamic(item, value, name)
        elif value is None:
            if not item.optional and (item.id in values or prefix):
                raise InvalidInputError(f"{name} is empty; {_remedy(item)}.")
        elif isinstance(item, io.Int.Input | io.Float.Input):
            _check_number(item, value, name)
        elif isinstance(item, io.Combo.Input):
            check_choice(value, item.options, name)
        else:
            _check_kind(item, value, name)


def _check_dynamic(item: Any, value: Any, name: str) -> None:
    choices = {option.key: option.inputs for option in item.options}
    if not isinstance(value, dict):
        raise InvalidInputError(why_not_a_choice(value, choices, name))
    kind = value.get(item.id)
    check_choice(kind, choices, name)
    check_values(choices[kind], value, f"{name}.")


def _check_number(item: Any, value: Any, name: str) -> None:
    whole = isinstance(item, io.Int.Input)
    wanted = f"a {'whole ' if whole else ''}number from {item.min:g} to {item.max:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(f"{name} is {value!r}; expected {wanted}.")
    fits = math.isfinite(value) and item.min <= value <= item.max
    if not fits or (whole and value != int(value)):
        raise InvalidInputError(f"{name} is {value}; expected {wanted}.")


_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    CamerasSocket.io_type: (Cameras, "a camera path of the GenXD camera nodes"),
    FitSocket.io_type: (FitRecord, "the fit output of GenXD Fit Views"),
    PerceptualSocket.io_type: (
        (PerceptualModel, str),  # the text chooses the loss that needs no weights
        "the perceptual output of GenXD Load Perceptual Model",
    ),
    PointsSocket.io_type: (
        PointCloud,
        "points of GenXD Load Capture, if the capture has any, or of GenXD Triangulate Points",
    ),
    DepthSocket.io_type: (Tensor, "depth, such as that of GenXD Render Splat"),
    Splat4DSocket.io_type: (Gaussians4D, "the splat4d of GenXD Lift To 4DGS or GenXD Load 4D"),
    io.Image.io_type: (Tensor, "pictures"),
    io.Mask.io_type: (Tensor, "a mask"),
    io.Latent.io_type: (dict, "a latent"),
    io.Tracks.io_type: (dict, "tracks with track_path and track_visibility"),
    io.Conditioning.io_type: (list, "a conditioning"),
    io.Splat.io_type: (Types.SPLAT, "a splat"),
    io.Color.io_type: (str, "a colour such as #ffffff"),
    io.Load3DCamera.io_type: (dict, "the camera_info of a 3D viewer"),
    io.String.io_type: (str, "a text"),
    io.Boolean.io_type: (bool, "true or false"),
}


def _check_kind(item: Any, value: Any, name: str) -> None:
    kind, words = _KINDS.get(item.get_io_type(), (object, ""))
    if not isinstance(value, kind):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; expected {words}.")


def _remedy(item: Any) -> str:
    if item.get_io_type() == CamerasSocket.io_type:
        return "connect a camera path (GenXD Fit Views passes one on only when it was given one)"
    return f"connect or enter {_KINDS.get(item.get_io_type(), (object, 'a value'))[1]}"


def check_choice(value: Any, choices: Iterable[str], name: str) -> None:
    """Refuse what is not among the choices.

    Raises:
        InvalidInputError: with the choices.
    """
    choices = list(choices)
    if value not in choices:
        raise InvalidInputError(why_not_a_choice(value, choices, name))


def why_not_a_choice(value: Any, choices: Iterable[str], name: str) -> str:
    """The message about a value that is not among the choices."""
    choices = list(choices)
    named = ", ".join(f'"{choice}"' for choice in choices[:_MOST_NAMED])
    more = f" and {len(choices) - _MOST_NAMED} others" if len(choices) > _MOST_NAMED else ""
    came = "missing or unknown" if value is None else f'"{value}"'
    return f"{name} is {came}; expected one of {named}{more}."


def why_not_a_colour(text: str | None, name: str = "background") -> bool | str:
    """What a node's ``validate_inputs`` says of a colour; one that comes through a link is None."""
    try:
        parse_colour("#ffffff" if text is None else text, name)
    except InvalidInputError as error:
        return str(error)
    return True


def parse_colour(text: str, name: str) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1] of a colour written as "#rrggbb".

    Raises:
        InvalidInputError: it is not written so.
    """
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text.strip()):
        raise InvalidInputError(
            f'{name} is "{_shortened(text)}"; expected a colour as # and six digits from 0 to f, '
            "such as #ffffff for white or #000000 for black."
        )
    red, green, blue = (byte / 255.0 for byte in bytes.fromhex(text.strip()[1:]))
    return red, green, blue


def parse_indices(text: str, name: str = "indices") -> tuple[int, ...]:
    """Positions written as "0, 5, 11".

    Raises:
        InvalidInputError: something between the commas is not a whole number, nothing is there, or
            the same number twice.
    """
    parts = [part for part in re.split(r"[\s,;]+", text.strip()) if part]
    for part in parts:
        if not re.fullmatch(r"[+-]?[0-9]{1,6}", part):
            raise InvalidInputError(
                f'{name} is "{_shortened(text)}", and "{_shortened(part)}" is not a whole number; '
                'write positions separated by commas, such as "0" or "0, 5, 11".'
            )
    if not parts:
        raise InvalidInputError(
            f'{name} is "{_shortened(text)}", which has no number in it; write at least one '
            'position, such as "0".'
        )
    positions = tuple(int(part) for part in parts)
    if len(set(positions)) < len(positions):
        raise InvalidInputError(
            f'{name} "{_shortened(text)}" name a view twice; give each view once.'
        )
    return positions


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def check_position(view: int, num_views: int, name: str) -> int:
    """A position on a path as a number from 0; negative ones count from the end.

    Raises:
        InvalidInputError: the path has no such view.
    """
    if not -num_views <= view < num_views:
        raise InvalidInputError(
            f"{name} is {view}, but the path has {num_views} cameras; give 0 to {num_views - 1}, "
            f"or -1 to {-num_views} from the end."
        )
    return view % num_views


def check_images(images: Tensor, name: str = "images") -> None:
    """Refuse an IMAGE that no node can use.

    Raises:
        InvalidInputError: it is empty, of another layout, or holds values that are not finite.
    """
    if images.dim() != 4 or 0 in images.shape or images.shape[-1] not in (3, 4):
        raise InvalidInputError(
            f"{name} has shape {tuple(images.shape)}; expected at least one colour picture: "
            "(batch, height, width, 3 or 4)."
        )
    _check_finite(images, name)
    low, high = float(images.min()), float(images.max())
    # Resizing by others may overshoot a little; that is cut off later.
    if low < -0.5 or high > 1.5:
        raise InvalidInputError(
            f"{name} hold values from {low:.3g} to {high:.3g}; expected 0 to 1. Look at the node "
            "before."
        )


def check_mask(mask: Tensor, name: str = "mask") -> None:
    """Refuse a MASK that no node can use.

    Raises:
        InvalidInputError: it is empty, of another layout, or holds values outside 0 to 1.
    """
    if mask.dim() not in (2, 3) or 0 in mask.shape:
        raise InvalidInputError(
            f"{name} has shape {tuple(mask.shape)}; expected (batch, height, width)."
        )
    _check_finite(mask, name)
    low, high = float(mask.min()), float(mask.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise InvalidInputError(
            f"{name} holds values from {low:.3g} to {high:.3g}; expected 0 to 1. Look at the node "
            "before."
        )


def _check_finite(values: Tensor, name: str) -> None:
    if not bool(values.isfinite().all()):
        raise InvalidInputError(
            f"{name} holds values that are not finite (NaN or infinity); look at the node before."
        )
