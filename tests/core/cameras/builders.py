"""Cameras for the tests of this folder, random but the same on every machine."""

import torch
from torch import Tensor

from genxd_core import Cameras
from tests.support import seeded

__all__ = ["random_cameras", "random_rotations", "rays_agree"]


def random_rotations(count: int, seed: int = 0) -> Tensor:
    """Uniformly distributed rotation matrices, float64, from a QR decomposition."""
    matrices = torch.randn(count, 3, 3, generator=seeded(seed), dtype=torch.float64)
    rotations, upper = torch.linalg.qr(matrices)
    rotations = rotations * torch.sign(upper.diagonal(dim1=-2, dim2=-1))[:, None]
    return rotations * torch.linalg.det(rotations)[:, None, None]


def random_cameras(
    count: int, seed: int = 0, *, times: bool = False, skew: bool = False, spread: float = 2.0
) -> Cameras:
    """Cameras anywhere, looking anywhere, each with intrinsics of its own, float64."""
    generator = seeded(seed + 1000)
    c2w = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    c2w[:, :3, :3] = random_rotations(count, seed)
    c2w[:, :3, 3] = spread * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    Ks_norm = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    numbers = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    Ks_norm[:, 0, 0], Ks_norm[:, 1, 1] = 0.6 + numbers[:, 0], 0.7 + numbers[:, 1]
    Ks_norm[:, :2, 2] = 0.4 + 0.2 * numbers[:, 2:4]
    if skew:
        Ks_norm[:, 0, 1] = 0.01 * numbers[:, 4]
    return Cameras(c2w, Ks_norm, torch.linspace(0, 1, count) if times else None)


def rays_agree(first: Cameras, second: Cameras, tolerance: float = 1e-5) -> bool:
    """Whether two paths look the same to the network: the same rays from the first view."""
    from genxd_core import plucker_rays

    size = {"height": 4, "width": 6}
    difference = plucker_rays(first, **size) - plucker_rays(second, **size)
    return float(difference.abs().max()) <= tolerance
