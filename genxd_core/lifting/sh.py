"""Real spherical harmonics to degree 3, in the order and signs of 3D Gaussian splatting.

A colour is ``max(0, 0.5 + sum_k basis_k(d) sh_k)`` with d the unit direction from the camera's
centre to the Gaussian, in the world's axes. Coefficient 0 is the constant, 1..3 go with -y, z, -x,
4..8 and 9..15 are the second and third degree.

Dimension letters: n Gaussians or directions, k coefficients.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError

__all__ = [
    "MAX_DEGREE",
    "SH_C0",
    "colours_seen_from",
    "degree_of",
    "rgb_to_sh0",
    "rotate_sh",
    "sh0_to_rgb",
    "sh_basis",
]

MAX_DEGREE = 3
SH_C0 = 0.5 / math.sqrt(math.pi)  # 0.28209479: the constant function of integral 1 over its square

_C1 = math.sqrt(3 / (4 * math.pi))
_C2 = (
    math.sqrt(15 / (4 * math.pi)),
    math.sqrt(5 / (16 * math.pi)),
    math.sqrt(15 / (16 * math.pi)),
)
_C3 = (
    math.sqrt(35 / (32 * math.pi)),
    math.sqrt(105 / (4 * math.pi)),
    math.sqrt(21 / (32 * math.pi)),
    math.sqrt(7 / (16 * math.pi)),
    math.sqrt(105 / (16 * math.pi)),
)


def degree_of(num_coefficients: int) -> int:
    """The degree that has this many coefficients: 1, 4, 9 or 16 for 0 to 3.

    Raises:
        InvalidInputError: no degree up to 3 has this many.
    """
    degree = math.isqrt(max(num_coefficients, 0)) - 1
    if (degree + 1) ** 2 != num_coefficients or not 0 <= degree <= MAX_DEGREE:
        raise InvalidInputError(
            f"sh has {num_coefficients} coefficients; expected (degree + 1)^2, which is 1, 4, 9 "
            "or 16."
        )
    return degree


def rgb_to_sh0(rgb: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """The constant coefficients of colours in [0, 1]."""
    return (rgb - 0.5) / SH_C0


def sh0_to_rgb(sh0: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """The colours of constant coefficients, not clamped."""
    return 0.5 + SH_C0 * sh0


def sh_basis(directions: Float[Tensor, "n 3"], degree: int) -> Float[Tensor, "n k"]:
    """All basis functions up to a degree.

    Args:
        directions: of unit length; not checked.
        degree: 0 to 3.
    """
    x, y, z = directions.unbind(-1)
    functions = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        functions += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        functions += [
            _C2[0] * x * y,
            -_C2[0] * y * z,
            _C2[1] * (2 * zz - xx - yy),
            -_C2[0] * x * z,
            _C2[2] * (xx - yy),
        ]
    if degree >= 3:
        functions += [
            -_C3[0] * y * (3 * xx - yy),
            _C3[1] * x * y * z,
            -_C3[2] * y * (4 * zz - xx - yy),
            _C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            -_C3[2] * x * (4 * zz - xx - yy),
            _C3[4] * z * (xx - yy),
            -_C3[0] * x * (xx - 3 * yy),
        ]
    return torch.stack(functions, -1)


def colours_seen_from(
    sh: Float[Tensor, "n k 3"], means: Float[Tensor, "n 3"], centre: Float[Tensor, " 3"]
) -> Float[Tensor, "n 3"]:
    """Colours of Gaussians as a camera sees them; at least 0, not limited above.

    Args:
        sh: coefficients.
        means: positions in the world.
        centre: of the camera, in the world.
    """
    degree = degree_of(sh.shape[1])
    if degree == 0:
        return sh0_to_rgb(sh[:, 0]).clamp_min(0)
    directions = torch.nn.functional.normalize(means - centre, dim=-1)
    basis = sh_basis(directions, degree)
    return (0.5 + (basis[..., None] * sh).sum(1)).clamp_min(0)


def rotate_sh(sh: Float[Tensor, "n k 3"], rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "n k 3"]:
    """Coefficients of turned functions: what was seen along d is then seen along rotation @ d.

    Each degree is a space of its own under rotations. Its matrix is found from the functions'
    values on more directions than it has dimensions, which is exact up to rounding.
    """
    degree = degree_of(sh.shape[1])
    # In float64 on the CPU, since some devices know no float64.
    directions = _spread_directions()
    turn = rotation.detach().cpu().double()
    seen_before = sh_basis(directions @ turn, degree)  # rotation^-1 applied to each row
    basis = sh_basis(directions, degree)
    parts = [sh[:, :1]]
    for level in range(1, degree + 1):
        part = slice(level**2, (level + 1) ** 2)
        matrix = torch.linalg.lstsq(basis[:, part], seen_before[:, part]).solution
        parts.append(torch.einsum("jk,nkc->njc", matrix.to(sh.dtype).to(sh.device), sh[:, part]))
    return torch.cat(parts, 1)


def _spread_directions() -> Tensor:
    """32 directions all over the sphere, float64: a spiral from pole to pole."""
    number = torch.arange(32, dtype=torch.float64)
    z = 1 - (2 * number + 1) / 32
    angle = number * math.pi * (3 - math.sqrt(5))
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)
