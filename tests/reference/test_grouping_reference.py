"""Groups of generated views as the reference's script makes them, from recorded numbers."""

import numpy as np
import torch

from genxd_core.long_paths.view_points import (
    farthest_point_groups,
    farthest_points,
    nearest_points,
)
from tests.support import REFERENCE

TARGETS, CONDITIONS = 9, 3


def case(name: str) -> torch.Tensor:
    with np.load(REFERENCE / "cameras_cases.npz") as arrays:
        return torch.from_numpy(arrays[f"group.{name}"])


def test_matches_reference_anchors():
    points = torch.cat([case("cond_centres")[:1], case("gen_centres")])
    chosen = farthest_points(points, len(points) // TARGETS + 1)
    assert chosen == case("anchor_indices").tolist()
    assert torch.equal(points[chosen], case("anchor_points"))


def test_matches_reference_targets_of_each_anchor():
    given, points = case("cond_centres")[0], case("gen_centres")
    groups = farthest_point_groups(given, points, TARGETS, disjoint=False)
    assert groups == case("target_indices").tolist()


def test_matches_reference_conditions_of_each_group():
    given, points = case("cond_centres"), case("gen_centres")
    for targets, expected in zip(case("target_indices"), case("condition_indices"), strict=True):
        middle = points[targets].mean(0)
        assert nearest_points(given, middle, CONDITIONS) == expected.tolist()


def test_groups_of_a_plan_hold_every_view_once_and_begin_as_the_reference_does():
    given, points = case("cond_centres")[0], case("gen_centres")
    groups = farthest_point_groups(given, points, TARGETS)
    assert groups[:2] == case("target_indices").tolist()[:2]
    assert sorted(index for group in groups for index in group) == list(range(len(points)))
    assert max(map(len, groups)) <= TARGETS
