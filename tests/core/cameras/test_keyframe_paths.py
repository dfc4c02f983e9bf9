import numpy as np
import pytest
import torch

import genxd_core as gx
from genxd_core import Cameras, InvalidInputError
from genxd_core.cameras.nerf_paths import focus_point, look_along
from tests.core.cameras.builders import random_cameras, random_rotations
from tests.support import assert_same_up_to, seeded


def arc(count: int = 5, **settings) -> Cameras:
    return gx.orbit(count, azimuth_range_deg=(0.0, 100.0), elevation_deg=15.0, **settings)


def fan(count: int = 6) -> Cameras:
    """Forward-facing views, beside and above one another, looking at about the same place."""
    views = gx.sway(count, elevation_deg=10.0, azimuth_range_deg=(-15.0, 15.0))
    return views.to(dtype=torch.float64)


def turned_world(cameras: Cameras, seed: int) -> tuple[Cameras, torch.Tensor]:
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3] = random_rotations(1, seed)[0]
    motion[:3, 3] = torch.randn(3, generator=seeded(seed), dtype=torch.float64)
    return Cameras(motion @ cameras.c2w.double(), cameras.Ks_norm, cameras.times), motion


def test_interpolation_without_smoothing_passes_through_the_key_views():
    pytest.importorskip("scipy", reason="spline paths need scipy")
    keys = arc(5).to(dtype=torch.float64)
    path = gx.interpolate(keys, 3000, smoothness=0.0, rotation_weight=0.3)
    distances = (path.centres[:, None] - keys.centres[None, :-1]).norm(dim=-1)
    nearest = distances.argmin(0)
    assert float(distances.min()) < 1e-3
    assert_same_up_to(path.c2w[nearest], keys.c2w[:-1], 3e-3)
    assert (nearest.diff() > 0).all()


def test_interpolation_leaves_out_the_last_key_view():
    pytest.importorskip("scipy", reason="spline paths need scipy")
    keys = arc(4).to(dtype=torch.float64)
    path = gx.interpolate(keys, 10, smoothness=0.0)
    assert_same_up_to(path.c2w[0], keys.c2w[0], 1e-6)
    assert float((path.centres - keys.centres[-1]).norm(dim=-1).min()) > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_interpolation_follows_the_world(seed):
    pytest.importorskip("scipy", reason="spline paths need scipy")
    keys = arc(5).to(dtype=torch.float64)
    moved, motion = turned_world(keys, seed)
    expected = motion @ gx.interpolate(keys, 12).c2w
    assert_same_up_to(gx.interpolate(moved, 12).c2w, expected, 1e-6)


def test_interpolation_carries_intrinsics_and_times_along():
    pytest.importorskip("scipy", reason="spline paths need scipy")
    keys = arc(2)
    Ks_norm = keys.Ks_norm.clone()
    Ks_norm[1, 0, 0] *= 2
    keyed = Cameras(keys.c2w, Ks_norm, [0.0, 1.0])
    path = gx.interpolate(keyed, 4)
    first, last = float(Ks_norm[0, 0, 0]), float(Ks_norm[1, 0, 0])
    expected = torch.tensor([first + (last - first) * share for share in (0, 0.25, 0.5, 0.75)])
    assert_same_up_to(path.Ks_norm[:, 0, 0], expected, 1e-6)
    assert_same_up_to(path.times, torch.tensor([0.0, 0.25, 0.5, 0.75]), 1e-6)
    assert path.dtype == torch.float32


def test_variants_come_after_the_path_shifted_and_scaled():
    pytest.importorskip("scipy", reason="spline paths need scipy")
    keys = arc(5).to(dtype=torch.float64)
    shifts = [(1.0, 0.0, 0.0), (0.0, -0.5, 0.25)]
    path = gx.interpolate(keys, 6, shifts=shifts, scales=[0.5])
    assert len(path) == 6 * 3 * 2
    low, high = np.percentile(keys.centres.numpy(), [10, 90], axis=0)
    half_range = torch.from_numpy((high - low) / 2)
    plain = path[:6]
    second = plain.centres + torch.tensor([0.0, -0.5, 0.25]) * half_range
    assert_same_up_to(path[12:18].centres, second, 1e-9)
    assert_same_up_to(path[18:].centres, path[:18].centres / 2, 1e-9)
    assert_same_up_to(path[18:].c2w[:, :3, :3], path[:18].c2w[:, :3, :3], 1e-12)


def test_spiral_stays_around_the_average_view_and_looks_at_the_focus():
    keys = fan()
    path = gx.spiral(keys, 20, turns=1.0)
    assert float((path.centres.mean(0) - keys.centres.mean(0)).norm()) < 0.1
    forward = path.c2w[:, :3, 2]
    to_origin = torch.nn.functional.normalize(-path.centres, dim=-1)
    assert float((forward * to_origin).sum(-1).min()) > 0.999


@pytest.mark.parametrize("seed", range(3))
def test_spiral_and_ellipse_follow_the_world(seed):
    keys = fan(8)
    moved, motion = turned_world(keys, seed)
    spiral = gx.spiral(keys, 10, bounds=(1.0, 4.0), z_rate=0.0)
    assert_same_up_to(
        gx.spiral(moved, 10, bounds=(1.0, 4.0), z_rate=0.0).c2w, motion @ spiral.c2w, 1e-9
    )


def test_spiral_of_near_bounds_looks_nearer():
    def distance_to_meeting(path):
        poses = path.c2w[:, :3].double().numpy() * np.array([1.0, -1.0, -1.0, 1.0])
        return float(np.linalg.norm(focus_point(poses) - path.centres.double().mean(0).numpy()))

    near = gx.spiral(fan(), 12, bounds=(1.0, 2.0), z_rate=0.0)
    far = gx.spiral(fan(), 12, bounds=(4.0, 9.0), z_rate=0.0)
    assert distance_to_meeting(near) < distance_to_meeting(far)


def test_ellipse_of_an_orbit_is_a_level_circle_around_its_target():
    keys = gx.orbit(12, elevation_deg=20.0, target=(3.0, 1.0, -2.0)).to(dtype=torch.float64)
    path = gx.ellipse(keys, 40)
    offsets = path.centres - torch.tensor([3.0, 1.0, -2.0])
    height = 2 * np.sin(np.radians(20.0))
    assert_same_up_to(offsets[:, 2], torch.full((40,), height, dtype=torch.float64), 1e-3)
    # The radii are 90 percentiles of the key positions along two axes.
    radius = 2 * np.cos(np.radians(20.0))
    assert float(offsets[:, :2].norm(dim=-1).max()) < radius * 1.02
    assert float(offsets[:, :2].norm(dim=-1).min()) > radius * 0.8
    forward = torch.nn.functional.normalize(-offsets, dim=-1)
    assert_same_up_to(path.c2w[:, :3, 2], forward, 1e-3)


def test_ellipse_at_constant_speed_has_even_steps():
    keys = gx.orbit(12, radius=2.0)
    c2w = keys.c2w.clone()
    c2w[:, 0, 3] *= 3.0
    path = gx.ellipse(Cameras(c2w, keys.Ks_norm), 200)
    closed = torch.cat([path.centres, path.centres[:1]])
    steps = (closed[1:] - closed[:-1]).norm(dim=-1)
    assert float(steps.max() / steps.min()) < 1.05
    uneven = gx.ellipse(Cameras(c2w, keys.Ks_norm), 200, constant_speed=False)
    steps = (uneven.centres[1:] - uneven.centres[:-1]).norm(dim=-1)
    assert float(steps.max() / steps.min()) > 1.5


def test_spiral_and_ellipse_take_the_mean_intrinsics():
    keys = fan(4)
    Ks_norm = keys.Ks_norm.clone()
    Ks_norm[:, 0, 0] = torch.tensor([1.0, 2.0, 3.0, 6.0])
    path = gx.spiral(Cameras(keys.c2w, Ks_norm), 5)
    assert_same_up_to(path.Ks_norm[:, 0, 0], torch.full((5,), 3.0, dtype=torch.float64), 1e-12)


def test_look_along_keeps_the_up_in_the_picture():
    pose = look_along(np.array([0.0, -2.0, 0.0]), np.array([0.1, 0.3, 1.0]), np.zeros(3))
    assert np.allclose(pose[:, 2], [0.0, -1.0, 0.0])
    assert np.allclose(pose[:, 1], np.array([0.1, 0.0, 1.0]) / np.hypot(0.1, 1.0))


def test_one_key_view_gives_no_interpolation():
    with pytest.raises(
        InvalidInputError, match="1 key views; an interpolated path needs at least 2"
    ):
        gx.interpolate(arc(1), 5)


def test_two_key_views_give_no_ellipse():
    with pytest.raises(InvalidInputError, match="2 key views; an ellipse needs at least 3"):
        gx.ellipse(arc(2), 5)


def test_equal_neighbours_are_refused_by_their_indices():
    keys = arc(3)[[0, 1, 1, 2]]
    with pytest.raises(InvalidInputError, match="key views 1 and 2 are the same pose"):
        gx.interpolate(keys, 5)


def test_parallel_views_need_bounds_for_a_spiral():
    with pytest.raises(InvalidInputError, match="all views look in the same direction"):
        gx.spiral(gx.slide(4), 5)
    assert len(gx.spiral(gx.slide(4), 5, bounds=(1.0, 3.0))) == 5


def test_views_that_cancel_out_give_no_spiral():
    with pytest.raises(InvalidInputError, match="directions cancel out"):
        gx.spiral(gx.orbit(2, elevation_deg=0.0).to(dtype=torch.float64), 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_views": 0}, "num_views is 0; expected at least 1"),
        ({"spline_degree": 6}, "spline_degree is 6; expected 1, 2, 3, 4 or 5"),
        ({"smoothness": -1.0}, r"smoothness is -1\.0; expected a number of at least 0"),
        ({"rotation_weight": 0.0}, r"rotation_weight is 0\.0"),
        ({"shifts": [(1.0, float("nan"), 0.0)]}, "shifts holds .*expected three finite numbers"),
        ({"scales": [0.0]}, r"scales holds 0\.0; expected positive"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        gx.interpolate(arc(), **{"num_views": 4, **settings})


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (2.0, 1.0)])
def test_bounds_that_are_no_depths_are_refused(bounds):
    with pytest.raises(InvalidInputError, match="expected the nearest and the farthest depth"):
        gx.spiral(fan(), 5, bounds=bounds)


def test_a_percentile_out_of_range_is_refused():
    with pytest.raises(InvalidInputError, match=r"percentile is 101\.0; expected 0 to 100"):
        gx.spiral(fan(), 5, percentile=101.0)


def test_random_key_views_give_valid_cameras():
    pytest.importorskip("scipy", reason="spline paths need scipy")
    for seed in range(5):
        path = gx.interpolate(random_cameras(6, seed, times=True), 30)
        assert len(path) == 30
        assert float(path.times.min()) == 0.0
