"""Keypoints and tracks: corners, Lucas-Kanade, and what is dropped for which reason."""

import inspect
import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from genxd_core import InvalidInputError
from genxd_core.curation.lucas_kanade import find_corners, follow_points, pyramid
from genxd_core.curation.point_tracks import (
    FATES,
    FollowedPoints,
    LucasKanade,
    OpenCVLucasKanade,
    PointTracker,
    choose_tracker,
    pairs_from_points,
    sample_keypoints,
    track_objects,
)
from tests.support import assert_same_up_to, seeded

HEIGHT, WIDTH = 96, 128


def waves(shift=(0.0, 0.0), *, height=HEIGHT, width=WIDTH, seed=0) -> torch.Tensor:
    """A pattern of sines that is moved by ``shift`` exactly, to fractions of a pixel."""
    rng = seeded(seed)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    grey = torch.zeros(height, width)
    for _ in range(30):
        angle, phase, length = torch.rand(3, generator=rng) * torch.tensor([math.pi, 6.28, 20.0])
        along = angle.cos() * (x - shift[0]) + angle.sin() * (y - shift[1])
        grey += (2 * math.pi * along / (length + 6) + phase).sin()
    return (0.5 + grey / 30).clamp(0, 1)


def coloured(grey: torch.Tensor) -> torch.Tensor:
    return grey[None].expand(3, -1, -1).clone()


def whole(value=True) -> torch.Tensor:
    return torch.full((HEIGHT, WIDTH), value)


@pytest.mark.parametrize("shift", [(0.3, -0.7), (3.25, 1.5), (-5.4, 4.3)])
def test_points_are_followed_to_a_twentieth_of_a_pixel(shift):
    first, second = waves(), waves(shift)
    corners = find_corners(first, whole(), most=60)
    middle = (corners[:, 0] - WIDTH / 2).abs() < WIDTH / 2 - 24
    middle &= (corners[:, 1] - HEIGHT / 2).abs() < HEIGHT / 2 - 24
    start = corners[middle]
    assert len(start) >= 8
    at, found = follow_points(pyramid(first), pyramid(second), start)
    assert bool(found.all())
    assert_same_up_to(at, start + torch.tensor(shift), 0.05)


def test_corners_of_a_square_are_its_corners():
    grey = torch.zeros(40, 40)
    grey[10:30, 8:28] = 1.0
    found = find_corners(grey, torch.ones(40, 40, dtype=torch.bool), most=4)
    expected = torch.tensor([[8.0, 10.0], [8.0, 30.0], [28.0, 10.0], [28.0, 30.0]])
    nearest = (expected[:, None] - found).abs().amax(-1).amin(1)
    assert len(found) == 4
    assert float(nearest.max()) <= 2.0  # half of the 5 x 5 window, which is best inside of it


def test_flat_areas_and_edges_have_no_corners():
    flat = torch.full((40, 40), 0.5)
    edge = flat.clone()
    edge[:, 20:] = 0.9
    everywhere = torch.ones(40, 40, dtype=torch.bool)
    assert len(find_corners(flat, everywhere, most=60)) == 0
    assert len(find_corners(edge, everywhere, most=60)) == 0


def test_keypoints_keep_three_pixels_inside_of_the_object_and_are_limited():
    mask = whole(False)
    mask[20:70, 30:100] = True
    found = sample_keypoints(coloured(waves()), mask, most=25)
    assert len(found) == 25
    assert float(found[:, 0].min()) >= 33.5
    assert float(found[:, 0].max()) <= 96.5
    assert float(found[:, 1].min()) >= 23.5
    assert float(found[:, 1].max()) <= 66.5


def moved_square(shift: int, *, lies=True) -> tuple[torch.Tensor, torch.Tensor]:
    """A patterned square that moves to the right before a flat wall, and its label maps."""
    images, ids = torch.full((3, 3, HEIGHT, WIDTH), 0.5), torch.zeros(3, HEIGHT, WIDTH, dtype=int)
    pattern = waves(height=50, width=50)
    for frame in range(3):
        left = 20 + shift * frame
        images[frame, :, 20:70, left : left + 50] = pattern
        if lies or frame == 0:
            ids[frame, 20:70, left : left + 50] = 7
    return images, ids


def test_object_that_moves_is_followed_from_every_frame_to_the_next():
    images, ids = moved_square(5)
    tracks = track_objects(images, ids)
    assert tracks.objects == (7,)
    assert sorted(tracks.frame_i.unique().tolist()) == [0, 1]
    assert set(tracks.object_id.tolist()) == {7}
    assert int(tracks.kept.sum()) >= 40
    assert_same_up_to(
        tracks.shares, torch.full((3, 1), 2500 / (HEIGHT * WIDTH), dtype=torch.float64), 1e-9
    )
    moved = (tracks.xy_j - tracks.xy_i)[tracks.kept]
    assert_same_up_to(moved.median(0).values, torch.tensor([5.0, 0.0]), 0.02)
    assert sum(tracks.counts.values()) == len(tracks)


def test_landing_outside_of_the_own_mask_is_told_as_off_object():
    images, ids = moved_square(5, lies=False)
    tracks = track_objects(images, ids)
    assert int(tracks.kept.sum()) == 0
    assert tracks.counts["off_object"] >= 20


def test_what_is_covered_is_not_followed():
    images, ids = moved_square(0)
    images[1] = coloured(waves(seed=9))
    counts = track_objects(images, ids).counts
    assert counts["inconsistent"] + counts["lost"] > 3 * counts["kept"]


def test_points_given_by_others_are_told_apart_by_their_fates():
    ids = torch.zeros(2, 10, 20, dtype=int)
    ids[:, :, :10], ids[:, :, 15:] = 1, 2
    ends = [(5.0, 5.0), (17.0, 5.0), (-0.5, 5.0), (5.0, 5.0), (5.0, 5.0), (12.0, 5.0)]
    visible = torch.tensor([[True, seen] for seen in (True, True, True, False, False, True)])
    places = torch.tensor([[(4.0, 4.0), end] for end in ends])
    inconsistent = torch.zeros_like(visible)
    inconsistent[4, 1] = True
    points = FollowedPoints(places, visible, inconsistent)
    tracks = pairs_from_points(points, torch.ones(6, dtype=int), ids)
    told = [FATES[code] for code in tracks.fate.tolist()]
    assert told == ["kept", "off_object", "out_of_frame", "lost", "inconsistent", "off_object"]
    assert tracks.counts["off_object"] == 2


def test_points_that_do_not_start_on_their_object_make_no_samples():
    ids = torch.ones(3, 8, 8, dtype=int)
    points = FollowedPoints(torch.full((2, 3, 2), 4.0), torch.ones(2, 3, dtype=torch.bool))
    tracks = pairs_from_points(points, torch.tensor([1, 2]), ids)
    assert tracks.object_id.tolist() == [1, 1]
    assert tracks.frame_i.tolist() == [0, 1]


class _Still:
    """A long-term tracker that says that nothing moves."""

    name, version, licence, is_long_term = "still", "0", "Apache-2.0", True

    def __init__(self, missing=None):
        self.missing, self.given = missing, None

    def available(self):
        return self.missing

    def track(self, images, frame, xy, *, steps=None):
        self.given = (frame, steps)
        places = xy[:, None].expand(-1, len(images), -1)
        return FollowedPoints(places, torch.arange(len(images)) >= frame[:, None])


def test_long_term_tracker_gets_keypoints_of_the_first_frame_that_shows_the_object():
    images, ids = moved_square(0)
    ids[0] = 0
    tracker = _Still()
    tracks = track_objects(images, ids, tracker)
    assert isinstance(tracker, PointTracker)
    assert set(tracker.given[0].tolist()) == {1}
    assert tracker.given[1] is None
    assert set(tracks.frame_i.tolist()) == {1}


def test_first_tracker_that_can_run_is_chosen():
    assert choose_tracker([_Still("no weights"), LucasKanade()]).name == "lucas-kanade"
    assert choose_tracker().name == "lucas-kanade"
    with pytest.raises(InvalidInputError, match=r"no point tracker can run\. still: no weights"):
        choose_tracker([_Still("no weights")])
    with pytest.raises(InvalidInputError, match="tracker still cannot run: no weights"):
        track_objects(*moved_square(0), _Still("no weights"))


def test_opencv_says_what_to_install_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert "pip install opencv-python-headless" in OpenCVLucasKanade().available()


def test_opencv_finds_the_same_places():
    pytest.importorskip("cv2", reason="needs the extra `curate`")
    images = torch.stack([coloured(waves()), coloured(waves((3.25, 1.5)))])
    ids = torch.zeros(2, HEIGHT, WIDTH, dtype=int)
    ids[:, 24:72, 24:104] = 1
    tracks = track_objects(images, ids, OpenCVLucasKanade())
    assert int(tracks.kept.sum()) >= 20
    moved = (tracks.xy_j - tracks.xy_i)[tracks.kept]
    assert_same_up_to(moved.median(0).values, torch.tensor([3.25, 1.5]), 0.05)


def test_opencv_gets_places_whose_first_pixel_centre_is_zero(monkeypatch):
    given = {}

    def follow(first, second, points, out, **options):
        given["points"] = points
        return points + 2, np.ones((len(points), 1), np.uint8), None

    cv2 = ModuleType("cv2")
    cv2.calcOpticalFlowPyrLK = follow
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    images = torch.rand(2, 3, 16, 16, generator=seeded())
    tracker = OpenCVLucasKanade(forward_backward_px=10.0)
    found = tracker.track(images, torch.tensor([0]), torch.tensor([[0.5, 3.5]]))
    # The last call follows the point back, from where the first one led.
    assert given["points"].tolist() == [[[2.0, 5.0]]]
    assert found.xy[0, 1].tolist() == [2.5, 5.5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"object_ids": torch.zeros(2, 8, 8, dtype=int)}, r"object_ids has shape \(2, 8, 8\)"),
        ({"images": torch.rand(3, 3, HEIGHT, WIDTH) * 255}, "images lies in"),
        ({"most": 0}, "most is 0"),
        ({"eroded_px": -1}, "eroded_px -1"),
    ],
)
def test_clips_that_cannot_be_tracked_are_refused(changes, message):
    images, ids = moved_square(0)
    given = {"images": images, "object_ids": ids, **changes}
    with pytest.raises(InvalidInputError, match=message):
        inspect.unwrap(track_objects)(**given)


def test_single_frame_is_refused():
    images, ids = moved_square(0)
    with pytest.raises(InvalidInputError, match="single frame"):
        track_objects(images[:1], ids[:1])


def test_forward_backward_limit_must_be_positive():
    with pytest.raises(InvalidInputError, match="forward_backward_px is 0"):
        LucasKanade(forward_backward_px=0)


def test_points_of_other_clips_are_refused():
    points = FollowedPoints(torch.zeros(2, 3, 2), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(InvalidInputError, match="points are 2 in 3 frames, with 2 owners"):
        pairs_from_points(points, torch.ones(2, dtype=int), torch.ones(4, 8, 8, dtype=int))
