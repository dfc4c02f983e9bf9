"""Camera paths made from a few numbers: orbit, forward-facing, sway, dolly, pan and others.

The world of these paths has +Z up. With azimuth a and elevation e, in radians,

    position = target + radius * (cos e sin a, cos e cos a, sin e),

and the camera looks at the target, so azimuth 0 stands at +Y and a growing azimuth moves the camera
to its own left. Every path that needs no range starts at azimuth 0, elevation 0: there the given
picture is taken to be.

Dimension letters: v views.
"""

import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InvalidInputError
from .cameras import Cameras
from .conventions import Ks_norm_from_focal
from .easing import Easing, eased
from .rotations import look_inward, quat_to_rotation

__all__ = [
    "DEFAULT_FOCAL_NORM",
    "DEFAULT_RADIUS",
    "dolly",
    "forward_facing",
    "orbit",
    "pan",
    "roll",
    "slide",
    "static",
    "sway",
    "tilt",
]

DEFAULT_FOCAL_NORM = 1.0938
DEFAULT_RADIUS = 2.0
_ORIGIN = (0.0, 0.0, 0.0)


def orbit(
    num_views: int,
    *,
    elevation_deg: float = 0.0,
    azimuth_range_deg: tuple[float, float] = (0.0, 360.0),
    radius: float = DEFAULT_RADIUS,
    target: Sequence[float] = _ORIGIN,
    focal_norm: float = DEFAULT_FOCAL_NORM,
    aspect: float = 1.0,
    consistent4d: bool = False,
    easing: Easing = "linear",
) -> Cameras:
    """Circle around a target at one elevation; the end of the azimuth range is left out.

    The reference's orbit exactly (with linear easing).

    Args:
        num_views: how many cameras.
        elevation_deg: above the horizon, in degrees.
        azimuth_range_deg: first and (excluded) last azimuth, in degrees.
        radius: distance to the target, in scene units.
        target: the point looked at.
        focal_norm: focal length / smaller side of the picture.
        aspect: width / height of the picture.
        consistent4d: the variant of the Consistent4D benchmark: the first view at azimuth 0, the
            others over the range, all mirrored (azimuth -> 360 - azimuth).
        easing: speed along the range.

    Raises:
        InvalidInputError: a number that no path can have.
    """
    _check_num_views(num_views)
    first, last = azimuth_range_deg
    if consistent4d:
        swept = _sweep(num_views - 1, first, last, easing)
        azimuth_deg = 360.0 - torch.cat([swept.new_zeros(1), swept])
    else:
        azimuth_deg = _sweep(num_views, first, last, easing)
    elevation = torch.full_like(azimuth_deg, elevation_deg)
    return _looking_at_target(azimuth_deg, elevation, radius, target, focal_norm, aspect)


def forward_facing(
    num_views: int,
    *,
    elevation_deg: float = 0.0,
    azimuth_range_deg: tuple[float, float] = (-30.0, 30.0),
    radius: float = DEFAULT_RADIUS,
    target: Sequence[float] = _ORIGIN,
    focal_norm: float = DEFAULT_FOCAL_NORM,
    aspect: float = 1.0,
) -> Cameras:
    """The reference's forward-facing path exactly, with its jump from frame 0 to frame 1.

    The azimuth runs over the range and back while the elevation runs 0, +e, 0, -e, 0; then frame 0
    is reset to azimuth 0, elevation 0, where the given picture stands, although its neighbours are
    at the start of the range. Use `sway` for a path without the jump.

    Args:
        num_views: how many cameras; a multiple of 4.
        elevation_deg: largest elevation, in degrees.
        azimuth_range_deg: the azimuths between which the camera swings, in degrees.
        radius: distance to the target, in scene units.
        target: the point looked at.
        focal_norm: focal length / smaller side of the picture.
        aspect: width / height of the picture.

    Raises:
        InvalidInputError: ``num_views`` is not a multiple of 4, or a number that no path can have.
    """
    _check_num_views(num_views)
    if num_views % 4:
        below = num_views - num_views % 4
        raise InvalidInputError(
            f"num_views is {num_views}; the reference's forward-facing path needs a multiple of 4 "
            f"({below or 4} or {below + 4}). The path `sway` takes any number."
        )
    left, right = azimuth_range_deg
    half, quarter = num_views // 2, num_views // 4
    azimuth_deg = torch.cat([_sweep(half, left, right), _sweep(half, right, left)])
    turns = [(0.0, elevation_deg), (elevation_deg, 0.0), (0.0, -elevation_deg)]
    turns.append((-elevation_deg, 0.0))
    elevation = torch.cat([_sweep(quarter, start, end) for start, end in turns])
    azimuth_deg[0] = 0.0
    elevation[0] = 0.0
    return _looking_at_target(azimuth_deg, elevation, radius, target, focal_norm, aspect)


def sway(
    num_views: int,
    *,
    elevation_deg: float = 0.0,
    azimuth_range_deg: tuple[float, float] = (-30.0, 30.0),
    radius: float = DEFAULT_RADIUS,
    target: Sequence[float] = _ORIGIN,
    focal_norm: float = DEFAULT_FOCAL_NORM,
    aspect: float = 1.0,
) -> Cameras:
    """Swing smoothly to both sides and back: forward-facing without a jump, and it loops.

    With phase s = 2 pi i / N the azimuth is c + R sin(s - d), where c and R are the centre and half
    width of the range and d is such that frame 0 stands at azimuth 0; the elevation is e sin(2 s),
    so that a raised path draws a figure eight through the start. Frame N would be frame 0 again.

    Args:
        num_views: how many cameras; any number.
        elevation_deg: largest elevation, in degrees; 0 keeps the swing level.
        azimuth_range_deg: the azimuths between which the camera swings, in degrees; 0 among them.
        radius: distance to the target, in scene units.
        target: the point looked at.
        focal_norm: focal length / smaller side of the picture.
        aspect: width / height of the picture.

    Raises:
        InvalidInputError: azimuth 0 is not within the range, or a number that no path can have.
    """
    _check_num_views(num_views)
    left, right = azimuth_range_deg
    if not left <= 0.0 <= right:
        raise InvalidInputError(
            f"azimuth_range_deg is ({left}, {right}); the swing starts at azimuth 0, where the "
            "given picture stands, so the range must go from a negative (or zero) to a positive "
            "(or zero) azimuth."
        )
    phase = _sweep(num_views, 0.0, 2 * math.pi)
    centre, half_width = (left + right) / 2, (right - left) / 2
    delay = math.asin(centre / half_width) if half_width > 0 else 0.0
    azimuth_deg = centre + half_width * torch.sin(phase - delay)
    elevation = elevation_deg * torch.sin(2 * phase)
    return _looking_at_target(azimuth_deg, elevation, radius, target, focal_norm, aspect)


def static(
    num_views: int,
    *,
    elevation_deg: float = 0.0,
    azimuth_deg: float = 0.0,
    radius: float = DEFAULT_RADIUS,
    target: Sequence[float] = _ORIGIN,
    focal_norm: float = DEFAULT_FOCAL_NORM,
    aspect: float = 1.0,
) -> Cameras:
    """The same camera ``num_views`` times: only the scene moves.

    Args:
        num_views: how many cameras.
        elevation_deg: above the horizon, in degrees.
        azimuth_deg: in degrees.
        radius: distance to the target, in scene units.
        target: the point looked at.
        focal_norm: focal length / smaller side of the picture.
        aspect: width / height of the picture.

    Raises:
        InvalidInputError: a number that no path can have.
    """
    _check_num_views(num_views)
    azimuths = torch.full((num_views,), azimuth_deg, dtype=torch.float64)
    elevations = torch.full_like(azimuths, elevation_deg)
    return _looking_at_target(azimuths, elevations, radius, target, focal_norm, aspect)


def dolly(
    num_views: int,
    *,
    distance: float = 0.5,
    keep_target_size: bool = False,
    radius: float = DEFAULT_RADIUS,
    focal_norm: float = DEFAULT_FOCAL_NORM,
    aspect: float = 1.0,
    easing: Easing = "linear",
) -> Cameras:
    """Drive straight ahead (or back), first and last position included.

    Args:
        num_views: how many cameras.
        distance: driven in all, in scene units; positive forward, negative backward.
        keep_target_size: change the focal length on the way so that what stands at the target
            keeps its size in the picture: the dolly zoom.
        radius: distance to the target at the start, in scene units.
        focal_norm: focal length / smaller side of the picture, at the start.
        aspect: width / height of the picture.
        easing: speed along the way.

    Raises:
        InvalidInputError: a dolly zoom that reaches its target, or a number no path can have.
    """
    progress = _inclusive(num_views, easing)
    cameras = _start(num_views, radius, focal_norm, aspect)
    moved = _moved(cameras, (0.0, 0.0, distance), progress)
    if not keep_target_size:
        return moved.to(dtype=torch.float32)
    if distance >= radius:
        raise InvalidInputError(
            f"distance is {distance} and radius {radius}: a dolly zoom cannot reach its target. "
            "Give a distance smaller than the radius, or keep_target_size=False."
        )
    zoom = (radius - distance * progress) / radius
    Ks_norm = moved.Ks_norm.clone()
    Ks_norm[:, [0, 1], [0, 1]] *= zoom[:, None]
    return Cameras(moved.c2w, Ks_norm).to(dtype=torch.float32)


def slide(
    num_views: int,
    *,
    right: float = 0.5,
    up: float = 0.0,
    radius: float = DEFAULT_RADIUS,
    focal_norm: float = DEFAULT_FOCAL_NORM,
    aspect: float = 1.0,
    easing: Easing = "linear",
) -> Cameras:
    """Move sideways or up without turning, first and last position included.

    Args:
        num_views: how many cameras.
        right: moved in all to the camera's right, in scene units; negative to the left.
        up: moved in all upward, in scene units; negative downward.
        radius: distance to the world's origin at the start, in scene units.
        focal_norm: focal length / smaller side of the picture.
        aspect: width / height of the picture.
        easing: speed along the way.

    Raises:
        InvalidInputError: a number that no path can have.
    """
    progress = _inclusive(num_views, easing)
    cameras = _start(num_views, radius, focal_norm, aspect)
    return _moved(cameras, (right, -up, 0.0), progress).to(dtype=torch.float32)


def pan(
    num_views: int,
    *,
    angle_deg: float = 30.0,
    radius: float = DEFAULT_RADIUS,
    focal_norm: float = DEFAULT_FOCAL_NORM,
    aspect: float = 1.0,
    easing: Easing = "linear",
) -> Cameras:
    """Turn to the right (or left) on the spot, first and last direction included.

    Args:
        num_views: how many cameras.
        angle_deg: turned in all, in degrees; positive to the right.
        radius: distance to the world's origin, in scene units.
        focal_norm: focal length / smaller side of the picture.
        aspect: width / height of the picture.
        easing: speed of the turn.

    Raises:
        InvalidInputError: a number that no path can have.
    """
    cameras = _start(num_views, radius, focal_norm, aspect)
    return _turned(cameras, 1, angle_deg, _inclusive(num_views, easing))


def tilt(
    num_views: int,
    *,
    angle_deg: float = 20.0,
    radius: float = DEFAULT_RADIUS,
    focal_norm: float = DEFAULT_FOCAL_NORM,
    aspect: float = 1.0,
    easing: Easing = "linear",
) -> Cameras:
    """Turn upward (or downward) on the spot, first and last direction included.

    Args:
        num_views: how many cameras.
        angle_deg: turned in all, in degrees; positive upward.
        radius: distance to the world's origin, in scene units.
        focal_norm: focal length / smaller side of the picture.
        aspect: width / height of the picture.
        easing: speed of the turn.

    Raises:
        InvalidInputError: a number that no path can have.
    """
    cameras = _start(num_views, radius, focal_norm, aspect)
    return _turned(cameras, 0, angle_deg, _inclusive(num_views, easing))


def roll(
    num_views: int,
    *,
    angle_deg: float = 30.0,
    radius: float = DEFAULT_RADIUS,
    focal_norm: float = DEFAULT_FOCAL_NORM,
    aspect: float = 1.0,
    easing: Easing = "linear",
) -> Cameras:
    """Turn about the viewing direction, first and last orientation included.

    Args:
        num_views: how many cameras.
        angle_deg: turned in all, in degrees; positive turns the camera clockwise, so that the
            picture turns counter-clockwise.
        radius: distance to the world's origin, in scene units.
        focal_norm: focal length / smaller side of the picture.
        aspect: width / height of the picture.
        easing: speed of the turn.

    Raises:
        InvalidInputError: a number that no path can have.
    """
    cameras = _start(num_views, radius, focal_norm, aspect)
    return _turned(cameras, 2, angle_deg, _inclusive(num_views, easing))


def _check_num_views(num_views: int) -> None:
    if isinstance(num_views, bool) or not isinstance(num_views, numbers.Integral) or num_views < 1:
        raise InvalidInputError(f"num_views is {num_views!r}; expected a whole number, at least 1.")


def _sweep(count: int, start: float, end: float, easing: Easing = "linear") -> Tensor:
    """``count`` values from ``start`` to ``end``, the end left out."""
    progress = torch.arange(count, dtype=torch.float64) / max(count, 1)
    return start + (end - start) * eased(progress, easing)


def _inclusive(num_views: int, easing: Easing) -> Tensor:
    _check_num_views(num_views)
    return eased(torch.linspace(0.0, 1.0, num_views, dtype=torch.float64), easing)


def _looking_at_target(
    azimuth_deg: Tensor,
    elevation_deg: Tensor,
    radius: float,
    target: Sequence[float],
    focal_norm: float,
    aspect: float,
) -> Cameras:
    if not (math.isfinite(radius) and radius > 0):
        raise InvalidInputError(f"radius is {radius}; expected a positive, finite number.")
    centre = torch.tensor([float(x) for x in target], dtype=torch.float64)
    if centre.shape != (3,):
        raise InvalidInputError(f"target is {tuple(target)}; expected three numbers (x, y, z).")
    if not bool(torch.isfinite(torch.cat([azimuth_deg, elevation_deg, centre])).all()):
        raise InvalidInputError("azimuth, elevation or target is not finite; give finite numbers.")
    outward, rotation = look_inward(torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg))
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(azimuth_deg), 1, 1)
    c2w[:, :3, :3] = rotation
    c2w[:, :3, 3] = centre + radius * outward
    Ks_norm = Ks_norm_from_focal(focal_norm, aspect).expand(len(c2w), 3, 3)
    return Cameras(c2w.float(), Ks_norm.float())


def _start(num_views: int, radius: float, focal_norm: float, aspect: float) -> Cameras:
    still = static(num_views, radius=radius, focal_norm=focal_norm, aspect=aspect)
    return still.to(dtype=torch.float64)


def _moved(cameras: Cameras, offset: tuple[float, float, float], progress: Tensor) -> Cameras:
    """The cameras moved by ``progress`` times an offset along their own axes."""
    c2w = cameras.c2w.clone()
    step = c2w[:, :3, :3] @ c2w.new_tensor(offset)
    c2w[:, :3, 3] += step * progress[:, None]
    return Cameras(c2w, cameras.Ks_norm)


def _turned(cameras: Cameras, axis: int, angle_deg: float, progress: Tensor) -> Cameras:
    """The cameras turned by ``progress`` times an angle about one of their own axes, x, y or z."""
    if not math.isfinite(angle_deg):
        raise InvalidInputError(f"angle_deg is {angle_deg}; expected a finite number of degrees.")
    half_angle = torch.deg2rad(angle_deg * progress) / 2
    quats = half_angle.new_zeros(len(half_angle), 4)
    quats[:, 0] = torch.cos(half_angle)
    quats[:, 1 + axis] = torch.sin(half_angle)
    c2w = cameras.c2w.clone()
    c2w[:, :3, :3] = c2w[:, :3, :3] @ quat_to_rotation(quats)
    return Cameras(c2w, cameras.Ks_norm).to(dtype=torch.float32)
