"""nerfstudio's and Blender's ``transforms.json``: OpenGL camera-to-world poses, one per frame."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ...errors import InvalidInputError
from ..cameras import Cameras
from ..conventions import opencv_to_opengl_c2w, opengl_to_opencv_c2w
from .camera_file import (
    CameraFile,
    check_distortion,
    log_dropped_distortion,
    names_or_numbers,
    resolve_size,
    write_atomically,
)

__all__ = ["read_transforms", "write_transforms"]

_log = logging.getLogger(__name__)

_PINHOLE_MODELS = {"", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE"}
_DISTORTED_MODELS = {"OPENCV", "SIMPLE_RADIAL", "RADIAL"}
_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


def read_transforms(
    content: Mapping[str, Any], path: Path, *, max_distortion: float | None
) -> CameraFile:
    """Read the frames in the file's order.

    Intrinsics may stand in the frame or at the top: ``fl_x``, ``fl_y``, ``cx``, ``cy``, ``w``,
    ``h``, or ``camera_angle_x`` (and ``_y``) in radians. Without ``w`` and ``h`` the size comes
    from the frame's picture if it is there, else square pictures are assumed, which the log says.
    ``time`` is taken where every frame has it.

    Args:
        content: the parsed file.
        path: of the file; pictures are looked up beside it.
        max_distortion: larger distortion coefficients are refused; ``None`` lets any through.

    Raises:
        InvalidInputError: something is missing, or a camera is no pinhole; names the frame.
    """
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise InvalidInputError(f'path {path}: "frames" is missing or empty; it lists the views.')
    views = [_read_frame(content, frame, index, path) for index, frame in enumerate(frames)]
    log_dropped_distortion(
        max(check_distortion(v.distortion, v.where, max_distortion) for v in views), path
    )
    if any(view.size is None and "camera_angle_y" not in content for view in views):
        _log.warning("%s gives no picture size; square pictures are assumed.", path)
    c2w = opengl_to_opencv_c2w(torch.from_numpy(np.stack([view.c2w_opengl for view in views])))
    names = [view.name for view in views]
    sizes = [view.size for view in views if view.size is not None]
    times = [view.time for view in views if view.time is not None]
    points = content.get("ply_file_path")
    return CameraFile(
        Cameras(
            c2w,
            np.stack([view.K_norm for view in views]),
            times if len(times) == len(views) else None,
        ),
        names=tuple(names) if all(names) else (),
        sizes=tuple(sizes) if len(sizes) == len(views) else (),
        distortion=tuple(view.distortion for view in views),
        points=path.parent / str(points) if points else None,
    )


@dataclass(frozen=True)
class _View:
    where: str
    name: str
    c2w_opengl: np.ndarray
    K_norm: np.ndarray
    size: tuple[int, int] | None
    distortion: dict[str, float]
    time: float | None


def _read_frame(content: Mapping[str, Any], frame: object, index: int, path: Path) -> _View:
    where = f"frame {index} of {path}"
    if not isinstance(frame, Mapping):
        raise InvalidInputError(f"{where} is no object with a transform_matrix.")
    merged = {**content, **frame}
    model = str(merged.get("camera_model", "")).upper()
    if model not in _PINHOLE_MODELS | _DISTORTED_MODELS or merged.get("is_fisheye"):
        raise InvalidInputError(
            f"{where} has the camera model {model or 'fisheye'}; only pinhole cameras can be "
            "used. Undistort the pictures first."
        )
    try:
        size = _size(merged, path)
        time = frame.get("time")
        return _View(
            where,
            str(frame.get("file_path", "")),
            _pose(frame, where),
            _intrinsics(merged, size, where),
            size,
            {name: float(merged[name]) for name in _DISTORTION if merged.get(name)},
            None if time is None else float(time),
        )
    except InvalidInputError:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{where} has something else than numbers in its intrinsics, size or time ({error})."
        ) from error


def _pose(frame: Mapping[str, Any], where: str) -> np.ndarray:
    try:
        matrix = np.array(frame["transform_matrix"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{where} has no readable transform_matrix ({error!r}); expected 4 x 4 numbers, the "
            "camera-to-world pose with OpenGL axes."
        ) from error
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])
    if matrix.shape != (4, 4):
        raise InvalidInputError(
            f"{where} has a transform_matrix of shape {matrix.shape}; expected 4 x 4."
        )
    return matrix


def _intrinsics(frame: Mapping[str, Any], size: tuple[int, int] | None, where: str) -> np.ndarray:
    if "fl_x" in frame:
        return _from_focal(frame, size, where)
    if "camera_angle_x" in frame:
        return _from_angle(frame, size, where)
    raise InvalidInputError(
        f"{where} has no intrinsics: expected fl_x (in pixels, with w and h) or camera_angle_x (in "
        "radians), in the frame or at the top of the file."
    )


def _size(frame: Mapping[str, Any], path: Path) -> tuple[int, int] | None:
    if frame.get("w") and frame.get("h"):
        return int(frame["w"]), int(frame["h"])
    name = str(frame.get("file_path", ""))
    for candidate in (path.parent / name, path.parent / f"{name}.png"):
        try:
            if name and candidate.is_file():
                with Image.open(candidate) as picture:
                    return picture.width, picture.height
        except (OSError, UnidentifiedImageError):
            continue
    return None


def _from_focal(frame: Mapping[str, Any], size: tuple[int, int] | None, where: str) -> np.ndarray:
    if size is None:
        raise InvalidInputError(
            f"{where} has its focal length in pixels but no picture size; add w and h."
        )
    width, height = size
    fx = float(frame["fl_x"])
    fy = float(frame.get("fl_y", fx))
    cx, cy = float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))
    return np.array([[fx / width, 0, cx / width], [0, fy / height, cy / height], [0, 0, 1.0]])


def _from_angle(frame: Mapping[str, Any], size: tuple[int, int] | None, where: str) -> np.ndarray:
    fx_norm = _focal_of_angle(float(frame["camera_angle_x"]), where)
    if "camera_angle_y" in frame:
        fy_norm = _focal_of_angle(float(frame["camera_angle_y"]), where)
    else:
        fy_norm = fx_norm * size[0] / size[1] if size else fx_norm
    cx = float(frame["cx"]) / size[0] if size and "cx" in frame else 0.5
    cy = float(frame["cy"]) / size[1] if size and "cy" in frame else 0.5
    return np.array([[fx_norm, 0, cx], [0, fy_norm, cy], [0, 0, 1.0]])


def _focal_of_angle(angle_rad: float, where: str) -> float:
    if not 0 < angle_rad < math.pi:
        raise InvalidInputError(
            f"{where} has a field of view of {angle_rad} rad; expected between 0 and pi."
        )
    return 0.5 / math.tan(angle_rad / 2)


def write_transforms(
    cameras: Cameras,
    path: Path,
    *,
    width: int | None = None,
    height: int | None = None,
    names: Sequence[str] = (),
) -> None:
    """Write nerfstudio's format, intrinsics in every frame, ``time`` where the path has times.

    Args:
        cameras: the path; skew must be zero.
        path: the file.
        width: of the pictures, in pixels; see `resolve_size`.
        height: of the pictures, in pixels.
        names: ``file_path`` of each frame; by default 00000.png and so on.

    Raises:
        InvalidInputError: a camera has skew.
    """
    if bool((cameras.Ks_norm[:, 0, 1] != 0).any()):
        raise InvalidInputError(
            "cameras have skew, which transforms.json cannot hold; save them as genxd."
        )
    width, height = resolve_size(cameras, width, height)
    sized = cameras.to(device="cpu", dtype=torch.float64)
    matrices = opencv_to_opengl_c2w(sized.c2w).tolist()
    frames = []
    for index, name in enumerate(names_or_numbers(names, len(sized))):
        K = sized.Ks(width, height)[index]
        frame: dict[str, Any] = {
            "file_path": name,
            "fl_x": float(K[0, 0]),
            "fl_y": float(K[1, 1]),
            "cx": float(K[0, 2]),
            "cy": float(K[1, 2]),
            "transform_matrix": matrices[index],
        }
        if sized.times is not None:
            frame["time"] = float(sized.times[index])
        frames.append(frame)
    content = {"camera_model": "PINHOLE", "w": width, "h": height, "frames": frames}
    write_atomically(path, json.dumps(content, indent=1) + "\n")
