"""Cameras one after another: stretches of a path without a jump, anchors spread, groups cut.

Cameras are numbers on the path, a stretch is a range of them.
"""

import itertools
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

__all__ = ["conditions_of", "cut", "spread", "stretches_of"]

_JUMP = 4.0


def stretches_of(points: Float[Tensor, "n d"]) -> list[range]:
    """Parts of a path between jumps: steps of more than four times the usual one.

    Args:
        points: the path's views.
    """
    steps = (points[1:] - points[:-1]).norm(dim=-1)
    usual = float(steps.median()) if len(steps) else 0.0
    jumps = [] if usual == 0.0 else (steps > _JUMP * usual).nonzero()[:, 0].tolist()
    borders = [0, *(jump + 1 for jump in jumps), len(points)]
    return [range(start, stop) for start, stop in itertools.pairwise(borders)]


def spread(free: list[int], stretches: list[range], count: int) -> list[int]:
    """Anchors: evenly between the known cameras, and at the open ends of each stretch.

    Args:
        free: cameras to choose among, rising; all others are known.
        stretches: of the path.
        count: how many; fewer than there are.
    """
    runs = _runs(free, stretches)
    shares = _shares([len(run) for run in runs], count)
    starts, lasts = {stretch[0] for stretch in stretches}, {stretch[-1] for stretch in stretches}
    anchors: list[int] = []
    for run, share in zip(runs, shares, strict=True):
        if share == 0:
            continue
        low, high = run[0], run[-1]
        opens, ends = low in starts, high in lasts
        if opens and ends and share == 1:
            anchors.append((low + high) // 2)
            continue
        # A known camera beside the run is a support already.
        low, high = low - (not opens), high + (not ends)
        gaps = share - 1 + (not opens) + (not ends)
        steps = range(0 if opens else 1, gaps + (1 if ends else 0))
        # Rounded half up in whole numbers, so that two never meet.
        anchors += [low + (2 * (high - low) * step + gaps) // (2 * gaps) for step in steps]
    return anchors


def conditions_of(part: list[int], at_least: int) -> int:
    """How many conditions some neighbours have: all that is known between them, and their ends.

    Args:
        part: cameras of one group.
        at_least: conditions that every group has; the ends count from two and three on.
    """
    between = part[-1] - part[0] + 1 - len(part)
    return max(at_least, between + min(2, at_least - 1))


def cut(free: list[int], stretches: list[range], views: int, conditions: int) -> list[list[int]]:
    """Groups of neighbours, cut at jumps and known cameras where possible, else evenly.

    Args:
        free: cameras to group, rising; all others are known.
        stretches: of the path; none of the groups is on two of them.
        views: of a group, conditions included, at most.
        conditions: see `conditions_of`.
    """
    parts: list[list[int]] = []
    for stretch in stretches:
        on_it = [camera for camera in free if camera in stretch]
        if on_it:
            parts += _cut_stretch(on_it, stretch, views, conditions)
    return parts


def _cut_stretch(free: list[int], stretch: range, views: int, conditions: int) -> list[list[int]]:
    size = views - conditions
    pieces: list[list[int]] = []
    for run in _runs(free, [stretch]):
        count = -(-len(run) // size)
        cuts = [len(run) * number // count for number in range(count + 1)]
        pieces += [run[start:end] for start, end in itertools.pairwise(cuts)]
    even = -(-len(free) // -(-len(free) // size))
    parts: list[list[int]] = []
    for piece in pieces:
        both = [*parts[-1], *piece] if parts else piece
        fits = len(both) + conditions_of(both, conditions) <= views
        if parts and fits and len(parts[-1]) < even:
            parts[-1] = both
        else:
            parts.append(piece)
    return parts


def _runs(cameras: list[int], stretches: list[range]) -> list[list[int]]:
    """Neighbours together: 1, 2, 3, 7, 8 -> (1, 2, 3), (7, 8)."""
    runs = []
    for stretch in stretches:
        on_it = [camera for camera in cameras if camera in stretch]
        by_offset = itertools.groupby(enumerate(on_it), key=lambda pair: pair[1] - pair[0])
        runs += [[camera for _, camera in pairs] for _, pairs in by_offset]
    return runs


def _shares(lengths: Sequence[int], count: int) -> list[int]:
    """``count`` in proportion to lengths, by largest remainders."""
    total = sum(lengths)
    shares = [count * length // total for length in lengths]
    by_remainder = sorted(range(len(lengths)), key=lambda i: -(count * lengths[i] % total))
    for index in by_remainder[: count - sum(shares)]:
        shares[index] += 1
    return shares
