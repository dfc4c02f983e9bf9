"""``clip.json``: what the curation found out about a clip, beside its frames and COLMAP model.

The curation writes it and the reader of CamVid-30K reads it. Keys that this version does not know
are kept and written again; a file of a later ``version`` is refused.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from ..errors import InvalidInputError
from ..files import write_atomically
from .scene import BrokenSceneError, MeasuredMotion

__all__ = [
    "CLIP_FILE_NAME",
    "ClipCameras",
    "ClipFile",
    "ClipObject",
    "ClipStatus",
    "RejectReason",
    "RejectedClipError",
    "read_clip_file",
    "write_clip_file",
]

CLIP_FILE_NAME = "clip.json"
_VERSION = 1

ClipStatus = Literal["kept", "rejected", "failed"]
RejectReason = Literal[
    "too_few_frames",
    "mask_covers_frame",
    "no_reconstruction",
    "partial_registration",
    "low_triangulation",
    "high_reprojection_error",
    "no_object",
    "too_few_tracks",
    "low_motion",
    "alignment_failed",
]


class RejectedClipError(BrokenSceneError):
    """The curation did not keep this clip: nothing is damaged, but it is not to be trained on."""


@dataclass(frozen=True, kw_only=True)
class ClipObject:
    """One object of a clip.

    Attributes:
        id: its label in the clip's masks, from 1 on.
        name: class of it; empty where it is unknown.
        frames: that it is in.
        tracks: of keypoints on it that were followed.
        motion_strength: its gamma; ``None`` where too little of it was followed.
        others: further keys of the file.
    """

    id: int
    name: str = ""
    frames: int = 0
    tracks: int = 0
    motion_strength: float | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect(self.id >= 1, "id", self.id, "a number from 1 on")
        _expect_count(self, "frames", "tracks")
        _expect_measure(self, "motion_strength")


@dataclass(frozen=True, kw_only=True)
class ClipCameras:
    """How well the cameras of a clip were found; ``None`` where it was not measured.

    Attributes:
        registered: frames with a camera.
        frames: given to the reconstruction.
        points: of the reconstruction.
        reprojection_error_px: mean, in pixels.
        triangulated_fraction: keypoints of registered frames that became points, in [0, 1].
        focal_norm: focal length as a fraction of the picture's smaller side.
        others: further keys of the file.
    """

    registered: int = 0
    frames: int = 0
    points: int = 0
    reprojection_error_px: float | None = None
    triangulated_fraction: float | None = None
    focal_norm: float | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect_count(self, "registered", "frames", "points")
        _expect_measure(self, "reprojection_error_px", "triangulated_fraction", "focal_norm")


@dataclass(frozen=True, kw_only=True)
class ClipFile:
    """What ``clip.json`` holds.

    Attributes:
        status: "kept", "rejected" (with a reason) or "failed" (with the error as its reason).
        reason: empty for kept clips; one of `RejectReason` for rejected ones. A later version may
            know others.
        motion_strength: the paper's gamma (Sec. 3.3, Eq. 3-4): mean displacement between frames as
            a fraction of the picture, maximum over objects; not what the network takes
            (`gamma_to_motion_strength`). A kept clip has one.
        stride: between which of the clip's pictures gamma was measured; 1 for neighbours.
        fps: of the clip's pictures; ``None`` where it is unknown.
        objects: of the clip.
        cameras: summary of the reconstruction; ``None`` where it did not come to one.
        stages: of the curation by name, each with what it tells (seconds, settings, providers).
        version: of the file's schema.
        others: further keys of the file.
    """

    status: ClipStatus
    reason: str = ""
    motion_strength: float | None = None
    stride: int = 1
    fps: float | None = None
    objects: tuple[ClipObject, ...] = ()
    cameras: ClipCameras | None = None
    stages: Mapping[str, Any] = field(default_factory=dict)
    version: int = _VERSION
    others: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect_status(self.status)
        kept = self.status == "kept"
        _expect(
            bool(self.reason) != kept, "reason", self.reason, f"{'none' if kept else 'one'} here"
        )
        _expect_measure(self, "motion_strength", "fps")
        strength = self.motion_strength
        _expect(not kept or strength is not None, "motion_strength", strength, "one if kept")
        _expect(self.stride >= 1, "stride", self.stride, "a number from 1 on")
        _expect(self.fps is None or self.fps > 0, "fps", self.fps, "more than 0")
        _expect(
            1 <= self.version <= _VERSION,
            "version",
            self.version,
            f"at most {_VERSION}; a later release wrote it",
        )

    @property
    def motion(self) -> MeasuredMotion | None:
        """The strength with its stride; ``None`` where it was not measured."""
        strength = self.motion_strength
        return None if strength is None else MeasuredMotion(strength, self.stride)


def read_clip_file(path: str | Path) -> ClipFile:
    """Read a ``clip.json``.

    Raises:
        InvalidInputError: it is missing, no JSON, of a later version, or a key has a value that it
            cannot have; names file and key.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _from_content(content)
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"clip file {path} does not exist; run the curation on the clip, which writes it."
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidInputError(
            f"clip file {path} cannot be read ({error}); run the curation on the clip again."
        ) from error
    except InvalidInputError as error:
        raise InvalidInputError(f"clip file {path}: {error}") from error


def measured_motion(folder: Path, scene_id: str) -> MeasuredMotion | None:
    """The motion of a clip by the file in its folder; None where there is no such file.

    Raises:
        RejectedClipError: the curation did not keep the clip.
        BrokenSceneError: the file is damaged.
    """
    file = folder / CLIP_FILE_NAME
    if not file.exists():
        return None
    try:
        clip = read_clip_file(file)
    except InvalidInputError as error:
        raise BrokenSceneError(f"scene {scene_id}: {error}") from error
    if clip.status != "kept":
        raise RejectedClipError(
            f"scene {scene_id} is not to be used: {CLIP_FILE_NAME} calls it {clip.status} "
            f"({clip.reason})."
        )
    return clip.motion


def write_clip_file(clip: ClipFile, path: str | Path) -> None:
    """Write a ``clip.json``, whole or not at all; numbers that are unknown are left out.

    Raises:
        InvalidInputError: a rejected clip has none of the reasons, or something in ``stages`` or
            ``others`` cannot be written as JSON.
    """
    known = get_args(RejectReason)
    if clip.status == "rejected":
        _expect(clip.reason in known, "reason", clip.reason, f"one of {', '.join(known)}")
    try:
        text = json.dumps(_to_content(clip), indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"clip: {error}; give what JSON can hold.") from error
    write_atomically(Path(path), lambda unfinished: unfinished.write_bytes(text.encode()))


# ---- JSON ---------------------------------------------------------------------------------------

_Part = TypeVar("_Part", ClipFile, ClipObject, ClipCameras)


def _from_content(content: object) -> ClipFile:
    content = dict(_object(content, "the file"))
    objects = content.get("objects", [])
    _expect(isinstance(objects, list), "objects", objects, "a list")
    content["objects"] = tuple(
        _part(ClipObject, one, f"objects[{index}]") for index, one in enumerate(objects)
    )
    if content.get("cameras") is not None:
        content["cameras"] = _part(ClipCameras, content["cameras"], "cameras")
    content["stages"] = _object(content.get("stages", {}), "stages")
    return _part(ClipFile, content, "")


_WHOLE = {"id", "frames", "tracks", "registered", "points", "stride", "version"}
_TEXTS = {"status", "reason", "name"}
_MEASURES = {
    *{"motion_strength", "fps"},
    *{"reprojection_error_px", "triangulated_fraction", "focal_norm"},
}


def _part(kind: type[_Part], content: object, where: str) -> _Part:
    """An object of the file: keys that the class does not have go to ``others``."""
    given = dict(_object(content, where))
    known = {one.name: one for one in fields(kind) if one.name != "others"}
    values = {name: given.pop(name) for name in known if name in given}
    try:
        for name, value in values.items():
            _expect_kind(name, value)
        for name in {"status", "id"} & set(known):
            _expect(name in values, name, None, "a value")
        return kind(**values, others=given)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}" if where else str(error)) from error


def _expect_kind(name: str, value: object) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name in _WHOLE:
        _expect(is_number and isinstance(value, int), name, value, "a whole number")
    elif name in _MEASURES:
        _expect(is_number or value is None, name, value, "a number")
    elif name in _TEXTS:
        _expect(isinstance(value, str), name, value, "text")
    if name == "status":
        _expect_status(value)


def _expect_status(value: object) -> None:
    known = get_args(ClipStatus)
    _expect(value in known, "status", value, f"one of {', '.join(known)}")


def _to_content(part: ClipFile | ClipObject | ClipCameras) -> dict[str, Any]:
    content = dict[str, Any]()
    for one in fields(part):
        value = getattr(part, one.name)
        if one.name == "objects":
            value = [_to_content(item) for item in value]
        elif one.name == "cameras" and value is not None:
            value = _to_content(value)
        if one.name != "others" and value is not None:
            content[one.name] = value
    # Known keys win: what is kept of a file cannot replace them.
    return {**part.others, **content}


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{where} is {value!r:.60}, expected a JSON object.")
    return value


def _expect(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise InvalidInputError(f"{name} is {value!r:.60}, expected {expected}.")


def _expect_count(part: object, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        _expect(value >= 0, name, value, "a number from 0 on")


def _expect_measure(part: object, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        finite = value is None or (math.isfinite(value) and value >= 0)
        _expect(finite, name, value, "a finite number from 0 on")
