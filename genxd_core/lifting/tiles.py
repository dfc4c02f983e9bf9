"""Which Gaussians may touch which tile of a picture, nearest first: common ops of PyTorch only."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from .projection import Projection

__all__ = ["TileLists", "list_tiles"]


@dataclass(frozen=True)
class TileLists:
    """For every tile, row by row, the Gaussians that may touch it, sorted by depth.

    Attributes:
        size: a tile's side in pixels.
        columns: of tiles.
        rows: of tiles.
        ids: (pairs,) numbers of Gaussians, tile after tile.
        counts: (rows * columns,) Gaussians of each tile.
    """

    size: int
    columns: int
    rows: int
    ids: Int[Tensor, " pairs"]
    counts: Int[Tensor, " tiles"]


@torch.no_grad()
def list_tiles(projection: Projection, *, width: int, height: int, size: int) -> TileLists:
    """Sort the visible Gaussians of a picture into its tiles.

    Args:
        projection: of one camera.
        width: of the picture in pixels.
        height: of the picture in pixels.
        size: a tile's side in pixels.
    """
    columns, rows = -(-width // size), -(-height // size)
    ids = projection.visible.nonzero()[:, 0]
    ids = ids[torch.argsort(projection.depths[ids], stable=True)]
    left, right, top, bottom = (projection.boxes[:, ids] // size).unbind(0)
    across = right - left + 1
    num_tiles = across * (bottom - top + 1)
    # One entry for every Gaussian and tile; `step` counts through the tiles of one Gaussian.
    owner = torch.repeat_interleave(num_tiles)
    begin = num_tiles.cumsum(0) - num_tiles
    step = (torch.arange(len(owner), device=ids.device) - begin[owner]).int()
    across = across[owner]
    down = step // across
    tile = (top * columns + left)[owner] + down * (columns - across) + step
    # Stable, so that the order by depth survives.
    tile, order = torch.sort(tile, stable=True)
    counts = torch.bincount(tile, minlength=rows * columns)
    return TileLists(size, columns, rows, ids[owner[order]], counts)
