"""Values of maps between the pixel centres.

A pixel in row i, column j has its centre at (j + 0.5, i + 0.5).

Dimension letters: n points.
"""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

__all__ = ["bilinear_at", "depth_at", "inside", "nearest_at"]

_EDGE = 0.1  # neighbours whose depths differ by a larger share lie on two surfaces


def inside(xy: Float[Tensor, "n 2"], *, height: int, width: int) -> Bool[Tensor, " n"]:
    """Tell which places, in pixels, lie in a picture; NaN lies nowhere."""
    x, y = xy.unbind(-1)
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def nearest_at(
    values: Shaped[Tensor, "h w"], xy: Float[Tensor, "n 2"], *, outside: float = 0
) -> Shaped[Tensor, " n"]:
    """The values of the pixels that places lie in; ``outside`` where there is none."""
    height, width = values.shape
    within = inside(xy, height=height, width=width)
    x, y = xy.nan_to_num().floor().long().unbind(-1)
    found = values[y.clamp(0, height - 1), x.clamp(0, width - 1)]
    return torch.where(within, found, torch.full_like(found, outside))


def bilinear_at(values: Float[Tensor, "h w"], xy: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Bilinear values at places; beyond the outermost centres, the value of the border."""
    neighbours, right, down = _neighbours(values, xy)
    top = torch.lerp(neighbours[0], neighbours[1], right)
    bottom = torch.lerp(neighbours[2], neighbours[3], right)
    return torch.lerp(top, bottom, down)


def depth_at(depth: Float[Tensor, "h w"], xy: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Depth at places between the pixels, without inventing surfaces on edges.

    Bilinear, unless the four neighbours differ by more than a tenth or one of them is unknown: then
    that of the pixel itself.

    Args:
        depth: z-depth, 0 (or NaN) where it is unknown.
        xy: in pixels.

    Returns:
        0 where the depth is unknown or the place lies outside of the map.
    """
    known = depth.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0.0)
    neighbours, _, _ = _neighbours(known, xy)
    smooth = neighbours.amax(0) <= (1.0 + _EDGE) * neighbours.amin(0)
    own = nearest_at(known, xy)
    return torch.where(smooth & (own > 0), bilinear_at(known, xy), own)


def _neighbours(
    values: Tensor, xy: Tensor
) -> tuple[Float[Tensor, "4 n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    height, width = values.shape
    place = xy.to(values.dtype).nan_to_num() - 0.5
    x, y = place[:, 0].clamp(0, width - 1), place[:, 1].clamp(0, height - 1)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    four = [values[row, column] for row in (top, bottom) for column in (left, right)]
    return torch.stack(four), x - left, y - top
