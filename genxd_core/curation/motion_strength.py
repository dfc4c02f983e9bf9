"""How strongly the objects of a clip move by themselves (gamma, Sec. 3.2 and App. I)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..data.clip_file import ClipObject, RejectReason
from ..errors import InvalidInputError
from .motion_field import MotionField, motion_field
from .point_tracks import PointTracks

__all__ = [
    "MOTION_THRESHOLD",
    "ClipMotion",
    "Norm",
    "ObjectMotion",
    "Statistic",
    "estimate_motion_strength",
    "is_moving",
]

MOTION_THRESHOLD = 0.009
"""The least strength that counts as motion. App. I names it for renders of Objaverse-XL; for real
video the paper names none."""

Statistic = Literal["mean", "median"]
Norm = Literal["euclidean", "l1"]
Verdict = Literal["measured", "small", "brief", "too_few_tracks", "without_depth"]

_LEAST_SHARE = 0.002  # of a frame
_LEAST_FRAMES = 3
_LEAST_TRACKS = 8
_LEAST_PAIRS = 3


@dataclass(frozen=True)
class ObjectMotion:
    """What was measured of one object.

    Attributes:
        id: its label.
        frames: in which it is large enough.
        tracks: samples (a keypoint in a pair of frames) that were measured.
        pairs: of frames with enough of them.
        strength: its gamma; ``None`` where it was not measured.
        verdict: "measured", or why not: "small" (in too many frames), "brief" (in too few frames),
            "too_few_tracks", "without_depth" (tracked, but where no depth is known).
    """

    id: int
    frames: int
    tracks: int
    pairs: int
    strength: float | None
    verdict: Verdict

    def to_clip_object(self, name: str = "") -> ClipObject:
        """The entry of ``clip.json``."""
        return ClipObject(
            id=self.id,
            name=name,
            frames=self.frames,
            tracks=self.tracks,
            motion_strength=self.strength,
        )


@dataclass(frozen=True)
class ClipMotion:
    """What was measured of a clip.

    Attributes:
        strength: gamma of the clip, the maximum over its objects: a fraction of the picture between
            neighbouring frames, so proportional to their distance in time. ``None`` where nothing
            was measured.
        objects: of the clip, by their ids.
        reason: why the clip is to be rejected ("no_object", "too_few_tracks", "alignment_failed",
            "low_motion"), or ``None``.
        field: the displacements that were counted.
    """

    strength: float | None
    objects: tuple[ObjectMotion, ...]
    reason: RejectReason | None
    field: MotionField


def is_moving(strength: float, threshold: float = MOTION_THRESHOLD) -> bool:
    """Whether a strength counts as motion.

    Raises:
        InvalidInputError: the threshold or the strength is negative or NaN.
    """
    for name, value in (("strength", strength), ("threshold", threshold)):
        if not value >= 0:
            raise InvalidInputError(f"{name} is {value}, expected a number from 0 on.")
    return strength >= threshold


def estimate_motion_strength(
    tracks: PointTracks,
    depths: Float[Tensor, "t h w"],
    cameras: Cameras,
    *,
    statistic: Statistic = "mean",
    norm: Norm = "euclidean",
    threshold: float = MOTION_THRESHOLD,
    least_share: float = _LEAST_SHARE,
    least_frames: int = _LEAST_FRAMES,
    least_tracks: int = _LEAST_TRACKS,
    least_pairs: int = _LEAST_PAIRS,
) -> ClipMotion:
    """Measure the motion strength gamma of a clip (Eq. 3-4): 0 is still, 0.009 just moving.

    The strength of an object is the mean length of its displacements over all keypoints and pairs
    of neighbouring frames, that of a clip the maximum over its objects. It does not depend on the
    scale of the reconstruction.

    Args:
        tracks: of the clip's objects.
        depths: z-depth of its frames in the units of the cameras, 0 where it is unknown.
        cameras: of its frames.
        statistic: "mean" over the samples of an object (the paper), or "median".
        norm: length of (du / W, dv / H): "euclidean", or "l1", up to 1.41 times as long.
        threshold: a clip under this strength is told to have "low_motion".
        least_share: frames in which an object covers less do not count for it.
        least_frames: an object in fewer is left out.
        least_tracks: an object needs so many samples
        least_pairs: in each of so many pairs of frames.

    Raises:
        InvalidInputError: an unknown option, or what `motion_field` refuses.
    """
    for name, value, known in (
        ("statistic", statistic, get_args(Statistic)),
        ("norm", norm, get_args(Norm)),
    ):
        if value not in known:
            raise InvalidInputError(f"{name} is {value!r}, expected one of {', '.join(known)}.")
    limits = _Limits(least_share, least_frames, least_tracks, least_pairs)
    field = motion_field(tracks, depths, cameras)
    counted = tracks.shares >= least_share
    column = torch.full((max(tracks.objects, default=0) + 1,), -1)
    for number, one in enumerate(tracks.objects):
        column[one] = number
    field = field.of(counted[field.frame_i, column[field.object_id]])
    lengths = field.displacement.abs().sum(1) if norm == "l1" else field.displacement.norm(dim=1)
    objects = tuple(_objects(tracks, field, lengths, statistic, limits))
    measured = [one.strength for one in objects if one.strength is not None]
    strength = max(measured, default=None)
    return ClipMotion(strength, objects, _reason(objects, strength, threshold), field)


@dataclass(frozen=True)
class _Limits:
    share: float
    frames: int
    tracks: int
    pairs: int

    def full_pairs(self, frames: Tensor) -> int:
        """Pairs of frames with enough samples."""
        if len(frames) == 0:
            return 0
        return int((torch.bincount(frames) >= self.tracks).sum())


def _objects(
    tracks: PointTracks, field: MotionField, lengths: Tensor, statistic: Statistic, limits: _Limits
) -> Iterator[ObjectMotion]:
    for number, one in enumerate(tracks.objects):
        shares = tracks.shares[:, number]
        frames = int((shares >= limits.share).sum())
        mine = field.object_id == one
        pairs = limits.full_pairs(field.frame_i[mine])
        strength: float | None = None
        verdict: Verdict = "measured"
        if frames < limits.frames:
            verdict = "brief" if int((shares > 0).sum()) < limits.frames else "small"
        elif pairs < limits.pairs:
            tracked = tracks.kept & (tracks.object_id == one)
            enough = limits.full_pairs(tracks.frame_i[tracked]) >= limits.pairs
            verdict = "without_depth" if enough else "too_few_tracks"
        else:
            values = lengths[mine]
            strength = float(values.mean() if statistic == "mean" else values.quantile(0.5))
        yield ObjectMotion(one, frames, int(mine.sum()), pairs, strength, verdict)


def _reason(
    objects: tuple[ObjectMotion, ...], strength: float | None, threshold: float
) -> RejectReason | None:
    if strength is not None:
        return None if is_moving(strength, threshold) else "low_motion"
    verdicts = {one.verdict for one in objects}
    if "without_depth" in verdicts:
        return "alignment_failed"
    return "too_few_tracks" if "too_few_tracks" in verdicts else "no_object"
