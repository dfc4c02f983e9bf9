"""A scene of a folder of square renders ``NNN.png`` with world-to-camera poses ``NNN.npy``."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.conventions import opengl_to_opencv_w2c
from ..errors import InvalidInputError
from ..media import LoadedImage, load_image
from .layouts import naming_scene
from .scene import Scene

__all__ = ["BLENDER_FOCAL_NORM", "RenderAxes", "rendered_scene"]

RenderAxes = Literal["opengl", "opencv"]

BLENDER_FOCAL_NORM = 35 / 32
"""Normalised focal length of Blender's lens of 35 mm on a sensor of 32 mm: 49.13 degrees."""


def rendered_scene(
    scene_id: str,
    folder: Path,
    *,
    axes: RenderAxes,
    K_norm: Float[Tensor, "3 3"],
    masks: bool | None = None,
) -> Scene:
    """Read the poses of renders; their views have no order.

    Args:
        scene_id: for the scene and for messages.
        folder: with ``NNN.png`` and ``NNN.npy``.
        axes: of the poses' cameras: "opengl" (Blender's) or "opencv".
        K_norm: normalised intrinsics of all views.
        masks: whether alpha channels are masks; ``None`` if the first picture has one.

    Raises:
        BrokenSceneError: a picture or pose is missing, or a pose damaged or impossible.
    """
    with naming_scene(scene_id):
        files = _files(folder)
        w2c = torch.stack([_read_w2c(file.with_suffix(".npy")) for file in files])
        if axes == "opengl":
            w2c = opengl_to_opencv_w2c(w2c)
        cameras = Cameras.from_w2c(w2c, K_norm.expand(len(files), 3, 3))
        # Picture and mask are one file, and called for one after the other.
        load = lru_cache(maxsize=1)(_load_square)
        if masks is None:
            masks = load(files[0]).alpha is not None
        return Scene(
            scene_id,
            "3d",
            cameras,
            [partial(load, file) for file in files],
            tuple(file.name for file in files),
            masks=[partial(_mask, load, file) for file in files] if masks else None,
            ordered=False,
        )


def _files(folder: Path) -> list[Path]:
    """The pictures, each of which has a pose."""
    names = [file.name for file in folder.iterdir()]
    stems = {
        suffix: {name[:-4] for name in names if name.endswith(suffix) and name[:-4].isdecimal()}
        for suffix in (".png", ".npy")
    }
    for suffix, other in ((".png", ".npy"), (".npy", ".png")):
        if lacking := sorted(stems[other] - stems[suffix]):
            raise InvalidInputError(
                f"{lacking[0]}{suffix} is missing beside {lacking[0]}{other} in {folder}; expected "
                "both for every view."
            )
    if not stems[".png"]:
        raise InvalidInputError(f"{folder} has no views; expected 000.png, 000.npy and so on.")
    return [folder / f"{stem}.png" for stem in sorted(stems[".png"], key=lambda s: (int(s), s))]


def _read_w2c(file: Path) -> Float[Tensor, "4 4"]:
    try:
        # Mapped, so that a header that promises more than the file has is refused.
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInputError(f"{file.name} cannot be read as .npy ({error}).") from error
    if values.shape not in ((3, 4), (4, 4)) or values.dtype.kind not in "fiu":
        raise InvalidInputError(
            f"{file.name} holds {values.dtype} of shape {values.shape}; expected a (3, 4) "
            "world-to-camera pose."
        )
    if not np.isfinite(values).all():
        raise InvalidInputError(f"{file.name} holds NaN or infinite numbers; expected a pose.")
    w2c = torch.eye(4, dtype=torch.float64)
    w2c[: len(values)] = torch.from_numpy(np.array(values, dtype=np.float64))
    return w2c


def _load_square(file: Path) -> LoadedImage:
    read = load_image(file)
    height, width = read.image.shape[1:]
    if height != width:
        raise InvalidInputError(
            f"image {file} has {width} x {height} pixels; expected a square, as its camera has."
        )
    return read


def _mask(load: Callable[[Path], LoadedImage], file: Path) -> Float[Tensor, "1 h w"]:
    alpha = load(file).alpha
    if alpha is None:
        raise InvalidInputError(f"image {file} has no transparency; expected RGBA.")
    return alpha
