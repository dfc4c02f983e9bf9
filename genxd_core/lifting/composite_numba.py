"""Compositing of projected Gaussians with numba: the quick twin of `composite_torch` on a CPU."""

import functools
import inspect
import math
import threading
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..optional import require
from . import numba_kernels
from .projection import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN, Projection

__all__ = ["composite", "draw_one", "load_kernels"]

TILE_SIZE = 16
_SLACK_PX = 1e-3  # for rounding, where a row of pixels ends

# One of numba's threading layers ends the process when two threads start kernels at once.
_one_at_a_time = threading.Lock()


class _Kernels(NamedTuple):
    count_tiles: Callable[..., None]
    fill_tiles: Callable[..., None]
    forward: Callable[..., None]
    backward: Callable[..., None]
    sum_rows: Callable[..., None]


@functools.cache
def load_kernels() -> _Kernels:
    """The compiled kernels; what they are compiled to is kept on disk where that is possible.

    Raises:
        MissingDependencyError: numba cannot be imported.
    """
    numba = require(
        "numba",
        extra="lift",
        purpose="render Gaussians with the backend 'numba'",
        instead="The backend 'torch' draws the same picture without it.",
    )
    numba_kernels.prange = numba.prange

    def compiled(function: Callable[..., None], *, parallel: bool) -> Callable[..., None]:
        plain = _under_a_lasting_name(function)
        options = {"parallel": parallel, "fastmath": True, "nogil": True, "error_model": "numpy"}
        try:
            kernel: Callable[..., None] = numba.njit(cache=True, **options)(plain)
        except RuntimeError:  # neither the package's folder nor the user's can be written
            kernel = numba.njit(**options)(plain)
        return kernel

    return _Kernels(
        compiled(numba_kernels.count_tiles, parallel=False),
        compiled(numba_kernels.fill_tiles, parallel=False),
        compiled(numba_kernels.forward, parallel=True),
        compiled(numba_kernels.backward, parallel=True),
        compiled(numba_kernels.sum_rows, parallel=False),
    )


def _under_a_lasting_name(function: Callable[..., None]) -> Callable[..., None]:
    """The function as if it came from the standard library's `math`.

    What numba keeps on disk names the function's module, and cannot be read where there is none of
    that name; but this package is loaded as ``genxd_core``, and by ComfyUI under its own path.
    """
    plain = inspect.unwrap(function)  # a run-time type checker may have wrapped it
    code, names = plain.__code__, {**plain.__globals__, "__name__": math.__name__}
    copy = types.FunctionType(code, names, plain.__name__, plain.__defaults__, plain.__closure__)
    copy.__module__ = math.__name__
    return copy


def draw_one() -> float:
    """Compile all kernels by drawing one Gaussian; how far off its middle pixel is."""
    with torch.inference_mode(False), torch.enable_grad():
        means2d = torch.tensor([[1.5, 1.5]], requires_grad=True)
        projection = Projection(
            means2d,
            conics=torch.tensor([[1.0, 0.0, 1.0]]),
            depths=torch.ones(1),
            visible=torch.ones(1, dtype=torch.bool),
            boxes=torch.tensor([[0], [2], [0], [2]], dtype=torch.int32),
            radii=torch.ones(1),
        )
        half = torch.tensor([0.5])
        picture = composite(projection, half, torch.ones(1, 1), width=3, height=3)
        picture[0, 1, 0].backward()
    shown = float(picture.detach()[0, 1, 1])
    # exp(-1 / 2) / 2 is shown one pixel to the left, and it falls by as much per pixel.
    slope = math.inf if means2d.grad is None else -float(means2d.grad[0, 0])
    return max(abs(shown - 0.5), abs(slope - 0.5 * math.exp(-0.5)))


def composite(
    projection: Projection,
    opacities: Float[Tensor, " n"],
    values: Float[Tensor, "n c"],
    *,
    width: int,
    height: int,
    tile_size: int | None = None,
) -> Float[Tensor, "c h w"]:
    """Blend the values of projected Gaussians front to back, on the CPU.

    Gradients flow to the projection's ``means2d`` and ``conics``, to opacities and to values.

    Args:
        projection: of one camera.
        opacities: in [0, 1].
        values: any number of channels.
        width: of the picture in pixels.
        height: of the picture in pixels.
        tile_size: a tile's side in pixels; ``None`` takes the measured best.

    Raises:
        MissingDependencyError: numba cannot be imported.
    """
    size = tile_size or TILE_SIZE
    picture: Tensor = _Composite.apply(
        projection.means2d,
        projection.conics,
        opacities,
        values,
        _Lists(projection, width, height, size),
    )
    return picture.permute(2, 0, 1)


class _Lists:
    """The Gaussians of each tile, nearest first, and the pixels that each may touch."""

    def __init__(self, projection: Projection, width: int, height: int, size: int) -> None:
        kernels = load_kernels()
        visible = projection.visible.nonzero()[:, 0]
        depths = projection.depths.detach()[visible]
        order = visible[torch.argsort(depths, stable=True)].numpy()
        self.shape = (height, width)
        self.size = size
        self.columns = -(-width // size)
        self.boxes = projection.boxes.numpy()
        counts = np.zeros(self.columns * -(-height // size), np.int64)
        with _one_at_a_time:
            kernels.count_tiles(order, self.boxes, size, self.columns, counts)
            self.ends = counts.cumsum() - counts
            self.ids = np.empty(counts.sum(), np.int64)
            kernels.fill_tiles(order, self.boxes, size, self.columns, self.ends, self.ids)

    def arguments(self, geometry: np.ndarray, values: np.ndarray) -> tuple[Any, ...]:
        """What the kernels of both passes begin with."""
        number = geometry.dtype.type
        constants = np.array(
            [ALPHA_MIN, ALPHA_MAX, TRANSMITTANCE_MIN, 0.5, 1.0, _SLACK_PX], geometry.dtype
        )
        centres = np.arange(max(self.shape), dtype=geometry.dtype) + number(0.5)
        lists = (self.ids, self.ends, self.size, self.columns, self.boxes)
        return (*lists, geometry, values, centres, constants)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, means2d: Tensor, conics: Tensor, opacities: Tensor, values: Tensor, lists: _Lists
    ) -> Tensor:
        limits = 2 * torch.log(opacities / ALPHA_MIN)
        columns = [means2d, conics, opacities[:, None], limits[:, None]]
        geometry = torch.cat(columns, 1).numpy()
        picture = np.zeros((*lists.shape, values.shape[1]), geometry.dtype)
        last = np.empty(lists.shape, np.int64)
        arguments = lists.arguments(geometry, values.detach().contiguous().numpy())
        with _one_at_a_time:
            load_kernels().forward(*arguments, picture, last)
        made = torch.from_numpy(picture)
        # The picture is an output: to keep it otherwise than so would keep a cycle alive.
        ctx.save_for_backward(made)
        ctx.arguments, ctx.last = arguments, last
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_picture: Tensor) -> tuple[Tensor | None, ...]:
        picture = ctx.saved_tensors[0].numpy()
        ids, geometry, values = ctx.arguments[0], ctx.arguments[5], ctx.arguments[6]
        entries = np.zeros((len(ids), 6 + values.shape[1]), geometry.dtype)
        sums = np.zeros((len(geometry), entries.shape[1]), geometry.dtype)
        with _one_at_a_time:
            kernels = load_kernels()
            grad = grad_picture.contiguous().numpy()
            kernels.backward(*ctx.arguments, picture, ctx.last, grad, entries)
            kernels.sum_rows(ids, entries, sums)
        found = torch.from_numpy(sums)
        opacities = torch.from_numpy(geometry[:, 5])
        # Where opacity is 0 nothing was drawn, and 0 / 0 would be NaN.
        by_opacity = found[:, 5] / opacities.clamp_min(ALPHA_MIN)
        return found[:, :2], found[:, 2:5], by_opacity, found[:, 6:], None
