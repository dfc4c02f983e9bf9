"""Paths that show a scene from the sides it was seen from: for videos of a fit.

Dimension letters: v given views, n views of the path.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.conventions import splat_world_rotation
from ..cameras.editing import at_positions
from ..cameras.rotations import look_inward
from ..cameras.trajectories import DEFAULT_FOCAL_NORM, orbit, sway
from ..errors import InvalidInputError
from .gaussians import Gaussians
from .start import meeting_point

__all__ = ["is_one_video", "spin_around", "spin_cameras", "swing_along"]

_SPLAT_UP = (0.0, -1.0, 0.0)
_FARTHEST = 30.0  # reaches of the path; farther, the optical axes count as parallel
_NEAREST = 0.25  # of the median depth; nearer to some cameras, it is not what all of them look at
_ONE_IN_TEN = 0.1  # cameras may look elsewhere
_ODD = 3.0  # median distances from the middle; cameras farther out are badly registered
_AHEAD = 10.0  # reaches of the path, to where cameras look that look at no point
_ALIKE = 0.5  # length of the mean direction, below which the cameras look in all directions
_WIDEST_GAP_DEG = 150.0  # without cameras, that an orbit still crosses
_SPIN_ELEVATION_DEG = 15.0
_SEEN = 0.1  # opacity of Gaussians that say where the scene is
_MOST_OF_THEM = 0.95  # for which the picture has to have room
_MARGIN = 1.15
_SWING_DEG = 6.0  # to each side of a video's own path; farther out, nothing was seen
_SWINGS = 2


def spin_cameras(
    cameras: Cameras, num_views: int, *, up: Sequence[float] | Tensor = _SPLAT_UP
) -> Cameras:
    """A path that shows what cameras saw, from where they saw it; it loops.

    Where the cameras look at one point from all around: an orbit about it at their mean height and
    distance, beginning at the first camera's side. Where they leave more than 150 degrees out,
    nobody knows what is seen from there: a sway through the directions that they have. Where they
    look at no common point, as along a street: to and fro between them, looking where they look on
    average. Cameras that look in all directions from within give a look around from their middle.

    Args:
        cameras: of a scene; at least two places.
        num_views: of the path.
        up: what points up in their world; by default -Y, as in the world of splats.

    Returns:
        float32 cameras with the mean intrinsics of the given ones.

    Raises:
        InvalidInputError: all cameras stand in one place, or ``num_views`` is not positive.
    """
    given = _typical(cameras.to("cpu", torch.float64))
    centres, axes = given.centres, given.c2w[:, :3, 2]
    middle, ahead = centres.mean(0), axes.mean(0)
    reach = float((centres - middle).norm(dim=-1).max())
    if reach <= 1e-6 * max(float(centres.abs().max()), 1e-9):
        raise InvalidInputError(
            f"cameras: all {len(cameras)} stand in one place, so nothing tells how far away the "
            "scene is; give cameras in different places."
        )
    target, is_seen = _common_point(given, reach)
    first = centres[0] - target
    if not is_seen:
        alike = float(ahead.norm()) >= _ALIKE
        target = middle + _AHEAD * reach * torch.nn.functional.normalize(ahead, dim=0)
        first = middle - target if alike else -axes[0]
    to_path = _to_world_of_paths(first, given.c2w[0, :3, 1], up)
    if is_seen:
        c2w = _around(num_views, (centres - target) @ to_path.T)
    elif alike:
        c2w = _to_and_fro(num_views, (centres - target) @ to_path.T)
    else:
        target, c2w = middle, orbit(num_views).c2w.double()
        c2w[:, :3, 3] = 0
    return _placed(c2w, to_path, target, given.Ks_norm)


def spin_around(gaussians: Gaussians, num_views: int, *, aspect: float = 1.0) -> Cameras:
    """An orbit 15 degrees above Gaussians in the world of splats, -Y up, that has them in view.

    Args:
        gaussians: the scene; what is far off or hardly seen is not counted.
        num_views: of the path.
        aspect: width / height of the pictures.

    Raises:
        InvalidInputError: a number that no path can have.
    """
    means = gaussians.means.detach().cpu().double()
    solid = gaussians.opacities.detach().cpu() > _SEEN
    means = means[solid] if bool(solid.any()) else means
    target = means.median(0).values
    size = float((means - target).norm(dim=-1).quantile(_MOST_OF_THEM))
    half_angle = math.atan(0.5 / DEFAULT_FOCAL_NORM)
    radius = max(_MARGIN * size / math.sin(half_angle), 1e-6)
    path = orbit(num_views, elevation_deg=_SPIN_ELEVATION_DEG, radius=radius, aspect=aspect)
    return _placed(path.c2w.double(), splat_world_rotation().T, target, path.Ks_norm.double())


def is_one_video(cameras: Cameras) -> bool:
    """Whether the cameras have times and no two of them are of one time."""
    return cameras.times is not None and len(cameras.times.unique()) == len(cameras)


def swing_along(cameras: Cameras, num_views: int, distance: float) -> Cameras:
    """A video's own path over its time, swung a few degrees to both sides: for a scene that moves.

    What one camera filmed was seen from its own place alone at every time, so that is where it
    looks right.

    Args:
        cameras: of one video (`is_one_video`), in any order.
        num_views: of the path, evenly from time 0 to 1.
        distance: to what the swings go around, ahead of each camera, in scene units.

    Returns:
        float32 cameras with times; intrinsics as the video's.
    """
    assert cameras.times is not None
    given = cameras.to("cpu", torch.float64)[cameras.times.cpu().argsort()]
    assert given.times is not None
    times = torch.linspace(0, 1, num_views, dtype=torch.float64)
    places = np.interp(times.numpy(), given.times.numpy(), np.arange(len(given)))
    path = at_positions(given, torch.from_numpy(places))
    angles = math.radians(_SWING_DEG) * torch.sin(2 * math.pi * _SWINGS * times)
    c2w = path.c2w.clone()
    right, ahead = path.c2w[:, :3, 0], path.c2w[:, :3, 2]
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    c2w[:, :3, 0], c2w[:, :3, 2] = cos * right + sin * ahead, cos * ahead - sin * right
    # What lies ahead stays where it is in the picture.
    c2w[:, :3, 3] += distance * (ahead - c2w[:, :3, 2])
    return Cameras(c2w, path.Ks_norm, times).to(dtype=torch.float32)


def _typical(cameras: Cameras) -> Cameras:
    """Those that stand where most of them stand."""
    distances = (cameras.centres - cameras.centres.median(0).values).norm(dim=-1)
    return cameras[distances <= _ODD * distances.median()]


def _common_point(cameras: Cameras, reach: float) -> tuple[Float[Tensor, "3"], bool]:
    """Where the optical axes meet, and whether that is something that all of them look at."""
    point, distance = meeting_point(cameras)
    depths = ((point - cameras.centres) * cameras.c2w[:, :3, 2]).sum(-1)
    nearest = float(depths.quantile(_ONE_IN_TEN))
    return point, 0 < _NEAREST * distance < nearest and distance < _FARTHEST * reach


def _to_world_of_paths(
    offset: Float[Tensor, "3"], down: Float[Tensor, "3"], up: Sequence[float] | Tensor
) -> Float[Tensor, "3 3"]:
    """The turn to a world with +Z up in which ``offset`` is at azimuth 0."""
    upward = torch.nn.functional.normalize(torch.as_tensor(up).detach().cpu().double(), dim=0)
    flat = offset - (offset @ upward) * upward
    # Seen from straight above, the picture's upper side is what lies ahead.
    heading = -down if float(flat.norm()) < 1e-3 * float(offset.norm()) else -flat
    rotation: Tensor = splat_world_rotation().T @ splat_world_rotation(upward, heading)
    return rotation


def _around(num_views: int, offsets: Float[Tensor, "v 3"]) -> Float[Tensor, "n 4 4"]:
    """The path about the origin of a world with +Z up, for cameras at such places."""
    flat = float(offsets[:, :2].norm(dim=-1).mean())
    height = float(offsets[:, 2].mean())
    elevation_deg, radius = math.degrees(math.atan2(height, flat)), math.hypot(height, flat)
    azimuths = torch.rad2deg(torch.atan2(offsets[:, 0], offsets[:, 1])).sort().values
    gaps = torch.cat([azimuths[1:], azimuths[:1] + 360]) - azimuths
    widest = int(gaps.argmax())
    if float(gaps[widest]) <= _WIDEST_GAP_DEG:
        return orbit(num_views, elevation_deg=elevation_deg, radius=radius).c2w.double()
    first = float(azimuths[(widest + 1) % len(azimuths)])
    # The first camera is at azimuth 0, and the range runs through it.
    first = first - 360 if first > 1e-6 else first
    last = first + 360 - float(gaps[widest])
    swayed = sway(num_views, azimuth_range_deg=(min(first, 0.0), max(last, 0.0)))
    return _raised(swayed.c2w.double(), elevation_deg, radius)


def _raised(
    level: Float[Tensor, "n 4 4"], elevation_deg: float, radius: float
) -> Float[Tensor, "n 4 4"]:
    """A level path about the origin at an elevation and a radius, in the same directions."""
    outward = -level[:, :3, 2]
    azimuths = torch.atan2(outward[:, 0], outward[:, 1])
    elevations = torch.full_like(azimuths, math.radians(elevation_deg))
    places, rotations = look_inward(azimuths, elevations)
    c2w = level.clone()
    c2w[:, :3, :3], c2w[:, :3, 3] = rotations, radius * places
    return c2w


def _to_and_fro(num_views: int, offsets: Float[Tensor, "v 3"]) -> Float[Tensor, "n 4 4"]:
    """Along the cameras' longest extent and back, looking at the origin."""
    middle = offsets.mean(0)
    along = torch.linalg.eigh((offsets - middle).T @ (offsets - middle)).eigenvectors[:, -1]
    places = (offsets - middle) @ along
    low, high = float(places.min()), float(places.max())
    phase = torch.arange(num_views, dtype=torch.float64) * (2 * math.pi / num_views)
    swing = (low + high) / 2 + (high - low) / 2 * torch.sin(phase)
    positions = middle + swing[:, None] * along
    radii = positions.norm(dim=-1)
    azimuths = torch.atan2(positions[:, 0], positions[:, 1])
    elevations = torch.asin((positions[:, 2] / radii).clamp(-1, 1))
    c2w = torch.eye(4, dtype=torch.float64).repeat(num_views, 1, 1)
    c2w[:, :3, :3] = look_inward(azimuths, elevations)[1]
    c2w[:, :3, 3] = positions
    return c2w


def _placed(
    c2w: Float[Tensor, "n 4 4"],
    to_path: Float[Tensor, "3 3"],
    target: Float[Tensor, "3"],
    Ks_norm: Float[Tensor, "k 3 3"],
) -> Cameras:
    """A path about the origin of the world of paths, in the cameras' world about ``target``."""
    placed = c2w.clone()
    placed[:, :3] = to_path.T @ c2w[:, :3]
    placed[:, :3, 3] += target
    mean = Ks_norm.mean(0)
    return Cameras(placed, mean.expand(len(placed), 3, 3)).to(dtype=torch.float32)
