import inspect
import math

import pytest
import torch

import genxd_core as gx
from genxd_core import Cameras, InvalidInputError
from genxd_core.cameras.editing import (
    at_positions,
    ease,
    hold,
    join,
    loop,
    rebase,
    resample,
    resample_by_arc_length,
    reverse,
    step_lengths,
    with_even_times,
)
from tests.core.cameras.builders import random_cameras, rays_agree
from tests.support import assert_same_up_to


def assert_same_cameras(actual: Cameras, expected: Cameras, tolerance: float = 1e-12) -> None:
    assert_same_up_to(actual.c2w, expected.c2w, tolerance)
    assert_same_up_to(actual.Ks_norm, expected.Ks_norm, tolerance)
    assert (actual.times is None) == (expected.times is None)
    if actual.times is not None:
        assert_same_up_to(actual.times, expected.times, tolerance)


def test_reversing_twice_changes_nothing():
    cameras = random_cameras(5, times=True)
    assert_same_cameras(reverse(reverse(cameras)), cameras, 0.0)
    assert torch.equal(reverse(cameras).c2w[0], cameras.c2w[-1])


def test_joining_the_parts_of_a_path_gives_the_path():
    cameras = random_cameras(6, times=True)
    assert_same_cameras(join(cameras[:2], cameras[2], cameras[3:]), cameras, 0.0)


def test_join_takes_the_dtype_of_the_first():
    joined = join(gx.orbit(2), random_cameras(2))
    assert joined.dtype == torch.float32


def test_joining_nothing_is_refused():
    with pytest.raises(InvalidInputError, match="paths is empty"):
        join()


def test_joining_paths_with_and_without_times_is_refused():
    with pytest.raises(InvalidInputError, match="path 1 has no times, but others have"):
        join(random_cameras(2, times=True), random_cameras(2))


def test_there_and_back_repeats_no_end():
    cameras = random_cameras(4)
    expected = cameras[[0, 1, 2, 3, 2, 1]]
    assert_same_cameras(loop(cameras), expected, 0.0)
    assert_same_cameras(loop(cameras[:2]), cameras[:2], 0.0)


def test_there_and_back_with_another_number_of_views_is_spread_evenly():
    looped = loop(gx.slide(3, right=1.0), num_views=8)
    moved = (looped.centres - looped.centres[0]).norm(dim=-1)
    expected = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25])
    assert_same_up_to(moved, expected, 1e-6)


@pytest.mark.parametrize("num_views", [3, 8, 25])
def test_a_closed_orbit_stays_as_it_is(num_views):
    cameras = gx.orbit(num_views)
    assert_same_cameras(loop(cameras, mode="closed"), cameras, 1e-6)


def test_closing_an_open_path_leads_back_to_its_start():
    cameras = gx.slide(5, right=1.0)
    closed = loop(cameras, mode="closed", num_views=10)
    moved = (closed.centres - closed.centres[0]).norm(dim=-1)
    expected = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2])
    assert_same_up_to(moved, expected, 1e-6)


def test_loops_that_cannot_be_are_refused():
    with pytest.raises(InvalidInputError, match="cameras has 1 view; a loop needs at least 2"):
        loop(random_cameras(1))
    with pytest.raises(InvalidInputError, match="mode is 'circle'; expected 'there-and-back'"):
        inspect.unwrap(loop)(random_cameras(3), mode="circle")


@pytest.mark.parametrize("seed", range(3))
def test_resampling_to_the_same_number_changes_nothing(seed):
    cameras = random_cameras(6, seed, times=True)
    assert_same_cameras(resample(cameras, 6), cameras)


def test_resampling_finer_and_back_gives_the_given_views():
    cameras = random_cameras(4, times=True)
    finer = resample(cameras, 10)
    assert_same_cameras(finer[[0, 3, 6, 9]], cameras)


def test_resampling_keeps_the_ends():
    cameras = random_cameras(5)
    for count in (2, 3, 9):
        picked = resample(cameras, count)
        assert_same_cameras(picked[[0, -1]], cameras[[0, -1]], 0.0)
    assert_same_cameras(resample(cameras, 1), cameras[0], 0.0)


def test_a_view_halfway_is_halfway_in_everything():
    cameras = gx.pan(2, angle_deg=40.0)
    Ks_norm = cameras.Ks_norm * torch.tensor([[[1.0]], [[1.0]]])
    Ks_norm[1, 0, 0] *= 3
    both = Cameras(cameras.c2w, Ks_norm, [0.2, 0.6])
    middle = at_positions(both, torch.tensor([0.5]))
    assert_same_up_to(middle.c2w, gx.pan(3, angle_deg=40.0).c2w[1:2], 1e-6)
    assert float(middle.Ks_norm[0, 0, 0]) == pytest.approx(2 * float(Ks_norm[0, 0, 0]))
    assert float(middle.times) == pytest.approx(0.4)


def test_positions_outside_are_moved_to_the_ends():
    cameras = random_cameras(3)
    clamped = at_positions(cameras, torch.tensor([-1.0, 7.0]))
    assert_same_cameras(clamped, cameras[[0, 2]], 0.0)


def test_arc_length_resampling_evens_out_the_speed():
    uneven = ease(gx.slide(30, right=1.0), "ease-in")
    steps = step_lengths(resample_by_arc_length(uneven, 11))
    assert_same_up_to(steps, torch.full((10,), 0.1, dtype=torch.float64), 1e-6)


def test_arc_length_resampling_evens_out_turning_too():
    uneven = ease(gx.pan(40, angle_deg=90.0), "ease-in-out")
    even = resample_by_arc_length(uneven, 10)
    expected = torch.full((9,), math.radians(10.0), dtype=torch.float64)
    assert_same_up_to(step_lengths(even), expected, 1e-4)


def test_arc_length_resampling_of_a_still_path_repeats_it():
    still = resample_by_arc_length(gx.static(3), 5)
    assert_same_up_to(still.c2w, gx.static(5).c2w, 1e-7)


def test_step_lengths_count_turns_by_their_weight():
    cameras = gx.pan(2, angle_deg=90.0)
    steps = step_lengths(cameras, rotation_weight=2.0, closed=True)
    assert_same_up_to(steps, torch.full((2,), math.pi, dtype=torch.float64), 1e-6)


def test_easing_a_straight_path_is_the_eased_path():
    eased_after = ease(gx.dolly(21), "ease-in", 21)
    assert_same_up_to(eased_after.c2w, gx.dolly(21, easing="ease-in").c2w, 1e-6)


def test_easing_keeps_even_times():
    cameras = with_even_times(gx.slide(5))
    eased = ease(cameras, "ease-in-out", 9)
    assert_same_up_to(eased.times, torch.linspace(0, 1, 9), 1e-6)


@pytest.mark.parametrize("reference", [0, 2, -1])
def test_rebasing_puts_the_view_at_the_origin_and_keeps_the_rays(reference):
    cameras = random_cameras(4, times=True)
    rebased = rebase(cameras, reference)
    assert_same_up_to(rebased.c2w[reference], torch.eye(4, dtype=torch.float64), 1e-12)
    assert rays_agree(rebased, cameras)
    assert torch.equal(rebased.times, cameras.times)


def test_even_times_run_from_first_to_last():
    timed = with_even_times(gx.orbit(3), 0.5, 1.0)
    assert timed.times.tolist() == [0.5, 0.75, 1.0]


@pytest.mark.parametrize("edit", [resample, resample_by_arc_length])
def test_no_views_are_refused(edit):
    with pytest.raises(InvalidInputError, match="num_views is 0; expected at least 1"):
        edit(random_cameras(3), 0)


def test_a_held_camera_stands_still_while_time_goes_on():
    path = gx.orbit(5)
    held = hold(path, -2, 4)
    torch.testing.assert_close(held.c2w, path.c2w[3:4].expand(4, -1, -1), rtol=0, atol=0)
    torch.testing.assert_close(held.times, torch.linspace(0, 1, 4).to(held.times))
    with pytest.raises(InvalidInputError, match="view is 5, but the path has 5 cameras"):
        hold(path, 5, 4)


def test_a_negative_rotation_weight_is_refused():
    with pytest.raises(InvalidInputError, match=r"rotation_weight is -1\.0; expected 0 or more"):
        resample_by_arc_length(random_cameras(3), rotation_weight=-1.0)


def test_edits_leave_the_given_cameras_alone():
    cameras = random_cameras(4, times=True)
    before = cameras.c2w.clone(), cameras.Ks_norm.clone(), cameras.times.clone()
    for edit in (reverse, loop, rebase, resample_by_arc_length, with_even_times):
        edit(cameras)
    gx.scale_cameras(cameras, 3.0)
    for now, then in zip((cameras.c2w, cameras.Ks_norm, cameras.times), before, strict=True):
        assert torch.equal(now, then)
