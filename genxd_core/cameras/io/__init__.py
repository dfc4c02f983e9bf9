"""Camera files: nerfstudio and Blender JSON, COLMAP folders, RealEstate10K text, our own JSON."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch

from ...errors import InvalidInputError
from ..cameras import Cameras
from ..describe import describe
from .camera_file import MAX_DISTORTION, CameraFile
from .colmap import find_colmap_model, read_colmap, write_colmap
from .native_json import FORMAT_NAME, read_native, write_native
from .realestate import is_realestate, read_realestate, write_realestate
from .transforms_json import read_transforms, write_transforms

__all__ = [
    "MAX_DISTORTION",
    "CameraFile",
    "CameraFormat",
    "load_camera_file",
    "load_cameras",
    "save_cameras",
]

_log = logging.getLogger(__name__)

CameraFormat = Literal["genxd", "transforms", "colmap", "colmap-text", "realestate10k"]


def load_cameras(
    path: str | Path,
    *,
    format: CameraFormat | None = None,
    max_distortion: float = MAX_DISTORTION,
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """Read a camera path from a file or folder, whatever of the known formats it is in.

    The log tells the path's scale (`path_scale`): a COLMAP path at scale 100 is out of the released
    weights' distribution, and `normalise_scale` brings it near.

    Args:
        path: a ``transforms.json`` of nerfstudio or Blender (or its folder), a COLMAP model (its
            folder, or one that holds it as ``sparse/0`` or ``0``), a RealEstate10K or ACID text, or
            this project's JSON.
        format: overrides the detection by content.
        max_distortion: largest lens distortion coefficient that is dropped; what is above is
            refused. ``math.inf`` takes the path of any lens that a pinhole approximates.
        dtype: float32 or float64.

    Returns:
        The views: COLMAP's sorted by picture name, the others' in the order of the file.

    Raises:
        InvalidInputError: the path is missing, of no known format, damaged, or holds impossible
            cameras.
    """
    return load_camera_file(path, format=format, max_distortion=max_distortion, dtype=dtype).cameras


def load_camera_file(
    path: str | Path,
    *,
    format: CameraFormat | None = None,
    max_distortion: float | None = MAX_DISTORTION,
    dtype: torch.dtype = torch.float32,
) -> CameraFile:
    """As `load_cameras`, together with what else the file tells about the pictures.

    ``max_distortion=None`` is for callers that undo the distortion: any is let through.
    """
    path = Path(path)
    if format is not None and format not in get_args(CameraFormat):
        raise _unknown_format(format)
    if not path.exists():
        raise InvalidInputError(f"path {path} does not exist; give a camera file or folder.")
    try:
        loaded = _read(path, format, max_distortion)
    except InvalidInputError as error:
        if str(path) in str(error):
            raise
        raise InvalidInputError(f"path {path}: {error}") from error
    cameras = loaded.cameras.to(dtype=dtype)
    if _log.isEnabledFor(logging.INFO):
        _log.info("%s: %s", path, describe(cameras).replace("\n", " "))
    return replace(loaded, cameras=cameras)


def save_cameras(
    cameras: Cameras,
    path: str | Path,
    *,
    format: CameraFormat | None = None,
    width: int | None = None,
    height: int | None = None,
    names: Sequence[str] = (),
) -> None:
    """Write a camera path; each file appears whole or not at all.

    Args:
        cameras: the path.
        path: where to. Without ``format`` it decides: a name like ``transforms*.json`` is
            nerfstudio's, another ``.json`` this project's, ``.txt`` RealEstate10K's, and a name
            without a suffix a COLMAP folder (binary).
        format: one of ``"genxd"``, ``"transforms"``, ``"colmap"``, ``"colmap-text"``,
            ``"realestate10k"``.
        width: of the pictures, in pixels, for the formats that hold pixels (nerfstudio's and
            COLMAP's); by default the smaller side has 512 and pixels are square.
        height: of the pictures, in pixels.
        names: of the pictures, for the same formats; by default 00000.png and so on.

    Raises:
        InvalidInputError: no format follows from the name, it cannot hold the cameras, or the
            folder holds a COLMAP model already.
    """
    path = Path(path)
    format = _format_of_name(path) if format is None else format
    if format == "genxd":
        write_native(cameras, path)
    elif format == "transforms":
        write_transforms(cameras, path, width=width, height=height, names=names)
    elif format in ("colmap", "colmap-text"):
        binary = format == "colmap"
        write_colmap(cameras, path, binary=binary, width=width, height=height, names=names)
    elif format == "realestate10k":
        write_realestate(cameras, path)
    else:
        raise _unknown_format(format)


def _read(path: Path, format: CameraFormat | None, max_distortion: float | None) -> CameraFile:
    if path.is_dir():
        return _read_folder(path, format, max_distortion)
    if format in ("colmap", "colmap-text") or _is_part_of_colmap_model(path, format):
        return read_colmap(path.parent, max_distortion=max_distortion)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"path {path} is neither text nor part of a COLMAP model (cameras.bin beside "
            "images.bin); its format is not known."
        ) from error
    if format == "realestate10k" or (format is None and is_realestate(text)):
        return read_realestate(text, path, max_distortion=max_distortion)
    return _read_json(text, path, format, max_distortion)


def _is_part_of_colmap_model(path: Path, format: CameraFormat | None) -> bool:
    named_so = path.stem in ("cameras", "images", "points3D", "frames", "rigs")
    found = find_colmap_model(path.parent) if format is None and named_so else None
    return found is not None and found[0] == path.parent and path.suffix in (".bin", ".txt")


def _read_folder(
    path: Path, format: CameraFormat | None, max_distortion: float | None
) -> CameraFile:
    if format in ("colmap", "colmap-text") or (format is None and find_colmap_model(path)):
        return read_colmap(path, max_distortion=max_distortion)
    inside = path / "transforms.json"
    if format in (None, "transforms") and inside.is_file():
        return _read(inside, "transforms", max_distortion)
    candidates = sorted(file.name for file in path.glob("transforms*.json"))
    hint = f" It holds {', '.join(candidates)}: name one of them." if candidates else ""
    raise InvalidInputError(
        f"path {path} is a folder without a camera file; expected a COLMAP model (in it, in "
        f"sparse/0 or in 0) or a transforms.json.{hint}"
    )


def _read_json(
    text: str, path: Path, format: CameraFormat | None, max_distortion: float | None
) -> CameraFile:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"path {path} is of no known format: neither JSON ({error}), nor RealEstate10K rows of "
            "19 numbers, nor part of a COLMAP model."
        ) from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"path {path} holds a JSON {type(content).__name__}, no object.")
    if format == "genxd" or (format is None and content.get("format") == FORMAT_NAME):
        return read_native(content, path)
    if format == "transforms" or "frames" in content:
        return read_transforms(content, path, max_distortion=max_distortion)
    raise InvalidInputError(
        f'path {path} is JSON of no known format: neither "format": "{FORMAT_NAME}" nor '
        '"frames" (nerfstudio, Blender) is in it.'
    )


def _format_of_name(path: Path) -> CameraFormat:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return "transforms" if path.name.lower().startswith("transforms") else "genxd"
    if suffix == ".txt":
        return "realestate10k"
    if suffix == "" or path.is_dir():
        return "colmap"
    raise InvalidInputError(
        f"path {path} ends in {suffix}, which names no camera format; end it in .json or .txt, "
        "give a folder, or say format=."
    )


def _unknown_format(format: str) -> InvalidInputError:
    known = ", ".join(repr(name) for name in get_args(CameraFormat))
    return InvalidInputError(f"format is {format!r}; expected one of {known}.")
