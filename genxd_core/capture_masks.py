"""Masks of captures from picture files, brought to the pictures they belong to.

Dimension letters: v views.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .cameras.conventions import SHAPE_TOLERANCE
from .cameras.io import load_camera_file
from .cameras.undistort import Undistorter
from .errors import InvalidInputError
from .media import load_image

__all__ = ["MASK_SUFFIXES", "find_by_name", "find_masks", "load_capture_masks", "read_mask"]

MASK_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_MOST_NAMED = 3


def load_capture_masks(
    folder: str | Path, cameras: str | Path, names: Sequence[str], *, width: int, height: int
) -> Float[Tensor, "v 1 h w"]:
    """Read the masks of what `load_capture` read, with the same lens distortion undone.

    Args:
        folder: with a picture for each name: the same name, one with another suffix, or one with
            a suffix appended (``01.jpg.png``). White is object; transparent counts as black.
        cameras: the camera file or folder of the capture.
        names: of its pictures.
        width: of its pictures in pixels.
        height: of its pictures in pixels.

    Returns:
        Masks in [0, 1]; 1 = object.

    Raises:
        InvalidInputError: there is no such folder, a mask is missing, damaged, or of another shape
            than its picture.
    """
    folder, path = Path(folder), Path(cameras)
    if not folder.is_dir():
        raise InvalidInputError(f"masks {folder} is no folder; give the folder of the masks.")
    files = find_masks(folder, names)
    loaded = load_camera_file(path, max_distortion=None)
    to_pinhole = Undistorter()
    masks = torch.empty(len(files), 1, height, width)
    for view, file in enumerate(files):
        mask = read_mask(file, names[view], upright=not loaded.sizes, size=(width, height))
        if loaded.distortion:
            lens, K_norm = loaded.distortion[view], loaded.cameras.Ks_norm[view]
            mask = to_pinhole(mask.expand(3, -1, -1), K_norm, lens, file.name)[0][:1]
        masks[view] = F.interpolate(mask[None], (height, width), mode="bilinear", antialias=True)[0]
    return masks.clamp(0, 1)


def find_masks(folder: Path, names: Sequence[str]) -> list[Path]:
    """The mask file of each picture; as `find_by_name`.

    Args:
        folder: of the masks.
        names: of the pictures.
    """
    return find_by_name(folder, names, MASK_SUFFIXES, what="mask", hint="white where the object is")


def read_mask(
    file: Path, name: str, *, upright: bool, size: tuple[int, int]
) -> Float[Tensor, "1 h w"]:
    """One mask at the size of its file, in [0, 1]; 1 (white) = object, transparent counts as black.

    Args:
        file: of the mask.
        name: of its picture, for the message.
        upright: as the picture is read.
        size: (width, height) of the picture; the mask may have another of the same shape.

    Raises:
        InvalidInputError: it is damaged, or of another shape.
    """
    read = load_image(file, upright=upright)
    grey = read.image.mean(0, keepdim=True)
    mask = grey if read.alpha is None else grey * read.alpha
    _check_shape(file, mask, name, size)
    return mask


def find_by_name(
    folder: Path, names: Sequence[str], suffixes: Sequence[str], *, what: str, hint: str
) -> list[Path]:
    """The files beside pictures: each has a picture's name, with another suffix or one more.

    Args:
        folder: of the files.
        names: of the pictures; their folders do not count.
        suffixes: that the files may have.
        what: one of the files is, in words.
        hint: what is to be in it, in words.

    Raises:
        InvalidInputError: a file is missing, or belongs to several pictures.
    """
    found, missing = list[Path](), list[str]()
    for name in names:
        inside = name.replace("\\", "/")
        base = inside.rpartition("/")[2]
        stem = base.rpartition(".")[0] or base
        candidates = [base] if base.lower().endswith(tuple(suffixes)) else []
        candidates += [base + suffix for suffix in suffixes]
        candidates += [stem + suffix for suffix in suffixes]
        there = next((folder / text for text in candidates if (folder / text).is_file()), None)
        found += [there] if there else []
        missing += [] if there else [base]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise InvalidInputError(
            f"{what}s: {', '.join(missing[:_MOST_NAMED])}{more} of {len(names)} pictures have no "
            f"{what} of the same name in {folder}; put one there for each, {hint}."
        )
    if len(set(found)) < len(found):
        twice = next(file for file in found if found.count(file) > 1)
        raise InvalidInputError(
            f"{what}s: several pictures have the {what} {twice}; give pictures and {what}s names "
            "that differ without their folders too."
        )
    return found


def _check_shape(file: Path, mask: Tensor, name: str, size: tuple[int, int]) -> None:
    height, width = mask.shape[1:]
    if abs(width / height / (size[0] / size[1]) - 1.0) > SHAPE_TOLERANCE:
        raise InvalidInputError(
            f"mask {file} has {width} x {height} pixels, another shape than its picture {name} "
            f"({size[0]} x {size[1]} here); give masks of the pictures' shape."
        )
