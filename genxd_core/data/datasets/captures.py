"""Own captures: photographs of still scenes with a COLMAP model or a ``transforms.json``.

Layout: the root is one capture, or a folder of captures. A capture has

- a COLMAP model (``cameras``, ``images`` and perhaps ``points3D`` as .bin or .txt) in ``sparse/0``,
  ``0``, ``sparse`` or the capture itself, and its pictures in ``images``; or
- nerfstudio's or Blender's ``transforms.json``, which names its pictures.

Beside ``images`` (or beside the ``transforms.json``) a folder ``masks`` may have a mask for each
picture under the same name, perhaps with another or one more suffix; white = object.

COLMAP's poses are world-to-camera with OpenCV axes, those of ``transforms.json`` camera-to-world
with OpenGL axes. The unit of length is the reconstruction's. Lens distortion is undone in each
picture (and mask) when it is read.
"""

from collections.abc import Sequence
from pathlib import Path

from ...cameras.io.colmap import find_colmap_model
from ...captures import folder_of_pictures
from ...errors import InvalidInputError
from ..capture_scene import capture_scene, checked_decode_side
from ..layouts import checked_scene_id, expect_layout, naming_scene, subfolders
from ..scene import Scene, SceneKind, expect_folder

__all__ = ["Captures"]

_LAYOUT = (
    "a capture or a folder of captures: each with a COLMAP model (in sparse/0, 0, sparse or by "
    "itself) and its pictures in images, or with a transforms.json"
)


class Captures:
    """Own captures; a root that is one capture has the folder's name as its only scene.

    Args:
        root: of the captures.
        masks: use folders ``masks`` where they are.
        depths: read the points of each scene for ``view_depths``.
        hold_out_every: leave one picture in so many out of each capture, from the middle of the
            first so many, to compare with afterwards (`genxd_core.lifting.comparison` chooses the
            same ones); 0 leaves none out.
        decode_side: decode large JPEGs at a fraction of their size, whose smaller side still has
            this many pixels (`load_image`); by default whole.

    Raises:
        InvalidInputError: the root is none of the layout, ``decode_side`` is not positive, or
            ``hold_out_every`` is 1 or negative.
    """

    name: str = "captures"
    kind: SceneKind = "3d"

    def __init__(
        self,
        root: Path,
        *,
        masks: bool = True,
        depths: bool = True,
        hold_out_every: int = 0,
        decode_side: int | None = None,
    ) -> None:
        self._root = expect_folder(root, self.name, _LAYOUT).resolve()
        if hold_out_every < 0 or hold_out_every == 1:
            raise InvalidInputError(
                f"hold_out_every is {hold_out_every}, expected 0 for none, or at least 2."
            )
        self._masks, self._hold_out_every = masks, hold_out_every
        self.has_depth = depths
        self._decode_side = checked_decode_side(decode_side)
        self._is_one = _is_capture(self._root)
        if self._is_one:
            self._ids: tuple[str, ...] = (self._root.name,)
            return
        found = [name for name in subfolders(self._root) if _is_capture(self._root / name)]
        self._ids = expect_layout(found, lambda _: True, self._root, self.name, _LAYOUT)

    @property
    def scene_ids(self) -> Sequence[str]:
        """Names of the captures' folders, sorted."""
        return self._ids

    def scene(self, scene_id: str) -> Scene:
        """Read one capture's cameras.

        Raises:
            BrokenSceneError: a file is missing or damaged, a camera impossible, or time passes.
        """
        checked_scene_id(self._ids, scene_id, self.name)
        folder = self._root if self._is_one else self._root / scene_id
        with naming_scene(scene_id):
            masks = self._folder_of_masks(folder)
        whole = capture_scene(
            scene_id, folder, masks=masks, depths=self.has_depth, decode_side=self._decode_side
        )
        every = self._hold_out_every
        if not every:
            return whole
        return whole.with_views([v for v in range(len(whole.names)) if v % every != every // 2])

    def _folder_of_masks(self, folder: Path) -> Path | None:
        if not self._masks:
            return None
        pictures = folder_of_pictures(folder)
        beside = pictures.parent if find_colmap_model(folder) else pictures
        return beside / "masks" if (beside / "masks").is_dir() else None


def _is_capture(folder: Path) -> bool:
    return find_colmap_model(folder) is not None or (folder / "transforms.json").is_file()
