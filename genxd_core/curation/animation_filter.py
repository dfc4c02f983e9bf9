"""Which renders of animated objects show motion (Objaverse-XL animation, App. I).

Cameras and depth are the renderer's, so nothing is estimated but the tracks: keypoints spread
evenly over the object in the first view are followed along, and Eq. 3-4 tell how far they moved.
The paper keeps 44K of 80K objects by this.

Dimension letters: t frames, n keypoints.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ..cameras.cameras import Cameras
from ..data.clip_file import RejectReason
from ..errors import InvalidInputError
from ..pictures import check_pictures
from .motion_strength import MOTION_THRESHOLD, ClipMotion, Norm, Statistic, estimate_motion_strength
from .point_tracks import LucasKanade, PointTracker, PointTracks, pairs_from_points

__all__ = ["AnimationMotion", "even_keypoints", "measure_animation"]

_KEYPOINTS = 100


@dataclass(frozen=True)
class AnimationMotion:
    """What was measured of a render.

    Attributes:
        is_kept: whether it moves by at least the threshold.
        reason: why not: "no_object", "too_few_tracks" or "low_motion"; ``None`` if it is kept.
        motion: of its one object, number 1.
        tracks: of its keypoints.
    """

    is_kept: bool
    reason: RejectReason | None
    motion: ClipMotion
    tracks: PointTracks


def measure_animation(
    images: Float[Tensor, "t 3 h w"],
    depths: Float[Tensor, "t h w"],
    cameras: Cameras,
    *,
    masks: Bool[Tensor, "t h w"] | None = None,
    tracker: PointTracker | None = None,
    num_keypoints: int = _KEYPOINTS,
    threshold: float = MOTION_THRESHOLD,
    statistic: Statistic = "mean",
    norm: Norm = "euclidean",
) -> AnimationMotion:
    """Measure the motion strength of one render, frame by frame (App. I).

    Args:
        images: the render, in [0, 1].
        depths: its z-depth in the units of the cameras, 0 where nothing is.
        cameras: of its frames.
        masks: True on the object; where depth is known, if ``None``.
        tracker: `LucasKanade` by default. The larger the camera's steps, the more a tracker with
            weights finds.
        num_keypoints: spread over the object in the first view; about so many.
        threshold: renders of at least this strength are kept.
        statistic: as for `estimate_motion_strength`.
        norm: as for `estimate_motion_strength`.

    Raises:
        InvalidInputError: shapes that do not fit, numbers out of range, or a tracker that cannot
            run.
    """
    masks = depths > 0 if masks is None else masks
    _check(images, masks, num_keypoints)
    tracker = tracker or LucasKanade()
    missing = tracker.available()
    if missing is not None:
        raise InvalidInputError(f"tracker {tracker.name} cannot run: {missing}")
    xy = even_keypoints(masks[0].cpu(), count=num_keypoints)
    first = torch.zeros(len(xy), dtype=torch.long)
    points = tracker.track(images, first, xy)
    tracks = pairs_from_points(points, first + 1, masks.long())
    motion = estimate_motion_strength(
        tracks, depths, cameras, statistic=statistic, norm=norm, threshold=threshold
    )
    return AnimationMotion(motion.reason is None, motion.reason, motion, tracks)


def even_keypoints(mask: Bool[Tensor, "h w"], *, count: int) -> Float[Tensor, "n 2"]:
    """Pixels of a mask on an even grid, about ``count``; x and y in pixels, at pixel centres.

    Args:
        mask: of the object.
        count: wished for; a small or ragged object has fewer.
    """
    height, width = mask.shape
    pixels = int(mask.sum())
    step = max(1.0, math.sqrt(pixels / count))
    y = (torch.arange(0.5 * step, height, step)).floor().long()
    x = (torch.arange(0.5 * step, width, step)).floor().long()
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    on = mask[rows, columns]
    return torch.stack([columns[on], rows[on]], dim=1).float() + 0.5


def _check(images: Shaped[Tensor, "..."], masks: Shaped[Tensor, "..."], count: int) -> None:
    check_pictures(images, "images")
    expected = (len(images), *images.shape[2:])
    if tuple(masks.shape) != expected:
        raise InvalidInputError(
            f"masks (or depths) have shape {tuple(masks.shape)}; expected {expected}, one for each "
            "of the images and of their size."
        )
    if len(images) < 2:
        raise InvalidInputError("images has a single frame; motion needs at least 2.")
    if count < 1:
        raise InvalidInputError(f"num_keypoints is {count}, expected at least 1.")
