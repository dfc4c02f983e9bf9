"""Eq. 3-4 and the strength: closed forms first, then against the generator's own truth."""

import inspect
from functools import cache

import pytest
import torch

import genxd_core as gx
from genxd_core import Cameras, InvalidInputError
from genxd_core.curation.depth_alignment import align_clip
from genxd_core.curation.field_picture import overlay
from genxd_core.curation.motion_field import motion_field
from genxd_core.curation.motion_strength import estimate_motion_strength, is_moving
from genxd_core.curation.point_tracks import PointTracks, track_objects
from genxd_core.curation.subpixel import depth_at
from tests.core.curation.textured_clips import TexturedClip, textured_clip
from tests.support import assert_same_up_to, seeded

HEIGHT, WIDTH = 60, 80
Z = 4.0
STEP = torch.tensor([0.2, -0.1, 0.5])  # of the camera from frame to frame, in its own axes


def cameras(frames: int) -> Cameras:
    """Cameras that look along +Z and move by STEP; focal length 0.9 of the width, square pixels."""
    c2w = torch.eye(4).repeat(frames, 1, 1)
    c2w[:, :3, 3] = torch.arange(frames)[:, None] * STEP
    K = torch.tensor([[0.9, 0.0, 0.5], [0.0, 0.9 * WIDTH / HEIGHT, 0.5], [0.0, 0.0, 1.0]])
    return Cameras(c2w, K.expand(frames, 3, 3))


def seen(points: torch.Tensor, frame: int) -> torch.Tensor:
    """Pixels of points of the world, by hand."""
    local = points - frame * STEP
    focal = 0.9 * WIDTH
    centre = torch.tensor([WIDTH / 2, HEIGHT / 2])
    return focal * local[..., :2] / local[..., 2:] + centre


def moving_points(velocities, *, frames=5, count=10, shares=None):
    """Samples of points on a wall at depth Z of each frame that move by ``velocities`` a frame."""
    rng = seeded(1)
    samples = {"frame_i": [], "object_id": [], "xy_i": [], "xy_j": []}
    for number, velocity in enumerate(velocities):
        for frame in range(frames - 1):
            flat = (torch.rand(count, 2, generator=rng) - 0.5) * torch.tensor([2.0, 1.4])
            points = torch.cat([flat, torch.full((count, 1), Z)], 1) + frame * STEP
            samples["frame_i"].append(torch.full((count,), frame))
            samples["object_id"].append(torch.full((count,), number + 1))
            samples["xy_i"].append(seen(points, frame))
            samples["xy_j"].append(seen(points + torch.tensor(velocity), frame + 1))
    joined = {name: torch.cat(parts) for name, parts in samples.items()}
    total = len(joined["frame_i"])
    if shares is None:
        shares = torch.full((frames, len(velocities)), 0.1, dtype=torch.float64)
    return PointTracks(
        **joined,
        fate=torch.zeros(total, dtype=int),
        objects=tuple(range(1, len(velocities) + 1)),
        shares=shares,
        height=HEIGHT,
        width=WIDTH,
    )


def walls(frames=5) -> torch.Tensor:
    return torch.full((frames, HEIGHT, WIDTH), Z)


STILL, SIDEWAYS, OTHER = (0.0, 0.0, 0.0), (0.07, 0.0, 0.0), (0.0, 0.035, 0.0)
# 0.07 units at depth 4 - 0.5 in camera j: 0.9 * 0.07 / 3.5 of the width; downwards, of the height.
SIDEWAYS_STRENGTH = 0.018
OTHER_STRENGTH = 0.9 * WIDTH / HEIGHT * 0.035 / 3.5


def test_what_stands_still_is_found_where_it_was_projected_to():
    field = motion_field(moving_points([STILL]), walls(), cameras(5))
    assert len(field) == 40
    assert_same_up_to(field.xy_still, field.xy_j, 1e-4)
    assert float(field.displacement.abs().max()) < 1e-6


def test_displacement_is_a_fraction_of_width_and_of_height():
    field = motion_field(moving_points([SIDEWAYS, OTHER]), walls(), cameras(5))
    first, second = field.of(field.object_id == 1), field.of(field.object_id == 2)
    expected = torch.tensor([SIDEWAYS_STRENGTH, 0.0], dtype=torch.float64).expand(40, 2)
    assert_same_up_to(first.displacement, expected, 1e-5)
    expected = torch.tensor([0.0, OTHER_STRENGTH], dtype=torch.float64).expand(40, 2)
    assert_same_up_to(second.displacement, expected, 1e-5)


def test_displacement_does_not_depend_on_the_scale_of_the_reconstruction():
    tracks, path = moving_points([SIDEWAYS]), cameras(5)
    far = path.c2w.clone()
    far[:, :3, 3] *= 37.0
    scaled = motion_field(tracks, 37.0 * walls(), Cameras(far, path.Ks_norm))
    plain = motion_field(tracks, walls(), path)
    assert_same_up_to(scaled.displacement, plain.displacement, 1e-6)


def test_tracks_without_depth_and_behind_the_next_camera_are_counted_and_left_out():
    tracks = moving_points([STILL], frames=3)
    depths = walls(3)
    depths[0] = 0.0
    depths[1] = 0.3  # the camera moves on by 0.5
    field = motion_field(tracks, depths, cameras(3))
    assert (len(field), field.without_depth, field.behind_camera) == (0, 10, 10)


def test_still_place_outside_of_the_frame_counts():
    tracks = moving_points([STILL], frames=2, count=1)
    tracks.xy_i[0], tracks.xy_j[0] = torch.tensor([0.5, 30.0]), torch.tensor([2.0, 30.0])
    field = motion_field(tracks, walls(2), cameras(2))
    assert field.outside == 1
    # x = -39.5 / 72 * 4 in camera i, 0.2 less and 0.5 nearer in camera j.
    expected = 72 * (-39.5 / 72 * 4 - 0.2) / 3.5 + 40
    assert float(field.xy_still[0, 0]) == pytest.approx(expected, abs=1e-4)


def test_depth_between_pixels_is_bilinear_on_surfaces_and_nearest_on_edges():
    depth = torch.tensor([[2.0, 2.1, 5.0, 0.0], [2.0, 2.1, 5.0, 5.0]])
    places = torch.tensor([[1.0, 1.0], [1.9, 1.0], [2.1, 1.0], [2.8, 0.9], [3.3, 0.5], [9.0, 0.5]])
    expected = torch.tensor([2.05, 2.1, 5.0, 5.0, 0.0, 0.0])
    assert_same_up_to(depth_at(depth, places), expected, 1e-6)


def test_strength_is_the_mean_over_an_object_and_the_maximum_over_objects():
    tracks = moving_points([STILL, SIDEWAYS, OTHER])
    found = estimate_motion_strength(tracks, walls(), cameras(5))
    strengths = [one.strength for one in found.objects]
    assert strengths == pytest.approx([0.0, SIDEWAYS_STRENGTH, OTHER_STRENGTH], abs=1e-5)
    assert found.strength == max(strengths)
    assert found.reason is None
    assert [(one.frames, one.tracks, one.pairs) for one in found.objects] == [(5, 40, 4)] * 3
    entry = found.objects[1].to_clip_object("box")
    assert (entry.id, entry.name, entry.tracks) == (2, "box", 40)


def test_l1_and_median_are_other_readings():
    diagonal = moving_points([(0.07, 0.0525, 0.0)])
    euclidean = estimate_motion_strength(diagonal, walls(), cameras(5)).strength
    l1 = estimate_motion_strength(diagonal, walls(), cameras(5), norm="l1").strength
    # Equal displacements of 0.018 of the width and of the height.
    assert (euclidean, l1) == (
        pytest.approx(0.018 * 2**0.5, abs=1e-5),
        pytest.approx(0.036, abs=1e-5),
    )
    tracks = moving_points([SIDEWAYS])
    tracks.xy_j[::4, 0] += 0.1 * WIDTH
    mean = estimate_motion_strength(tracks, walls(), cameras(5)).strength
    median = estimate_motion_strength(tracks, walls(), cameras(5), statistic="median").strength
    assert mean == pytest.approx(SIDEWAYS_STRENGTH + 0.025, abs=1e-5)
    assert median == pytest.approx(SIDEWAYS_STRENGTH, abs=1e-5)


def test_frames_in_which_an_object_is_small_do_not_count_for_it():
    shares = torch.full((5, 1), 0.1, dtype=torch.float64)
    shares[0] = 0.0019
    tracks = moving_points([SIDEWAYS], shares=shares)
    tracks.xy_j[tracks.frame_i == 0] += 30.0
    found = estimate_motion_strength(tracks, walls(), cameras(5))
    assert found.strength == pytest.approx(SIDEWAYS_STRENGTH, abs=1e-5)
    assert (found.objects[0].frames, found.objects[0].pairs) == (4, 3)


@pytest.mark.parametrize(
    ("shares", "changes", "verdict", "reason"),
    [
        ([0.1] * 5, {"count": 7}, "too_few_tracks", "too_few_tracks"),
        ([0.1] * 3, {"frames": 3}, "too_few_tracks", "too_few_tracks"),
        ([0.1, 0.1, 0.0, 0.0, 0.0], {}, "brief", "no_object"),
        ([0.001] * 5, {}, "small", "no_object"),
    ],
)
def test_objects_that_cannot_be_judged_have_no_strength(shares, changes, verdict, reason):
    given = torch.tensor(shares, dtype=torch.float64)[:, None]
    frames = len(shares)
    tracks = moving_points([SIDEWAYS], shares=given, **{"frames": frames, **changes})
    found = estimate_motion_strength(tracks, walls(frames), cameras(frames))
    assert (found.strength, found.reason) == (None, reason)
    assert [one.verdict for one in found.objects] == [verdict]


def test_clip_without_objects_without_depth_or_without_motion_is_told_why():
    without_depth = estimate_motion_strength(
        moving_points([SIDEWAYS]), torch.zeros(5, HEIGHT, WIDTH), cameras(5)
    )
    assert without_depth.reason == "alignment_failed"
    still = estimate_motion_strength(moving_points([STILL]), walls(), cameras(5))
    assert still.reason == "low_motion"
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=seeded())
    empty = track_objects(images, torch.zeros(2, HEIGHT, WIDTH, dtype=int))
    assert estimate_motion_strength(empty, walls(2), cameras(2)).reason == "no_object"


def test_motion_begins_at_nine_thousandths():
    assert is_moving(0.009)
    assert not is_moving(0.00899)
    assert is_moving(0.003, threshold=0.002)
    with pytest.raises(InvalidInputError, match="strength is nan"):
        is_moving(float("nan"))
    with pytest.raises(InvalidInputError, match="threshold is -1"):
        is_moving(0.1, -1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": walls(4)}, r"depths has shape \(4, 60, 80\); expected \(5, 60, 80\)"),
        ({"depths": -walls(5)}, "depths holds negative numbers"),
        ({"cameras": cameras(4)}, "cameras are 4 for 5 tracked frames"),
        ({"statistic": "mode"}, "statistic is 'mode', expected one of mean, median"),
        ({"norm": "l2"}, "norm is 'l2', expected one of euclidean, l1"),
    ],
)
def test_what_does_not_belong_to_the_tracks_is_refused(changes, message):
    given = {"depths": walls(5), "cameras": cameras(5), **changes}
    with pytest.raises(InvalidInputError, match=message):
        # The tests' type checks would refuse some of it first; a user has none.
        inspect.unwrap(estimate_motion_strength)(moving_points([STILL]), **given)


# ---- the generator's truth ----------------------------------------------------------------------

TRACKING_NOISE = 0.002  # of the picture: a quarter of a pixel at 128


@cache
def ball_and_box(camera_moves=True) -> tuple[TexturedClip, PointTracks]:
    """A ball that slides and a box that stands, with their tracks."""
    clip = textured_clip(3, camera_moves=camera_moves, amount=0.15, num_frames=5)
    return clip, track_objects(clip.images, clip.ids)


def strengths(depths: torch.Tensor) -> tuple[float, float]:
    """Of the ball and of the box, under the camera that moves."""
    clip, tracks = ball_and_box()
    ball, box = gx.estimate_motion_strength(tracks, depths, clip.cameras).objects
    return ball.strength, box.strength


@pytest.mark.parametrize("camera_moves", [False, True])
def test_strengths_with_exact_depth_and_cameras_are_the_generators(camera_moves):
    clip, tracks = ball_and_box(camera_moves)
    ball, box = gx.estimate_motion_strength(tracks, clip.depth, clip.cameras).objects
    truth = [float(clip.object_strength[one.id - 1]) for one in (ball, box)]
    assert truth[0] > 0.015
    assert truth[1] < 1e-6
    assert ball.strength == pytest.approx(truth[0], abs=TRACKING_NOISE)
    assert box.strength == pytest.approx(truth[1], abs=TRACKING_NOISE)
    assert is_moving(ball.strength)
    assert not is_moving(box.strength)


def relative_depths(kind: str) -> torch.Tensor:
    """What a network would say, scaled to [0, 1] in every frame by itself, with 3 % noise."""
    clip, _ = ball_and_box()
    depth = clip.depth.clamp(0.1, 20.0)
    depth = torch.where(clip.depth > 0, depth, torch.full_like(depth, 20.0))
    depth = depth * (1 + 0.03 * torch.randn(depth.shape, generator=seeded(4)))
    values = 1 / depth if kind == "disparity" else depth
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    return (values - low) / (high - low)


def points_of_the_floor() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """200 sparse points in each frame, none on an object."""
    clip, _ = ball_and_box()
    places, depths = [], []
    for frame in range(len(clip.depth)):
        floor = ((clip.ids[frame] == 0) & (clip.depth[frame] > 0)).nonzero()
        floor = floor[torch.randperm(len(floor), generator=seeded(frame))[:200]]
        places.append(floor.flip(1) + 0.5)
        depths.append(clip.depth[frame, floor[:, 0], floor[:, 1]])
    return places, depths


def test_aligned_disparity_tells_the_moving_from_the_still():
    clip = align_clip(relative_depths("disparity"), "disparity", *points_of_the_floor())
    ball, box = strengths(clip.depths)
    exact, _ = strengths(ball_and_box()[0].depth)
    assert ball == pytest.approx(exact, abs=TRACKING_NOISE)
    assert box < 0.0045


def test_eq_2_as_printed_takes_the_still_for_moving():
    given = (relative_depths("depth"), "depth", *points_of_the_floor())
    clip = align_clip(*given, alignment="paper")
    _, box = strengths(clip.depths)
    assert box > 0.009


@pytest.mark.slow
@pytest.mark.parametrize(("motion", "amount"), [("slide", 0.2), ("hop", 0.15)])
def test_moving_and_still_objects_lie_on_the_two_sides_of_the_threshold(motion, amount):
    measured = []
    for seed in range(4):
        for one_motion in (motion, None):
            clip = textured_clip(seed, motion=one_motion, amount=amount, size=160)
            tracks = track_objects(clip.images, clip.ids)
            found = estimate_motion_strength(tracks, clip.depth, clip.cameras)
            measured += [
                (one.strength, float(clip.object_strength[one.id - 1]))
                for one in found.objects
                if one.strength is not None
            ]
    still = [strength for strength, truth in measured if truth < 1e-6]
    moving = [strength for strength, truth in measured if truth > 0.012]
    assert len(still) >= 8
    assert len(moving) >= 4
    assert max(still) < 0.0045
    assert min(moving) > 0.009


def test_picture_of_the_field_shows_motion_yellow_and_stillness_violet():
    image = torch.full((3, HEIGHT, WIDTH), 0.2)
    plain = overlay(image, motion_field(moving_points([STILL]), walls(), cameras(5)), frame=1)
    moved = overlay(image, motion_field(moving_points([(0.2, 0, 0)]), walls(), cameras(5)), frame=1)
    assert plain.shape == (3, HEIGHT, WIDTH)
    assert 0.0 <= float(plain.min()) <= float(plain.max()) <= 1.0
    above = slice(0, HEIGHT - 12)  # the line of text
    bluest = (plain[2] - plain[0])[above].max()
    yellowest = (moved[0] - moved[2])[above].max()
    assert float(bluest) > 0.2
    assert float(yellowest) > 0.3
    assert float((moved[2] - moved[0])[above].max()) < 0.15


def test_picture_of_one_pair_draws_that_pair_alone():
    field = motion_field(moving_points([(0.2, 0, 0)], frames=3), walls(3), cameras(3))
    image = torch.full((3, HEIGHT, WIDTH), 0.2)
    assert not torch.equal(overlay(image, field, frame=1), overlay(image, field, frame=2))
    nothing = overlay(image, field, frame=0)[:, : HEIGHT - 12]
    assert float((nothing - nothing[:, :1, :1]).abs().max()) < 0.01


def test_pictures_of_another_size_and_scales_of_nothing_are_refused():
    field = motion_field(moving_points([STILL]), walls(), cameras(5))
    with pytest.raises(InvalidInputError, match="image is 8 x 4 and the field was measured in 80"):
        overlay(torch.zeros(3, 4, 8), field)
    with pytest.raises(InvalidInputError, match="arrow_scale is 0"):
        overlay(torch.zeros(3, HEIGHT, WIDTH), field, arrow_scale=0)
