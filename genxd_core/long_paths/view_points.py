"""Views as points, so that near views are near points; choosing among points.

Dimension letters: n points, d numbers of a point.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.editing import join

__all__ = ["farthest_point_groups", "farthest_points", "nearest_points", "view_points"]


def view_points(*paths: Cameras) -> list[Float[Tensor, "n 6"]]:
    """Where cameras stand and look, as points of one space.

    Position, then viewing direction times the extent of all positions: on an orbit both grow alike,
    and cameras that only turn are apart all the same.

    Args:
        paths: cameras of one world.

    Returns:
        Points of each path, float64 on the CPU.
    """
    still = [Cameras(path.c2w, path.Ks_norm) for path in paths]
    c2w = join(*still).c2w.cpu().double()
    centres, directions = c2w[:, :3, 3], c2w[:, :3, 2]
    extent = float((centres - centres.mean(0)).norm(dim=-1).max())
    points = torch.cat([centres, directions * (extent if extent > 1e-6 else 1.0)], dim=1)
    return list(points.split([len(path) for path in paths]))


def farthest_points(points: Float[Tensor, "n d"], count: int, first: int = 0) -> list[int]:
    """Farthest point sampling: each next one is farthest from all chosen before.

    Args:
        points: to choose among.
        count: how many; at most all.
        first: the one to start with.
    """
    chosen = [first]
    distances = (points - points[first]).norm(dim=-1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distances.argmax()))
        distances = distances.minimum((points - points[chosen[-1]]).norm(dim=-1))
    return chosen


def nearest_points(points: Float[Tensor, "n d"], to: Float[Tensor, " d"], count: int) -> list[int]:
    """The nearest points, nearest first; of equally near ones the earlier."""
    distances = (points - to).norm(dim=-1)
    order = torch.sort(distances, stable=True).indices
    return [int(index) for index in order[:count]]


def farthest_point_groups(
    given: Float[Tensor, " d"],
    points: Float[Tensor, "n d"],
    size: int,
    *,
    disjoint: bool = True,
) -> list[list[int]]:
    """Groups of near points around centres that are far from each other.

    As in the reference: the centres are farthest points of the given one and all others, and a
    group is what is nearest to its centre. There groups overlap and some points may be in none.

    Args:
        given: the first centre.
        points: to group.
        size: points of a group.
        disjoint: True puts every point into exactly one group: the first one that has room for it.
            False is the reference.

    Returns:
        Indices of points for each centre, nearest first.
    """
    centres = torch.cat([given[None], points])
    count = (len(points) + 1) // size + 1
    groups: list[list[int]] = []
    free = list(range(len(points)))
    for centre in farthest_points(centres, count):
        if not free:
            break
        nearest = nearest_points(points[free], centres[centre], size)
        groups.append([free[index] for index in nearest])
        if disjoint:
            free = [index for index in free if index not in groups[-1]]
    return groups
