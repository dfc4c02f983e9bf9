"""The orbit with noise from which animated objects are rendered (Sec. 5.1).

The paper says that noise is added to the orbit and gives no numbers. Here azimuths are apart by
360 / F degrees, each moved by up to half of that, and elevations sway smoothly.

Dimension letters: v views.
"""

import math
import numbers
from collections.abc import Sequence

import torch

from ..errors import InvalidInputError
from .cameras import Cameras
from .conventions import Ks_norm_from_focal
from .rotations import look_inward
from .trajectories import DEFAULT_FOCAL_NORM, DEFAULT_RADIUS

__all__ = ["NUM_SINUSOIDS", "noisy_orbit"]

NUM_SINUSOIDS = 5
"""Sinusoids of 1 to this many periods an orbit are added to the elevation."""


def noisy_orbit(
    num_views: int,
    rng: torch.Generator,
    *,
    elevation_deg: float = 0.0,
    elevation_noise_deg: float = 15.0,
    azimuth_deg: float = 0.0,
    radius: float = DEFAULT_RADIUS,
    target: Sequence[float] = (0.0, 0.0, 0.0),
    focal_norm: float = DEFAULT_FOCAL_NORM,
    aspect: float = 1.0,
) -> Cameras:
    """One turn around an object, with noise in azimuth and elevation, while time goes from 0 to 1.

    With uniform u in [-1, 1], weights w >= 0 of sum 1 and uniform phases p, view i of F stands at

        azimuth   = azimuth_deg + (360 i + 180 u_i) / F
        elevation = elevation_deg + elevation_noise_deg * sum_k w_k sin(2 pi k i / F + p_k)

    for k = 1 ... 5. Azimuths so stay in order. The world has +Z up, as in `orbit`.

    Args:
        num_views: F, how many cameras.
        rng: CPU generator of the noise.
        elevation_deg: mean elevation above the horizon, in degrees.
        elevation_noise_deg: the elevation never strays farther from it, in degrees.
        azimuth_deg: of the first view, before its noise, in degrees.
        radius: distance to the target, in scene units.
        target: the point looked at.
        focal_norm: focal length / smaller side of the picture.
        aspect: width / height of the picture.

    Returns:
        The cameras, with times.

    Raises:
        InvalidInputError: a number that no path can have, or elevations that may pass the pole.
    """
    is_whole = isinstance(num_views, numbers.Integral) and not isinstance(num_views, bool)
    if not is_whole or num_views < 1:
        raise InvalidInputError(f"num_views is {num_views!r}; expected a whole number, at least 1.")
    if not (math.isfinite(radius) and radius > 0):
        raise InvalidInputError(f"radius is {radius}; expected a positive, finite number.")
    if not (elevation_noise_deg >= 0 and abs(elevation_deg) + elevation_noise_deg < 90):
        raise InvalidInputError(
            f"elevation_deg is {elevation_deg} and elevation_noise_deg {elevation_noise_deg}; the "
            "noise must not be negative, and together they must stay below 90 degrees."
        )
    centre = torch.tensor([azimuth_deg, *target], dtype=torch.float64)
    if centre.shape != (4,) or not bool(torch.isfinite(centre).all()):
        raise InvalidInputError(
            f"azimuth_deg is {azimuth_deg} and target {tuple(target)}; expected a finite angle and "
            "three finite numbers."
        )
    # Drawn in this order; every number has its place whatever the options are.
    moved, weights, phases = (
        torch.rand(count, dtype=torch.float64, generator=rng)
        for count in (num_views, NUM_SINUSOIDS, NUM_SINUSOIDS)
    )
    turn = torch.arange(num_views, dtype=torch.float64) / num_views
    azimuth = math.radians(azimuth_deg) + 2 * math.pi * (turn + (moved - 0.5) / num_views)
    periods = torch.arange(1, NUM_SINUSOIDS + 1, dtype=torch.float64)
    waves = torch.sin(2 * math.pi * (periods * turn[:, None] + phases)) @ (weights / weights.sum())
    elevation = torch.deg2rad(elevation_deg + elevation_noise_deg * waves)
    outward, rotation = look_inward(azimuth, elevation)
    c2w = torch.eye(4, dtype=torch.float64).repeat(num_views, 1, 1)
    c2w[:, :3, :3] = rotation
    c2w[:, :3, 3] = centre[1:] + radius * outward
    Ks_norm = Ks_norm_from_focal(focal_norm, aspect).expand(num_views, 3, 3)
    times = torch.linspace(0, 1, num_views)
    return Cameras(c2w.float(), Ks_norm.float(), times)
