"""What the network is told, and the measured strength's number."""

import pytest
import torch

from genxd_core.errors import InvalidInputError
from genxd_core.model.conditioning import Condition, check_indices, mode_indicator, network_input
from genxd_core.model.motion_strength import gamma_to_motion_strength, motion_strength_to_gamma
from tests.support import assert_same_up_to, seeded


def make(mode="4d", **options):
    rng = seeded()
    mask = torch.tensor([[True, False, False], [False, False, True]])
    return Condition.build(
        torch.randn(2, 3, 4, 2, 2, generator=rng),
        mask,
        torch.randn(2, 3, 6, 2, 2, generator=rng),
        mode=mode,
        motion_strength=torch.tensor([0.5, 1.5]),
        **options,
    )


def test_only_conditioned_latents_are_kept():
    condition = make()
    shown = condition.latents.abs().sum(dim=(2, 3, 4)) > 0
    assert torch.equal(shown, condition.mask)


def test_channels_stand_in_the_reference_order():
    condition = make()
    noisy = torch.full((2, 3, 4, 2, 2), 9.0)
    out = network_input(noisy, condition)
    assert out.shape == (2, 3, 15, 2, 2)
    assert torch.equal(out[0, 0, :4], condition.latents[0, 0])
    assert torch.equal(out[0, 1, :4], noisy[0, 1])
    assert float(out[:, :, 4:8].abs().max()) == 0.0
    assert torch.equal(out[:, :, 8:14], condition.rays)
    assert torch.equal(out[:, :, 14, 0, 0] > 0, condition.mask)


@pytest.mark.parametrize(
    ("mode", "number", "second_id"), [("3d", 0, 1), ("video", 1, 0), ("4d", 2, 1)]
)
def test_mode_sets_indicator_and_time_ids(mode, number, second_id):
    condition = make(mode)
    assert condition.indicator == (number, number)
    assert torch.equal(condition.added_time_ids[..., 0], torch.zeros(2, 3))
    assert torch.equal(condition.added_time_ids[..., 1], torch.full((2, 3), float(second_id)))


def test_video_mode_has_no_rays():
    assert float(make("video").rays.abs().max()) == 0.0
    assert float(make("4d").rays.abs().max()) > 0.0


def test_without_motion_embedding_the_strength_is_an_id():
    condition = make(use_motion_embedding=False)
    assert condition.motion_ids is None
    assert torch.equal(condition.added_time_ids[:, 0, 0], torch.tensor([0.5, 1.5]))


def test_unconditional_branch_keeps_mask_and_mode_alone():
    dropped = make().without()
    for value in (dropped.latents, dropped.rays, dropped.added_time_ids, dropped.motion_ids):
        assert float(value.abs().max()) == 0.0
    assert torch.equal(dropped.mask, make().mask)
    assert dropped.indicator == make().indicator


def test_condition_can_be_dropped_for_some_clips():
    condition, dropped = make(), make().without(torch.tensor([True, False]))
    assert float(dropped.latents[0].abs().max()) == 0.0
    assert torch.equal(dropped.latents[1], condition.latents[1])
    assert dropped.motion_ids.tolist() == [0.0, 1.5]


def test_joined_conditions_stand_one_behind_the_other():
    first, second = make("3d"), make("4d")
    both = first.joined(second)
    assert both.indicator == (0, 0, 2, 2)
    assert torch.equal(both.rays[2:], second.rays)


def test_indices_count_from_the_end_and_keep_their_order():
    assert check_indices([-1, 0, 5], 12) == (11, 0, 5)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "indices is empty"),
        ([12], "indices has 12, expected positions from 0 to 11"),
        ([-13], "indices has -13"),
        ([0, -12], "name view 0 twice"),
        (list(range(12)), "nothing to generate"),
    ],
)
def test_impossible_indices_are_refused(indices, message):
    with pytest.raises(InvalidInputError, match=message):
        check_indices(indices, 12)


def test_unknown_mode_is_refused():
    with pytest.raises(
        InvalidInputError, match="mode is '5d', expected one of '3d', 'video', '4d'"
    ):
        mode_indicator("5d")


@pytest.mark.parametrize(("gamma", "number"), [(0.0, 0.0), (0.009, 0.225), (0.0145, 0.3625)])
def test_strength_is_about_25_gamma(gamma, number):
    assert_same_up_to(torch.tensor(gamma_to_motion_strength(gamma)), torch.tensor(number), 1e-4)


@pytest.mark.parametrize("gamma", [0.0, 1e-6, 0.02, 0.3, 3.0])
def test_strength_round_trip_gives_gamma(gamma):
    assert motion_strength_to_gamma(gamma_to_motion_strength(gamma)) == pytest.approx(
        gamma, abs=1e-9
    )


def test_strength_no_gamma_gives_is_refused():
    with pytest.raises(InvalidInputError, match="between -50 and 50"):
        motion_strength_to_gamma(50.0)
