"""gsplat on CUDA behind the same door as the other rasterisers. Imported only after its probe.

gsplat projects and composites in one call, so this takes Gaussians where its twins take projected
ones. Colours are evaluated before, as for every backend.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from ..optional import require
from .projection import NEAR

__all__ = ["Drawn", "draw", "draw_one"]


class Drawn(NamedTuple):
    """What one camera sees, and what densification needs.

    Attributes:
        picture: (C + 2, H, W) the values, then depth times weight, then alpha.
        means2d: (1, N, 2) in pixels; keeps its gradient.
        radii: (N,) in pixels, 0 where not drawn.
    """

    picture: Float[Tensor, "c h w"]
    means2d: Float[Tensor, "1 n 2"]
    radii: Float[Tensor, " n"]


def draw(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    values: Float[Tensor, "n c"],
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    *,
    width: int,
    height: int,
) -> Drawn:
    """Composite values and depth of Gaussians on one camera.

    Raises:
        InvalidInputError: the intrinsics have skew, which gsplat ignores.
        MissingDependencyError: gsplat cannot be imported.
    """
    if float(K[0, 1]) != 0:
        raise InvalidInputError(
            "cameras have skew in their intrinsics, which gsplat ignores; use backend='torch'."
        )
    gsplat: Any = require("gsplat", extra="cuda", purpose="render Gaussians on CUDA")
    given = (means, quats, scales, opacities, values, viewmat[None], K[None])
    rendered, alphas, info = gsplat.rasterization(
        *(tensor.float() for tensor in given),  # its kernels know nothing else
        width,
        height,
        near_plane=NEAR,
        packed=False,
        render_mode="RGB+D",
        rasterize_mode="classic",
    )
    means2d: Tensor = info["means2d"]
    if means2d.requires_grad:
        means2d.retain_grad()
    radii = info["radii"][0]
    radii = radii.amax(-1) if radii.ndim == 2 else radii  # one number a Gaussian before 1.5
    picture = torch.cat([rendered[0], alphas[0]], -1).permute(2, 0, 1).to(means.dtype)
    return Drawn(picture, means2d, radii.clamp_min(0).to(means.dtype))


def draw_one() -> float:
    """Render one Gaussian and its gradient on the GPU; how far off the middle pixel is."""
    device = torch.device("cuda")
    with torch.inference_mode(False), torch.enable_grad():
        means = torch.tensor([[0.0, 0.0, 2.0]], device=device, requires_grad=True)
        drawn = draw(
            means,
            torch.tensor([[1.0, 0.0, 0.0, 0.0]], device=device),
            torch.full((1, 3), 0.25, device=device),
            torch.tensor([0.5], device=device),
            torch.ones(1, 3, device=device),
            torch.eye(4, device=device),
            torch.tensor([[16.0, 0.0, 8.5], [0.0, 16.0, 8.5], [0.0, 0.0, 1.0]], device=device),
            width=17,
            height=16,
        )
        drawn.picture[:, 4, 4].sum().backward()
    if means.grad is None or not bool(torch.isfinite(means.grad).all()):
        return math.inf
    # The Gaussian's centre is that pixel's centre; value 1, depth 2, opacity 0.5.
    shown: list[float] = drawn.picture[:, 8, 8].tolist()
    expected = [0.5, 0.5, 0.5, 1.0, 0.5]
    return max(abs(value - right) for value, right in zip(shown, expected, strict=True))
