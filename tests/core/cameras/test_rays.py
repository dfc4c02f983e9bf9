import numpy as np
import pytest
import torch

from genxd_core import Cameras, InvalidInputError, orbit, plucker_rays
from genxd_core.cameras.rays import camera_rays
from tests.core.cameras.builders import random_cameras, random_rotations
from tests.support import assert_same_up_to, seeded


def moved_world(cameras: Cameras, seed: int) -> Cameras:
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3] = random_rotations(1, seed)[0]
    motion[:3, 3] = torch.randn(3, generator=seeded(seed), dtype=torch.float64)
    return Cameras(motion @ cameras.c2w, cameras.Ks_norm)


def test_rays_of_the_identity_camera_by_hand():
    Ks_norm = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]]])
    origins, directions = camera_rays(torch.eye(4)[None], Ks_norm, height=1, width=2)
    # Pixel centres lie at x = 0.25 and 0.75, y = 0.5: (x - 0.5) / 1 and (y - 0.5) / 2 ahead.
    expected = torch.nn.functional.normalize(torch.tensor([[-0.25, 0.0, 1.0], [0.25, 0.0, 1.0]]))
    assert_same_up_to(directions[0, :, 0].T, expected, 1e-7)
    assert origins.tolist() == [[0.0, 0.0, 0.0]]


def test_pixels_to_the_right_and_below_look_right_and_down():
    cameras = orbit(1)
    rays = plucker_rays(cameras, height=3, width=3)[0, :3]
    assert rays[0, 1, 2] > 0 > rays[0, 1, 0]
    assert rays[1, 2, 1] > 0 > rays[1, 0, 1]


def test_directions_are_unit_and_moments_perpendicular():
    rays = plucker_rays(random_cameras(5), height=6, width=9)
    direction, moment = rays[:, :3], rays[:, 3:]
    assert_same_up_to(direction.norm(dim=1), torch.ones(5, 6, 9), 1e-6)
    assert_same_up_to((direction * moment).sum(1), torch.zeros(5, 6, 9), 1e-5)


def test_moment_is_origin_cross_direction():
    cameras = random_cameras(4)
    rays = plucker_rays(cameras, height=3, width=5, reference=np.eye(4))
    for view in range(4):
        for row in range(3):
            direction = rays[view, :3, row, 2].numpy()
            expected = np.cross(cameras.centres[view].numpy(), direction)
            assert np.allclose(rays[view, 3:, row, 2].numpy(), expected, atol=1e-5)


def test_the_reference_view_has_no_moment():
    rays = plucker_rays(random_cameras(4), height=3, width=4, reference=2)
    assert_same_up_to(rays[2, 3:], torch.zeros(3, 3, 4), 1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_plucker_is_unchanged_by_moving_the_world(seed):
    cameras = random_cameras(4, seed)
    rays = plucker_rays(cameras, height=4, width=5, reference=1)
    moved = plucker_rays(moved_world(cameras, seed), height=4, width=5, reference=1)
    assert_same_up_to(moved, rays, 1e-5)


def test_an_index_and_its_pose_are_the_same_reference():
    cameras = random_cameras(4)
    by_index = plucker_rays(cameras, height=2, width=2, reference=-1)
    by_pose = plucker_rays(cameras, height=2, width=2, reference=cameras.c2w[3])
    by_array = plucker_rays(cameras, height=2, width=2, reference=cameras.c2w[3].numpy())
    assert torch.equal(by_index, by_pose)
    assert torch.equal(by_index, by_array)


def test_rays_are_float32_and_keep_their_digits_far_from_the_origin():
    near = random_cameras(3)
    c2w = near.c2w.clone()
    c2w[:, :3, 3] += 1e5
    rays = plucker_rays(Cameras(c2w, near.Ks_norm), height=2, width=2)
    assert rays.dtype == torch.float32
    assert_same_up_to(rays, plucker_rays(near, height=2, width=2), 1e-5)


@pytest.mark.parametrize("reference", [3, -4])
def test_a_reference_view_that_does_not_exist_is_refused(reference):
    with pytest.raises(InvalidInputError, match=f"reference is view {reference}, but there are 3"):
        plucker_rays(random_cameras(3), height=2, width=2, reference=reference)


def test_a_reference_that_is_no_pose_is_refused():
    with pytest.raises(InvalidInputError, match=r"reference has shape \(3, 4\); expected an index"):
        plucker_rays(random_cameras(3), height=2, width=2, reference=torch.zeros(3, 4))
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0]))
    with pytest.raises(InvalidInputError, match=r"reference .*is mirrored"):
        plucker_rays(random_cameras(3), height=2, width=2, reference=mirror)


@pytest.mark.parametrize("size", [{"height": 0, "width": 2}, {"height": 2, "width": -1}])
def test_a_size_without_pixels_is_refused(size):
    with pytest.raises(InvalidInputError, match="expected at least 1 latent pixel"):
        plucker_rays(random_cameras(3), **size)
