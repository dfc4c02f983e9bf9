"""Turning a scene upright: which way is up, and that nothing but the world changes."""

import pytest
import torch

import genxd_core as gx
from genxd_core import InvalidInputError
from genxd_core.lifting.upright import Up, turn_scene, upright_rotation
from tests.core.cameras.builders import random_cameras, random_rotations
from tests.core.lifting.splat_scenes import random_scene
from tests.support import assert_same_up_to

LEFT, UP, AHEAD = (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def moved(cameras, rotation):
    return turn_scene(random_scene(1), cameras, rotation)[1]


def level_orbit(**options):
    return gx.orbit(6, elevation_deg=20.0, azimuth_range_deg=(0.0, 120.0), **options)


@pytest.mark.parametrize("up", ["+Z", "-Y", "from cameras", "keep"])
def test_pictures_are_the_same_before_and_after(up):
    """Means, rotations, harmonics of the third degree and cameras turn together."""
    scene = random_scene(60, degree=3)
    cameras = level_orbit(radius=3.0).to(dtype=torch.float64)
    turned, turned_cameras = gx.turn_upright(scene, cameras, up=up)
    size = {"width": 40, "height": 40, "backend": "torch"}
    before = gx.rasterize(scene, cameras, **size)
    after = gx.rasterize(turned, turned_cameras, **size)
    for name in ("rgb", "alpha", "depth"):
        assert_same_up_to(getattr(after, name), getattr(before, name), 1e-9)
    assert float(before.alpha.max()) > 0.5


def test_z_up_becomes_minus_y_and_azimuth_0_looks_ahead():
    """Seen from +Y, the world's +X is on the left."""
    rotation = upright_rotation(random_cameras(1), up="+Z")
    assert_same_up_to(rotation @ vector(0, 0, 1), vector(*UP), 1e-15)
    assert_same_up_to(rotation @ vector(0, -1, 0), vector(*AHEAD), 1e-15)
    assert_same_up_to(rotation @ vector(1, 0, 0), vector(*LEFT), 1e-15)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0)
    first = moved(gx.orbit(12), rotation)[0].c2w[0].double()
    assert_same_up_to(first[:3, :3], torch.eye(3).double(), 1e-6)
    assert_same_up_to(first[:3, 3], vector(0, 0, -2), 1e-6)


@pytest.mark.parametrize("up", ["-Y", "keep"])
def test_an_upright_world_stays_as_it_is(up):
    scene, cameras = random_scene(4), random_cameras(3, times=True)
    turned, turned_cameras = gx.turn_upright(scene, cameras, up=up)
    assert_same_up_to(turned.means, scene.means, 1e-15)
    assert_same_up_to(turned_cameras.c2w, cameras.c2w, 1e-15)
    assert torch.equal(turned_cameras.times, cameras.times)


@pytest.mark.parametrize(
    ("elevation_deg", "range_deg"), [(-40, 200), (0, 20), (25, 200), (50, 90), (80, 360)]
)
def test_cameras_of_any_world_tell_what_is_up(elevation_deg, range_deg):
    """A capture in a world of its own comes out as the path does whose +Z is known to be up."""
    path = gx.orbit(7, elevation_deg=elevation_deg, azimuth_range_deg=(0, range_deg))
    path = path.to(dtype=torch.float64)
    expected = gx.turn_upright(random_scene(1), path, up="+Z")[1]
    for rotation in random_rotations(3):
        capture = moved(path, rotation)
        found = gx.turn_upright(random_scene(1), capture, up="from cameras")[1]
        assert_same_up_to(found.c2w, expected.c2w, 1e-5)


def test_hand_held_cameras_tell_what_is_up_roughly():
    """They shake by several degrees about all axes, and look at nothing in common."""
    shake = random_rotations(40, seed=2)
    angle = torch.linalg.norm(shake - torch.eye(3).double(), dim=(1, 2))
    near = shake[angle.argsort()[:8]]
    cameras = moved(gx.static(8).to(dtype=torch.float64), torch.eye(3).double())
    c2w = cameras.c2w.clone()
    blend = torch.linalg.svd(torch.eye(3).double() + 0.15 * (near - torch.eye(3).double()))
    c2w[:, :3, :3] = c2w[:, :3, :3] @ (blend.U @ blend.Vh)
    rotation = upright_rotation(gx.Cameras(c2w, cameras.Ks_norm), up="from cameras")
    assert float((rotation @ vector(0, 0, 1)) @ vector(*UP)) > 0.95


def straight_down():
    """One camera at the zenith."""
    return gx.orbit(1, elevation_deg=90.0)


def over_a_field():
    """A drone that looks straight down and turns a little to both sides."""
    path = gx.orbit(5, elevation_deg=90.0, azimuth_range_deg=(-15.0, 20.0))
    return gx.Cameras(path.c2w, path.Ks_norm)


def half_upside_down():
    path = level_orbit()
    c2w = path.c2w.clone()
    c2w[::2, :3, :2] *= -1
    return gx.Cameras(c2w, path.Ks_norm)


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        (straight_down(), "all 1 cameras have the same direction to their right"),
        (gx.dolly(5), "all 5 cameras have the same direction"),
        (over_a_field(), "the 5 cameras contradict each other about what is up"),
        (gx.orbit(8, elevation_deg=90.0), "the 8 cameras contradict"),
        (gx.roll(9, angle_deg=320.0), "the 9 cameras contradict"),
        (half_upside_down(), "the 6 cameras contradict"),
    ],
    ids=["straight down", "dolly", "over a field", "turning above", "roll", "upside down"],
)
def test_cameras_that_tell_no_up_are_refused(cameras, message):
    with pytest.raises(InvalidInputError, match=message) as error:
        gx.turn_upright(random_scene(1), cameras, up="from cameras")
    assert 'Choose "+Z"' in str(error.value)


def test_what_is_no_direction_is_refused():
    with pytest.raises(InvalidInputError, match=r'up is "up"; expected one of "\+Z", "-Y"'):
        gx.turn_upright(random_scene(1), random_cameras(1), up="up")
    assert Up.__args__ == ("+Z", "-Y", "from cameras", "keep")


def test_the_transpose_turns_back():
    scene, cameras = random_scene(20, degree=2), level_orbit().to(dtype=torch.float64)
    rotation = gx.upright_rotation(cameras, up="from cameras")
    turned = gx.turn_upright(scene, cameras, up="from cameras")
    back, back_cameras = gx.turn_scene(*turned, rotation.T)
    assert_same_up_to(back.means, scene.means, 1e-12)
    assert_same_up_to(back.sh, scene.sh, 1e-9)
    assert_same_up_to(back_cameras.c2w, cameras.c2w, 1e-12)
    assert_same_up_to((back.quats * scene.quats).sum(-1).abs(), torch.ones(20).double(), 1e-12)


def test_looking_straight_down_at_first_keeps_the_pictures_top_ahead():
    path = gx.orbit(7, elevation_deg=30.0, azimuth_range_deg=(0, 200)).to(dtype=torch.float64)
    first = gx.orbit(1, elevation_deg=90.0).to(dtype=torch.float64)
    cameras = gx.Cameras(torch.cat([first.c2w, path.c2w]), torch.cat([first.Ks_norm, path.Ks_norm]))
    turned = gx.turn_upright(random_scene(1), cameras, up="from cameras")[1]
    assert_same_up_to(-turned.c2w[0, :3, 1], vector(*AHEAD), 1e-5)
