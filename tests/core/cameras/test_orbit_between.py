import pytest
import torch

import genxd_core as gx
from genxd_core import Cameras, InvalidInputError, orbit_between
from tests.core.cameras.builders import random_cameras, random_rotations
from tests.support import assert_same_up_to


@pytest.mark.parametrize("elevation_deg", [-20.0, 0.0, 45.0])
@pytest.mark.parametrize("seed", range(3))
def test_two_views_of_an_orbit_give_the_orbit_in_any_world(elevation_deg, seed):
    cameras = gx.orbit(9, elevation_deg=elevation_deg, azimuth_range_deg=(0.0, 120.0))
    c2w = cameras.c2w.double()
    c2w[:, :3] = random_rotations(1, seed)[0] @ c2w[:, :3]
    turned = Cameras(c2w, cameras.Ks_norm)
    between = orbit_between(turned[[0, -1]], 9)
    assert_same_up_to(between.c2w, turned.c2w, 1e-5)


def test_the_long_way_goes_around_the_other_side():
    whole = gx.orbit(8, azimuth_range_deg=(0.0, 360.0))
    between = orbit_between(whole[[0, 2]], 7, long_way=True)
    expected = whole[[0, 7, 6, 5, 4, 3, 2]]
    assert_same_up_to(between.c2w, expected.c2w, 1e-5)


def test_opposite_views_are_joined_around_the_side_and_not_through_the_middle():
    whole = gx.orbit(8)
    between = orbit_between(whole[[0, 4]], 5, target=(0.0, 0.0, 0.0))
    assert_same_up_to(between.centres.norm(dim=-1), torch.full((5,), 2.0), 1e-5)
    assert_same_up_to(between.centres[:, 2], torch.zeros(5), 1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_the_ends_are_the_given_views_exactly(seed):
    pair = random_cameras(2, seed, times=True)
    between = orbit_between(pair, 6)
    assert torch.equal(between.c2w[[0, -1]], pair.c2w)
    assert torch.equal(between.Ks_norm[[0, -1]], pair.Ks_norm)
    assert_same_up_to(between.times, torch.linspace(0, 1, 6, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_no_step_of_the_path_stands_out(seed):
    between = orbit_between(random_cameras(2, seed), 60)
    steps = (between.centres[1:] - between.centres[:-1]).norm(dim=-1)
    assert float(steps.max()) < 4.0 * float(steps.median())


def test_parallel_views_are_joined_by_a_straight_line():
    between = orbit_between(gx.slide(2, right=1.0), 5)
    assert_same_up_to(between.c2w, gx.slide(5, right=1.0).c2w, 1e-6)


def test_views_that_look_apart_are_joined_by_a_straight_line():
    apart = gx.pan(2, angle_deg=40.0)
    c2w = apart.c2w.clone()
    c2w[1, :3, 3] += c2w[0, :3, 0]
    between = orbit_between(Cameras(c2w, apart.Ks_norm), 3)
    assert_same_up_to(between.centres[1], (c2w[0] + c2w[1])[:3, 3] / 2, 1e-6)


def test_views_at_one_place_only_turn():
    between = orbit_between(gx.pan(2, angle_deg=40.0), 5)
    assert_same_up_to(between.c2w, gx.pan(5, angle_deg=40.0).c2w, 1e-6)


def test_easing_moves_the_views_and_keeps_the_ends():
    pair = gx.orbit(2, azimuth_range_deg=(0.0, 80.0))
    eased = orbit_between(pair, 11, easing="ease-in")
    steps = (eased.centres[1:] - eased.centres[:-1]).norm(dim=-1)
    assert (steps.diff() > 0).all()
    assert_same_up_to(eased.c2w[-1], pair.c2w[-1], 1e-6)


def test_other_than_two_views_are_refused():
    with pytest.raises(
        InvalidInputError, match="cameras has 3 views; an orbit between views needs"
    ):
        orbit_between(random_cameras(3), 5)


def test_fewer_views_than_the_two_ends_are_refused():
    with pytest.raises(InvalidInputError, match="num_views is 1; expected at least 2"):
        orbit_between(random_cameras(2), 1)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ((0.0, 1.0), "expected three finite numbers"),
        ((0.0, 2.0, 0.0), "is where camera 0 stands"),
    ],
)
def test_targets_without_a_circle_are_refused(target, message):
    with pytest.raises(InvalidInputError, match=message):
        orbit_between(gx.orbit(2, azimuth_range_deg=(0.0, 90.0)), 5, target=target)
