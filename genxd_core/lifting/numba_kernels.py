"""The loops of the numba backend: plain Python here, compiled by `composite_numba` on first use.

They are compiled with a copy of this module's names, and must not change any of them.

Every tile is worked on by one thread, and what a Gaussian receives from a tile is written to a row
of its own and added up in order, so results are the same in every run, whatever the threads.

Floating-point constants come in as an array of the pictures' dtype: a literal would make numba
compute in float64.
"""

from typing import Any

import numpy as np

__all__ = ["backward", "count_tiles", "fill_tiles", "forward", "sum_rows"]

# numba's own `prange` is put in its place before compiling.
prange: Any = range

# Places in the array of constants.
_ALPHA_MIN, _ALPHA_MAX, _THROUGH_MIN, _HALF, _ONE, _SLACK = range(6)


def count_tiles(order: Any, boxes: Any, size: Any, columns: Any, counts: Any) -> None:
    """Count the Gaussians of each tile.

    Args:
        order: (visible,) numbers of Gaussians, nearest first.
        boxes: (4, N) first and last column, first and last row in pixels.
        size: a tile's side in pixels.
        columns: of tiles.
        counts: (tiles,) zeros; changed in place.
    """
    for place in range(order.shape[0]):
        n = order[place]
        for row in range(boxes[2, n] // size, boxes[3, n] // size + 1):
            for column in range(boxes[0, n] // size, boxes[1, n] // size + 1):
                counts[row * columns + column] += 1


def fill_tiles(order: Any, boxes: Any, size: Any, columns: Any, ends: Any, ids: Any) -> None:
    """Write the Gaussians of each tile, nearest first.

    Args:
        order: as for `count_tiles`.
        boxes: as for `count_tiles`.
        size: as for `count_tiles`.
        columns: as for `count_tiles`.
        ends: (tiles,) where each tile's part of ``ids`` begins; in place: where it ends.
        ids: (pairs,) changed in place.
    """
    for place in range(order.shape[0]):
        n = order[place]
        for row in range(boxes[2, n] // size, boxes[3, n] // size + 1):
            for column in range(boxes[0, n] // size, boxes[1, n] // size + 1):
                tile = row * columns + column
                ids[ends[tile]] = n
                ends[tile] += 1


def forward(
    ids: Any,
    ends: Any,
    size: Any,
    columns: Any,
    boxes: Any,
    geometry: Any,
    values: Any,
    centres: Any,
    constants: Any,
    picture: Any,
    last: Any,
) -> None:
    """Composite a picture.

    Args:
        ids: (pairs,) Gaussians, tile after tile, nearest first.
        ends: (tiles,) where each tile's part of ``ids`` ends.
        size: a tile's side in pixels.
        columns: of tiles.
        boxes: (4, N) first and last column, first and last row in pixels.
        geometry: (N, 7) x, y, conic xx, xy, yy, opacity, 2 ln(opacity / smallest alpha).
        values: (N, C).
        centres: (longer side,) of pixels along one axis.
        constants: see the module.
        picture: (H, W, C) zeros; changed in place.
        last: (H, W) changed in place: the entry of ``ids`` before which the pixel was full.
    """
    alpha_min, alpha_max = constants[_ALPHA_MIN], constants[_ALPHA_MAX]
    through_min, half, one = constants[_THROUGH_MIN], constants[_HALF], constants[_ONE]
    slack = constants[_SLACK]
    channels = values.shape[1]
    height, width = last.shape
    for tile in prange(ends.shape[0]):
        top, left = tile // columns * size, tile % columns * size
        bottom, right = min(top + size, height), min(left + size, width)
        begin = ends[tile - 1] if tile else 0
        through = np.full((size, size), one)
        live = (bottom - top) * (right - left)
        for row in range(top, bottom):
            for column in range(left, right):
                last[row, column] = ends[tile]
        for entry in range(begin, ends[tile]):
            n = ids[entry]
            x, y = geometry[n, 0], geometry[n, 1]
            xx, xy, yy = geometry[n, 2], geometry[n, 3], geometry[n, 4]
            opacity, limit = geometry[n, 5], geometry[n, 6]
            inverse = one / xx
            for row in range(max(top, boxes[2, n]), min(bottom, boxes[3, n] + 1)):
                dy = centres[row] - y
                root = xy * xy * dy * dy - xx * (yy * dy * dy - limit)
                if root < 0:
                    continue
                reach = np.sqrt(root) * inverse + slack
                middle = x - xy * dy * inverse - half
                # Limited before they become integers, which have no infinity.
                first = int(np.ceil(max(middle - reach, max(left, boxes[0, n]))))
                final = int(np.floor(min(middle + reach, min(right, boxes[1, n] + 1) - 1))) + 1
                for column in range(first, final):
                    if last[row, column] < ends[tile]:
                        continue
                    dx = centres[column] - x
                    power = half * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
                    alpha = min(opacity * np.exp(-power), alpha_max)
                    if alpha < alpha_min:
                        continue
                    before = through[row - top, column - left]
                    after = before * (one - alpha)
                    if after <= through_min:
                        last[row, column] = entry
                        live -= 1
                        continue
                    weight = before * alpha
                    through[row - top, column - left] = after
                    for channel in range(channels):
                        picture[row, column, channel] += weight * values[n, channel]
            if live == 0:
                break


def backward(
    ids: Any,
    ends: Any,
    size: Any,
    columns: Any,
    boxes: Any,
    geometry: Any,
    values: Any,
    centres: Any,
    constants: Any,
    picture: Any,
    last: Any,
    grad_picture: Any,
    grad_entries: Any,
) -> None:
    """Gradients of every entry of ``ids``: x, y, conic, logarithm of opacity, then the values.

    Walks front to back as `forward` does. What lies behind an entry is the pixel less what has been
    passed, so nothing is divided by small transmittances.

    Args:
        ids: as for `forward`, like all up to ``constants``.
        ends: as for `forward`.
        size: as for `forward`.
        columns: as for `forward`.
        boxes: as for `forward`.
        geometry: as for `forward`.
        values: as for `forward`.
        centres: as for `forward`.
        constants: as for `forward`.
        picture: (H, W, C) as made by `forward`.
        last: (H, W) as made by `forward`.
        grad_picture: (H, W, C).
        grad_entries: (pairs, 6 + C) zeros; changed in place.
    """
    alpha_min, alpha_max = constants[_ALPHA_MIN], constants[_ALPHA_MAX]
    half, one, slack = constants[_HALF], constants[_ONE], constants[_SLACK]
    channels = values.shape[1]
    height, width = last.shape
    for tile in prange(ends.shape[0]):
        top, left = tile // columns * size, tile % columns * size
        bottom, right = min(top + size, height), min(left + size, width)
        begin = ends[tile - 1] if tile else 0
        through = np.full((size, size), one)
        behind = np.full((size, size), one - one)
        end = begin
        for row in range(top, bottom):
            for column in range(left, right):
                end = max(end, last[row, column])
                for channel in range(channels):
                    behind[row - top, column - left] += (
                        picture[row, column, channel] * grad_picture[row, column, channel]
                    )
        for entry in range(begin, end):
            n = ids[entry]
            x, y = geometry[n, 0], geometry[n, 1]
            xx, xy, yy = geometry[n, 2], geometry[n, 3], geometry[n, 4]
            opacity, limit = geometry[n, 5], geometry[n, 6]
            inverse = one / xx
            sum_1 = one - one
            sum_x, sum_y, sum_xx, sum_xy, sum_yy = sum_1, sum_1, sum_1, sum_1, sum_1
            for row in range(max(top, boxes[2, n]), min(bottom, boxes[3, n] + 1)):
                dy = centres[row] - y
                root = xy * xy * dy * dy - xx * (yy * dy * dy - limit)
                if root < 0:
                    continue
                reach = np.sqrt(root) * inverse + slack
                middle = x - xy * dy * inverse - half
                # Limited before they become integers, which have no infinity.
                first = int(np.ceil(max(middle - reach, max(left, boxes[0, n]))))
                final = int(np.floor(min(middle + reach, min(right, boxes[1, n] + 1) - 1))) + 1
                for column in range(first, final):
                    if entry >= last[row, column]:
                        continue
                    dx = centres[column] - x
                    power = half * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
                    unclamped = opacity * np.exp(-power)
                    if unclamped < alpha_min:
                        continue
                    alpha = min(unclamped, alpha_max)
                    before = through[row - top, column - left]
                    weight = before * alpha
                    through[row - top, column - left] = before * (one - alpha)
                    seen = one - one
                    for channel in range(channels):
                        grad = grad_picture[row, column, channel]
                        seen += values[n, channel] * grad
                        grad_entries[entry, 6 + channel] += weight * grad
                    seen *= weight
                    rest = behind[row - top, column - left] - seen
                    behind[row - top, column - left] = rest
                    if unclamped > alpha_max:
                        continue
                    by_log = seen - rest * alpha / (one - alpha)
                    sum_1 += by_log
                    sum_x += by_log * dx
                    sum_y += by_log * dy
                    sum_xx += by_log * dx * dx
                    sum_xy += by_log * dx * dy
                    sum_yy += by_log * dy * dy
            grad_entries[entry, 0] = xx * sum_x + xy * sum_y
            grad_entries[entry, 1] = xy * sum_x + yy * sum_y
            grad_entries[entry, 2] = -half * sum_xx
            grad_entries[entry, 3] = -sum_xy
            grad_entries[entry, 4] = -half * sum_yy
            grad_entries[entry, 5] = sum_1


def sum_rows(ids: Any, entries: Any, sums: Any) -> None:
    """Add the row of each entry to the row of its Gaussian, in order.

    Args:
        ids: (pairs,) Gaussians.
        entries: (pairs, columns).
        sums: (N, columns) zeros; changed in place.
    """
    for entry in range(ids.shape[0]):
        n = ids[entry]
        for column in range(entries.shape[1]):
            sums[n, column] += entries[entry, column]
