"""The few-view evaluation sets of ReconFusion, packed for torch.

A root is the folder of one set (re10k, llff, dtu, co3d or mipnerf) in the published layout::

    index.json      {scene: file}, files relative to the root
    <file>          of ``torch.save``: a list whose first entry is the scene's dictionary

The dictionary has

- ``cameras``: (N, 18): fx, fy, cx, cy, divided by the picture's width and height; two zeros; the
  3 x 4 world-to-camera pose, row by row, with OpenCV axes (+X right, +Y down, +Z forward). It is
  RealEstate10K's row without the time. Positions are in the set's own units.
- ``images``: N one-dimensional uint8 tensors, each a whole encoded picture (JPEG or PNG).
- ``train_test_split_3``, ``_6``, ``_9``: dictionaries with ``train_ids`` (the given views) and
  ``test_ids`` (those to be compared), positions in the two lists above.

Files are read as plain tensors (``weights_only``): they cannot run code.
"""

import io
import json
import pickle
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from PIL import ExifTags, Image
from torch import Tensor

from ...cameras.cameras import Cameras
from ...errors import InvalidInputError
from ...media import LoadedImage
from ...pictures import from_pil
from ..layouts import named_inside, naming_scene, unknown_scene, wrong_layout
from ..scene import Scene, SceneKind, expect_folder

__all__ = ["NEAR_FAR", "ReconFusion"]

NEAR_FAR: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "re10k": (1.0, 100.0),
        "llff": (10.0, 100.0),
        "dtu": (1.125, 4.25),
        "co3d": (0.5, 40.0),
        "mipnerf": (0.1, 1e5),
    }
)
"""Nearest and farthest depth of each set, in its own units, as its published readers have it."""

_VIDEOS = ("re10k", "co3d")  # the others are photographs in no order that could be relied on
_INDEX = "index.json"
_LAYOUT = f"the folder of one set ({', '.join(NEAR_FAR)}) with its {_INDEX}"
_COLUMNS = 18


class ReconFusion:
    """Scenes of one of ReconFusion's sets.

    Attributes:
        name: "reconfusion".
        kind: "3d".
        has_depth: False.
        root: of the set.
        subset: which set it is, a name in `NEAR_FAR`; None where the folder's name does not tell.
    """

    name: str = "reconfusion"
    kind: SceneKind = "3d"
    has_depth: bool = False

    def __init__(self, root: Path, *, subset: str | None = None) -> None:
        """Read the index.

        Args:
            root: of the set.
            subset: which set it is; None goes by the folder's name.

        Raises:
            InvalidInputError: the root has another layout, the index is damaged, or the subset is
                not known.
        """
        self.root = expect_folder(Path(root), self.name, _LAYOUT)
        if subset is not None and subset not in NEAR_FAR:
            raise InvalidInputError(f"subset is {subset!r}, expected one of {', '.join(NEAR_FAR)}.")
        named = self.root.resolve().name
        self.subset = subset or (named if named in NEAR_FAR else None)
        index = self.root / _INDEX
        if not index.is_file():
            raise wrong_layout(self.root, self.name, _LAYOUT)
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InvalidInputError(f"{index} is damaged ({error}); download it again.") from error
        if not isinstance(content, dict) or not content:
            raise InvalidInputError(f"{index} names no scenes; expected {{scene: file}}.")
        self._files: Mapping[str, Path] = {
            scene: named_inside(self.root, name, _INDEX) for scene, name in content.items()
        }
        self._ids = tuple(sorted(self._files))

    @property
    def scene_ids(self) -> tuple[str, ...]:
        """All scenes of the index, sorted."""
        return self._ids

    @property
    def near_far(self) -> tuple[float, float] | None:
        """Nearest and farthest depth of the set; None where it is not known which it is."""
        return None if self.subset is None else NEAR_FAR[self.subset]

    def scene(self, scene_id: str) -> Scene:
        """All views of a scene; their encoded pictures are held until the scene is dropped.

        Raises:
            InvalidInputError: there is no such scene.
            BrokenSceneError: its file is missing, damaged, or holds impossible cameras.
        """
        content = self._read(scene_id)
        with naming_scene(scene_id):
            cameras = _cameras(content.get("cameras"))
            images = content.get("images")
            if not isinstance(images, list) or not all(isinstance(i, Tensor) for i in images):
                raise InvalidInputError("images is no list of tensors.")
        return Scene(
            scene_id,
            self.kind,
            cameras,
            [partial(_decode, encoded, f"images[{i}]") for i, encoded in enumerate(images)],
            [f"{view:05d}" for view in range(len(images))],
            ordered=self.subset in _VIDEOS,
        )

    def split(self, scene_id: str, given: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The published split of a scene's views.

        Args:
            scene_id: of the scene.
            given: how many views are given: 3, 6 or 9.

        Returns:
            Positions of the given views, and of those to compare.

        Raises:
            InvalidInputError: there is no such scene.
            BrokenSceneError: it has no such split, or one of other views than it has.
        """
        content = self._read(scene_id)
        with naming_scene(scene_id):
            key = f"train_test_split_{given}"
            if not isinstance(split := content.get(key), dict):
                there = sorted(k for k in content if str(k).startswith("train_test_split_"))
                raise InvalidInputError(
                    f"there is no split for {given} given views; it has {', '.join(there)}."
                )
            try:
                train, test = (tuple(map(int, split[k])) for k in ("train_ids", "test_ids"))
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise InvalidInputError(
                    f"{key} has no readable train_ids and test_ids ({error!r})."
                ) from error
            count = len(content.get("images", ()))
            if any(not 0 <= view < count for view in (*train, *test)):
                raise InvalidInputError(f"{key} names views beyond the {count} that there are.")
        return train, test

    def _read(self, scene_id: str) -> dict[str, Any]:
        if scene_id not in self._files:
            raise unknown_scene(scene_id, self.name, f"called as in {_INDEX}")
        path = self._files[scene_id]
        with naming_scene(scene_id):
            if not path.is_file():
                raise InvalidInputError(f"its file {path} does not exist.")
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
            except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
                first = str(error).partition("\n")[0]
                raise InvalidInputError(
                    f"its file {path} is damaged, or more than plain tensors ({first:.200}); "
                    "download it again."
                ) from error
            if not isinstance(content, list) or not content or not isinstance(content[0], dict):
                raise InvalidInputError(f"its file {path} is no list that begins with a dictionary")
            return content[0]


def _cameras(rows: object) -> Cameras:
    if not isinstance(rows, Tensor) or rows.ndim != 2 or rows.shape[1] != _COLUMNS:
        got = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise InvalidInputError(f"cameras is {got}; expected a tensor (N, {_COLUMNS}).")
    table: Float[Tensor, "v 18"] = rows.double()
    Ks_norm = torch.eye(3, dtype=torch.float64).repeat(len(table), 1, 1)
    Ks_norm[:, [0, 1, 0, 1], [0, 1, 2, 2]] = table[:, :4]
    w2c = torch.eye(4, dtype=torch.float64).repeat(len(table), 1, 1)
    w2c[:, :3] = table[:, 6:].reshape(-1, 3, 4)
    return Cameras.from_w2c(w2c, Ks_norm)


def _decode(encoded: Tensor, name: str) -> LoadedImage:
    """The picture of a tensor of an encoded file's bytes."""
    if encoded.dtype != torch.uint8 or encoded.ndim != 1:
        raise InvalidInputError(
            f"{name} is {tuple(encoded.shape)} in {encoded.dtype}; expected the bytes of a picture."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded.numpy().tobytes())) as picture:
                # Cameras are of the rows and columns as they are stored.
                picture.getexif().pop(ExifTags.Base.Orientation, None)
                return LoadedImage(*from_pil(picture))
    except (
        *(OSError, SyntaxError, ValueError),
        *(Image.DecompressionBombError, Image.DecompressionBombWarning),
    ) as error:
        raise InvalidInputError(f"{name} is a damaged picture ({error}).") from error
