import pytest
import torch

import genxd_core as gx
from genxd_core import Cameras, InvalidInputError
from genxd_core.cameras.editing import join
from genxd_core.long_paths.plan import Group, PathPlan, View
from genxd_core.long_paths.sequence import stretches_of
from genxd_core.long_paths.view_points import farthest_points, nearest_points, view_points
from tests.core.cameras.builders import random_cameras
from tests.support import assert_same_up_to

GROUPINGS = ["anchors", "in sequence", "farthest points"]


def picture(index: int) -> View:
    return View(index, generated=False)


def made(index: int) -> View:
    return View(index, generated=True)


def plan(path: Cameras, at: list[int], **options) -> PathPlan:
    return gx.plan_path(path, path[at], **options)


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("at", [[0], [7], [0, 20, 39], [39, 0]])
@pytest.mark.parametrize(("views", "conditions"), [(12, 3), (5, 3), (4, 1), (100, 3)])
def test_every_camera_is_made_once_from_what_is_there_by_then(grouping, at, views, conditions):
    found = plan(
        gx.orbit(40), at, grouping=grouping, views_per_group=views, conditions_per_group=conditions
    )
    assert dict(found.given) == {camera: number for number, camera in enumerate(at)}
    there: set[int] = set()
    for group in found.groups:
        assert len(group.conditions) + len(group.targets) <= views
        assert 1 <= len(set(group.conditions)) == len(group.conditions)
        if grouping == "farthest points":
            assert len(group.conditions) <= conditions
        assert all(view.index in there for view in group.conditions if view.generated)
        assert not there & set(group.targets)
        assert list(group.targets) == sorted(group.targets)
        there |= set(group.targets)
    assert there == set(range(40)) - set(at)


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_many_pictures_leave_room_for_targets(grouping):
    path = gx.orbit(40)
    found = plan(path, list(range(0, 40, 2)), grouping=grouping)
    assert all(len(group.conditions) + len(group.targets) <= 12 for group in found.groups)
    assert sum(len(group.targets) for group in found.groups) == 20


def test_a_path_that_fits_at_once_is_one_group():
    found = plan(gx.orbit(12), [0])
    assert found.groups == (Group((picture(0),), tuple(range(1, 12))),)
    assert found.anchors == ()
    assert found.num_frames == 12


def test_one_picture_makes_anchors_first_and_the_others_from_the_nearest_of_them():
    found = plan(gx.orbit(34, azimuth_range_deg=(0.0, 200.0)), [0])
    anchors = tuple(range(3, 34, 3))
    assert found.anchors == anchors
    assert found.groups[0] == Group((picture(0),), anchors)
    # Two cameras between any two anchors; three gaps have six, and four anchors about them.
    assert found.groups[1].targets == (1, 2, 4, 5, 7, 8)
    assert set(found.groups[1].conditions) == {picture(0), made(3), made(6), made(9)}
    assert found.groups[1].conditions[0] in (made(3), made(6))


def test_groups_between_distant_anchors_have_those_on_both_sides():
    found = plan(gx.orbit(100, azimuth_range_deg=(0.0, 200.0)), [0])
    assert len(found.anchors) == 11
    known = [0, *found.anchors]
    for group in found.groups[1:]:
        place = [view.index if view.generated else 0 for view in group.conditions]
        before = max(camera for camera in known if camera < group.targets[0])
        after = min(camera for camera in known if camera > group.targets[-1])
        assert {before, after} <= set(place)


@pytest.mark.parametrize("at", [0, 1, 20, 38, 39])
@pytest.mark.parametrize("num_views", [13, 24, 40, 300])
def test_anchors_are_spread_evenly_and_reach_the_ends(at, num_views):
    at = min(at, num_views - 1)
    found = plan(gx.orbit(num_views), [at])
    known = sorted({at, *found.anchors})
    assert len(known) == 12
    gaps = torch.tensor(known).diff()
    assert gaps.max() <= 2 * num_views / 11
    assert known[0] <= 1
    assert known[-1] >= num_views - 2


def test_several_pictures_need_no_anchors():
    found = plan(gx.orbit(40), [0, 20, 39])
    assert found.anchors == ()
    assert not any(view.generated for group in found.groups for view in group.conditions)


def test_with_many_pictures_a_group_takes_the_nearest_first():
    path = gx.orbit(60, azimuth_range_deg=(0.0, 180.0))
    found = plan(path, list(range(0, 60, 10)))
    for group in found.groups:
        middle = sum(group.targets) / len(group.targets)
        distances = [abs(number * 10 - middle) for number in range(6)]
        assert distances[group.conditions[0].index] == min(distances)


@pytest.mark.parametrize("num_views", [13, 24, 36, 48, 60, 100])
def test_groups_between_anchors_have_no_seams_where_anchors_are_near(num_views):
    """Every two neighbours are in one group together, as targets or as conditions."""
    found = plan(gx.orbit(num_views, azimuth_range_deg=(0.0, 200.0)), [0])
    shown = [found.cameras_of(group) for group in found.groups]
    for camera in range(num_views - 1):
        assert any({camera, camera + 1} <= cameras for cameras in shown), camera


def test_no_group_of_neighbours_reaches_over_a_jump():
    """As from a path with copies shifted to its sides."""
    path = join(*(gx.orbit(20, elevation_deg=e, azimuth_range_deg=(0, 90)) for e in (0, 20, 40)))
    one, three = plan(path, [0]), plan(path, [0, 9, 19])
    assert len(one.anchors) == 11
    for group in (*one.groups[1:], *three.groups):
        assert len({camera // 20 for camera in group.targets}) == 1
    # Each copy has anchors at its open ends.
    assert {19, 20, 39, 40, 59} <= set(one.anchors)


def test_stretches_end_at_jumps_and_nowhere_else():
    line = torch.arange(12.0)[:, None]
    assert stretches_of(line) == [range(12)]
    assert stretches_of(line + 9 * (line >= 5)) == [range(5), range(5, 12)]
    assert stretches_of(torch.zeros(4, 1)) == [range(4)]
    assert stretches_of(torch.zeros(1, 1)) == [range(1)]


def test_pictures_beside_the_path_are_conditions_and_nothing_is_left_out():
    path = gx.orbit(30)
    found = gx.plan_path(path, gx.orbit(3, elevation_deg=20.0))
    assert found.given == ()
    assert found.places == (0, 10, 20)
    assert sum(len(group.targets) for group in found.groups) == 30


def test_a_picture_shows_every_camera_of_its_pose_while_the_scene_is_still():
    path = gx.orbit(20)
    there_and_back = path[[*range(20), *range(18, -1, -1)]]
    still = gx.plan_path(there_and_back, path[[5]])
    assert still.given == ((5, 0), (33, 0))
    moving = gx.plan_path(there_and_back, path[[5]], still=False)
    assert moving.given == ((5, 0),)


def test_a_picture_with_another_focal_length_is_not_the_camera_of_its_pose():
    path = gx.orbit(20)
    wide = gx.orbit(20, focal_norm=0.8)
    assert gx.plan_path(path, wide[[5]]).given == ()


def test_rounding_of_poses_does_not_hide_a_picture_at_any_scale():
    for scale in (1e-3, 1.0, 1e3):
        path = gx.orbit(20, radius=2.0 * scale)
        c2w = path.c2w[[5]].clone()
        c2w[:, :3, 3] += 1e-6 * scale
        assert gx.plan_path(path, Cameras(c2w, path.Ks_norm[[5]])).given == ((5, 0),)


def test_seams_of_a_sequence_are_cut_at_given_cameras():
    found = plan(gx.orbit(19), [0, 9, 18], grouping="in sequence")
    assert [group.targets for group in found.groups] == [tuple(range(1, 9)), tuple(range(10, 18))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grouping": "best"}, 'grouping is "best"; expected one of "auto", "anchors"'),
        ({"conditions_per_group": 0}, "conditions_per_group is 0; expected at least 1"),
        ({"views_per_group": 3}, "views_per_group is 3 and conditions_per_group 3, which leaves"),
    ],
)
def test_wrong_numbers_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        plan(gx.orbit(20), [0], **options)


def test_a_path_of_given_cameras_only_is_refused():
    with pytest.raises(InvalidInputError, match=r"path has 3 cameras, and every one of them"):
        plan(gx.orbit(3), [0, 1, 2])


def test_points_of_an_orbit_stand_apart_by_position_and_direction_alike():
    (points,) = view_points(gx.orbit(8, radius=3.0))
    centres, directions = points[:, :3], points[:, 3:]
    assert_same_up_to(torch.cdist(centres, centres), torch.cdist(directions, directions), 1e-5)


def test_cameras_that_only_turn_are_apart():
    turning = gx.pan(9, angle_deg=90.0)
    (points,) = view_points(turning)
    assert nearest_points(points, points[2], 3) in ([2, 1, 3], [2, 3, 1])


def test_moving_and_turning_the_world_changes_no_plan():
    path = random_cameras(30, times=True)
    motion = random_cameras(1, seed=7).c2w[0]
    elsewhere = Cameras(motion @ path.c2w, path.Ks_norm, path.times)
    for grouping in GROUPINGS:
        here, there = (plan(one, [0, 9], grouping=grouping) for one in (path, elsewhere))
        assert here == there


def test_farthest_points_of_a_line_are_its_ends_then_its_middle():
    line = torch.arange(9.0)[:, None]
    assert farthest_points(line, 5) == [0, 8, 4, 2, 6]
    assert len(farthest_points(line, 50)) == 9
