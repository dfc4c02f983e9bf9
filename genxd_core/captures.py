"""Captures: photographs with the cameras that took them, as pinhole pictures of one size."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .cameras.cameras import Cameras
from .cameras.conventions import SHAPE_TOLERANCE, normalise_scale, path_scale, picture_aspect
from .cameras.io import MAX_DISTORTION, CameraFile, load_camera_file
from .cameras.io.colmap import find_colmap_model
from .cameras.undistort import Undistorter
from .errors import InvalidInputError
from .lifting.point_cloud import PointCloud
from .lifting.point_files import load_points
from .media import load_image
from .progress import Progress, report

__all__ = [
    "Capture",
    "capture_files",
    "check_shape",
    "find_pictures",
    "folder_of_pictures",
    "in_order",
    "load_capture",
    "read_points",
    "refuse_ambiguous_lenses",
]

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_MOST_NAMED = 3
# COLMAP and nerfstudio mean different polynomials by these.
_AMBIGUOUS_IN_JSON = {"k4", "k5", "k6"}


@dataclass(frozen=True, eq=False)
class Capture:
    """V pictures, their cameras and, where the file has them, points of the scene.

    Attributes:
        images: in [0, 1], without distortion.
        cameras: one for each picture; float32.
        points: in the world of the cameras; ``None`` where the capture has none.
        names: of the pictures.
    """

    images: Float[Tensor, "v 3 h w"]
    cameras: Cameras
    points: PointCloud | None
    names: tuple[str, ...]

    def scaled_to(self, scale: float) -> "Capture":
        """Cameras and points scaled together so that `path_scale` is ``scale``.

        Raises:
            InvalidInputError: ``scale`` is not positive and finite.
        """
        cameras = normalise_scale(self.cameras, scale)
        if cameras is self.cameras or self.points is None:
            return replace(self, cameras=cameras)
        factor = scale / path_scale(self.cameras)
        points = PointCloud(self.points.xyz * factor, self.points.rgb)
        return replace(self, cameras=cameras, points=points)


def load_capture(
    cameras: str | Path,
    images: str | Path | None = None,
    *,
    max_side: int | None = None,
    undistort: bool = True,
    progress: Progress | None = None,
) -> Capture:
    """Read photographs with their cameras; one picture at a time is held at its full size.

    Args:
        cameras: a COLMAP model (its folder or the one around it, pictures in ``images``), a
            ``transforms.json`` (pictures as it names them), or any other camera file.
        images: the folder of the pictures, where they lie elsewhere or the file does not say.
            Pictures are found by the names in the camera file, else taken in order.
        max_side: larger pictures are made smaller until their longer side has this many pixels;
            ``None`` keeps their size.
        undistort: turn the pictures of lenses into those of pinhole cameras (`undistort_images`);
            else distortion is refused unless it is small.
        progress: called after each picture, with it as the preview (1, 3, h, w).

    Raises:
        InvalidInputError: a file is missing, damaged or outside of the folder, pictures differ in
            size or do not fit their cameras, or the counts differ.
        Cancelled: the callback asked to stop.
    """
    if max_side is not None and max_side < 1:
        raise InvalidInputError(f"max_side is {max_side}; expected at least 1, or None.")
    path = Path(cameras)
    loaded = load_camera_file(path, max_distortion=None if undistort else MAX_DISTORTION)
    if undistort:
        refuse_ambiguous_lenses(loaded, path)
    files = find_pictures(loaded, path, None if images is None else Path(images))
    pictures, Ks_norm = _read_pictures(loaded, files, max_side, undistort, progress)
    return Capture(
        pictures,
        Cameras(loaded.cameras.c2w, Ks_norm, loaded.cameras.times),
        read_points(loaded, path),
        loaded.names or tuple(file.name for file in files),
    )


def capture_files(cameras: str | Path, images: str | Path | None = None) -> list[Path]:
    """The files that `load_capture` would read, without reading the pictures.

    Raises:
        InvalidInputError: the camera file cannot be read, or pictures are missing.
    """
    path = Path(cameras)
    loaded = load_camera_file(path, max_distortion=None)
    files = find_pictures(loaded, path, None if images is None else Path(images))
    found = find_colmap_model(path) if path.is_dir() else None
    camera_files = sorted(found[0].iterdir()) if found else [path]
    return [*camera_files, *files, *([loaded.points] if loaded.points else [])]


def refuse_ambiguous_lenses(loaded: CameraFile, path: Path) -> None:
    """Refuse lens coefficients of a ``transforms.json`` that programs take for different ones.

    Args:
        loaded: what was read.
        path: where from.

    Raises:
        InvalidInputError: a view has one; names it.
    """
    is_json = path.suffix.lower() == ".json" or (path.is_dir() and not find_colmap_model(path))
    for view, lens in enumerate(loaded.distortion if is_json else ()):
        if named := _AMBIGUOUS_IN_JSON & {name for name, value in lens.items() if value}:
            raise InvalidInputError(
                f"path {path}: frame {view} has distortion {', '.join(sorted(named))}, which "
                "programs read in different ways; undistort the pictures with the one that wrote "
                "it."
            )


# ---- where the pictures are ---------------------------------------------------------------------


def find_pictures(loaded: CameraFile, path: Path, images: Path | None) -> list[Path]:
    """The picture file of each camera.

    Args:
        loaded: the cameras and the names of their pictures.
        path: the camera file or folder that they were read from.
        images: the folder of the pictures; ``None`` looks where such files have it.

    Raises:
        InvalidInputError: a picture is missing, comes twice, or leads out of the folder.
    """
    if images is not None and not images.is_dir():
        raise InvalidInputError(f"images {images} is no folder; give the folder of the pictures.")
    folder = folder_of_pictures(path) if images is None else images
    if loaded.names:
        return _by_name(loaded.names, folder, path, anywhere=images is not None)
    if images is None:
        raise InvalidInputError(
            f"path {path} does not name its pictures; give their folder as images."
        )
    files = [file for file in folder.iterdir() if file.suffix.lower() in _PICTURES]
    files = sorted((file for file in files if file.is_file()), key=lambda file: in_order(file.name))
    if len(files) != len(loaded.cameras):
        raise InvalidInputError(
            f"images {folder} holds {len(files)} picture(s) for {len(loaded.cameras)} cameras of "
            f"{path}, which does not name them; give one picture for each camera, in order."
        )
    return files


def folder_of_pictures(path: Path) -> Path:
    """Of a COLMAP model ``images`` beside it or beside ``sparse``; else where the file lies.

    Raises:
        InvalidInputError: a COLMAP model has no such folder.
    """
    folder = path if path.is_dir() else path.parent
    found = find_colmap_model(folder)
    is_model = path.is_dir() or path.suffix.lower() in (".bin", ".txt")
    if found is None or not is_model:
        return folder
    model = Path(os.path.abspath(found[0]))
    places = [model]
    if model.name.isdigit():
        places.append(model.parent)
    if places[-1].name == "sparse":
        places.append(places[-1].parent)
    for place in places:
        if (place / "images").is_dir():
            return place / "images"
    raise InvalidInputError(
        f"path {path}: the COLMAP model has no folder 'images' beside it; give the folder of its "
        "pictures as images."
    )


def in_order(name: str) -> list[tuple[int, str]]:
    """To sort names of pictures by; numbers count as numbers: 9.png comes before 10.png."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _by_name(names: tuple[str, ...], folder: Path, path: Path, *, anywhere: bool) -> list[Path]:
    files, missing = list[Path](), list[str]()
    for name in names:
        # In a folder that was named, the pictures may lie without the folders in their names.
        candidates = [name, name.replace("\\", "/").rpartition("/")[2]] if anywhere else [name]
        inside = [file for file in (_inside(folder, text) for text in candidates) if file]
        if not inside:
            raise InvalidInputError(
                f"path {path} names the picture {name!r:.200}, which leads out of {folder}; give "
                "the folder of the pictures as images."
            )
        spellings = (file for place in inside for file in _spellings(place))
        # Most are found at once: the others are not looked for then.
        there = next((file for file in spellings if file.is_file()), None)
        files += [there] if there else []
        missing += [] if there else [name]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise InvalidInputError(
            f"path {path}: {', '.join(missing[:_MOST_NAMED])}{more} of {len(names)} pictures are "
            f"not in {folder}; put them there, or give their folder as images."
        )
    if len(set(files)) < len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise InvalidInputError(f"path {path}: several cameras name the picture {twice}.")
    return files


def _inside(folder: Path, name: str) -> Path | None:
    """The file of a name, unless it leads out of the folder."""
    name = name.replace("\\", "/")
    if not name or not name.isprintable():
        return None
    file = (folder / name).resolve()
    return file if file.is_relative_to(folder.resolve()) else None


def _spellings(file: Path) -> list[Path]:
    """Blender's files leave the suffix out."""
    return [file, *(file.with_name(file.name + suffix) for suffix in _PICTURES)]


# ---- reading them -------------------------------------------------------------------------------


def _read_pictures(
    loaded: CameraFile,
    files: list[Path],
    max_side: int | None,
    undistort: bool,
    progress: Progress | None,
) -> tuple[Tensor, Tensor]:
    Ks_norm = loaded.cameras.Ks_norm.clone()
    to_pinhole = Undistorter()
    pictures, first = torch.empty(0), (0, 0)
    for view, file in enumerate(files):
        # The reconstruction saw the file's own rows and columns, whatever its EXIF data say.
        read = load_image(file, upright=not loaded.sizes)
        image = read.image
        if read.alpha is not None:
            image = image * read.alpha + (1 - read.alpha)
        height, width = image.shape[1:]
        check_shape(loaded, view, file, (width, height))
        if view == 0:
            first = (width, height)
            size = _smaller((width, height), max_side)
            pictures = torch.empty(len(files), 3, size[1], size[0])
        if (width, height) != first:
            raise InvalidInputError(
                f"image {file} has {width} x {height} pixels, but {files[0].name} has "
                f"{first[0]} x {first[1]}; bring the pictures to one size, or leave out those of "
                "another."
            )
        if undistort and loaded.distortion:
            lens = loaded.distortion[view]
            image, Ks_norm[view] = to_pinhole(image, Ks_norm[view], lens, file.name)
        pictures[view] = _resized(image, pictures.shape[2:])
        report(progress, view + 1, len(files), pictures[view : view + 1])
    return pictures, Ks_norm


def check_shape(loaded: CameraFile, view: int, file: Path, size: tuple[int, int]) -> None:
    """Refuse a picture that cannot be its camera's.

    Intrinsics are normalised: it may be of another size than they were made for, not shape.

    Args:
        loaded: the cameras.
        view: which of them.
        file: the picture, for the message.
        size: (width, height) of it in pixels.

    Raises:
        InvalidInputError: its shape is another.
    """
    width, height = size
    if loaded.sizes:
        expected, told = loaded.sizes[view], f"{loaded.sizes[view][0]} x {loaded.sizes[view][1]}"
        aspect = expected[0] / expected[1]
    else:
        aspect = float(picture_aspect(loaded.cameras)[view])
        told = f"{aspect:.3g} times as wide as high"
    if abs(width / height / aspect - 1.0) > SHAPE_TOLERANCE:
        raise InvalidInputError(
            f"image {file} has {width} x {height} pixels, but its camera is one of pictures that "
            f"are {told}; do pictures and cameras belong together?"
        )


def _smaller(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    if max_side is None or max(size) <= max_side:
        return size
    factor = max_side / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _resized(image: Tensor, size: torch.Size) -> Tensor:
    if image.shape[1:] == size:
        return image
    resized = F.interpolate(image[None], tuple(size), mode="bicubic", antialias=True)
    return resized[0].clamp(0, 1)


def read_points(loaded: CameraFile, path: Path) -> PointCloud | None:
    """The points that come with the cameras; an empty COLMAP model has none.

    Args:
        loaded: what was read, with the points' file.
        path: where from.

    Raises:
        InvalidInputError: the file is damaged, or leads out of the folder.
    """
    file = loaded.points
    if file is None:
        return None
    folder = path if path.is_dir() else path.parent
    if not file.resolve().is_relative_to(folder.resolve()):
        raise InvalidInputError(
            f"path {path} names the points {file}, which lead out of {folder}; put them there."
        )
    if file.stem == "points3D" and _is_empty(file):
        return None
    return load_points(file)


def _is_empty(file: Path) -> bool:
    """Whether a COLMAP model was written without points, as `save_cameras` does."""
    if file.suffix == ".bin":
        with file.open("rb") as stream:
            return stream.read(8) == bytes(8)
    with file.open(encoding="utf-8", errors="replace") as stream:
        return all(not line.strip() or line.startswith("#") for line in stream)
