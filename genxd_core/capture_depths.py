"""Depth maps of captures from ``.npy`` files, brought to the pictures they belong to.

Dimension letters: v views.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .cameras.conventions import SHAPE_TOLERANCE
from .cameras.io import load_camera_file
from .capture_masks import find_by_name
from .errors import InvalidInputError

__all__ = ["load_capture_depths"]


def load_capture_depths(
    folder: str | Path, cameras: str | Path, names: Sequence[str], *, width: int, height: int
) -> Float[Tensor, "v 1 h w"]:
    """Read depth maps of what `load_capture` read.

    Args:
        folder: with a ``.npy`` for each name: the picture's name with that suffix, or with it
            appended (``01.jpg.npy``). Each holds (H, W) z-depth in the units of the cameras, 0
            where it is unknown.
        cameras: the camera file or folder of the capture; without lens distortion.
        names: of its pictures.
        width: of its pictures in pixels.
        height: of its pictures in pixels.

    Returns:
        z-depth in scene units, 0 where unknown. Maps of another size are taken at the nearest
        pixels: depths on the two sides of an edge have no middle.

    Raises:
        InvalidInputError: there is no such folder, a map is missing, damaged, holds what no depth
            is, or is of another shape than its picture; or the pictures had lens distortion, which
            is not undone in maps.
    """
    folder, path = Path(folder), Path(cameras)
    if not folder.is_dir():
        raise InvalidInputError(f"depths {folder} is no folder; give the folder of the depth maps.")
    files = find_by_name(folder, names, (".npy",), what="depth map", hint="z-depth in scene units")
    lenses = load_camera_file(path, max_distortion=None).distortion
    if any(value for lens in lenses for value in lens.values()):
        raise InvalidInputError(
            f"depths go with pinhole cameras, but {path} has lens distortion, which is undone in "
            "the pictures alone. Undistort the pictures first and make depth maps of those."
        )
    depths = torch.empty(len(files), 1, height, width)
    for view, file in enumerate(files):
        depth = _read(file)
        rows, columns = depth.shape
        if abs(columns / rows / (width / height) - 1.0) > SHAPE_TOLERANCE:
            raise InvalidInputError(
                f"depth map {file} has {columns} x {rows} pixels, another shape than its picture "
                f"{names[view]} ({width} x {height} here); give maps of the pictures' shape."
            )
        depths[view] = F.interpolate(depth[None, None], (height, width), mode="nearest-exact")[0]
    return depths


def _read(file: Path) -> Float[Tensor, "h w"]:
    try:
        # Mapped, so that a header that promises more than the file has is refused.
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInputError(
            f"depth map {file} cannot be read as .npy ({error}); write it with numpy.save."
        ) from error
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise InvalidInputError(
            f"depth map {file} holds {values.dtype} of shape {values.shape}; expected numbers of "
            "shape (height, width)."
        )
    depth = torch.from_numpy(values.astype(np.float32))
    if not bool((depth.isfinite() & (depth >= 0)).all()):
        raise InvalidInputError(
            f"depth map {file} holds negative, infinite or NaN numbers; expected z-depth in scene "
            "units, and 0 where it is unknown."
        )
    return depth
