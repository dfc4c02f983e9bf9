"""Compositing of projected Gaussians in plain PyTorch, with the backward pass written by hand.

Within a tile the logarithm of a Gaussian's alpha is a quadratic polynomial of the pixel's offset
from the tile's centre, so one small matrix product gives all of a bucket of tiles:
``alpha = exp(coefficients (T, K, 6) @ basis (6, P))``. Front to back, with transmittance
``t_k = prod_{j <= k} (1 - alpha_j)``, the weights are ``w_k = alpha_k t_{k-1}`` and a pixel shows
``sum_k w_k value_k``. A value that is 1 for every Gaussian gives the pixel's opacity.

Nothing of the size (T, K, P) is kept between the passes: the backward pass computes it again, one
bucket at a time, which costs less than fetching it from memory.

Dimension letters: n Gaussians, t tiles, k Gaussians of a tile, p pixels of a tile, c channels.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .projection import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN, Projection
from .tiles import TileLists, list_tiles

__all__ = ["composite"]

# Measured on one core of a CPU with AVX-512: tiles of 8 take up to 1.8 times as long where many
# small Gaussians meet; larger buckets leave the cache, smaller ones call PyTorch too often.
TILE_SIZE = 4
BUCKET_ELEMENTS = 1 << 17
# Proposed for GPUs, where the calls are what costs; not measured.
TILE_SIZE_GPU = 16
BUCKET_ELEMENTS_GPU = 1 << 25
PADDING = 1.5  # a bucket's longest list over its shortest
_NOTHING = -1e4  # the logarithm of an alpha that is not there


def composite(
    projection: Projection,
    opacities: Float[Tensor, " n"],
    values: Float[Tensor, "n c"],
    *,
    width: int,
    height: int,
    tile_size: int | None = None,
) -> Float[Tensor, "c h w"]:
    """Blend the values of projected Gaussians front to back.

    Gradients flow to the projection's ``means2d`` and ``conics``, to opacities and to values.

    Args:
        projection: of one camera.
        opacities: in [0, 1].
        values: any number of channels.
        width: of the picture in pixels.
        height: of the picture in pixels.
        tile_size: a tile's side in pixels; ``None`` takes the measured best.
    """
    size = tile_size or (TILE_SIZE if values.device.type == "cpu" else TILE_SIZE_GPU)
    lists = list_tiles(projection, width=width, height=height, size=size)
    geometry = torch.cat(
        # What is fainter is not drawn, and the logarithm of 0 has no gradient.
        [projection.means2d, projection.conics, opacities[:, None].clamp_min(ALPHA_MIN).log()],
        1,
    )
    tiles: Tensor = _Composite.apply(geometry, values, lists)
    picture = tiles.view(lists.rows, lists.columns, size, size, -1).permute(4, 0, 2, 1, 3)
    return picture.reshape(-1, lists.rows * size, lists.columns * size)[:, :height, :width]


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, geometry: Tensor, values: Tensor, lists: TileLists) -> Tensor:
        """(N, 6) x, y, conic, log opacity and (N, C) values to (tiles, P, C)."""
        ctx.save_for_backward(geometry, values)
        ctx.lists, ctx.buckets = lists, _buckets(lists)
        pixels = values.new_zeros(len(lists.counts), lists.size**2, values.shape[1])
        basis = _basis(lists.size, geometry)
        ctx.clamps = bool((geometry[:, 5] > math.log(ALPHA_MAX)).any())
        for bucket in ctx.buckets:
            coefficients, _ = bucket.coefficients(geometry)
            _, _, weights = _weights(coefficients, basis, ctx.clamps)
            shown = weights.transpose(1, 2) @ bucket.gather(values)
            pixels.index_copy_(0, bucket.tiles, shown)
        return pixels

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_pixels: Tensor) -> tuple[Tensor, Tensor, None]:
        geometry, values = ctx.saved_tensors
        lists: TileLists = ctx.lists
        basis = _basis(lists.size, geometry)
        grad_geometry = torch.zeros_like(geometry)
        grad_values = torch.zeros_like(values)
        for bucket in ctx.buckets:
            coefficients, local = bucket.coefficients(geometry)
            alphas, kept, weights = _weights(coefficients, basis, ctx.clamps)
            grad = grad_pixels[bucket.tiles]
            bucket.add_(grad_values, weights @ grad)
            share = (bucket.gather(values) @ grad.transpose(1, 2)).mul_(weights)
            behind = share.sum(1, keepdim=True) - torch.cumsum(share, 1)
            share.sub_(behind.mul_(alphas).div_(kept))
            if ctx.clamps:
                share.masked_fill_(alphas >= ALPHA_MAX, 0)
            bucket.add_(grad_geometry, _grad_local(share @ basis.T, coefficients, local))
        return grad_geometry, grad_values, None


def _basis(size: int, like: Tensor) -> Tensor:
    """(6, P) the monomials 1, x, y, xx, xy, yy of the pixels' offsets from the tile's centre."""
    offset = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    y, x = (grid.flatten() for grid in torch.meshgrid(offset, offset, indexing="ij"))
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])


def _weights(coefficients: Tensor, basis: Tensor, clamps: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(T, K, P) alphas, what each lets through, and its weight in the pixel."""
    alphas = (coefficients @ basis).exp_()
    torch.nn.functional.threshold(alphas, ALPHA_MIN, 0.0, inplace=True)
    if clamps:
        alphas.clamp_(max=ALPHA_MAX)
    kept = 1 - alphas
    through = torch.cumprod(kept, 1)
    weights = alphas.clone()
    weights[:, 1:] *= through[:, :-1]
    if bool((through[:, -1] <= TRANSMITTANCE_MIN).any()):
        weights.masked_fill_(through <= TRANSMITTANCE_MIN, 0)
    return alphas, kept, weights


class _Bucket:
    """Tiles whose lists have about the same length, padded to the longest.

    Attributes:
        tiles: (T,) which.
        ids: (T, K) numbers of Gaussians; its last entry pads a list.
    """

    def __init__(self, lists: TileLists, tiles: Tensor, starts: Tensor, longest: int) -> None:
        place = torch.arange(longest, device=tiles.device)
        counts = lists.counts[tiles, None]
        self._beyond = (place >= counts).to(torch.float32) * _NOTHING
        self.tiles = tiles
        self.ids = lists.ids[starts[tiles, None] + torch.minimum(place, counts - 1)]
        centre = torch.stack([tiles % lists.columns, tiles // lists.columns])
        self._centre = centre * lists.size + lists.size / 2

    def gather(self, rows: Tensor) -> Tensor:
        """(T, K, ...) the rows of this bucket's Gaussians."""
        return rows.index_select(0, self.ids.flatten()).view(*self.ids.shape, -1)

    def add_(self, rows: Tensor, gradient: Tensor) -> None:
        """Add what was computed for each entry to the row of its Gaussian."""
        rows.index_add_(0, self.ids.flatten(), gradient.flatten(0, 1))

    def coefficients(self, geometry: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(T, K, 6) polynomials of log alpha, and the offsets and conics that they are made of."""
        x, y, xx, xy, yy, log_opacity = self.gather(geometry).unbind(-1)
        x = x - self._centre[0, :, None]
        y = y - self._centre[1, :, None]
        slope_x, slope_y = xx * x + xy * y, xy * x + yy * y
        constant = log_opacity - 0.5 * (slope_x * x + slope_y * y)
        constant += self._beyond
        polynomial = torch.stack([constant, slope_x, slope_y, -0.5 * xx, -xy, -0.5 * yy], -1)
        return polynomial, (x, y, xx, xy, yy)


def _buckets(lists: TileLists) -> list[_Bucket]:
    """All tiles that are not empty, longest lists first; padding and size are limited."""
    starts = lists.counts.cumsum(0) - lists.counts
    counts, order = torch.sort(lists.counts, descending=True, stable=True)
    sizes = counts.tolist()
    filled = len(sizes) - sizes.count(0)
    on_cpu = lists.counts.device.type == "cpu"
    elements = BUCKET_ELEMENTS if on_cpu else BUCKET_ELEMENTS_GPU
    buckets = []
    begin = 0
    while begin < filled:
        longest = sizes[begin]
        most = max(1, elements // (longest * lists.size**2))
        end = begin + 1
        while end < filled and end - begin < most and sizes[end] * PADDING >= longest:
            end += 1
        buckets.append(_Bucket(lists, order[begin:end], starts, longest))
        begin = end
    return buckets


def _grad_local(gradient: Tensor, coefficients: Tensor, local: tuple[Tensor, ...]) -> Tensor:
    """From the gradient of the polynomials to that of x, y, conic and log opacity."""
    x, y, xx, xy, yy = local
    constant, by_x, by_y, by_xx, by_xy, by_yy = gradient.unbind(-1)
    _, slope_x, slope_y, *_ = coefficients.unbind(-1)
    return torch.stack(
        [
            by_x * xx + by_y * xy - constant * slope_x,
            by_x * xy + by_y * yy - constant * slope_y,
            x * (by_x - 0.5 * constant * x) - 0.5 * by_xx,
            by_x * y + by_y * x - constant * x * y - by_xy,
            y * (by_y - 0.5 * constant * y) - 0.5 * by_yy,
            constant,
        ],
        -1,
    )
