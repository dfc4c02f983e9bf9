"""Objaverse-XL animation: animated objects rendered along noisy orbits (Sec. 5.1, App. I).

The authors' renders are not published, so this layout is ours. One folder an object::

    <id>/VVV_TTT.png            RGBA; view VVV at time TTT, three or more digits each, from 000 on
    <id>/VVV_TTT_depth.npy      optional: float (H, W), distance along the camera's +Z, 0 = nothing
    <id>/cameras.json           a camera for each picture
    <id>/clip.json              optional: ``motion_strength`` and ``stride``, as the curation writes

``cameras.json`` is this project's camera file (OpenCV axes, normalised intrinsics) whose entries
have one key more, ``name``: the picture's, without .png. ``time`` in [0, 1] is where the frame lies
in the animation; poses and depths are in one unit of the renderer's choice. For example::

    {"format": "genxd-cameras", "version": 1, "cameras": [
      {"name": "000_000", "time": 0.0, "fx": 1.0938, "fy": 1.0938, "cx": 0.5, "cy": 0.5,
       "c2w": [[-1, 0, 0, 0], [0, 0, -1, 2], [0, -1, 0, 0], [0, 0, 0, 1]]}, ...]}

A scene is one moving video along its orbit: times go with views, so its frames are the pictures
whose view and time are the same number. Others in the folder (the same time from other views) are
left to evaluations.

How to render: the object within the unit sphere, at F times spread evenly over its animation, time
i from view i of `genxd_core.cameras.noisy_orbit.noisy_orbit`: azimuths 2 pi i / F + uniform noise
within +-pi / F, elevations with five random sinusoids added; a transparent background; z-depth from
the renderer. The curation measures the motion strength from the depth; the paper keeps objects of
at least 0.009 (44K of 80K).
"""

import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...cameras.cameras import Cameras
from ...cameras.io.native_json import FORMAT_NAME, read_native
from ...errors import InvalidInputError
from ...media import load_image
from ..clip_file import measured_motion
from ..layouts import naming_scene, unknown_scene, wrong_layout
from ..scene import Scene, SceneKind, expect_folder

__all__ = ["ObjaverseAnimation"]

_CAMERAS = "cameras.json"
_CLIP = "clip.json"
_LAYOUT = f"a folder for each object, with {_CAMERAS} and pictures VVV_TTT.png"
_NAME = re.compile(r"(\d{3,})_(\d{3,})", re.ASCII)


class ObjaverseAnimation:
    """Videos of animated objects.

    Attributes:
        name: "objaverse_animation".
        kind: "4d".
        has_depth: True; frames without a depth file have NaN.
        root: of the dataset.
    """

    name: str = "objaverse_animation"
    kind: SceneKind = "4d"
    has_depth: bool = True

    def __init__(self, root: Path) -> None:
        """List the objects.

        Args:
            root: of the dataset.

        Raises:
            InvalidInputError: no folder in it has cameras.
        """
        self.root = expect_folder(Path(root), self.name, _LAYOUT)
        there = (entry.name for entry in self.root.iterdir() if (entry / _CAMERAS).is_file())
        self._ids = tuple(sorted(there))
        if not self._ids:
            raise wrong_layout(self.root, self.name, _LAYOUT)

    @property
    def scene_ids(self) -> tuple[str, ...]:
        """All objects, sorted."""
        return self._ids

    def scene(self, scene_id: str) -> Scene:
        """The video of an object, with the median depth of each frame.

        Raises:
            InvalidInputError: there is no such object.
            BrokenSceneError: no picture's view and time are the same, one of those has no camera or
                is missing, or a file is damaged.
        """
        if scene_id not in self._ids:
            raise unknown_scene(scene_id, self.name, "called as the objects' folders")
        folder = self.root / scene_id
        with naming_scene(scene_id):
            files, cameras = _read_video(folder)
            return Scene(
                scene_id,
                self.kind,
                cameras,
                [partial(load_image, file, upright=False) for file in files],
                [file.name for file in files],
                masks=[partial(_read_mask, file) for file in files],
                motion=measured_motion(folder, scene_id),
                view_depths=torch.tensor([_read_depth(file) for file in files]),
            )


def _read_video(folder: Path) -> tuple[list[Path], Cameras]:
    """The pictures whose view is their time, in its order, and their cameras with times."""
    path = folder / _CAMERAS
    content = _read_json(path)
    if content.get("format") != FORMAT_NAME:
        raise InvalidInputError(
            f"{path.name} has the format {content.get('format')!r}; expected {FORMAT_NAME!r}."
        )
    cameras = read_native(content, path).cameras
    if cameras.times is None:
        raise InvalidInputError(f"{path.name} has no times; give each camera one.")
    names = [str(entry.get("name")) for entry in content["cameras"]]
    place = {name: index for index, name in enumerate(names)}
    if len(place) < len(names) or not all(map(_NAME.fullmatch, names)):
        raise InvalidInputError(
            f"{path.name} lacks names, or has one twice; expected VVV_TTT for each camera."
        )
    there = {file.stem for file in folder.glob("*.png") if _is_frame(file.stem)}
    listed = {name for name in names if _is_frame(name)}
    if alone := sorted(there ^ listed):
        lacks = f"{path.name} has no camera for" if alone[0] in there else "there is no picture"
        raise InvalidInputError(f"{lacks} {alone[0]}.png.")
    if not listed:
        raise InvalidInputError(
            f"none of its {len(names)} cameras has the same view and time; expected 000_000, "
            "001_001 and so on."
        )
    frames = sorted(listed, key=lambda name: int(name.partition("_")[0]))
    return [folder / f"{name}.png" for name in frames], cameras[[place[name] for name in frames]]


def _is_frame(name: str) -> bool:
    """Whether a picture belongs to the video: its view is its time."""
    match = _NAME.fullmatch(name)
    return match is not None and int(match[1]) == int(match[2])


def _read_mask(file: Path) -> Float[Tensor, "1 h w"]:
    alpha = load_image(file, upright=False).alpha
    if alpha is None:
        raise InvalidInputError(f"image {file} has no transparency; render it as RGBA.")
    return alpha


def _read_depth(picture: Path) -> float:
    """Median of the depths of what is seen; NaN where there is no depth file or nothing."""
    file = picture.with_name(f"{picture.stem}_depth.npy")
    if not file.is_file():
        return math.nan
    try:
        depth = np.load(file, allow_pickle=False)
        seen = depth[np.isfinite(depth) & (depth > 0)]
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise InvalidInputError(f"{file.name} is damaged, or no numbers ({error}).") from error
    return float(np.median(seen)) if len(seen) else math.nan


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path.name} is damaged ({error}); write it again.") from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path.name} holds a JSON {type(content).__name__}, no object.")
    return content
