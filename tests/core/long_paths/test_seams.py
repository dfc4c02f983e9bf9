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
    assert seams.joined is None
    assert (seams.num_inside, seams.num_joined, seams.num_across) == (3, 0, 1)


def test_neighbours_that_are_made_from_each_other_are_joined():
    first = Group((View(0, generated=False),), (2,))
    second = Group((View(2, generated=True),), (1, 3, 4))
    plan = PathPlan(5, ((0, 0),), (2,), (first, second), (0,))
    seams = measure_seams(frames(0.0, 0.1, 0.3, 0.7, 0.9), plan)
    assert seams.across == pytest.approx(0.1)  # 0 and 1 are never together
    assert seams.joined == pytest.approx((0.2 + 0.4) / 2)
    assert seams.inside == pytest.approx(0.2)
    assert (seams.num_inside, seams.num_joined, seams.num_across) == (1, 2, 1)


def test_a_path_of_one_group_has_no_seams():
    path = gx.orbit(12)
    seams = measure_seams(torch.rand(12, 3, 2, 2), gx.plan_path(path, path[[0]]))
    assert (seams.across, seams.num_across) == (None, 0)
    assert seams.num_joined == 1  # the picture and the camera next to it


def test_another_number_of_frames_is_refused():
    with pytest.raises(InvalidInputError, match="frames has 2 views, but plan is for 5"):
        measure_seams(frames(0.0, 0.1), plan_of((0, 1, 2), (3, 4), num_cameras=5))
