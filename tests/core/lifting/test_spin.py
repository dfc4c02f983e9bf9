"""Paths for videos of a scene: which path for which cameras, and whether all is in view."""

import math

import pytest
import torch

import genxd_core as gx
from genxd_core import Cameras, InvalidInputError
from genxd_core.cameras.editing import resample
from genxd_core.lifting.spin import is_one_video, swing_along
from tests.core.cameras.builders import random_rotations
from tests.core.lifting.splat_scenes import random_scene
from tests.support import assert_same_up_to

Z_UP = (0.0, 0.0, 1.0)


def azimuths(path):
    return torch.rad2deg(torch.atan2(path.centres[:, 0], path.centres[:, 1]))


def moved(cameras, rotation, offset):
    c2w = cameras.c2w.double().clone()
    c2w[:, :3] = rotation @ c2w[:, :3]
    c2w[:, :3, 3] += offset
    return Cameras(c2w, cameras.Ks_norm)


def test_an_orbit_is_found_again():
    given = gx.orbit(12, elevation_deg=20.0, radius=3.0, aspect=1.5, focal_norm=1.4)
    spin = gx.spin_cameras(given, 12, up=Z_UP)
    assert_same_up_to(spin.c2w, given.c2w, 1e-5)
    assert_same_up_to(spin.Ks_norm, given.Ks_norm, 1e-6)


def test_the_path_moves_with_the_cameras():
    """Any world, any place; up turns with it. -Y is up where nothing is said."""
    rotation, offset = random_rotations(1, seed=3)[0], torch.tensor([5.0, -3.0, 8.0]).double()
    given = gx.orbit(9, elevation_deg=10.0, azimuth_range_deg=(30.0, 120.0))
    expected = moved(gx.spin_cameras(given, 8, up=Z_UP), rotation, offset)
    up = rotation @ torch.tensor(Z_UP).double()
    assert_same_up_to(
        gx.spin_cameras(moved(given, rotation, offset), 8, up=up).c2w, expected.c2w.float(), 1e-5
    )
    upright = gx.turn_upright(random_scene(4), given, up="+Z")[1]
    spin = gx.spin_cameras(upright, 8)
    assert_same_up_to(spin.centres[:, 1], upright.centres[:, 1].mean().expand(8), 1e-5)


def test_heights_and_distances_are_the_mean_ones():
    low, high = gx.orbit(8, elevation_deg=0.0, radius=2.0), gx.orbit(8, elevation_deg=30.0)
    given = Cameras(torch.cat([low.c2w, high.c2w]), torch.cat([low.Ks_norm, high.Ks_norm]))
    spin = gx.spin_cameras(given, 10, up=Z_UP)
    assert spin.centres[:, 2].tolist() == pytest.approx([0.5] * 10, abs=1e-4)
    flat = (2.0 + 2.0 * 3**0.5 / 2) / 2
    assert spin.centres[:, :2].norm(dim=-1).tolist() == pytest.approx([flat] * 10, abs=1e-4)


def test_an_arc_is_swayed_through_and_not_left():
    given = gx.orbit(9, azimuth_range_deg=(-20.0, 70.0), elevation_deg=-15.0, radius=3.0)
    spin = gx.spin_cameras(given, 40, up=Z_UP)
    assert float(azimuths(spin).min()) == pytest.approx(-20.0, abs=0.1)
    assert float(azimuths(spin).max()) == pytest.approx(60.0, abs=0.5)
    assert_same_up_to(spin.centres.norm(dim=-1), torch.full((40,), 3.0), 1e-4)
    assert_same_up_to(spin.centres[:, 2], given.centres[:1, 2].expand(40), 1e-4)
    towards = -torch.nn.functional.normalize(spin.centres, dim=-1)
    assert_same_up_to(spin.c2w[:, :3, 2], towards, 1e-4)


@pytest.mark.parametrize(
    "given", [gx.dolly(7, distance=3.0), gx.slide(7, right=1.0, up=0.2)], ids=["dolly", "slide"]
)
def test_cameras_with_no_common_point_are_followed(given):
    """As in a street: the path stays on the line of the cameras and looks as they do."""
    spin = gx.spin_cameras(given, 24, up=Z_UP)
    nearest = torch.cdist(spin.centres, given.centres).amin(1)
    step = float((given.centres[1] - given.centres[0]).norm())
    assert float(nearest.max()) <= 0.51 * step
    ahead = (spin.c2w[:, :3, 2] * given.c2w[:1, :3, 2]).sum(-1)
    assert float(ahead.min()) > 0.99


def test_badly_registered_cameras_do_not_lead_astray():
    given = gx.dolly(13, distance=3.0)
    c2w = given.c2w.clone()
    c2w[12, :3, 3] += torch.tensor([9.0, 0.0, -8.0])
    spin = gx.spin_cameras(Cameras(c2w, given.Ks_norm), 12, up=Z_UP)
    assert float(torch.cdist(spin.centres, given.centres).amin(1).max()) < 0.2


def test_cameras_that_look_outward_give_a_look_around():
    given = gx.orbit(8, radius=1.0)
    c2w = given.c2w.clone()
    c2w[:, :3, 3] *= -1
    spin = gx.spin_cameras(Cameras(c2w, given.Ks_norm), 8, up=Z_UP)
    assert_same_up_to(spin.centres, torch.zeros(8, 3), 1e-5)
    assert_same_up_to(spin.c2w[:, :3, :3], given.c2w[:, :3, :3], 1e-5)


def test_cameras_straight_above_are_no_special_case():
    above = gx.static(3, elevation_deg=90.0)
    c2w = above.c2w.clone()
    c2w[:, :3, 3] += torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0, 0.3, 0]])
    spin = gx.spin_cameras(Cameras(c2w, above.Ks_norm), 6, up=Z_UP)
    assert float(spin.c2w[:, 2, 2].max()) < -0.99


def test_one_place_is_refused():
    with pytest.raises(InvalidInputError, match="all 5 stand in one place"):
        gx.spin_cameras(gx.pan(5), 8)
    with pytest.raises(InvalidInputError, match="num_views is 0"):
        gx.spin_cameras(gx.orbit(5), 0)


def test_a_splat_alone_is_seen_whole():
    scene = random_scene(200, seed=1).to(dtype=torch.float32)
    path = gx.spin_around(scene, 5, aspect=0.5)
    assert float((path.c2w[:, 1, 1] - path.c2w[0, 1, 1]).abs().max()) < 1e-5
    assert bool((path.c2w[:, 1, 1] > 0.9).all())  # the picture's down is the world's, +Y
    assert bool((path.centres[:, 1] < scene.means.median(0).values[1]).all())  # from above
    local = torch.einsum("vij,nj->vni", path.viewmats[:, :3, :3], scene.means)
    local = local + path.viewmats[:, None, :3, 3]
    place = torch.einsum("vij,vnj->vni", path.Ks_norm, local / local[..., 2:])[..., :2]
    inside = ((place > 0) & (place < 1)).all(-1).float().mean(1)
    assert float(inside.min()) > 0.9


def film(num_views=5):
    """A camera that walks ahead, and looks to the left more and more."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(num_views, 1, 1)
    angles = torch.linspace(0, -0.4, num_views, dtype=torch.float64)
    c2w[:, 0, 0] = c2w[:, 2, 2] = angles.cos()
    c2w[:, 0, 2], c2w[:, 2, 0] = angles.sin(), -angles.sin()
    c2w[:, 2, 3] = torch.linspace(0, 3, num_views, dtype=torch.float64)
    Ks_norm = gx.orbit(num_views).Ks_norm
    return Cameras(c2w, Ks_norm, torch.linspace(0, 1, num_views))


def test_a_video_is_followed_and_swung_to_both_sides():
    given = film()
    path = swing_along(given, 33, 4.0)
    assert_same_up_to(path.times, torch.linspace(0, 1, 33), 1e-6)
    # At its own times between two swings the camera is where it was.
    assert_same_up_to(path.c2w[::8], given.c2w.float(), 1e-5)
    own = resample(given, 33).c2w.float()
    aside = ((path.c2w - own)[:, :3, 3] * own[:, :3, 0]).sum(1)
    assert float(aside.max()) == pytest.approx(4 * math.sin(math.radians(6)), abs=1e-3)
    assert float(aside.min()) == pytest.approx(-float(aside.max()), abs=1e-3)
    # What was 4 ahead stays in the middle of the picture, 4 ahead.
    middle = own[:, :3, 3] + 4 * own[:, :3, 2]
    local = ((middle - path.centres)[:, None] @ path.c2w[:, :3, :3])[:, 0]
    assert_same_up_to(local, torch.tensor([0.0, 0.0, 4.0]).expand(33, 3), 1e-5)


def test_frames_in_another_order_are_the_same_video():
    given = film()
    mixed = given[[3, 0, 4, 1, 2]]
    assert torch.equal(swing_along(mixed, 9, 2.0).c2w, swing_along(given, 9, 2.0).c2w)


def test_one_video_has_one_camera_at_a_time():
    given = film()
    assert is_one_video(given)
    assert not is_one_video(given[[0, 1, 1]])
    assert not is_one_video(Cameras(given.c2w, given.Ks_norm))
