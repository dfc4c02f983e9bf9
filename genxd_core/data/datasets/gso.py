"""GSO: renders of 30 objects of Google Scanned Objects, for evaluation.

Layout, with square pictures ``NNN.png`` and (3, 4) world-to-camera poses ``NNN.npy`` in each:

- ``<object>/render_mvs_25/model``: 25 views, poses with Blender's axes (right, up, backward);
- ``<object>/render_sync_36_single/model``: 36 views, poses with **OpenCV's** axes.

One view of the 25 (000) is what models are given; the others, or the 36, are what they are measured
on. Units are Blender's, the world +Z up, the normalised focal length 1.0938 for both. Where the
pictures are transparent, their alpha channel is the object's mask.
"""

from collections.abc import Sequence
from pathlib import Path

from ...cameras.conventions import Ks_norm_from_focal
from ...errors import InvalidInputError
from ..layouts import checked_scene_id, expect_layout, subfolders
from ..rendered_views import BLENDER_FOCAL_NORM, RenderAxes, rendered_scene
from ..scene import Scene, SceneKind, expect_folder

__all__ = ["GSO"]

_FOLDERS: dict[str, tuple[str, RenderAxes]] = {
    "mvs_25": ("render_mvs_25/model", "opengl"),
    "sync_36": ("render_sync_36_single/model", "opencv"),
}


class GSO:
    """Renders of GSO's objects.

    Args:
        root: with a folder for each object.
        views: which of the two sets of views: "mvs_25" or "sync_36".
        focal_norm: focal length as a fraction of the pictures' side.

    Raises:
        InvalidInputError: there is no such set of views, the focal length is impossible, or the
            root is none of the layout.
    """

    name: str = "gso"
    kind: SceneKind = "3d"
    has_depth: bool = False

    def __init__(
        self,
        root: Path,
        *,
        views: str = "mvs_25",
        focal_norm: float = BLENDER_FOCAL_NORM,
    ) -> None:
        if views not in _FOLDERS:
            raise InvalidInputError(f"views is {views!r}, expected 'mvs_25' or 'sync_36'.")
        self._place, self._axes = _FOLDERS[views]
        layout = f"folders <object>/{self._place} with 000.png and 000.npy and so on"
        self._root = expect_folder(root, self.name, layout)
        self._K_norm = Ks_norm_from_focal(focal_norm)
        found = subfolders(self._root)
        self._ids = expect_layout(found, self._is_scene, self._root, self.name, layout)

    @property
    def scene_ids(self) -> Sequence[str]:
        """Names of the objects' folders, sorted."""
        return self._ids

    def scene(self, scene_id: str) -> Scene:
        """Read the cameras of one object's views.

        Raises:
            BrokenSceneError: a picture or pose is missing, or a pose damaged or impossible.
        """
        folder = self._root / checked_scene_id(self._ids, scene_id, self.name) / self._place
        return rendered_scene(scene_id, folder, axes=self._axes, K_norm=self._K_norm)

    def _is_scene(self, scene_id: str) -> bool:
        return (self._root / scene_id / self._place).is_dir()
