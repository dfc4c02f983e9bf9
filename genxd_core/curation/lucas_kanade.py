"""Corners of a picture, and where they are in the next one: in PyTorch, without weights.

Corners after Shi and Tomasi (1994), followed after Lucas and Kanade (1981), coarse to fine over a
pyramid (Bouguet 2000), all points at once.

Dimension letters: n points, p pixels of a window.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .subpixel import inside

__all__ = ["find_corners", "follow_points", "pyramid", "to_grey"]

_LUMA = (0.299, 0.587, 0.114)
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_CORNER_WINDOW = 5
_APART_PX = 2  # least distance of two corners, along x or y
_QUALITY = 0.02  # of an object's best corner
_LEAST_STRENGTH = 1e-6  # of a corner: squared grey levels (of 0 to 1) a pixel; noise of a flat area
_RADIUS = 5  # of the window that is compared, in pixels of each level
_LEVELS = 4
_SMALLEST_SIDE = 16  # of a level
_ROUNDS = 16
_SETTLED_PX = 0.01


def to_grey(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "h w"]:
    """Luma of a picture."""
    return (image.float() * image.new_tensor(_LUMA)[:, None, None].float()).sum(0)


def find_corners(
    grey: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"], *, most: int
) -> Float[Tensor, "n 2"]:
    """The places in a mask that can be told best from their surroundings, best first.

    Args:
        grey: a picture in [0, 1].
        mask: where to look.
        most: at most so many.

    Returns:
        x and y in pixels, at pixel centres.
    """
    strength = _corner_strength(grey)
    # Thinned inside of the mask, so that an edge of the object does not silence what is inside.
    within = torch.where(mask, strength, torch.zeros_like(strength))
    around = F.max_pool2d(within[None, None], 2 * _APART_PX + 1, 1, _APART_PX)[0, 0]
    least = max(_LEAST_STRENGTH, _QUALITY * float(within.max()))
    rows, columns = ((within == around) & (within >= least)).nonzero(as_tuple=True)
    best = within[rows, columns].argsort(descending=True, stable=True)[:most]
    return torch.stack([columns[best], rows[best]], dim=1).float() + 0.5


def _corner_strength(grey: Tensor) -> Float[Tensor, "h w"]:
    """The smaller eigenvalue of the mean of the gradients' outer products."""
    gx, gy = _gradients(grey)
    products = torch.stack([gx * gx, gx * gy, gy * gy])[:, None]
    products = F.pad(products, (_CORNER_WINDOW // 2,) * 4, mode="replicate")
    xx, xy, yy = F.avg_pool2d(products, _CORNER_WINDOW, 1)[:, 0]
    return _smaller_eigenvalue(xx, xy, yy)


def _smaller_eigenvalue(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    least: Tensor = (xx + yy) / 2 - ((xx - yy).square() / 4 + xy.square()).sqrt()
    return least


def pyramid(grey: Float[Tensor, "h w"]) -> list[Float[Tensor, "_ _"]]:
    """The picture and its halves, the largest first."""
    levels = [grey]
    while len(levels) < _LEVELS and min(levels[-1].shape) >= 2 * _SMALLEST_SIDE:
        levels.append(_smoothed(levels[-1])[::2, ::2])
    return levels


def follow_points(
    first: list[Float[Tensor, "_ _"]], second: list[Float[Tensor, "_ _"]], xy: Float[Tensor, "n 2"]
) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    """Where the surroundings of points in one picture are found in another.

    Args:
        first: `pyramid` of the picture that the points are in.
        second: that of the other picture.
        xy: in pixels of the first level; a pixel's centre is at half numbers.

    Returns:
        The places, and which of them are found: with texture to go by, and inside of the picture.
    """
    moved = torch.zeros_like(xy)
    textured = torch.ones(len(xy), dtype=torch.bool)
    for level in reversed(range(len(first))):
        # Pixel k of a level is pixel 2 k of the finer one: with integer centres, scales are plain.
        start = (xy - 0.5) / 2**level
        patch = _patch(first[level], start)
        at = _follow_in_level(patch, second[level], start + moved)
        moved = at - start
        textured = patch.invertible
        if level:
            moved = 2 * moved
    height, width = first[0].shape
    arrived = xy + moved
    return arrived, textured & inside(arrived, height=height, width=width)


@dataclass(frozen=True)
class _Patch:
    """Windows around points, and what is needed to move them."""

    values: Float[Tensor, "n p"]
    gx: Float[Tensor, "n p"]
    gy: Float[Tensor, "n p"]
    inverse: Float[Tensor, "n 2 2"]
    invertible: Bool[Tensor, " n"]


def _patch(grey: Tensor, at: Tensor) -> _Patch:
    gx, gy = _gradients(grey)
    values, gx, gy = _windows(torch.stack([grey, gx, gy]), at).unbind(0)
    xx, xy, yy = (gx * gx).mean(1), (gx * gy).mean(1), (gy * gy).mean(1)
    determinant = xx * yy - xy * xy
    invertible = _smaller_eigenvalue(xx, xy, yy) > _LEAST_STRENGTH
    rows = torch.stack([yy, -xy, -xy, xx], dim=1).view(-1, 2, 2)
    safe = torch.where(invertible, determinant, torch.ones_like(determinant))
    inverse = torch.where(invertible[:, None, None], rows / safe[:, None, None], 0.0)
    return _Patch(values, gx, gy, inverse, invertible)


def _follow_in_level(patch: _Patch, grey: Tensor, at: Tensor) -> Tensor:
    pixels = patch.values.shape[1]
    for _ in range(_ROUNDS):
        error = patch.values - _windows(grey[None], at)[0]
        pull = torch.stack([(patch.gx * error).sum(1), (patch.gy * error).sum(1)], dim=1) / pixels
        step = (patch.inverse @ pull[:, :, None])[:, :, 0]
        # A step over half the window leaves what the linear model can tell.
        step = step.clamp(-_RADIUS / 2, _RADIUS / 2)
        at = at + step
        if len(at) == 0 or float(step.abs().max()) < _SETTLED_PX:
            break
    return at


def _windows(maps: Float[Tensor, "c h w"], at: Float[Tensor, "n 2"]) -> Float[Tensor, "c n p"]:
    """Bilinear values around places, given with integer pixel centres."""
    height, width = maps.shape[1:]
    reach = torch.arange(-_RADIUS, _RADIUS + 1, dtype=at.dtype)
    x = at[:, 0, None, None] + reach[None, None, :]
    y = at[:, 1, None, None] + reach[None, :, None]
    x, y = torch.broadcast_tensors(x, y)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).flatten(1, 2)
    sampled = F.grid_sample(maps[None], grid[None], padding_mode="border", align_corners=False)
    return sampled[0]


def _gradients(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Scharr's derivatives, per pixel."""
    smooth, slope = grey.new_tensor([3.0, 10.0, 3.0]) / 16, grey.new_tensor([-1.0, 0.0, 1.0]) / 2
    kernels = torch.stack([smooth[:, None] * slope, slope[:, None] * smooth])[:, None]
    gx, gy = F.conv2d(F.pad(grey[None, None], (1,) * 4, mode="replicate"), kernels)[0]
    return gx, gy


def _smoothed(grey: Tensor) -> Float[Tensor, "h w"]:
    taps = grey.new_tensor(_BINOMIAL)
    kernel = (taps[:, None] * taps)[None, None]
    return F.conv2d(F.pad(grey[None, None], (2,) * 4, mode="replicate"), kernel)[0, 0]
