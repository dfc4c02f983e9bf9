"""Where no known point is, but pictures show something: points at the depth of those around.

Structure from motion finds no points on a smooth wall, or on ground that few pictures share.
Without anything there a fit would leave holes, since Gaussians are only cloned where some are.

Dimension letters: v views, n points, k of them around a place.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from .start import PLAIN, Start, in_view, pixels_at, unproject

__all__ = ["with_gaps_filled"]

_CELLS = 48  # across the picture's longer side
_AROUND = 12  # known points that tell the depth of a place
_LEAST_POINTS = 8  # in a picture, to tell anything
_BEYOND = 1.5  # how far inverse depths may leave those around
_FLAT = 0.05  # ridge of the plane through them, as a share of their spread
_WANTED = 0.5  # of a map
_PACKED = 0.5  # of the distance of neighbours


def with_gaps_filled(
    start: Start,
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    background: Float[Tensor, "3"],
    wanted: Float[Tensor, "v 1 h w"] | None,
    generator: torch.Generator,
) -> Start:
    """Points to start from, and one more in each of a picture's cells that has none.

    A plane is put through the inverse depths of the points around (that of a plane in the scene is
    one in the picture), and followed into the gap, though not far out of their range. What is added
    for one view counts as known in the next.

    Args:
        start: of `from_points`.
        images: in [0, 1].
        cameras: one per image.
        background: cells of this colour stay empty.
        wanted: 1 = of interest; cells outside stay empty.
        generator: on the CPU.
    """
    means, scales, colours = start.means, start.scales, start.rgb
    _, _, height, width = images.shape
    columns = max(1, round(_CELLS * width / max(width, height)))
    rows = max(1, round(_CELLS * height / max(width, height)))
    for view in range(len(cameras)):
        place, there = in_view(means, cameras, view)
        known = place[there]
        if len(known) < _LEAST_POINTS:
            continue
        cell = (known[:, 1] * rows).long() * columns + (known[:, 0] * columns).long()
        taken = torch.zeros(rows * columns, dtype=torch.bool)
        taken[cell] = True
        empty = (~taken).nonzero()[:, 0]
        jitter = torch.rand(len(empty), 2, generator=generator)
        corner = torch.stack([empty % columns, empty // columns], -1)
        at = (corner + jitter) / torch.tensor([columns, rows])
        rgb = pixels_at(images[view], at)
        keep = (rgb - background).abs().amax(-1) > PLAIN
        if wanted is not None:
            keep &= pixels_at(wanted[view], at)[:, 0] > _WANTED
        at, rgb = at[keep], rgb[keep]
        if len(at) == 0:
            continue
        depths = _depths_of(means[there], cameras, view)
        depth = 1 / _followed(known, 1 / depths, at)
        views = torch.full((len(at),), view, dtype=torch.long)
        means = torch.cat([means, unproject(cameras, views, at[:, 0], at[:, 1], depth)])
        size = _PACKED / columns * depth / cameras.Ks_norm[view, 0, 0]
        scales, colours = torch.cat([scales, size]), torch.cat([colours, rgb])
    return Start(means, scales, colours, start.kind, start.distance)


def _depths_of(means: Float[Tensor, "n 3"], cameras: Cameras, view: int) -> Float[Tensor, " n"]:
    viewmat = cameras.viewmats[view]
    return means @ viewmat[2, :3] + viewmat[2, 3]


def _followed(
    known: Float[Tensor, "n 2"], values: Float[Tensor, " n"], at: Float[Tensor, "m 2"]
) -> Float[Tensor, " m"]:
    """Values at places, from planes through those of the nearest known places."""
    count = min(_AROUND, len(known))
    nearest = torch.cdist(at, known).topk(count, dim=1, largest=False).indices
    around = values[nearest]
    middle = around.median(1, keepdim=True).values
    offsets = known[nearest] - at[:, None]
    centre = offsets.mean(1, keepdim=True)
    spread = offsets - centre
    matrix = spread.mT @ spread
    ridge = _FLAT * matrix.diagonal(dim1=-2, dim2=-1).sum(-1) + 1e-9
    matrix = matrix + ridge[:, None, None] * torch.eye(2)
    slope = torch.linalg.solve(matrix, spread.mT @ (around - middle)[:, :, None])[:, :, 0]
    followed = middle[:, 0] - (slope * centre[:, 0]).sum(-1)
    low, high = around.amin(1) / _BEYOND, around.amax(1) * _BEYOND
    return torch.minimum(torch.maximum(followed, low), high)
