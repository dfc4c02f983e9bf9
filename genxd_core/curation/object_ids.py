"""Which object is which over the frames of a clip: the fallback where nothing tracks objects.

Regions of neighbouring frames that overlap are one object. Sec. 3.2 uses a video segmentation model
for this; its label maps need none of it.

Dimension letters: t frames, n regions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from numpy import ndarray
from torch import Tensor

from ..errors import InvalidInputError

__all__ = ["connected_regions", "link_labels", "link_masks"]

_LEAST_OVERLAP = 0.3  # intersection over union
_LONGEST_GAP = 2  # frames
_LEAST_SHARE = 0.0005  # of a frame; smaller regions are specks


def link_labels(
    labels: Int[Tensor, "t h w"],
    *,
    least_overlap: float = _LEAST_OVERLAP,
    longest_gap: int = _LONGEST_GAP,
) -> Int[Tensor, "t h w"]:
    """Give the regions of every frame ids that last.

    Regions are matched greedily, the best overlap first, with the latest region of each object,
    moved on as it moved before. What matches none is a new object.

    Args:
        labels: of each frame by itself, 0 for background; a number may mean another object in
            another frame.
        least_overlap: intersection over union of two regions that may be one object.
        longest_gap: an object that is gone for so many frames may come back.

    Returns:
        Ids from 1 on, in the order of appearance, larger objects of a frame first.

    Raises:
        InvalidInputError: a shape or number that does not fit.
    """
    _check(labels, "labels")
    if not 0 < least_overlap <= 1 or longest_gap < 0:
        raise InvalidInputError(
            f"least_overlap is {least_overlap} and longest_gap {longest_gap}; expected a share "
            "above 0 and up to 1, and a number of frames from 0 on."
        )
    if int(labels.min()) < 0:
        raise InvalidInputError("labels holds negative numbers; 0 is background, objects from 1.")
    linked, known = torch.zeros_like(labels), list[_Known]()
    for frame, map_ in enumerate(labels):
        regions = [map_ == one for one in map_.unique() if one > 0]
        regions.sort(key=lambda region: -int(region.sum()))
        recent = [one for one in known if frame - one.frame <= longest_gap + 1]
        owners = _matched(regions, recent, frame, least_overlap)
        for region, owner in zip(regions, owners, strict=True):
            if owner is None:
                owner = _Known(len(known) + 1, frame, region)
                known.append(owner)
            owner.see(region, frame)
            linked[frame][region] = owner.id
    return linked


def link_masks(
    masks: Bool[Tensor, "t h w"],
    *,
    least_share: float = _LEAST_SHARE,
    least_overlap: float = _LEAST_OVERLAP,
    longest_gap: int = _LONGEST_GAP,
) -> Int[Tensor, "t h w"]:
    """Ids that last from masks that do not tell objects apart: every connected region is one.

    Args:
        masks: True where an object is.
        least_share: of the frame; smaller regions are left out.
        least_overlap: as for `link_labels`.
        longest_gap: as for `link_labels`.

    Raises:
        InvalidInputError: a shape or number that does not fit.
    """
    _check(masks, "masks")
    if not 0 <= least_share < 1:
        raise InvalidInputError(f"least_share is {least_share}, expected a share from 0 to 1.")
    labels = torch.stack([connected_regions(mask, least_share=least_share) for mask in masks])
    return link_labels(labels, least_overlap=least_overlap, longest_gap=longest_gap)


@dataclass
class _Known:
    """An object, as it was last seen."""

    id: int
    frame: int
    region: Tensor
    velocity: Tensor | None = None  # rows and columns a frame

    def see(self, region: Tensor, frame: int) -> None:
        gap = frame - self.frame
        if gap:
            self.velocity = (_middle(region) - _middle(self.region)) / gap
        self.region, self.frame = region, frame

    def guesses(self, frame: int) -> list[Tensor]:
        """Where it may be: where it was, or as far on as it moved before."""
        if self.velocity is None:
            return [self.region]
        rows, columns = (self.velocity * (frame - self.frame)).round().long().tolist()
        return [self.region, _shifted(self.region, rows, columns)]


def _matched(
    regions: list[Tensor], known: list[_Known], frame: int, least_overlap: float
) -> list["_Known | None"]:
    pairs = [
        (max(_overlap(region, guess) for guess in one.guesses(frame)), number, which)
        for number, region in enumerate(regions)
        for which, one in enumerate(known)
    ]
    owners: list[_Known | None] = [None] * len(regions)
    taken = set[int]()
    for overlap, number, which in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if overlap >= least_overlap and owners[number] is None and which not in taken:
            owners[number] = known[which]
            taken.add(which)
    return owners


def _overlap(region: Tensor, other: Tensor) -> float:
    union = int((region | other).sum())
    return int((region & other).sum()) / union if union else 0.0


def _middle(region: Tensor) -> Tensor:
    return region.nonzero().double().mean(0)


def _shifted(region: Tensor, rows: int, columns: int) -> Tensor:
    height, width = region.shape
    moved = torch.zeros_like(region)
    if abs(rows) < height and abs(columns) < width:
        y, x = max(rows, 0), max(columns, 0)
        h, w = height - abs(rows), width - abs(columns)
        moved[y : y + h, x : x + w] = region[y - rows : y - rows + h, x - columns : x - columns + w]
    return moved


# ---- connected regions --------------------------------------------------------------------------


def connected_regions(mask: Bool[Tensor, "h w"], *, least_share: float = 0.0) -> Int[Tensor, "h w"]:
    """Number the connected regions of a mask from 1 on; pixels that touch at a corner connect.

    Args:
        mask: of one frame.
        least_share: of the frame; smaller regions get 0.
    """
    rows, starts, ends = _runs(mask.detach().cpu().numpy())
    parents = list(range(len(rows)))

    def root(one: int) -> int:
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        return one

    for above, below in _touching(rows, starts, ends):
        parents[root(below)] = root(above)
    roots = np.array([root(one) for one in range(len(rows))], np.int64)
    names, label = np.unique(roots, return_inverse=True)
    pixels = np.bincount(label, weights=ends - starts, minlength=len(names))
    large = pixels >= max(least_share * mask.numel(), 1)
    numbers = np.where(large, np.cumsum(large), 0)
    labels = np.zeros(mask.shape, np.int64)
    for row, start, end, name in zip(rows, starts, ends, label, strict=True):
        labels[row, start:end] = numbers[name]
    return torch.from_numpy(labels)


def _runs(mask: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Row, first column and column after the last of all stretches of True, row by row."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return rows, starts, ends


def _touching(rows: ndarray, starts: ndarray, ends: ndarray) -> list[tuple[int, int]]:
    """Pairs of stretches in neighbouring rows that touch, corners included."""
    pairs = []
    above = 0
    for below in range(len(rows)):
        while above < below and (
            rows[above] < rows[below] - 1
            or (rows[above] == rows[below] - 1 and ends[above] < starts[below])
        ):
            above += 1
        other = above
        while other < below and rows[other] == rows[below] - 1 and starts[other] <= ends[below]:
            pairs.append((other, below))
            other += 1
    return pairs


def _check(maps: Shaped[Tensor, "..."], name: str) -> None:
    if maps.ndim != 3 or 0 in maps.shape:
        raise InvalidInputError(
            f"{name} has shape {tuple(maps.shape)}; expected (T, H, W), one map a frame."
        )
