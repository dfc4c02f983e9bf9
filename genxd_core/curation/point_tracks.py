"""Keypoints on objects and where they are found in the next frame (Sec. 3.2).

A point tracker is a provider: it says by ``available()`` what it lacks, and it downloads nothing.
Two are here, both of Lucas and Kanade's kind and without weights: one in PyTorch, one of OpenCV.
Trackers with weights (TAPIR, CoTracker) fit the same protocol, and finished tracks from elsewhere
go through `pairs_from_points`.

Dimension letters: t frames, n keypoints or samples, k objects.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ..errors import InvalidInputError, MissingDependencyError
from ..optional import require
from ..pictures import check_pictures
from .lucas_kanade import find_corners, follow_points, pyramid, to_grey
from .subpixel import inside, nearest_at

__all__ = [
    "FATES",
    "FollowedPoints",
    "LucasKanade",
    "OpenCVLucasKanade",
    "PointTracker",
    "PointTracks",
    "choose_tracker",
    "object_shares",
    "pairs_from_points",
    "sample_keypoints",
    "track_objects",
]

FATES = ("kept", "lost", "inconsistent", "out_of_frame", "off_object")
"""What became of a keypoint: kept; the tracker lost it; following it back did not lead to where it
started; it left the frame; it landed outside of its object."""

_ERODED_PX = 3
_MOST_KEYPOINTS = 60  # of an object in a frame
_FORWARD_BACKWARD_PX = 1.0


@dataclass(frozen=True)
class FollowedPoints:
    """What a tracker returns.

    Attributes:
        xy: in pixels, the first pixel's centre at (0.5, 0.5); of no meaning where not visible.
        visible: whether the tracker is sure of the place.
        inconsistent: where it is not, because following the point back led elsewhere.
    """

    xy: Float[Tensor, "n t 2"]
    visible: Bool[Tensor, "n t"]
    inconsistent: Bool[Tensor, "n t"] | None = None


@runtime_checkable
class PointTracker(Protocol):
    """A provider of point tracks.

    Attributes:
        name: by which settings and reports call it.
        licence: of the method and its weights.
        is_long_term: whether it can follow points through a whole clip; keypoints are then drawn
            once, else anew in every frame.
    """

    name: str
    licence: str
    is_long_term: bool

    @property
    def version(self) -> str:
        """Of the method and its weights, for reports."""
        ...

    def available(self) -> str | None:
        """Say what is missing and where to put it; ``None`` if it can run."""
        ...

    def track(
        self,
        images: Float[Tensor, "t 3 h w"],
        frame: Int[Tensor, " n"],
        xy: Float[Tensor, "n 2"],
        *,
        steps: int | None = None,
    ) -> FollowedPoints:
        """Follow points forward in time.

        Args:
            images: the clip, in [0, 1].
            frame: in which each point is given.
            xy: where, in pixels; the first pixel's centre is (0.5, 0.5).
            steps: for so many frames after that, at most; ``None`` for all.

        Returns:
            The places in all frames of the clip; not visible before ``frame`` and after ``steps``.
        """
        ...


@dataclass(frozen=True)
class PointTracks:
    """Keypoints in a frame i and where each was found in the next one, j = i + 1.

    Attributes:
        frame_i: of each sample.
        object_id: of each sample, from 1 on.
        xy_i: in frame i, in pixels; the first pixel's centre is (0.5, 0.5).
        xy_j: in frame j; of no meaning where the tracker lost it.
        fate: of each sample, an index into `FATES`.
        objects: ids of all objects of the clip, ascending, whether they have keypoints or not.
        shares: of each frame that each of ``objects`` covers.
        height: of the frames in pixels.
        width: of the frames in pixels.
    """

    frame_i: Int[Tensor, " n"]
    object_id: Int[Tensor, " n"]
    xy_i: Float[Tensor, "n 2"]
    xy_j: Float[Tensor, "n 2"]
    fate: Int[Tensor, " n"]
    objects: tuple[int, ...]
    shares: Float[Tensor, "t k"]
    height: int
    width: int

    @property
    def kept(self) -> Bool[Tensor, " n"]:
        """Which samples are to be used."""
        return self.fate == 0

    @property
    def counts(self) -> dict[str, int]:
        """How many samples met each of `FATES`."""
        return {name: int((self.fate == code).sum()) for code, name in enumerate(FATES)}

    def __len__(self) -> int:
        return len(self.frame_i)


# ---- providers ----------------------------------------------------------------------------------

_Prepared = TypeVar("_Prepared")


class _PairwiseTracker(ABC, Generic[_Prepared]):
    """Follows points from frame to frame, and back as a check."""

    licence = "Apache-2.0"
    is_long_term = False

    def __init__(self, forward_backward_px: float = _FORWARD_BACKWARD_PX) -> None:
        """Make the tracker.

        Args:
            forward_backward_px: a point that is followed there and back must return this near.
        """
        if not forward_backward_px > 0:
            raise InvalidInputError(
                f"forward_backward_px is {forward_backward_px}, expected more than 0, such as 1."
            )
        self.forward_backward_px = forward_backward_px

    def track(
        self,
        images: Float[Tensor, "t 3 h w"],
        frame: Int[Tensor, " n"],
        xy: Float[Tensor, "n 2"],
        *,
        steps: int | None = None,
    ) -> FollowedPoints:
        """Follow points forward in time; see `PointTracker.track`."""
        frames, count = len(images), len(xy)
        prepared = [self._prepared(image) for image in images.detach().cpu()]
        places = torch.zeros(count, frames, 2)
        visible = torch.zeros(count, frames, dtype=torch.bool)
        inconsistent = torch.zeros_like(visible)
        index = torch.arange(count)
        places[index, frame], visible[index, frame] = xy.detach().cpu().float(), True
        for i in range(frames - 1):
            active = visible[:, i]
            if steps is not None:
                active = active & (i - frame < steps)
            start = places[active, i]
            if len(start) == 0:
                continue
            arrived, found = self._follow(prepared[i], prepared[i + 1], start)
            back, returned = self._follow(prepared[i + 1], prepared[i], arrived)
            near = (back - start).norm(dim=1) < self.forward_backward_px
            places[active, i + 1] = arrived
            inconsistent[active, i + 1] = found & ~(returned & near)
            visible[active, i + 1] = found & returned & near
        return FollowedPoints(places, visible, inconsistent)

    @abstractmethod
    def _prepared(self, image: Tensor) -> _Prepared:
        """What following needs of a frame, made once."""

    @abstractmethod
    def _follow(
        self, first: _Prepared, second: _Prepared, xy: Tensor
    ) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
        """Places in the second frame, and which of them are found."""


class LucasKanade(_PairwiseTracker[list[Tensor]]):
    """Pyramidal Lucas-Kanade in PyTorch: runs wherever the library does."""

    name = "lucas-kanade"
    version = "1"

    def available(self) -> str | None:
        """It needs nothing."""
        return None

    def _prepared(self, image: Tensor) -> list[Tensor]:
        return pyramid(to_grey(image))

    def _follow(
        self, first: list[Tensor], second: list[Tensor], xy: Tensor
    ) -> tuple[Tensor, Tensor]:
        return follow_points(first, second, xy)


class OpenCVLucasKanade(_PairwiseTracker[np.ndarray]):
    """Pyramidal Lucas-Kanade of OpenCV."""

    name = "opencv-lucas-kanade"
    _purpose = "track points with OpenCV"
    _window = (15, 15)
    _levels = 3

    @property
    def version(self) -> str:
        """OpenCV's."""
        return str(require("cv2", extra="curate", purpose=self._purpose).__version__)

    def available(self) -> str | None:
        """Say whether OpenCV is installed."""
        try:
            require("cv2", extra="curate", purpose=self._purpose)
        except MissingDependencyError as error:
            return str(error)
        return None

    def _prepared(self, image: Tensor) -> np.ndarray:
        grey = (to_grey(image) * 255).round().clamp(0, 255)
        return np.asarray(grey.to(torch.uint8).numpy())

    def _follow(self, first: np.ndarray, second: np.ndarray, xy: Tensor) -> tuple[Tensor, Tensor]:
        cv2 = require("cv2", extra="curate", purpose=self._purpose)
        # OpenCV has the first pixel's centre at (0, 0).
        start = (xy - 0.5).numpy().reshape(-1, 1, 2).astype(np.float32)
        arrived, status, _ = cv2.calcOpticalFlowPyrLK(
            first, second, start, None, winSize=self._window, maxLevel=self._levels
        )
        places = torch.from_numpy(np.asarray(arrived, np.float32).reshape(-1, 2)) + 0.5
        height, width = first.shape
        found = torch.from_numpy(np.asarray(status).reshape(-1) > 0)
        return places, found & inside(places, height=height, width=width)


def choose_tracker(trackers: Sequence[PointTracker] | None = None) -> PointTracker:
    """The first tracker that can run.

    Args:
        trackers: in the order of preference; by default `LucasKanade` alone, which always can, so
            that results do not depend on what happens to be installed.

    Raises:
        InvalidInputError: none can; the message says what each lacks.
    """
    lacking = []
    for tracker in (LucasKanade(),) if trackers is None else trackers:
        reason = tracker.available()
        if reason is None:
            return tracker
        lacking.append(f"{tracker.name}: {reason}")
    raise InvalidInputError(f"no point tracker can run. {' '.join(lacking) or 'None was given.'}")


# ---- keypoints and pairs ------------------------------------------------------------------------


def sample_keypoints(
    image: Float[Tensor, "3 h w"],
    mask: Bool[Tensor, "h w"],
    *,
    most: int = _MOST_KEYPOINTS,
    eroded_px: int = _ERODED_PX,
) -> Float[Tensor, "n 2"]:
    """Corners of an object, away from its outline, best first; x and y in pixels."""
    shrunk = mask.float()[None, None]
    if eroded_px > 0:
        # Beyond the picture nothing is known, so its border does not erode.
        shrunk = 1 - torch.nn.functional.max_pool2d(1 - shrunk, 2 * eroded_px + 1, 1, eroded_px)
    return find_corners(to_grey(image), shrunk[0, 0] > 0.5, most=most)


def object_shares(
    object_ids: Int[Tensor, "t h w"],
) -> tuple[tuple[int, ...], Float[Tensor, "t k"]]:
    """Ids of a clip's objects, ascending, and of each frame the share that each covers."""
    found = [int(one) for one in object_ids.unique() if one > 0]
    shares = [(object_ids == one).double().mean(dim=(1, 2)) for one in found]
    empty = torch.zeros(len(object_ids), 0, dtype=torch.float64)
    return tuple(found), torch.stack(shares, dim=1) if shares else empty


def track_objects(
    images: Float[Tensor, "t 3 h w"],
    object_ids: Int[Tensor, "t h w"],
    tracker: PointTracker | None = None,
    *,
    most: int = _MOST_KEYPOINTS,
    eroded_px: int = _ERODED_PX,
) -> PointTracks:
    """Draw keypoints on every object and find each in the next frame.

    With a tracker from frame to frame, keypoints are drawn anew in every frame; with a long-term
    one, once, in the first frame that shows the object.

    Args:
        images: the clip, in [0, 1].
        object_ids: 0 for background, k for object k; the same number is the same object.
        tracker: `LucasKanade` by default.
        most: keypoints of an object in a frame, at most.
        eroded_px: keypoints keep this far from the outline.

    Raises:
        InvalidInputError: shapes that do not fit, under two frames, pictures out of range, numbers
            out of range, or a tracker that cannot run.
    """
    _check_clip(images, object_ids)
    if most < 1 or eroded_px < 0:
        raise InvalidInputError(
            f"most is {most} and eroded_px {eroded_px}; expected at least 1 keypoint and an "
            "erosion of 0 pixels or more."
        )
    tracker = tracker or LucasKanade()
    missing = tracker.available()
    if missing is not None:
        raise InvalidInputError(f"tracker {tracker.name} cannot run: {missing}")
    images, object_ids = images.detach().cpu().float(), object_ids.detach().cpu().long()
    objects, shares = object_shares(object_ids)
    frames, owners, places = [], list[Tensor](), list[Tensor]()
    for column, one in enumerate(objects):
        shown = shares[:-1, column].nonzero()[:, 0].tolist()
        for i in shown[:1] if tracker.is_long_term else shown:
            xy = sample_keypoints(images[i], object_ids[i] == one, most=most, eroded_px=eroded_px)
            frames.append(torch.full((len(xy),), i))
            owners.append(torch.full((len(xy),), one))
            places.append(xy)
    nothing = torch.zeros(0, dtype=torch.long)
    frame, owner = torch.cat([nothing, *frames]), torch.cat([nothing, *owners])
    xy = torch.cat([torch.zeros(0, 2), *places])
    steps = None if tracker.is_long_term else 1
    points = tracker.track(images, frame, xy, steps=steps)
    last = None if steps is None else frame + steps
    return pairs_from_points(points, owner, object_ids, last=last)


def pairs_from_points(
    points: FollowedPoints,
    owner: Int[Tensor, " n"],
    object_ids: Int[Tensor, "t h w"],
    *,
    last: Int[Tensor, " n"] | None = None,
) -> PointTracks:
    """Samples of neighbouring frames from points that were followed through a clip.

    Args:
        points: with places in all frames.
        owner: object of each point.
        object_ids: 0 for background, k for object k.
        last: frame that each point was followed to; ``None`` for the clip's last.

    Returns:
        A sample for each point and frame that it is seen on its own object in, but the last.

    Raises:
        InvalidInputError: points of another number of frames.
    """
    frames, height, width = object_ids.shape
    count, told, _ = points.xy.shape
    if told != frames or len(owner) != count:
        raise InvalidInputError(
            f"points are {count} in {told} frames, with {len(owner)} owners, and object_ids has "
            f"{frames} frames; give one owner a point and tracks through the same frames."
        )
    object_ids, owner = object_ids.detach().cpu().long(), owner.detach().cpu().long()
    xy, seen = points.xy.detach().cpu().float(), points.visible.detach().cpu()
    finite = xy.isfinite().all(-1)
    landed = torch.stack([nearest_at(object_ids[i], xy[:, i]) for i in range(frames)], dim=1)
    within = inside(xy.flatten(0, 1), height=height, width=width).view(count, frames)
    fate = torch.where(landed == owner[:, None], 0, FATES.index("off_object"))
    fate[~within] = FATES.index("out_of_frame")
    fate[~seen | ~finite] = FATES.index("lost")
    if points.inconsistent is not None:
        fate[points.inconsistent.cpu()] = FATES.index("inconsistent")
    asked = fate[:, :-1] == 0
    if last is not None:
        asked &= torch.arange(frames - 1) < last.cpu()[:, None]
    point, i = asked.nonzero(as_tuple=True)
    order = torch.argsort(i, stable=True)
    point, i = point[order], i[order]
    objects, shares = object_shares(object_ids)
    return PointTracks(
        frame_i=i,
        object_id=owner[point],
        xy_i=xy[point, i],
        xy_j=xy[point, i + 1],
        fate=fate[point, i + 1],
        objects=objects,
        shares=shares,
        height=height,
        width=width,
    )


def _check_clip(images: Shaped[Tensor, "..."], object_ids: Shaped[Tensor, "..."]) -> None:
    check_pictures(images, "images")
    expected = (len(images), *images.shape[2:])
    if tuple(object_ids.shape) != expected:
        raise InvalidInputError(
            f"object_ids has shape {tuple(object_ids.shape)}; expected {expected}, one label map "
            "for each of the images and of their size."
        )
    if len(images) < 2:
        raise InvalidInputError("images has a single frame; motion needs at least 2.")
