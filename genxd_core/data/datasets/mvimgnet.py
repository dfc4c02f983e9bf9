"""MVImgNet: videos around objects of everyday life, cameras by COLMAP.

Layout: ``<class>/<id>/images`` and ``<class>/<id>/sparse/0/{cameras,images,points3D}.bin``; a scene
is ``<class>/<id>``. Poses are world-to-camera with OpenCV axes, the unit of length is each
reconstruction's own. Some reconstructions are partial: pictures without a camera are left out, and
views come in the order of the pictures' names. Lens distortion is undone when a picture is read.
"""

from collections.abc import Sequence
from pathlib import Path

from ..capture_scene import capture_scene, checked_decode_side
from ..layouts import checked_scene_id, expect_layout, subfolders
from ..scene import Scene, SceneKind, expect_folder

__all__ = ["MVImgNet"]

_LAYOUT = "folders <class>/<id>, each with images and sparse/0"


class MVImgNet:
    """Objects of MVImgNet.

    Args:
        root: with a folder for each class.
        depths: read the points of each scene for ``view_depths``.
        decode_side: decode large JPEGs at a fraction of their size, whose smaller side still has
            this many pixels (`load_image`); by default whole.

    Raises:
        InvalidInputError: the root is none of the layout, or ``decode_side`` is not positive.
    """

    name: str = "mvimgnet"
    kind: SceneKind = "3d"

    def __init__(self, root: Path, *, depths: bool = True, decode_side: int | None = None) -> None:
        self._root = expect_folder(root, self.name, _LAYOUT)
        self.has_depth = depths
        self._decode_side = checked_decode_side(decode_side)
        classes = subfolders(self._root)
        found = [f"{one}/{scene}" for one in classes for scene in subfolders(self._root / one)]
        self._ids = expect_layout(found, self._is_scene, self._root, self.name, _LAYOUT)

    @property
    def scene_ids(self) -> Sequence[str]:
        """``<class>/<id>``, sorted."""
        return self._ids

    def scene(self, scene_id: str) -> Scene:
        """Read one object's cameras.

        Raises:
            BrokenSceneError: a file is missing or damaged, a camera impossible or without its
                picture.
        """
        folder = self._root / checked_scene_id(self._ids, scene_id, self.name)
        model, images = folder / "sparse" / "0", folder / "images"
        return capture_scene(
            scene_id, model, images, depths=self.has_depth, decode_side=self._decode_side
        )

    def _is_scene(self, scene_id: str) -> bool:
        folder = self._root / scene_id
        return (folder / "images").is_dir() and (folder / "sparse" / "0").is_dir()
