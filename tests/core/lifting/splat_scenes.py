"""Scenes of Gaussians for the tests of this folder, and the sum over all pixels and Gaussians."""

import importlib.util

import pytest
import torch
from torch import Tensor

from genxd_core import Cameras, Gaussians
from genxd_core.cameras.rotations import quat_to_rotation
from tests.support import seeded

__all__ = ["BACKENDS", "naive_picture", "needs_numba", "one_splat", "random_scene", "scene_camera"]

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba is not installed (extra `lift`)"
)
BACKENDS = ["torch", pytest.param("numba", marks=needs_numba)]


def random_scene(
    count: int, *, seed: int = 0, degree: int = 0, dtype: torch.dtype = torch.float64
) -> Gaussians:
    """Gaussians of all shapes in a ball of radius about 1 around the origin."""
    generator = seeded(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    gaussians = Gaussians(
        means=0.6 * normal(count, 3),
        quats=normal(count, 4),
        scales=0.08 * torch.exp(0.7 * normal(count, 3)),
        opacities=torch.rand(count, generator=generator, dtype=torch.float64) * 0.95 + 0.05,
        sh=0.4 * normal(count, (degree + 1) ** 2, 3),
    )
    return gaussians.to(dtype=dtype)


def scene_camera(*, dtype: torch.dtype = torch.float64, skew: float = 0.0) -> Cameras:
    """One camera that looks at the ball from nowhere in particular, off its picture's centre."""
    quat = torch.tensor([[0.9, 0.2, -0.3, 0.1]], dtype=torch.float64)
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, :3] = quat_to_rotation(quat)[0]
    c2w[:3, 3] = c2w[:3, :3] @ torch.tensor([0.1, -0.05, -2.5], dtype=torch.float64)
    Ks_norm = torch.tensor([[1.1, skew, 0.46], [0, 1.2, 0.55], [0, 0, 1]], dtype=torch.float64)
    return Cameras(c2w[None], Ks_norm[None]).to(dtype=dtype)


def one_splat(
    mean: tuple[float, float, float], *, scale: float = 0.1, opacity: float = 0.8, rgb: float = 1.0
) -> Gaussians:
    """A single round Gaussian."""
    return Gaussians.from_rgb(
        torch.tensor([mean], dtype=torch.float64),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.full((1, 3), scale),
        torch.tensor([opacity]),
        torch.full((1, 3), rgb),
    )


def naive_picture(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    values: Tensor,
    *,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
) -> Tensor:
    """Every Gaussian at every pixel, written down as the formulas are: (C + 2, H, W).

    After the values come depth times weight, and alpha.
    """
    fx, fy = K[0, 0], K[1, 1]
    turn = viewmat[:3, :3]
    x, y, z = (means @ turn.T + viewmat[:3, 3]).unbind(-1)
    order = torch.argsort(z.detach())
    order = order[z[order] > 0.01]
    x, y, z = x[order], y[order], z[order]
    centres = torch.stack([x, y, z], -1) @ K.T
    centres = centres[:, :2] / centres[:, 2:]
    limits = torch.stack([width / fx, height / fy]) * 0.15
    low = -torch.stack([K[0, 2] / fx, K[1, 2] / fy]) - limits
    high = torch.stack([(width - K[0, 2]) / fx, (height - K[1, 2]) / fy]) + limits
    slope_x, slope_y = (x / z).clamp(low[0], high[0]), (y / z).clamp(low[1], high[1])
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([1 / z, zero, -slope_x / z], -1),
            torch.stack([zero, 1 / z, -slope_y / z], -1),
        ],
        1,
    )
    jacobian = K[:2, :2] @ jacobian @ turn
    axes = quat_to_rotation(quats[order]) * scales[order][:, None]
    covariance = jacobian @ axes @ axes.mT @ jacobian.mT
    conic = torch.linalg.inv(covariance + 0.3 * torch.eye(2, dtype=means.dtype))
    rows = torch.arange(height, dtype=means.dtype) + 0.5
    columns = torch.arange(width, dtype=means.dtype) + 0.5
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).view(-1, 1, 2)
    offsets = pixels - centres
    power = torch.einsum("pni,nij,pnj->pn", offsets, conic, offsets) / 2
    alphas = (opacities[order] * torch.exp(-power)).clamp(max=0.999)
    alphas = torch.where(alphas < 1 / 255, 0.0, alphas)
    through = torch.cumprod(1 - alphas, 1)
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], 1)
    weights = torch.where(through > 1e-4, alphas * before, 0.0)
    shown = torch.cat([values[order], z[:, None], torch.ones_like(z)[:, None]], 1)
    return (weights @ shown).T.view(-1, height, width)
