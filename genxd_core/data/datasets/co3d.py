"""CO3D, version 2: videos of everyday objects, reconstructed with COLMAP.

The published layout, below the root::

    <category>/frame_annotations.jgz        a gzipped JSON list of frames
    <category>/sequence_annotations.jgz     a gzipped JSON list of sequences (optional here)
    <category>/<sequence>/images/frame000001.jpg
    <category>/<sequence>/masks/frame000001.png     8 bits, probability of the object

Of a frame these are read: ``sequence_name``, ``frame_number``, ``image`` (``path`` relative to the
root, ``size`` as height, width), ``mask`` (``path``, or null) and ``viewpoint``. Of a sequence:
``sequence_name`` and ``viewpoint_quality_score``.

Cameras are PyTorch3D's: ``x_cam = x_world R + T`` for row vectors, +X left, +Y up, +Z forward.
``focal_length`` and ``principal_point`` are in normalised device coordinates, whose unit depends on
``intrinsics_format``: in "ndc_isotropic" half the picture's smaller side along both axes, in the
older "ndc_norm_image_bounds" (also what a missing entry means) half of each side along its axis.
Positions are in the unit of each sequence's reconstruction.

Scenes are called ``<category>/<sequence>``. The set comes in parts: sequences that the annotations
list and whose folder is not there are left out.
"""

import gzip
import json
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...cameras.cameras import Cameras
from ...cameras.conventions import SHAPE_TOLERANCE, pytorch3d_to_opencv
from ...errors import InvalidInputError
from ...media import LoadedImage, load_image
from ..layouts import named_inside, naming_scene, unknown_scene, wrong_layout
from ..scene import Scene, SceneKind, expect_folder

__all__ = ["Co3D"]

_FRAMES = "frame_annotations.jgz"
_SEQUENCES = "sequence_annotations.jgz"
_LAYOUT = f"folders of categories, each with {_FRAMES} and folders of sequences (CO3D version 2)"
_NUMBERS = 16  # of a frame: R row by row, T, focal length, principal point
_FORMATS = ("ndc_isotropic", "ndc_norm_image_bounds")


class Co3D:
    """Scenes of CO3D version 2.

    The constructor lists the categories. A category's annotations are read once, when its first
    scene or `scene_ids` is asked for, and kept as a compact index (some 500 bytes a frame);
    `scene_ids` therefore reads those of all chosen categories at its first use.

    Attributes:
        name: "co3d".
        kind: "3d".
        has_depth: False.
        root: of the dataset.
        categories: that are used.
    """

    name: str = "co3d"
    kind: SceneKind = "3d"
    has_depth: bool = False

    def __init__(
        self,
        root: Path,
        *,
        categories: Sequence[str] | None = None,
        min_quality: float | None = None,
        masks: bool = True,
    ) -> None:
        """Find the categories.

        Args:
            root: of the dataset.
            categories: which to use; None takes all that are there.
            min_quality: smallest ``viewpoint_quality_score``; sequences below it, or without one,
                are left out. Needs the sequence annotations.
            masks: False leaves the masks out, for copies of the dataset without them.

        Raises:
            InvalidInputError: the root has another layout, or a category is not there.
        """
        self.root = expect_folder(Path(root), self.name, _LAYOUT)
        there = {folder.name for folder in self.root.iterdir() if (folder / _FRAMES).is_file()}
        if not there:
            raise wrong_layout(self.root, self.name, _LAYOUT)
        chosen = there if categories is None else set(categories)
        if not chosen or chosen - there:
            raise InvalidInputError(
                f"categories are {', '.join(sorted(chosen)) or 'none'}; expected some of those "
                f"below {self.root}: {', '.join(sorted(there))}."
            )
        self.categories = tuple(sorted(chosen))
        self._min_quality = min_quality
        self._masks = masks
        self._index: dict[str, dict[str, _Frames]] = {}

    @cached_property
    def scene_ids(self) -> tuple[str, ...]:
        """All scenes, sorted; the first use reads the annotations of all chosen categories.

        Raises:
            InvalidInputError: annotations are damaged, or no sequence is left.
        """
        ids = [f"{category}/{name}" for category in self.categories for name in self._of(category)]
        if not ids:
            quality = (
                "" if self._min_quality is None else f" of quality {self._min_quality} or more"
            )
            raise InvalidInputError(
                f"root of {self.name} is {self.root}, which has no sequence{quality} in "
                f"{', '.join(self.categories)}; expected folders {self.categories[0]}/<sequence> "
                "as the annotations list them."
            )
        return tuple(sorted(ids))

    def scene(self, scene_id: str) -> Scene:
        """The sequence ``<category>/<sequence>``, its frames in the order of the video.

        Raises:
            InvalidInputError: there is no such scene, or its category's annotations are damaged.
            BrokenSceneError: a picture or mask is missing, or an annotation impossible.
        """
        category, _, sequence = scene_id.partition("/")
        frames = self._of(category).get(sequence) if category in self.categories else None
        if frames is None:
            raise unknown_scene(scene_id, self.name, "called <category>/<sequence>")
        with naming_scene(scene_id):
            if frames.problem:
                raise InvalidInputError(frames.problem)
            order = sorted(range(len(frames.numbers)), key=frames.numbers.__getitem__)
            pictures = [self._file(frames.images[i], "picture") for i in order]
            cameras = _cameras(frames, order)
            named = [name for i in order if self._masks and (name := frames.masks[i])]
            masks = [self._file(name, "mask") for name in named]
        return Scene(
            scene_id,
            self.kind,
            cameras,
            [
                partial(_read, file, frames.sizes[i])
                for file, i in zip(pictures, order, strict=True)
            ],
            [file.name for file in pictures],
            # Annotations may leave the mask of a frame out; then the sequence has none.
            masks=[partial(_read_mask, f) for f in masks] if len(masks) == len(order) else None,
        )

    def _file(self, name: str, what: str) -> Path:
        file = named_inside(self.root, name, _FRAMES)
        if not file.is_file():
            hint = "; without masks, open the dataset with masks=False" if what == "mask" else ""
            raise InvalidInputError(f"the {what} {name} does not exist{hint}.")
        return file

    def _of(self, category: str) -> dict[str, "_Frames"]:
        """The sequences of a category that are used."""
        if category not in self._index:
            folder = self.root / category
            there = {entry.name for entry in folder.iterdir() if entry.is_dir()}
            good = self._good(folder)
            self._index[category] = {
                name: frames
                for name, frames in _read_frames(folder / _FRAMES).items()
                if name in there and (good is None or name in good)
            }
        return self._index[category]

    def _good(self, folder: Path) -> set[str] | None:
        """Names of the sequences of sufficient quality; None where that is not asked for."""
        if self._min_quality is None:
            return None
        if not (folder / _SEQUENCES).is_file():
            raise InvalidInputError(
                f"min_quality is {self._min_quality}, but {folder} has no {_SEQUENCES} to tell the "
                "quality; download it, or leave min_quality out."
            )
        entries = _read_list(folder / _SEQUENCES)
        try:
            scores = {str(e["sequence_name"]): e.get("viewpoint_quality_score") for e in entries}
            return {
                name
                for name, score in scores.items()
                if score is not None and float(score) >= self._min_quality
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"{folder / _SEQUENCES} has an entry that is no sequence ({error!r})."
            ) from error


@dataclass
class _Frames:
    """The annotations of one sequence, in the order of the file; compact, for there are many."""

    numbers: list[int] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    masks: list[str | None] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # height, width
    by_side: list[bool] = field(default_factory=list)  # the older NDC
    values: "array[float]" = field(default_factory=lambda: array("d"))
    problem: str = ""

    def add(self, frame: Mapping[str, Any]) -> None:
        """Append a frame; one that cannot be read becomes the sequence's problem."""
        number = frame.get("frame_number")
        try:
            view, image, mask = frame["viewpoint"], frame["image"], frame.get("mask")
            values = [float(x) for row in view["R"] for x in row] + [
                float(x) for key in ("T", "focal_length", "principal_point") for x in view[key]
            ]
            height, width = (int(side) for side in image["size"])
            ndc = str(view.get("intrinsics_format", _FORMATS[1])).lower()
            if len(values) != _NUMBERS or min(height, width) < 1 or ndc not in _FORMATS:
                raise ValueError(f"{len(values)} numbers, size {height} x {width}, format {ndc}")
            named = (int(frame["frame_number"]), str(image["path"]), mask and str(mask["path"]))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            self.problem = (
                f"the annotation of frame {number} cannot be read ({error!r}); expected image with "
                "path and size, and viewpoint with R (3 x 3), T, focal_length, principal_point and "
                f"intrinsics_format ({' or '.join(_FORMATS)})."
            )
            return
        self.numbers.append(named[0])
        self.images.append(named[1])
        self.masks.append(named[2] or None)
        self.sizes.append((height, width))
        self.by_side.append(ndc == _FORMATS[1])
        self.values.extend(values)


def _read_frames(path: Path) -> dict[str, _Frames]:
    sequences: dict[str, _Frames] = {}
    for frame in _read_list(path):
        if not isinstance(frame, dict) or not isinstance(frame.get("sequence_name"), str):
            raise InvalidInputError(f"{path} has an entry without sequence_name; copy it again.")
        sequences.setdefault(frame["sequence_name"], _Frames()).add(frame)
    return sequences


def _read_list(path: Path) -> list[Any]:
    """A gzipped JSON list."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InvalidInputError(
            f"{path} is damaged or cut off ({error}); download it again, or leave its category "
            "out of categories."
        ) from error
    if not isinstance(content, list):
        raise InvalidInputError(f"{path} holds a JSON {type(content).__name__}, no list.")
    return content


def _cameras(frames: _Frames, order: Sequence[int]) -> Cameras:
    values = torch.tensor(frames.values, dtype=torch.float64).reshape(-1, _NUMBERS)
    sizes = torch.tensor(frames.sizes)
    by_side = torch.tensor(frames.by_side)
    c2w, Ks_norm = values.new_zeros(len(values), 4, 4), values.new_zeros(len(values), 3, 3)
    for height, width in set(frames.sizes):
        here = (sizes == torch.tensor([height, width])).all(dim=1)
        rows = values[here]
        focal, principal = rows[:, 12:14], rows[:, 14:16]
        # From halves of each side to halves of the smaller side.
        per_side = rows.new_tensor([width, height]) / min(width, height)
        unit = torch.where(by_side[here, None], per_side, torch.ones_like(per_side))
        c2w[here], Ks_norm[here] = pytorch3d_to_opencv(
            rows[:, :9].reshape(-1, 3, 3),
            rows[:, 9:12],
            focal * unit,
            principal * unit,
            width=width,
            height=height,
        )
    return Cameras(c2w, Ks_norm)[list(order)]


def _read(file: Path, size: tuple[int, int]) -> LoadedImage:
    """A picture; its intrinsics are of the annotated shape."""
    read = load_image(file, upright=False)
    height, width = read.image.shape[1:]
    if abs(width / height / (size[1] / size[0]) - 1) > SHAPE_TOLERANCE:
        raise InvalidInputError(
            f"image {file} has {width} x {height} pixels, another shape than its annotation "
            f"({size[1]} x {size[0]})."
        )
    return read


def _read_mask(file: Path) -> Float[Tensor, "1 h w"]:
    return load_image(file, upright=False).image[:1]
