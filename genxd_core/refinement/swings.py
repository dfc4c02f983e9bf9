"""Camera paths that leave a film's camera for other views and come back to it (App. C).

What a refinement needs: true frames that lead it, at cameras which the film has, and between them
what only the fitted scene shows. A still view elsewhere has no true frame to lead it; see
`genxd_core.refinement.video_to_4d` for what that makes of it.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.editing import at_positions, join, with_even_times
from ..cameras.orbit_between import orbit_between
from ..errors import InvalidInputError
from .multiview import each_frames_camera

__all__ = ["Swings", "same_cameras", "swing_paths"]

_ARC = 65  # cameras on the way to a view, between which is interpolated
_SAME = 1e-4  # of a rotation's entries, and of the cameras' distances from each other


@dataclass(frozen=True)
class Swings:
    """Paths from a film's camera to other views and back, all as long as the film.

    Attributes:
        paths: one for each view, with times from 0 to 1.
        conditions: frames of every path that are the film's own: first, last and some between.
    """

    paths: tuple[Cameras, ...]
    conditions: tuple[int, ...]

    @property
    def cameras(self) -> Cameras:
        """All paths one after another."""
        return join(*self.paths)


def swing_paths(
    input_cameras: Cameras, view_cameras: Cameras, num_frames: int, *, window: int = 12
) -> Swings:
    """Paths that go out to the views and back, so that every view is seen in each part of the film.

    The camera is the film's at each of ``conditions``; half-way between two of them it is at a
    view, and path k goes to views k, k + 1 and so on, beginning again after the last.

    Args:
        input_cameras: of the film: one that stands still, or one for each frame.
        view_cameras: to swing to, in the same world; those that are the film's are left out.
        num_frames: of the film, at least 3.
        window: frames that are refined at once, at least 3; each has the film's frames at about its
            ends and middle.

    Raises:
        InvalidInputError: a number that cannot be, or every view is the film's own camera.
    """
    if num_frames < 3:
        raise InvalidInputError(
            f"video has {num_frames} frames; a path that leaves its camera and comes back needs "
            "at least 3, typically 12."
        )
    if window < 3:
        raise InvalidInputError(
            f"window is {window}; expected at least 3 frames: two that lead and one between."
        )
    inputs = each_frames_camera(input_cameras, num_frames)
    still = [
        view
        for view in range(len(view_cameras))
        if not bool(same_cameras(view_cameras[[view] * num_frames], inputs).all())
    ]
    if not still:
        raise InvalidInputError(
            f"view_cameras has {len(view_cameras)} cameras, and every one of them is the video's "
            "own: there is nowhere to swing to. Give cameras that stand elsewhere."
        )
    conditions = _conditions(num_frames, min(window, num_frames))
    views = view_cameras[still]
    paths = tuple(_path(inputs, views, conditions, first) for first in range(len(still)))
    return Swings(paths, conditions)


def same_cameras(path: Cameras, others: Cameras) -> Bool[Tensor, " v"]:
    """Which cameras of a path are those of another one, place by place.

    Args:
        path: V cameras.
        others: V cameras of the same world.
    """
    c2w, theirs = path.c2w.cpu().double(), others.c2w.cpu().double()
    centres = torch.cat([c2w[:, :3, 3], theirs[:, :3, 3]])
    extent = (centres - centres[0]).norm(dim=-1).max()
    # Far from the origin, positions are rounded to coarse numbers.
    extent = torch.stack([extent, 1e-3 * centres.abs().max(), extent.new_tensor(1e-6)]).max()
    size = c2w.new_tensor([1.0, 1.0, 1.0, float(extent)])
    apart = ((c2w - theirs).abs() / size).amax((1, 2))
    lenses = (path.Ks_norm.cpu().double() - others.Ks_norm.cpu().double()).abs().amax((1, 2))
    return apart.maximum(lenses) <= _SAME


def _conditions(num_frames: int, window: int) -> tuple[int, ...]:
    """Evenly spread, at most half a window apart, with a frame between any two."""
    last = num_frames - 1
    parts = max(1, min(math.ceil(2 * last / (window - 1)), last // 2))
    return tuple(part * last // parts for part in range(parts + 1))


def _path(inputs: Cameras, views: Cameras, conditions: Sequence[int], first: int) -> Cameras:
    cameras = []
    for part, (start, end) in enumerate(itertools.pairwise(conditions)):
        view = views[[(first + part) % len(views)]]
        for frame in range(start, end):
            away = math.sin(math.pi * (frame - start) / (end - start))
            cameras.append(_between(inputs[[frame]], view, away))
    cameras.append(_between(inputs[[len(inputs) - 1]], views[[0]], 0.0))
    return with_even_times(join(*cameras))


def _between(one: Cameras, other: Cameras, share: float) -> Cameras:
    """A camera on the arc from one to another."""
    ends = [Cameras(camera.c2w, camera.Ks_norm) for camera in (one, other)]
    if share == 0.0:
        return ends[0]
    arc = orbit_between(join(*ends), _ARC)
    return at_positions(arc, torch.tensor([share * (_ARC - 1)]))
