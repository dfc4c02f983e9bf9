"""RealEstate10K and ACID: clips of videos with the path of a moving camera through a still scene.

What is published is one text a clip, in folders of splits or directly below the root::

    [<split>/]<clip>.txt

with the address of the video in the first line, then a row of 19 numbers for each frame: the time
in the video in microseconds; fx, fy, cx, cy, divided by the picture's width and height; two zeros;
and the 3 x 4 world-to-camera pose, row by row, with OpenCV axes (+X right, +Y down, +Z forward).
Positions are in a unit of each clip's own reconstruction. Rows of 18 numbers, without the time, are
read too.

Frames are not published; they have to be cut from the videos. Their layout here is ours::

    frames/<clip>/<time>.jpg            below the root, or <clip>/ beside the text; or .png

The name of a picture is the time of its row. Pictures of other names are taken in order, if there
are as many as rows. As videos vanish and clips are cut short, rows whose picture is not there are
left out; a clip without pictures cannot be used.

Scenes are called ``[<split>/]<clip>``. Times run from 0 to 1 over all rows of the text.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ...cameras.io.camera_file import MAX_DISTORTION
from ...cameras.io.realestate import read_realestate, read_timestamps
from ...captures import in_order
from ...errors import InvalidInputError
from ...media import load_image
from ..layouts import naming_scene, unknown_scene, wrong_layout
from ..scene import Scene, SceneKind, expect_folder

__all__ = ["ACID", "RealEstate10K"]

_LAYOUT = "texts <clip>.txt, in it or in folders such as train and test, and frames/<clip>"
_FRAMES = "frames"
_PICTURES = (".jpg", ".jpeg", ".png")


class RealEstate10K:
    """Clips of RealEstate10K.

    Attributes:
        name: "realestate10k".
        kind: "3d".
        has_depth: False.
        root: of the dataset.
    """

    name: str = "realestate10k"
    kind: SceneKind = "3d"
    has_depth: bool = False

    def __init__(self, root: Path, *, split: str | None = None) -> None:
        """List the clips by the names of their texts.

        Args:
            root: of the dataset.
            split: the only folder of texts that is used, such as "train"; None takes all, and the
                texts directly below the root.

        Raises:
            InvalidInputError: there is no text, or no such split.
        """
        self.root = expect_folder(Path(root), self.name, _LAYOUT)
        folders = {f.name: f for f in sorted(self.root.iterdir()) if f.is_dir()}
        splits = {n: f for n, f in folders.items() if n != _FRAMES and any(f.glob("*.txt"))}
        if split is not None and split not in splits:
            raise InvalidInputError(
                f"split is {split!r}, which is no folder of texts below {self.root}; expected "
                f"{' or '.join(splits) or 'none, for the texts lie in no folder'}."
            )
        used = [self.root, *splits.values()] if split is None else [splits[split]]
        texts = [file for folder in used for file in folder.glob("*.txt")]
        if not texts:
            raise wrong_layout(self.root, self.name, _LAYOUT)
        self._texts: Mapping[str, Path] = {
            file.relative_to(self.root).with_suffix("").as_posix(): file for file in texts
        }
        self._ids = tuple(sorted(self._texts))

    @property
    def scene_ids(self) -> tuple[str, ...]:
        """All clips that have a text, sorted; whether they have pictures `scene` finds out."""
        return self._ids

    def scene(self, scene_id: str) -> Scene:
        """Those frames of a clip whose pictures are there.

        Raises:
            InvalidInputError: there is no such clip.
            BrokenSceneError: there is no picture, or a row cannot be read.
        """
        if scene_id not in self._texts:
            raise unknown_scene(scene_id, self.name, "called as the texts, with their folder")
        path = self._texts[scene_id]
        with naming_scene(scene_id):
            text = path.read_text(encoding="utf-8", errors="replace")
            cameras = read_realestate(text, path, max_distortion=MAX_DISTORTION).cameras
            found = self._pictures(path, read_timestamps(text), len(cameras))
        return Scene(
            scene_id,
            self.kind,
            cameras[list(found)],
            [partial(load_image, file, upright=False) for file in found.values()],
            [file.name for file in found.values()],
        )

    def _pictures(self, text: Path, times: Sequence[str], rows: int) -> dict[int, Path]:
        """The picture of each row that has one, in the order of the rows."""
        places = [self.root / _FRAMES / text.stem, text.with_suffix("")]
        folder = next((place for place in places if place.is_dir()), None)
        if folder is None:
            raise InvalidInputError(
                f"its pictures are not there; expected the folder {places[0]} (or {places[1]}) "
                "with a picture for each row, named by its time."
            )
        files = [file for file in folder.iterdir() if file.suffix.lower() in _PICTURES]
        files.sort(key=lambda file: in_order(file.name))
        row_of = {time: row for row, time in enumerate(times)}
        named = {row_of[file.stem]: file for file in files if file.stem in row_of}
        if len(named) < len(files) == rows:
            return dict(enumerate(files))
        if not named:
            raise InvalidInputError(
                f"{folder} holds {len(files)} pictures for {rows} rows, none of them named by the "
                f"time of a row{f', such as {times[0]}.jpg' if times else ''}; name them so, or "
                "give one for each row."
            )
        return dict(sorted(named.items()))


class ACID(RealEstate10K):
    """Clips of ACID (aerial views of coasts), in the layout of RealEstate10K.

    Attributes:
        name: "acid".
    """

    name: str = "acid"
