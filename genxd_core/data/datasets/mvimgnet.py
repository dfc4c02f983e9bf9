"""MVImgNet: videos around objects of everyday life, cameras by COLMAP.

Layout: ``<class>/<id>/images`` and ``<class>/<id>/sparse/0/{cameras,images,points3D}.bin``; a scene
is ``<class>/<id>``. Poses are world-to-camera with OpenCV axes, the unit of length is each
reconstruction's own. Some reconstructions are partial: pictures without a camera are left out, and
views come in the order of the pictures' names. Lens distortion is undone when a picture is read.
"""

from collections.abc import Sequence
from pathlib import Path

from ..capture_scene import capture_scene
from ..layouts import checked_scene_id, expect_layout, subfolders
from ..scene import Scene, SceneKind, expect_folder

__all__ = ["MVImgNet"]

_LAYOUT = "folders <class>/<id>, each with images and sparse/0"


class MVImgNet:
    """Objects of MVImgNet.

    Args:
        root: with a folder for each class.
        depths: read the points of each scene for ``view_depths``.

    Raises:
        InvalidInputError: the root is none of the layout.
    """

    name: str = "mvimgnet"
    kind: SceneKind = "3d"

    def __init__(self, root: Path, *, depths: bool = True) -> None:
        self._root = expect_folder(root, self.name, _LAYOUT)
        self.has_depth = depths
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
        return capture_scene(scene_id, model, images, depths=self.has_depth)

    def _is_scene(self, scene_id: str) -> bool:
        folder = self._root / scene_id
        return (folder / "images").is_dir() and (folder / "sparse" / "0").is_dir()
