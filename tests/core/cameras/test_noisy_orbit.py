"""The orbit from which animated objects are rendered: its noise, its order, where it looks."""

import math

import numpy as np
import pytest
import torch

from genxd_core.cameras.noisy_orbit import noisy_orbit
from genxd_core.errors import InvalidInputError
from tests.support import seeded


def angles_deg(cameras, target=(0.0, 0.0, 0.0)):
    """Azimuth (0 at +Y, towards +X) and elevation of the cameras, seen from the target."""
    x, y, z = (cameras.centres.double().numpy() - np.asarray(target)).T
    return np.degrees(np.arctan2(x, y)), np.degrees(np.arctan2(z, np.hypot(x, y)))


def off_deg(azimuth, start=0.0):
    """How far each azimuth is from its place on the even orbit."""
    count = len(azimuth)
    away = azimuth - start - 360.0 * np.arange(count) / count
    return (away + 180.0) % 360.0 - 180.0


def test_azimuths_stray_uniformly_up_to_half_a_step():
    count = 12
    off = np.concatenate(
        [off_deg(angles_deg(noisy_orbit(count, seeded(s)))[0]) for s in range(200)]
    )
    half = 180.0 / count
    assert np.abs(off).max() <= half + 1e-3
    # Uniform in [-h, h]: mean 0, standard deviation h / sqrt(3), a quarter in each quarter.
    assert abs(off.mean()) < 4 * half / math.sqrt(3 * len(off))
    quarters = np.histogram(off, bins=4, range=(-half, half))[0] / len(off)
    assert np.abs(quarters - 0.25).max() < 4 * math.sqrt(0.25 * 0.75 / len(off))


def test_views_stay_in_order():
    for seed in range(20):
        azimuth, _ = angles_deg(noisy_orbit(24, seeded(seed)))
        steps = np.diff(azimuth) % 360.0
        assert steps.sum() < 360.0 + 1e-3
        assert (steps < 30.0 + 1e-3).all()


def test_elevation_is_five_sinusoids_of_whole_periods_and_bounded():
    for seed in range(10):
        _, elevation = angles_deg(
            noisy_orbit(64, seeded(seed), elevation_deg=20.0, elevation_noise_deg=12.0)
        )
        assert np.abs(elevation - 20.0).max() <= 12.0 + 1e-3
        heights = np.abs(np.fft.rfft(elevation)) / 64
        assert heights[0] == pytest.approx(20.0, abs=1e-3)
        assert (heights[1:6] > 1e-3).all()
        assert (heights[6:] < 1e-3).all()
        # Amplitudes are weights of sum 1 times the noise; a sinusoid's line is half as high.
        assert 2 * heights[1:6].sum() == pytest.approx(12.0, abs=1e-2)


def test_cameras_look_at_the_target_upright_from_the_radius():
    target = torch.tensor([0.3, -1.0, 2.0])
    cameras = noisy_orbit(10, seeded(1), radius=1.7, target=target.tolist(), elevation_deg=30.0)
    to_target = target - cameras.centres
    np.testing.assert_allclose(to_target.norm(dim=1), 1.7, atol=1e-5)
    np.testing.assert_allclose(cameras.c2w[:, :3, 2], to_target / 1.7, atol=1e-5)
    assert float(cameras.c2w[:, 2, 0].abs().max()) < 1e-6  # the picture's x axis is level
    assert bool((cameras.c2w[:, 2, 1] < 0).all())  # and its y axis points down


def test_start_intrinsics_and_times():
    cameras = noisy_orbit(5, seeded(0), azimuth_deg=90.0, focal_norm=1.2, aspect=1.5)
    azimuth, _ = angles_deg(cameras)
    assert np.abs(off_deg(azimuth, start=90.0)).max() <= 36.0 + 1e-3
    # The smaller side is the height: fy = 1.2, and square pixels give fx = 1.2 / 1.5.
    np.testing.assert_allclose(cameras.Ks_norm[:, [0, 1], [0, 1]], [[0.8, 1.2]] * 5, atol=1e-6)
    np.testing.assert_allclose(cameras.times, [0, 0.25, 0.5, 0.75, 1], atol=1e-6)


def test_without_elevation_noise_the_orbit_is_level():
    _, elevation = angles_deg(noisy_orbit(8, seeded(0), elevation_deg=10, elevation_noise_deg=0))
    np.testing.assert_allclose(elevation, 10.0, atol=1e-4)


def test_same_seed_gives_the_same_orbit():
    one, same, other = (noisy_orbit(8, seeded(seed)) for seed in (3, 3, 4))
    assert bool((one.c2w == same.c2w).all())
    assert not bool((one.c2w == other.c2w).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_views": 0}, "num_views is 0"),
        ({"radius": 0.0}, r"radius is 0\.0"),
        ({"elevation_noise_deg": -1.0}, "elevation_noise_deg -1.0; the noise must not be"),
        ({"elevation_deg": -80.0}, "elevation_deg is -80.0 .* below 90 degrees"),
        ({"elevation_deg": math.nan}, "elevation_deg is nan"),
        ({"azimuth_deg": math.inf}, "azimuth_deg is inf"),
        ({"target": (0.0, 1.0)}, r"target \(0.0, 1.0\); expected"),
        ({"focal_norm": 0.0}, r"focal_norm is 0\.0"),
    ],
)
def test_impossible_numbers_are_refused(options, message):
    options = {"num_views": 4, **options}
    with pytest.raises(InvalidInputError, match=message):
        noisy_orbit(options.pop("num_views"), seeded(), **options)
