"""A scene of a folder with pictures and a camera file: what COLMAP's and own captures share.

Nothing of a picture is read before it is called for: a lens gets its pinhole camera from the
picture size that the camera file tells, and each picture is turned into that camera's when read.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.io import CameraFile, load_camera_file
from ..cameras.io.colmap_tracks import read_tracks
from ..cameras.undistort import Undistorter, pinhole_of_lens
from ..capture_masks import find_masks, read_mask
from ..captures import check_shape, find_pictures, in_order, read_points, refuse_ambiguous_lenses
from ..errors import InvalidInputError
from ..media import LoadedImage, image_size, load_image
from .layouts import naming_scene
from .scene import MeasuredMotion, Scene, SceneKind, median_depth

__all__ = ["capture_scene", "checked_decode_side"]


def capture_scene(
    scene_id: str,
    cameras: Path,
    images: Path | None = None,
    *,
    kind: SceneKind = "3d",
    masks: Path | None = None,
    depths: bool = True,
    decode_side: int | None = None,
    motion: MeasuredMotion | None = None,
) -> Scene:
    """Read the cameras of a capture, and where its pictures lie.

    Views of a COLMAP model come in the order of the pictures' names, numbers counting as numbers;
    others in the file's. Pictures without a camera are left out.

    Args:
        scene_id: for the scene and for messages.
        cameras: a COLMAP model, the folder around it, or a ``transforms.json`` or its folder.
        images: the folder of the pictures; ``None`` looks where such files have it.
        kind: a "4d" one gets ``times``: the pictures' places among all in their folder.
        masks: folder of masks, as `load_capture_masks` takes it; ``None`` for none.
        depths: read the points of the scene for ``view_depths``.
        decode_side: decode large JPEGs at a fraction of their size; see `load_image`.
        motion: measured strength.

    Returns:
        Cameras are float64, of the undistorted pictures. A transparent picture of a lens with
        distortion is composited on white and has no alpha left.

    Raises:
        BrokenSceneError: a file is missing or damaged, or a camera impossible.
    """
    with naming_scene(scene_id):
        loaded = load_camera_file(cameras, max_distortion=None, dtype=torch.float64)
        refuse_ambiguous_lenses(loaded, cameras)
        files = find_pictures(loaded, cameras, images)
        names = loaded.names or tuple(file.name for file in files)
        order = list(range(len(files)))
        if loaded.ids:
            order.sort(key=lambda view: in_order(names[view]))
        pinholes = [_pinhole(loaded, view, files[view]) for view in range(len(files))]
        mask_files = None if masks is None else find_masks(masks, names)
        shared = _Shared(loaded, files, names, mask_files, pinholes, decode_side)
        if kind == "3d":
            _refuse_passing_time(loaded.cameras)
        return Scene(
            scene_id,
            kind,
            Cameras(
                loaded.cameras.c2w[order],
                torch.stack([pinholes[view] for view in order]),
                None if kind == "3d" else _times([files[view] for view in order]),
            ),
            [_Picture(shared, view) for view in order],
            tuple(names[view] for view in order),
            masks=None if masks is None else [_Mask(shared, view) for view in order],
            motion=motion,
            view_depths=_depths(loaded, cameras, order) if depths else None,
        )


def checked_decode_side(decode_side: int | None) -> int | None:
    """Refuse an option of adapters that no picture can have.

    Raises:
        InvalidInputError: it is not positive.
    """
    if decode_side is not None and decode_side < 1:
        raise InvalidInputError(f"decode_side is {decode_side}, expected at least 1, or None.")
    return decode_side


@dataclass(frozen=True, eq=False)
class _Shared:
    """What the views of one scene share; lists are in the order of ``loaded``."""

    loaded: CameraFile
    files: list[Path]
    names: tuple[str, ...]
    masks: list[Path] | None
    pinholes: list[Tensor]
    decode_side: int | None
    to_pinhole: Undistorter = field(default_factory=Undistorter)
    # Its own, as masks may have another size: each keeps what it knows of the last one.
    mask_to_pinhole: Undistorter = field(default_factory=Undistorter)

    @property
    def upright(self) -> bool:
        """The reconstruction saw the file's own rows and columns, whatever its EXIF data say."""
        return not self.loaded.sizes

    def undistorted(self, image: Tensor, view: int, undistorter: Undistorter) -> Tensor:
        K_norm, lens = self.loaded.cameras.Ks_norm[view], self.loaded.distortion[view]
        where, pinhole = self.names[view], self.pinholes[view]
        return undistorter(image, K_norm, lens, where, pinhole=pinhole)[0]

    def is_distorted(self, view: int) -> bool:
        return bool(self.loaded.distortion) and any(self.loaded.distortion[view].values())


@dataclass(frozen=True, eq=False)
class _Picture:
    shared: _Shared
    view: int

    def __call__(self) -> LoadedImage:
        """Read the picture as its pinhole camera would have taken it."""
        shared, view = self.shared, self.view
        read = load_image(
            shared.files[view], upright=shared.upright, decode_side=shared.decode_side
        )
        height, width = read.image.shape[1:]
        check_shape(shared.loaded, view, shared.files[view], (width, height))
        if not shared.is_distorted(view):
            return read
        image = read.image
        if read.alpha is not None:
            image = image * read.alpha + (1 - read.alpha)
        return LoadedImage(shared.undistorted(image, view, shared.to_pinhole), None)


@dataclass(frozen=True, eq=False)
class _Mask:
    shared: _Shared
    view: int

    def __call__(self) -> Float[Tensor, "1 h w"]:
        """Read the mask at its picture's size, with the same distortion undone."""
        shared, view = self.shared, self.view
        assert shared.masks is not None
        size = image_size(
            shared.files[view], upright=shared.upright, decode_side=shared.decode_side
        )
        mask = read_mask(shared.masks[view], shared.names[view], upright=shared.upright, size=size)
        if shared.is_distorted(view):
            three = mask.expand(3, -1, -1)
            mask = shared.undistorted(three, view, shared.mask_to_pinhole)[:1]
        resized = F.interpolate(mask[None], size[::-1], mode="bilinear", antialias=True)
        return resized[0].clamp(0, 1)


# ---- cameras ------------------------------------------------------------------------------------


def _pinhole(loaded: CameraFile, view: int, file: Path) -> Tensor:
    K_norm = loaded.cameras.Ks_norm[view]
    lens = loaded.distortion[view] if loaded.distortion else {}
    if not any(lens.values()):
        return K_norm
    size = loaded.sizes[view] if loaded.sizes else image_size(file)
    # By numbers, so that neither the views of one lens nor later readings work it out anew.
    numbers = tuple(K_norm.flatten().tolist())
    try:
        return K_norm.new_tensor(_pinhole_numbers(numbers, tuple(lens.items()), size)).view(3, 3)
    except InvalidInputError as error:
        raise InvalidInputError(f"picture {file.name}: {error}") from error


@lru_cache(maxsize=4096)
def _pinhole_numbers(
    K_norm: tuple[float, ...], lens: tuple[tuple[str, float], ...], size: tuple[int, int]
) -> tuple[float, ...]:
    of_lens = torch.tensor(K_norm, dtype=torch.float64).view(3, 3)
    pinhole = pinhole_of_lens(
        of_lens, dict(lens), width=size[0], height=size[1], where="its camera"
    )
    return tuple(pinhole.flatten().tolist())


def _refuse_passing_time(cameras: Cameras) -> None:
    if cameras.times is not None and bool((cameras.times != cameras.times[0]).any()):
        raise InvalidInputError(
            "its pictures have different times, but it is read as a still scene; remove 'time' "
            "from the camera file if nothing moves."
        )


def _times(files: list[Path]) -> Float[Tensor, " v"]:
    """Places in [0, 1] among all pictures of the folder, so that missing ones leave their gap."""
    suffixes = {file.suffix for file in files}
    beside = {file for folder in {f.parent for f in files} for file in folder.iterdir()}
    frames = sorted(
        {file for file in beside if file.suffix in suffixes} | set(files),
        key=lambda file: in_order(file.as_posix()),
    )
    places = {file: place for place, file in enumerate(frames)}
    numbers = torch.tensor([places[file] for file in files], dtype=torch.float64)
    return numbers / max(1, len(frames) - 1)


def _depths(loaded: CameraFile, path: Path, order: list[int]) -> Float[Tensor, " v"] | None:
    """Median depths of the points that each view observes; of all points, where none is told."""
    viewmats = loaded.cameras.viewmats
    if loaded.points is None:
        return None
    if loaded.ids:
        tracks = read_tracks(loaded.points)
        seen = [tracks.seen_in(loaded.ids[view]) for view in order]
    else:
        points = read_points(loaded, path)
        if points is None:
            return None
        seen = [points.xyz.double()] * len(order)
    return torch.tensor(
        [median_depth(xyz, viewmats[v]) for xyz, v in zip(seen, order, strict=True)]
    )
