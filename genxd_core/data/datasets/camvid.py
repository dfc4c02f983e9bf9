"""CamVid-30K: video of moving scenes with cameras (Sec. 3), and what our own curation writes.

Layout: ``<id>/images/*.jpg`` and ``<id>/0/{cameras,images,points3D}.bin`` (COLMAP's older layout of
three files), perhaps with ``0/project.ini``, which is not read. Clips may lie in folders of the
videos' origin (``VIPSeg/<id>``, ``OpenVid/<id>``): the scene is then called so. Poses are
world-to-camera with OpenCV axes, the unit of length is each reconstruction's own.

Strengths of motion are not in the published archive: ``<id>/clip.json`` has them
(`genxd_core.data.clip_file`). Without it the motion is unknown; a clip that it does not call "kept"
is refused.

Frames come in the order of the pictures' names, whatever COLMAP's numbers are; ``times`` are their
places among all pictures of the clip, in [0, 1].
"""

from collections.abc import Sequence
from pathlib import Path

from ..capture_scene import capture_scene, checked_decode_side
from ..clip_file import CLIP_FILE_NAME, measured_motion
from ..layouts import checked_scene_id, expect_layout, subfolders
from ..scene import Scene, SceneKind, expect_folder

__all__ = ["CamVid"]

_LAYOUT = "folders <id> or <origin>/<id>, each with images and a COLMAP model in 0"


class CamVid:
    """Clips in the layout of CamVid-30K.

    Args:
        root: of the clips, or of folders of clips.
        depths: read the points of each scene for ``view_depths``.
        decode_side: decode large JPEGs at a fraction of their size, whose smaller side still has
            this many pixels (`load_image`); by default whole.

    Raises:
        InvalidInputError: the root is none of the layout, or ``decode_side`` is not positive.
    """

    name: str = "camvid"
    kind: SceneKind = "4d"

    def __init__(self, root: Path, *, depths: bool = True, decode_side: int | None = None) -> None:
        self._root = expect_folder(root, self.name, _LAYOUT)
        self.has_depth = depths
        self._decode_side = checked_decode_side(decode_side)
        found = list[str]()
        for name in subfolders(self._root):
            if self._has_frames(name):
                found.append(name)
                continue
            inside = [f"{name}/{one}" for one in subfolders(self._root / name)]
            found += [scene_id for scene_id in inside if self._has_frames(scene_id)]
        self._ids = expect_layout(found, self._is_scene, self._root, self.name, _LAYOUT)

    @property
    def scene_ids(self) -> Sequence[str]:
        """``<id>`` or ``<origin>/<id>``, sorted; among them clips that were not kept."""
        return self._ids

    def scene(self, scene_id: str) -> Scene:
        """Read one clip's cameras and its measured motion.

        Raises:
            RejectedClipError: the curation did not keep the clip.
            BrokenSceneError: a file is missing or damaged, a camera impossible or without its
                picture.
        """
        folder = self._root / checked_scene_id(self._ids, scene_id, self.name)
        motion = measured_motion(folder, scene_id)
        return capture_scene(
            scene_id,
            folder / "0",
            folder / "images",
            kind="4d",
            motion=motion,
            depths=self.has_depth,
            decode_side=self._decode_side,
        )

    def _has_frames(self, scene_id: str) -> bool:
        return (self._root / scene_id / "images").is_dir()

    def _is_scene(self, scene_id: str) -> bool:
        # A clip that was not kept may have no model.
        folder = self._root / scene_id
        return (folder / "0").is_dir() or (folder / CLIP_FILE_NAME).is_file()
