"""What a camera file holds beyond the cameras themselves, and how files are written."""

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InvalidInputError
from ..cameras import Cameras

__all__ = [
    "MAX_DISTORTION",
    "CameraFile",
    "check_distortion",
    "log_dropped_distortion",
    "names_or_numbers",
    "resolve_size",
    "write_atomically",
]

_log = logging.getLogger(__name__)

MAX_DISTORTION = 0.02
_DEFAULT_SMALLER_SIDE = 512


@dataclass(frozen=True)
class CameraFile:
    """Cameras with the names and sizes of the pictures they belong to.

    Attributes:
        cameras: V cameras; float64, as read.
        names: the picture of each view as the file names it; empty where it names none.
        sizes: (width, height) in pixels of each view's picture; empty where the file has none.
        distortion: each view's lens distortion by name, as `undistort_images` takes it; empty where
            the file has none.
        points: file of the scene's points beside it or named in it; ``None`` where there is none.
        ids: number of each view's picture in a COLMAP model, which tracks of points refer to; empty
            in other formats.
    """

    cameras: Cameras
    names: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = field(default=())
    distortion: tuple[Mapping[str, float], ...] = field(default=())
    points: Path | None = None
    ids: tuple[int, ...] = ()


def check_distortion(
    coefficients: Mapping[str, float], where: str, max_distortion: float | None
) -> float:
    """Refuse lens distortion that a pinhole camera cannot stand for.

    Args:
        coefficients: name to value, such as ``{"k1": -0.09}``.
        where: names the camera in the message.
        max_distortion: the largest absolute value that may be dropped; ``None`` if nothing is
            dropped, because the caller undoes it.

    Returns:
        The largest absolute value that is dropped, for `log_dropped_distortion`.

    Raises:
        InvalidInputError: a coefficient is larger.
    """
    worst = max(coefficients, key=lambda name: abs(coefficients[name]), default=None)
    if worst is None or max_distortion is None:
        return 0.0
    value = coefficients[worst]
    if not abs(value) <= max_distortion:
        raise InvalidInputError(
            f"{where} has lens distortion ({worst} = {value:.4g}, allowed {max_distortion:g}); "
            "cameras here are pinholes. Undistort the pictures first (COLMAP's "
            "image_undistorter), or raise max_distortion if only the path matters."
        )
    return abs(value)


def log_dropped_distortion(largest: float, path: Path) -> None:
    """Say once per file that lens distortion was left out, if there was any."""
    if largest > 0:
        _log.warning("%s: lens distortion (up to %.4g) is ignored.", path, largest)


def resolve_size(cameras: Cameras, width: int | None, height: int | None) -> tuple[int, int]:
    """The picture size to write into formats that hold pixels.

    Args:
        cameras: the path; its first view's square pixels give the aspect where no size is given.
        width: in pixels, or ``None``.
        height: in pixels, or ``None``.

    Returns:
        (width, height). By default the smaller side has 512 pixels.

    Raises:
        InvalidInputError: only one of the two was given, or one is not positive.
    """
    if width is None and height is None:
        aspect = float(cameras.Ks_norm[0, 1, 1] / cameras.Ks_norm[0, 0, 0])
        smaller = _DEFAULT_SMALLER_SIDE
        return round(smaller * max(aspect, 1.0)), round(smaller / min(aspect, 1.0))
    if width is None or height is None or width < 1 or height < 1:
        raise InvalidInputError(
            f"width and height are {width} and {height}; give both in pixels, or neither."
        )
    return int(width), int(height)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is either the old one or all of the new one; folders are made."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def names_or_numbers(names: Sequence[str], count: int) -> list[str]:
    """Picture names for a format that needs them: the given ones, else 00000.png and so on.

    Raises:
        InvalidInputError: there is not one name per view.
    """
    if not names:
        return [f"{index:05d}.png" for index in range(count)]
    if len(names) != count:
        raise InvalidInputError(f"names has {len(names)} entries for {count} cameras.")
    return list(names)
