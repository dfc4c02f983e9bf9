import math

import pytest
import torch

from genxd_core import InvalidInputError
from genxd_core.cameras.rotations import (
    invert_rigid,
    look_inward,
    quat_to_rotation,
    rotation_angle,
    rotation_to_quat,
    slerp_quats,
    slerp_rotations,
)
from tests.core.cameras.builders import random_cameras, random_rotations
from tests.support import assert_same_up_to, seeded

HALF_TURNS = torch.tensor(
    [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0], [0, 0.6, 0, 0.8]],
    dtype=torch.float64,
)


def turn(axis: list[float], angle_rad: float) -> torch.Tensor:
    """Rodrigues' formula, independent of quaternions."""
    x, y, z = axis
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    identity = torch.eye(3, dtype=torch.float64)
    return identity + math.sin(angle_rad) * cross + (1 - math.cos(angle_rad)) * cross @ cross


def test_quaternions_are_in_the_order_w_x_y_z():
    quarter = torch.tensor([math.cos(math.pi / 4), 0.0, 0.0, math.sin(math.pi / 4)])
    expected = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert_same_up_to(quat_to_rotation(quarter), expected, 1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_matrix_to_quaternion_and_back_is_the_same_rotation(seed):
    rotations = random_rotations(50, seed)
    quats = rotation_to_quat(rotations)
    assert_same_up_to(quat_to_rotation(quats), rotations, 1e-12)
    assert (quats[:, 0] >= 0).all()
    assert_same_up_to(quats.norm(dim=-1), torch.ones(50, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_quaternion_to_matrix_and_back_is_the_same_up_to_sign(seed):
    quats = torch.randn(50, 4, generator=seeded(seed), dtype=torch.float64)
    quats = quats / quats.norm(dim=-1, keepdim=True)
    again = rotation_to_quat(quat_to_rotation(quats))
    assert_same_up_to((again * quats).sum(-1).abs(), torch.ones(50, dtype=torch.float64), 1e-12)


def test_half_turns_survive_the_round_trip():
    rotations = quat_to_rotation(HALF_TURNS)
    assert_same_up_to(quat_to_rotation(rotation_to_quat(rotations)), rotations, 1e-15)


def test_quaternions_of_any_length_give_rotations():
    quats = HALF_TURNS * 7.0
    assert_same_up_to(quat_to_rotation(quats), quat_to_rotation(HALF_TURNS), 1e-15)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_quaternion_that_is_no_rotation_is_refused(value):
    with pytest.raises(InvalidInputError, match="quats: a quaternion is zero or not finite"):
        quat_to_rotation(torch.full((1, 4), value))


@pytest.mark.parametrize("angle_deg", [1e-6, 0.01, 5.0, 90.0, 179.0])
def test_slerp_turns_evenly_about_one_axis(angle_deg):
    axis = [0.0, 0.6, 0.8]
    first = turn([1.0, 0.0, 0.0], 0.7)
    fraction = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    angle = math.radians(angle_deg)
    expected = torch.stack([turn(axis, float(f) * angle) @ first for f in fraction])
    last = (turn(axis, angle) @ first).expand(4, 3, 3)
    assert_same_up_to(slerp_rotations(first.expand(4, 3, 3), last, fraction), expected, 1e-9)


def test_slerp_takes_the_short_way():
    first = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    last = -torch.tensor([[math.cos(0.1), math.sin(0.1), 0.0, 0.0]], dtype=torch.float64)
    middle = slerp_quats(first, last, torch.tensor([0.5], dtype=torch.float64))
    expected = torch.tensor([[math.cos(0.05), math.sin(0.05), 0.0, 0.0]], dtype=torch.float64)
    assert_same_up_to(middle, expected, 1e-12)


@pytest.mark.parametrize("angle_rad", [0.0, 1e-7, 0.5, math.pi - 1e-7, math.pi])
def test_rotation_angle_is_exact_at_both_ends(angle_rad):
    first = random_rotations(1)[0]
    last = first @ turn([0.8, 0.0, 0.6], angle_rad)
    assert float(rotation_angle(first, last)) == pytest.approx(angle_rad, abs=1e-9)


def test_invert_rigid_twice_is_the_same_pose():
    c2w = random_cameras(5).c2w
    assert_same_up_to(invert_rigid(invert_rigid(c2w)), c2w, 1e-14)


@pytest.mark.parametrize("elevation_deg", [-90.0, -40.0, 0.0, 89.999, 90.0])
def test_look_inward_looks_at_the_centre_with_z_up(elevation_deg):
    azimuth = torch.deg2rad(torch.tensor([0.0, 33.0, 250.0], dtype=torch.float64))
    elevation = torch.deg2rad(torch.full((3,), elevation_deg, dtype=torch.float64))
    outward, rotation = look_inward(azimuth, elevation)
    assert_same_up_to(rotation[:, :, 2], -outward, 1e-15)
    assert_same_up_to(torch.linalg.det(rotation), torch.ones(3, dtype=torch.float64), 1e-12)
    # Level, and never upside down.
    assert_same_up_to(rotation[:, 2, 0], torch.zeros(3, dtype=torch.float64), 1e-15)
    assert (rotation[:, 2, 1] <= 1e-12).all()
