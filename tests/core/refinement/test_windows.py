"""Windows cover a video, have their conditions, and blend without a seam."""

import itertools

import pytest
import torch

from genxd_core import InvalidInputError, plan_windows

LENGTHS = [2, 5, 11, 12, 13, 19, 20, 21, 24, 40, 97]


def numbers(windows=(2, 3, 5, 12), lengths=LENGTHS):
    for window, frames in itertools.product(windows, lengths):
        for overlap in sorted({0, 1, window // 3, window - 1}):
            for conditions in {1, min(3, window - 1, frames - 1)}:
                yield frames, window, overlap, conditions


def test_every_frame_is_in_a_window_of_the_length_asked_for():
    for frames, window, overlap, conditions in numbers():
        plan = plan_windows(
            frames, window=window, overlap=overlap, conditions_per_window=conditions
        )
        assert {frame for w in plan.windows for frame in w.frames} == set(range(frames))
        for w in plan.windows:
            assert w.frames == tuple(range(w.frames[0], w.frames[0] + min(window, frames)))


def test_neighbouring_windows_share_at_least_the_overlap():
    for frames, window, overlap, conditions in numbers():
        plan = plan_windows(
            frames, window=window, overlap=overlap, conditions_per_window=conditions
        )
        for one, other in itertools.pairwise(plan.windows):
            assert len(set(one.frames) & set(other.frames)) >= overlap
            assert one.frames[0] < other.frames[0]


def test_every_window_has_exactly_the_conditions_asked_for_and_targets():
    for frames, window, overlap, conditions in numbers():
        plan = plan_windows(
            frames, window=window, overlap=overlap, conditions_per_window=conditions
        )
        assert all(len(w.conditions) == conditions for w in plan.windows)
        assert all(w.targets for w in plan.windows)


def test_a_condition_is_one_in_every_window():
    for frames, window, overlap, conditions in numbers():
        plan = plan_windows(
            frames, window=window, overlap=overlap, conditions_per_window=conditions
        )
        for w in plan.windows:
            assert set(w.conditions) == set(plan.conditions) & set(w.frames)


def test_weights_sum_to_one_at_every_frame():
    for frames, window, overlap, conditions in numbers():
        plan = plan_windows(
            frames, window=window, overlap=overlap, conditions_per_window=conditions
        )
        total = torch.zeros(frames, dtype=torch.float64)
        for w in plan.windows:
            assert all(0.0 < weight <= 1.0 for weight in w.weights)
            total[list(w.frames)] += torch.tensor(w.weights, dtype=torch.float64)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_weights_fall_and_rise_where_windows_meet():
    first, second = plan_windows(20).windows
    assert first.frames == tuple(range(12))
    assert second.frames == tuple(range(8, 20))
    assert first.weights[:8] == (1.0,) * 8
    falling = first.weights[7:]
    assert all(after < before for before, after in itertools.pairwise(falling))
    assert falling[-1] < 0.05
    assert second.weights[:4] == pytest.approx([1 - weight for weight in first.weights[8:]])


@pytest.mark.parametrize(
    ("frames", "conditions"),
    [
        (12, (0, 5, 11)),  # as in the three-view runs of the paper
        (13, (0, 5, 11, 12)),
        (20, (0, 5, 11, 15, 19)),
        (28, (0, 5, 11, 15, 19, 23, 27)),
        (6, (0, 2, 5)),
    ],
)
def test_conditions_that_are_chosen(frames, conditions):
    assert plan_windows(frames).conditions == conditions


def test_given_conditions_come_first_and_others_are_added_where_they_are_too_few():
    plan = plan_windows(20, conditions=(9, -20))
    assert plan.windows[0].conditions[:2] == (9, 0)
    assert all(len(w.conditions) == 3 for w in plan.windows)
    assert {0, 9} <= set(plan.conditions)
    assert plan_windows(12, conditions=(3,), conditions_per_window=1).conditions == (3,)


def test_given_conditions_may_be_more():
    plan = plan_windows(12, conditions=range(5))
    assert plan.conditions == tuple(range(5))
    every = plan_windows(20, conditions=range(12))
    assert every.pending == (1,)


@pytest.mark.parametrize("seed", range(20))
def test_given_conditions_leave_no_window_with_too_few(seed):
    generator = torch.Generator().manual_seed(seed)
    given = torch.randperm(31, generator=generator)[: 1 + seed % 9].tolist()
    plan = plan_windows(31, conditions=given, overlap=seed % 12)
    assert set(given) <= set(plan.conditions)
    assert all(len(w.conditions) >= 3 for w in plan.windows)
    assert all(len(w.conditions) == len(set(w.conditions)) for w in plan.windows)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (1, {}, "video has 1 frame; expected at least 2"),
        (12, {"window": 1}, "window is 1; expected at least 2 frames, typically 12"),
        (12, {"overlap": 12}, "overlap is 12; expected 0 to 11, less than the window"),
        (12, {"overlap": -1}, "overlap is -1; expected 0 to 11"),
        (12, {"conditions_per_window": 0}, "conditions_per_window is 0; expected 1 to 11"),
        (
            *(24, {"window": 3}),
            "conditions_per_window is 3; expected 1 to 2, fewer than the frames of a window of 3",
        ),
        (3, {}, "expected 1 to 2, fewer than the frames of a video of 3 frames"),
        (12, {"conditions": [12]}, "conditions has 12, but video has 12 frames; give 0 to 11"),
        (12, {"conditions": [2, -10]}, "name frame 2 twice; give each frame once"),
        (12, {"conditions": range(12)}, "conditions name all 12 frames of video"),
    ],
)
def test_numbers_that_cannot_be_are_named(frames, options, message):
    with pytest.raises(InvalidInputError, match=message):
        plan_windows(frames, **({"overlap": 0} | options if "window" in options else options))
