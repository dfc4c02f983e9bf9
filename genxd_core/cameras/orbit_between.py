"""The arc from one given camera to another, around what both look at."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InvalidInputError
from .cameras import Cameras
from .conventions import estimate_up
from .easing import Easing, eased
from .rotations import look_inward, slerp_rotations

__all__ = ["orbit_between"]

# Axes that meet farther away than this many baselines are as good as parallel.
_FARTHEST_PIVOT = 100.0


def orbit_between(
    cameras: Cameras,
    num_views: int,
    *,
    target: Sequence[float] | None = None,
    long_way: bool = False,
    easing: Easing = "linear",
) -> Cameras:
    """Orbit from the first of two cameras to the second, both included.

    Azimuth, elevation and distance about the target change evenly, and so does what each camera's
    orientation lacks to look straight at it. Where the viewing directions do not meet in front of
    both cameras and no target is given, the camera moves in a straight line and turns evenly.

    Args:
        cameras: exactly two; the upward direction is taken from them.
        num_views: how many cameras, at least 2.
        target: the point to go around; by default where the two viewing directions (nearly) meet.
        long_way: go around the other side, through more than 180 degrees.
        easing: speed along the way.

    Returns:
        Cameras in the dtype of the given ones; intrinsics and times are interpolated.

    Raises:
        InvalidInputError: not two cameras, fewer than two views, or a target at a camera's centre.
    """
    if len(cameras) != 2:
        raise InvalidInputError(
            f"cameras has {len(cameras)} views; an orbit between views needs exactly 2. Pick them "
            "with cameras[[i, j]], or use `interpolate` for more."
        )
    if num_views < 2:
        raise InvalidInputError(f"num_views is {num_views}; expected at least 2, the two ends.")
    fraction = eased(torch.linspace(0.0, 1.0, num_views, dtype=torch.float64), easing)
    poses = cameras.c2w.cpu().double()
    pivot = _meeting_point(poses) if target is None else _given_target(target, poses)
    if pivot is None:
        c2w = _straight(poses, fraction)
    else:
        c2w = _around(poses, pivot, estimate_up(cameras), fraction, long_way)
    c2w[0], c2w[-1] = poses
    Ks = cameras.Ks_norm.cpu().double()
    Ks_norm = torch.lerp(Ks[:1], Ks[1:], fraction[:, None, None])
    times = None
    if cameras.times is not None:
        first, last = cameras.times.cpu().double()
        times = torch.lerp(first, last, fraction).clamp(0, 1)
    return Cameras(c2w.to(cameras.dtype).to(cameras.device), Ks_norm, times)


def _given_target(target: Sequence[float], poses: Tensor) -> Tensor:
    pivot = torch.tensor([float(x) for x in target], dtype=torch.float64)
    if pivot.shape != (3,) or not bool(torch.isfinite(pivot).all()):
        raise InvalidInputError(f"target is {tuple(target)}; expected three finite numbers.")
    distances = (poses[:, :3, 3] - pivot).norm(dim=-1)
    if float(distances.min()) <= 1e-9 * max(1.0, float(distances.max())):
        raise InvalidInputError(
            f"target {tuple(target)} is where camera {int(distances.argmin())} stands; there is "
            "no circle around it. Give a point in front of both cameras."
        )
    return pivot


def _meeting_point(poses: Tensor) -> Tensor | None:
    """Midpoint between the closest points of the two viewing axes, if in front of both."""
    centres, forwards = poses[:, :3, 3], poses[:, :3, 2]
    baseline = centres[1] - centres[0]
    length = float(baseline.norm())
    cosine = float(forwards[0] @ forwards[1])
    sine_squared = 1.0 - cosine**2
    if sine_squared < 1e-12 or length == 0.0:
        return None
    along_first, along_last = float(forwards[0] @ baseline), float(forwards[1] @ baseline)
    depth_first = (along_first - cosine * along_last) / sine_squared
    depth_last = (cosine * along_first - along_last) / sine_squared
    depths = torch.tensor([depth_first, depth_last], dtype=torch.float64)
    if float(depths.min()) < 1e-3 * length or float(depths.max()) > _FARTHEST_PIVOT * length:
        return None
    return (centres + forwards * depths[:, None]).mean(0)


def _straight(poses: Tensor, fraction: Tensor) -> Tensor:
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(fraction), 1, 1)
    c2w[:, :3, 3] = torch.lerp(poses[:1, :3, 3], poses[1:, :3, 3], fraction[:, None])
    c2w[:, :3, :3] = _slerped(poses[:, :3, :3], fraction)
    return c2w


def _slerped(rotations: Tensor, fraction: Tensor) -> Tensor:
    first, last = (one.expand(len(fraction), 3, 3) for one in rotations)
    return slerp_rotations(first, last, fraction)


def _around(poses: Tensor, pivot: Tensor, up: Tensor, fraction: Tensor, long_way: bool) -> Tensor:
    to_upright = _upright_basis(up)
    offsets = (poses[:, :3, 3] - pivot) @ to_upright.T
    distances = offsets.norm(dim=-1)
    azimuths = torch.atan2(offsets[:, 0], offsets[:, 1])
    elevations = torch.asin((offsets[:, 2] / distances).clamp(-1, 1))
    turn = math.remainder(float(azimuths[1] - azimuths[0]), 2 * math.pi)
    if long_way:
        turn -= math.copysign(2 * math.pi, turn)
    # What each camera's orientation adds to looking straight at the pivot.
    _, looking = look_inward(azimuths, elevations)
    extra = looking.transpose(-1, -2) @ to_upright @ poses[:, :3, :3]
    elevation = torch.lerp(elevations[0], elevations[1], fraction)
    outward, rotation = look_inward(azimuths[0] + turn * fraction, elevation)
    distance = torch.lerp(distances[0], distances[1], fraction)
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(fraction), 1, 1)
    c2w[:, :3, 3] = pivot + (outward * distance[:, None]) @ to_upright
    c2w[:, :3, :3] = to_upright.T @ rotation @ _slerped(extra, fraction)
    return c2w


def _upright_basis(up: Tensor) -> Tensor:
    """Rotation that takes ``up`` to +Z: rows are the new axes."""
    helper = torch.zeros(3, dtype=torch.float64)
    helper[int(up.abs().argmin())] = 1.0
    first = torch.linalg.cross(helper, up)
    first = first / first.norm()
    return torch.stack([first, torch.linalg.cross(up, first), up])
