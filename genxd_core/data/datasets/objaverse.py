"""Objaverse: renders of single objects, as Zero-1-to-3's script makes them.

Layout: ``<object>/NNN.png`` (RGBA, square) with ``<object>/NNN.npy`` beside it, from 000 on; 12
views in the published set, any number here, in no order. Each ``.npy`` is the (3, 4) pose,
world-to-camera, with Blender's axes (right, up, backward); units are Blender's, the object within a
unit cube about the origin, the world +Z up. All have one lens: 35 mm on 32 mm, 49.13 degrees, a
normalised focal length of 1.0938.

The alpha channel is the object's mask; pictures are composited on white when they are fitted.
"""

from collections.abc import Sequence
from pathlib import Path

from ...cameras.conventions import Ks_norm_from_focal
from ..layouts import checked_scene_id, expect_layout, subfolders
from ..rendered_views import BLENDER_FOCAL_NORM, rendered_scene
from ..scene import Scene, SceneKind, expect_folder

__all__ = ["Objaverse"]

_LAYOUT = "folders <object>, each with pictures 000.png and poses 000.npy and so on"


class Objaverse:
    """Renders of Objaverse's objects.

    Args:
        root: with a folder for each object.
        focal_norm: focal length as a fraction of the pictures' side.

    Raises:
        InvalidInputError: the root is none of the layout, or the focal length impossible.
    """

    name: str = "objaverse"
    kind: SceneKind = "3d"
    has_depth: bool = False

    def __init__(self, root: Path, *, focal_norm: float = BLENDER_FOCAL_NORM) -> None:
        self._root = expect_folder(root, self.name, _LAYOUT)
        self._K_norm = Ks_norm_from_focal(focal_norm)
        found = subfolders(self._root)
        self._ids = expect_layout(found, self._is_scene, self._root, self.name, _LAYOUT)

    @property
    def scene_ids(self) -> Sequence[str]:
        """Names of the objects' folders, sorted."""
        return self._ids

    def scene(self, scene_id: str) -> Scene:
        """Read one object's cameras.

        Raises:
            BrokenSceneError: a picture or pose is missing, or a pose damaged or impossible.
        """
        folder = self._root / checked_scene_id(self._ids, scene_id, self.name)
        return rendered_scene(scene_id, folder, axes="opengl", K_norm=self._K_norm, masks=True)

    def _is_scene(self, scene_id: str) -> bool:
        return any((self._root / scene_id).glob("*.npy"))
