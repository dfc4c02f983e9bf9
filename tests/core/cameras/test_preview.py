import itertools
import math

import numpy as np
import pytest
import torch

import genxd_core as gx
from genxd_core import Cameras, InvalidInputError, draw_camera_path
from genxd_core.cameras.drawing import BACKGROUND, INK, PANEL, Canvas, ramp
from tests.core.cameras.builders import random_cameras
from tests.support import DATA

SMALL = {"width": 320, "height": 160, "supersampling": 2}


def luminance(colour) -> float:
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in colour]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def pixels_near(picture: torch.Tensor, colour: tuple[int, int, int], within: float = 0.06) -> int:
    wanted = torch.tensor(colour).view(3, 1, 1) / 255
    return int(((picture - wanted).abs().amax(0) < within).sum())


def paths() -> dict[str, Cameras]:
    far = gx.orbit(6)
    shifted = far.c2w.clone()
    shifted[:, :3, 3] += 1e5
    return {
        "orbit": gx.orbit(12, elevation_deg=20.0),
        "sway": gx.sway(24, elevation_deg=10.0),
        "dolly": gx.dolly(8),
        "portrait": gx.orbit(7, aspect=0.5),
        "single": gx.orbit(1),
        "identical": gx.static(9),
        "turning": gx.roll(9, angle_deg=350.0),
        "looking down": gx.orbit(5, elevation_deg=90.0),
        "tiny": gx.scale_cameras(gx.orbit(30), 1e-9),
        "huge": gx.scale_cameras(gx.orbit(200), 1e9),
        "far away": Cameras(shifted, far.Ks_norm),
        "random": random_cameras(40),
        "lund": gx.load_cameras(DATA / "lund", max_distortion=math.inf),
    }


@pytest.mark.parametrize("name", paths())
def test_every_path_gives_a_picture_with_both_views_drawn(name):
    picture = draw_camera_path(paths()[name], conditioned=[0], **SMALL)
    assert picture.shape == (3, 160, 320)
    assert picture.dtype == torch.float32
    assert float(picture.min()) >= 0.0
    assert float(picture.max()) <= 1.0
    # The conditioned view's white outline appears on both sides.
    for half in (picture[:, 20:130, :160], picture[:, 20:130, 160:]):
        assert pixels_near(half, INK, within=0.2) > 10


def test_the_picture_is_the_same_every_time():
    cameras = gx.sway(10)
    assert torch.equal(draw_camera_path(cameras, **SMALL), draw_camera_path(cameras, **SMALL))


def test_the_picture_does_not_depend_on_the_unit():
    cameras = gx.orbit(8, elevation_deg=10.0).to(dtype=torch.float64)
    near = draw_camera_path(cameras, **SMALL)
    far = draw_camera_path(gx.scale_cameras(cameras, 1000.0), **SMALL)
    # The scale in words differs; the drawing does not.
    assert float((near - far)[:, 20:110].abs().max()) < 0.02


def test_conditioned_views_are_marked_and_may_count_from_the_end():
    cameras = gx.orbit(8)
    plain = draw_camera_path(cameras, **SMALL)
    marked = draw_camera_path(cameras, conditioned=[0, -3], **SMALL)
    again = draw_camera_path(cameras, conditioned=[5, 0, 0], **SMALL)
    assert pixels_near(marked, INK) > pixels_near(plain, INK) + 20
    assert torch.equal(marked, again)


def test_first_and_last_views_have_the_ends_of_the_ramp():
    picture = draw_camera_path(gx.slide(5, right=4.0), width=512, height=256)
    panels = picture[:, 30:220]
    for colour in (ramp(0.0), ramp(1.0)):
        assert pixels_near(panels, colour, within=0.1) > 10


def test_seen_from_above_a_slide_to_the_right_goes_right():
    picture = draw_camera_path(gx.slide(5, right=4.0), width=512, height=256)[:, 30:190, 256:]

    def mean_column(colour):
        wanted = torch.tensor(colour).view(3, 1, 1) / 255
        hits = (picture - wanted).abs().amax(0) < 0.1
        return float(hits.nonzero()[:, 1].float().mean())

    assert mean_column(ramp(1.0)) > mean_column(ramp(0.0)) + 50


def test_the_ramp_gets_lighter_evenly():
    lightness = [luminance(ramp(step / 10)) for step in range(11)]
    assert all(later > earlier for earlier, later in itertools.pairwise(lightness))
    assert luminance(ramp(0.0)) > 3 * luminance(PANEL)


def test_labels_keep_out_of_each_others_way():
    canvas = Canvas(100, 100, BACKGROUND, 1)
    for number in range(4):
        canvas.label((50.0, 50.0), str(number), 10.0, INK, distance=6.0)
    boxes = canvas._labels
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("view", [6, -7])
def test_a_conditioned_view_that_does_not_exist_is_refused(view):
    with pytest.raises(InvalidInputError, match=f"conditioned holds view {view}, but there are 6"):
        draw_camera_path(gx.orbit(6), conditioned=[view])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 64, "height": 512}, "width and height are 64 x 512; expected at least 96"),
        ({"supersampling": 9}, "supersampling is 9; expected 1, 2, 3 or 4"),
    ],
)
def test_sizes_out_of_range_are_refused(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        draw_camera_path(gx.orbit(6), **settings)
