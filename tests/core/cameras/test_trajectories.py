import inspect
import math

import pytest
import torch

import genxd_core as gx
from genxd_core import InvalidInputError
from genxd_core.cameras.easing import eased
from genxd_core.cameras.rotations import rotation_angle
from tests.support import assert_same_up_to

START_POSITION = torch.tensor([0.0, 2.0, 0.0])


def azimuths_deg(cameras: gx.Cameras) -> torch.Tensor:
    x, y, _ = cameras.centres.double().unbind(-1)
    return torch.rad2deg(torch.atan2(x, y))


def steps(cameras: gx.Cameras) -> torch.Tensor:
    return (cameras.centres[1:] - cameras.centres[:-1]).norm(dim=-1)


def all_paths(num_views: int) -> dict[str, gx.Cameras]:
    return {
        "orbit": gx.orbit(num_views),
        "forward_facing": gx.forward_facing(4 * num_views),
        "sway": gx.sway(num_views),
        "static": gx.static(num_views),
        "dolly": gx.dolly(num_views),
        "slide": gx.slide(num_views),
        "pan": gx.pan(num_views),
        "tilt": gx.tilt(num_views),
        "roll": gx.roll(num_views),
    }


@pytest.mark.parametrize("name", all_paths(1))
def test_every_path_starts_where_the_picture_stands(name):
    first = all_paths(5)[name]
    assert_same_up_to(first.centres[0], START_POSITION, 1e-6)
    # Looking at the origin, level: right is -X, down is -Z.
    assert_same_up_to(first.c2w[0, :3, 2], torch.tensor([0.0, -1.0, 0.0]), 1e-6)
    assert_same_up_to(first.c2w[0, :3, 0], torch.tensor([-1.0, 0.0, 0.0]), 1e-6)


@pytest.mark.parametrize("name", all_paths(1))
@pytest.mark.parametrize("num_views", [1, 2, 7])
def test_every_path_has_as_many_float32_views_as_asked(name, num_views):
    cameras = all_paths(num_views)[name]
    assert len(cameras) == (4 * num_views if name == "forward_facing" else num_views)
    assert cameras.dtype == torch.float32
    assert cameras.times is None


@pytest.mark.parametrize(
    "name", ["orbit", "sway", "static", "dolly", "slide", "pan", "tilt", "roll"]
)
@pytest.mark.parametrize("num_views", [0, -3])
def test_a_path_without_views_is_refused(name, num_views):
    with pytest.raises(
        InvalidInputError, match=f"num_views is {num_views}; expected a whole number"
    ):
        getattr(gx, name)(num_views)


def test_orbit_goes_to_the_cameras_left_and_leaves_out_the_end():
    cameras = gx.orbit(4, azimuth_range_deg=(0.0, 80.0))
    assert_same_up_to(azimuths_deg(cameras), torch.tensor([0.0, 20.0, 40.0, 60.0]), 1e-4)
    to_the_right = (cameras.centres[1] - cameras.centres[0]) @ cameras.c2w[0, :3, 0]
    assert float(to_the_right) < 0


@pytest.mark.parametrize("elevation_deg", [-30.0, 0.0, 60.0, 90.0])
def test_orbit_looks_at_its_target_from_its_radius(elevation_deg):
    target = torch.tensor([0.5, -1.0, 2.0])
    cameras = gx.orbit(7, elevation_deg=elevation_deg, radius=1.5, target=target.tolist())
    offsets = target - cameras.centres
    assert_same_up_to(offsets.norm(dim=-1), torch.full((7,), 1.5), 1e-5)
    assert_same_up_to(cameras.c2w[:, :3, 2] * 1.5, offsets, 1e-5)


def test_orbit_consistent4d_starts_at_zero_and_is_mirrored():
    cameras = gx.orbit(4, azimuth_range_deg=(30.0, 90.0), consistent4d=True)
    assert_same_up_to(azimuths_deg(cameras), torch.tensor([0.0, -30.0, -50.0, -70.0]), 1e-4)


@pytest.mark.parametrize("num_views", [1, 6, 13])
def test_forward_facing_needs_a_multiple_of_four(num_views):
    with pytest.raises(InvalidInputError, match=f"num_views is {num_views}; .* multiple of 4"):
        gx.forward_facing(num_views)


def test_forward_facing_jumps_after_the_first_frame_and_sway_does_not():
    def largest_change(cameras):
        lengths = steps(cameras)
        ratios = lengths[1:] / lengths[:-1]
        return float(torch.maximum(ratios, 1 / ratios).max())

    assert largest_change(gx.forward_facing(24, elevation_deg=10.0)) > 4.0
    # The swing slows down where it turns, but gradually.
    assert largest_change(gx.sway(24, elevation_deg=10.0)) < 1.35


@pytest.mark.parametrize("num_views", [2, 5, 12, 25])
@pytest.mark.parametrize("azimuth_range_deg", [(-30.0, 30.0), (-10.0, 50.0), (0.0, 40.0)])
def test_sway_starts_at_zero_stays_in_its_range_and_closes(num_views, azimuth_range_deg):
    cameras = gx.sway(num_views, elevation_deg=8.0, azimuth_range_deg=azimuth_range_deg)
    azimuth = azimuths_deg(cameras)
    assert float(azimuth[0]) == pytest.approx(0.0, abs=1e-4)
    assert float(azimuth.min()) >= azimuth_range_deg[0] - 1e-4
    assert float(azimuth.max()) <= azimuth_range_deg[1] + 1e-4
    if num_views > 5:
        closing = (cameras.centres[0] - cameras.centres[-1]).norm()
        assert float(closing) <= 1.01 * float(steps(cameras).max())


def test_sway_reaches_both_ends_of_its_range():
    azimuth = azimuths_deg(gx.sway(400, azimuth_range_deg=(-10.0, 50.0)))
    assert float(azimuth.min()) == pytest.approx(-10.0, abs=0.01)
    assert float(azimuth.max()) == pytest.approx(50.0, abs=0.01)


def test_sway_that_never_passes_the_picture_is_refused():
    with pytest.raises(
        InvalidInputError, match=r"azimuth_range_deg is \(10\.0, 40\.0\); the swing"
    ):
        gx.sway(8, azimuth_range_deg=(10.0, 40.0))


def test_static_repeats_one_pose():
    cameras = gx.static(5, elevation_deg=20.0, azimuth_deg=45.0)
    assert torch.equal(cameras.c2w, cameras.c2w[:1].expand(5, 4, 4))
    assert float(azimuths_deg(cameras)[0]) == pytest.approx(45.0, abs=1e-4)


@pytest.mark.parametrize("distance", [0.75, -0.5])
def test_dolly_drives_along_the_view(distance):
    cameras = gx.dolly(4, distance=distance)
    expected = torch.tensor([0.0, 2.0 - distance, 0.0])
    assert_same_up_to(cameras.centres[-1], expected, 1e-6)
    assert torch.equal(cameras.c2w[:, :3, :3], cameras.c2w[:1, :3, :3].expand(4, 3, 3))


def test_dolly_zoom_keeps_what_stands_at_the_target():
    cameras = gx.dolly(5, distance=1.0, keep_target_size=True)
    distance = cameras.centres.norm(dim=-1)
    size_in_picture = cameras.Ks_norm[:, 0, 0] / distance
    assert_same_up_to(size_in_picture, size_in_picture[:1].expand(5), 1e-6)
    assert float(distance[-1]) == pytest.approx(1.0)


def test_dolly_zoom_into_its_target_is_refused():
    with pytest.raises(InvalidInputError, match="a dolly zoom cannot reach its target"):
        gx.dolly(5, distance=2.0, keep_target_size=True)


def test_slide_moves_right_and_up_in_the_picture():
    cameras = gx.slide(3, right=1.0, up=0.5)
    moved = cameras.centres[-1] - cameras.centres[0]
    assert float(moved @ cameras.c2w[0, :3, 0]) == pytest.approx(1.0)
    assert float(moved @ cameras.c2w[0, :3, 1]) == pytest.approx(-0.5)
    assert float(moved[2]) == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "angle_deg"), [("pan", 40.0), ("tilt", 25.0), ("roll", -50.0)])
def test_turns_stay_in_place_and_reach_their_angle(name, angle_deg):
    cameras = getattr(gx, name)(5, angle_deg=angle_deg)
    assert_same_up_to(cameras.centres, START_POSITION.expand(5, 3), 1e-6)
    angles = rotation_angle(cameras.c2w[:1, :3, :3].expand(5, 3, 3), cameras.c2w[:, :3, :3])
    expected = torch.linspace(0.0, math.radians(abs(angle_deg)), 5)
    assert_same_up_to(angles, expected, 1e-5)


def test_positive_pan_turns_right_tilt_up_and_roll_clockwise():
    first = gx.static(1).c2w[0]
    right, down, forward = first[:3, 0], first[:3, 1], first[:3, 2]
    panned, tilted, rolled = (
        getattr(gx, name)(2, angle_deg=20.0).c2w[-1] for name in ("pan", "tilt", "roll")
    )
    assert float(panned[:3, 2] @ right) == pytest.approx(math.sin(math.radians(20.0)), abs=1e-6)
    assert float(tilted[:3, 2] @ down) == pytest.approx(-math.sin(math.radians(20.0)), abs=1e-6)
    # Clockwise seen from behind: the right side goes down.
    assert float(rolled[:3, 0] @ down) == pytest.approx(math.sin(math.radians(20.0)), abs=1e-6)
    assert float(rolled[:3, 2] @ forward) == pytest.approx(1.0)


@pytest.mark.parametrize("aspect", [16 / 9, 1.0, 0.5])
def test_every_path_has_square_pixels_at_its_aspect(aspect):
    for name in ("orbit", "sway", "static", "dolly", "slide", "pan", "tilt", "roll"):
        Ks = getattr(gx, name)(2, aspect=aspect, focal_norm=1.5).Ks(round(900 * aspect), 900)
        assert float(Ks[0, 0, 0] / Ks[0, 1, 1]) == pytest.approx(1.0, abs=1e-5)
        smaller_side = min(900 * aspect, 900)
        assert float(Ks[0, 0, 0]) == pytest.approx(1.5 * smaller_side, rel=1e-5)


@pytest.mark.parametrize("easing", ["linear", "ease-in", "ease-out", "ease-in-out"])
def test_easing_keeps_the_ends_and_never_turns_back(easing):
    progress = eased(torch.linspace(0, 1, 21, dtype=torch.float64), easing)
    assert float(progress[0]) == 0.0
    assert float(progress[-1]) == 1.0
    assert (progress.diff() > 0).all()


def test_easing_is_slow_where_its_name_says():
    def speed(easing):
        return gx.dolly(11, easing=easing).centres[:, 1].diff().abs()

    ease_in, ease_out, both = speed("ease-in"), speed("ease-out"), speed("ease-in-out")
    assert ease_in[0] < 0.02
    assert ease_in[-1] > 0.08
    assert_same_up_to(ease_in, ease_out.flip(0), 1e-6)
    assert both[0] < 0.02
    assert both[-1] < 0.02
    assert float(speed("linear").std()) < 1e-6


def test_an_unknown_easing_is_refused():
    # The tests' type checks would refuse it first; a user has none.
    unchecked = inspect.unwrap(eased)
    with pytest.raises(InvalidInputError, match="easing is 'bounce'; expected one of 'linear'"):
        unchecked(torch.zeros(2), "bounce")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": 0.0}, r"radius is 0\.0; expected a positive"),
        ({"radius": float("inf")}, "radius is inf"),
        ({"target": (0.0, 1.0)}, r"target is \(0\.0, 1\.0\); expected three numbers"),
        ({"target": (0.0, float("nan"), 1.0)}, "target is not finite"),
        ({"elevation_deg": float("nan")}, "elevation or target is not finite"),
        ({"focal_norm": -1.0}, r"focal_norm is -1\.0"),
        ({"aspect": 0.0}, r"aspect is 0\.0"),
    ],
)
def test_numbers_that_no_path_can_have_are_refused(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        gx.orbit(4, **settings)


def test_an_angle_that_is_not_finite_is_refused():
    with pytest.raises(InvalidInputError, match="angle_deg is nan; expected a finite number"):
        gx.pan(4, angle_deg=float("nan"))
