import torch

import genxd_core as gx
from genxd_core import Cameras
from genxd_core.cameras.describe import describe
from genxd_core.cameras.editing import with_even_times


def test_an_orbit_in_words():
    lines = describe(gx.orbit(12)).splitlines()
    assert lines[0] == "12 cameras, field of view 49.1 x 49.1 degrees;"
    assert lines[1].startswith(
        "path scale 4 (largest distance from view 0), length 11.39, turning 330"
    )
    assert lines[2] == "no times."
    assert len(lines) == 3


def test_one_camera_is_one_camera():
    assert describe(gx.orbit(1)).startswith("1 camera, ")


def test_times_and_changing_focal_lengths_are_told():
    cameras = with_even_times(gx.dolly(3, distance=1.0, keep_target_size=True))
    text = describe(cameras)
    assert "field of view 49.1-84.9 x 49.1-84.9 degrees" in text
    assert "times 0 to 1" in text


def test_the_scale_is_measured_from_the_reference():
    assert "path scale 0.5 (largest distance from view 2)" in describe(
        gx.slide(5, right=1.0), reference=2
    )


def test_far_too_large_and_small_scales_come_with_advice():
    large = describe(gx.scale_cameras(gx.orbit(6), 100.0))
    assert "far above what the released weights saw" in large
    assert "for instance by 0.005" in large
    small = describe(gx.scale_cameras(gx.orbit(6), 1e-3))
    assert "far below what the released weights saw" in small


def test_a_still_path_gets_no_advice_about_its_scale():
    identity = torch.eye(4).repeat(3, 1, 1)
    assert "weights" not in describe(Cameras(identity, torch.eye(3).repeat(3, 1, 1)))
