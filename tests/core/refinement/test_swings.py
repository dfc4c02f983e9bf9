"""Paths from a film's camera to other views and back, and several clips in one batch."""

import pytest
import torch

import genxd_core as gx
from genxd_core import InvalidInputError
from genxd_core.refinement.clips import frames_per_clip
from genxd_core.refinement.swings import same_cameras

AROUND = gx.orbit(9, azimuth_range_deg=(0.0, 90.0), elevation_deg=20.0)
FILM, VIEWS = AROUND[[4]], AROUND[[0, 4, 8]]


def away(path: gx.Cameras, other: gx.Cameras) -> torch.Tensor:
    return (path.centres - other.centres).norm(dim=-1)


def test_every_path_is_the_films_camera_where_its_frames_lead_and_only_there():
    swings = gx.swing_paths(FILM, VIEWS, 12)
    assert swings.conditions == (0, 5, 11)
    assert len(swings.paths) == 2
    for path in swings.paths:
        same = same_cameras(path, FILM[[0] * 12])
        assert same.nonzero()[:, 0].tolist() == [0, 5, 11]
        assert torch.equal(path.c2w[[0, 5, 11]], FILM.c2w.expand(3, 4, 4))
        torch.testing.assert_close(path.times, torch.linspace(0, 1, 12))


def test_every_view_is_reached_in_each_part_of_the_film_and_the_scene_stays_in_the_middle():
    swings = gx.swing_paths(FILM, VIEWS, 13)
    assert swings.conditions == (0, 4, 8, 12)
    for number, path in enumerate(swings.paths):
        for part, middle in enumerate((2, 6, 10)):
            view = VIEWS[[(0, 2)[(number + part) % 2]]]
            assert away(path[[middle]], view).item() < 1e-4
        distance = path.centres.norm(dim=-1)
        # Between cameras on the arc its chord is followed, which is 0.002 % short.
        torch.testing.assert_close(distance, FILM.centres.norm().expand(13), atol=1e-4, rtol=0)


def test_a_camera_that_moves_is_met_where_it_is():
    moving = AROUND[[0, 1, 2, 3, 4]]
    swings = gx.swing_paths(moving, AROUND[[8]], 5)
    (path,) = swings.paths
    assert swings.conditions == (0, 2, 4)
    assert same_cameras(path, moving).tolist() == [True, False, True, False, True]
    assert away(path[[1]], AROUND[[8]]).item() < 1e-4


@pytest.mark.parametrize("num_frames", [3, 4, 5, 12, 30])
@pytest.mark.parametrize("window", [3, 5, 12])
def test_windows_of_any_length_have_frames_that_lead_and_frames_to_refine(num_frames, window):
    conditions = gx.swing_paths(FILM, VIEWS, num_frames, window=window).conditions
    plan = gx.plan_windows(
        num_frames,
        conditions=conditions,
        window=window,
        conditions_per_window=1,
        overlap=min(4, window - 1),
    )
    assert plan.conditions == conditions
    assert all(one.conditions and one.targets for one in plan.windows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 2}, "video has 2 frames; a path that leaves its camera"),
        ({"window": 2}, "window is 2; expected at least 3"),
        ({"view_cameras": FILM}, "every one of them is the video's own"),
        ({"input_cameras": AROUND[[0, 1]]}, "video has 12 frames, but input_cameras has 2"),
    ],
)
def test_what_cannot_swing_is_refused(changes, message):
    given = {"input_cameras": FILM, "view_cameras": VIEWS, "num_frames": 12} | changes
    with pytest.raises(InvalidInputError, match=message):
        gx.swing_paths(**given)


def test_a_clip_begins_where_time_falls_back():
    assert frames_per_clip(gx.swing_paths(FILM, VIEWS, 6).cameras) == 6
    assert frames_per_clip(AROUND) == 9
    still = gx.Cameras(AROUND.c2w, AROUND.Ks_norm, torch.full((9,), 0.5))
    assert frames_per_clip(still) == 9
    uneven = gx.Cameras(AROUND.c2w[:5], AROUND.Ks_norm[:5], [0.0, 0.5, 1.0, 0.0, 1.0])
    with pytest.raises(InvalidInputError, match="clips of 3, 2 frames"):
        frames_per_clip(uneven)
