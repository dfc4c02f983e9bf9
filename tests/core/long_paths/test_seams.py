import pytest
import torch

import genxd_core as gx
from genxd_core import InvalidInputError, measure_seams
from genxd_core.long_paths.plan import Group, PathPlan, View


def plan_of(*targets: tuple[int, ...], num_cameras: int) -> PathPlan:
    groups = tuple(Group((View(0, generated=False),), part) for part in targets)
    return PathPlan(num_cameras, (), (), groups, (0,))


def frames(*levels: float) -> torch.Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 2, 2)


def test_differences_are_told_apart_by_whether_a_group_shows_both():
    plan = plan_of((0, 1, 2), (3, 4), num_cameras=5)
    seams = measure_seams(frames(0.0, 0.1, 0.3, 0.9, 0.8), plan)
    assert seams.inside == pytest.approx((0.1 + 0.2 + 0.1) / 3)
    assert seams.across == pytest.approx(0.6)
    assert (seams.num_inside, seams.num_across) == (3, 1)
    assert seams.ratio == pytest.approx(0.6 / (0.4 / 3))


def test_an_anchor_is_inside_the_groups_that_it_is_a_condition_of():
    first = Group((View(0, generated=False),), (2,))
    second = Group((View(2, generated=True),), (1, 3))
    plan = PathPlan(4, ((0, 0),), (2,), (first, second), (0,))
    seams = measure_seams(frames(0.0, 0.1, 0.2, 0.3), plan)
    assert (seams.num_inside, seams.num_across) == (2, 1)  # only 0 and 1 are never together


def test_a_path_of_one_group_has_no_seams():
    path = gx.orbit(12)
    seams = measure_seams(torch.rand(12, 3, 2, 2), gx.plan_path(path, path[[0]]))
    assert (seams.across, seams.num_across, seams.ratio) == (None, 0, None)


def test_another_number_of_frames_is_refused():
    with pytest.raises(InvalidInputError, match="frames has 2 views, but plan is for 5"):
        measure_seams(frames(0.0, 0.1), plan_of((0, 1, 2), (3, 4), num_cameras=5))
