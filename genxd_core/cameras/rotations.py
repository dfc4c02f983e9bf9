"""Rotations and rigid poses: quaternions (wxyz), interpolation, inverses.

Nothing here knows about axis systems; those are in `conventions`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError

__all__ = [
    "invert_rigid",
    "look_inward",
    "quat_to_rotation",
    "rotation_angle",
    "rotation_to_quat",
    "slerp_quats",
    "slerp_rotations",
]

_NEARLY_PARALLEL = 1e-7


def invert_rigid(a2b: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of rigid transforms, by transposing: b2a = [R^T | -R^T t].

    Args:
        a2b: rotation and translation, last row (0, 0, 0, 1). Not checked.
    """
    rotation_b2a = a2b[..., :3, :3].transpose(-1, -2)
    b2a = torch.zeros_like(a2b)
    b2a[..., :3, :3] = rotation_b2a
    b2a[..., :3, 3] = -(rotation_b2a @ a2b[..., :3, 3:])[..., 0]
    b2a[..., 3, 3] = 1.0
    return b2a


def quat_to_rotation(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of quaternions in the order w, x, y, z; they need not be of unit length.

    Raises:
        InvalidInputError: a quaternion is zero or not finite.
    """
    norms = quats.norm(dim=-1, keepdim=True)
    if not bool(torch.isfinite(norms).all()) or bool((norms < 1e-12).any()):
        raise InvalidInputError(
            "quats: a quaternion is zero or not finite, so it stands for no rotation; "
            "give four finite numbers (w, x, y, z) that are not all zero."
        )
    w, x, y, z = (quats / norms).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(rows, dim=-1).reshape(*quats.shape[:-1], 3, 3)


def rotation_to_quat(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions (w, x, y, z) of rotation matrices, with w >= 0.

    Each of the four columns of the outer product ``4 q q^T`` gives the quaternion up to scale; the
    one with the largest diagonal entry is used, so half turns are as precise as small ones.
    """
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = (
        row.unbind(-1) for row in rotations.unbind(-2)
    )
    outer = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], -1),
            torch.stack([m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20], -1),
            torch.stack([m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21], -1),
            torch.stack([m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22], -1),
        ],
        dim=-2,
    )
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    quats = outer.gather(-2, index).squeeze(-2)
    quats = quats / quats.norm(dim=-1, keepdim=True)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def slerp_quats(
    first: Float[Tensor, "n 4"], last: Float[Tensor, "n 4"], fraction: Float[Tensor, " n"]
) -> Float[Tensor, "n 4"]:
    """Spherical interpolation of unit quaternions, the short way round.

    Args:
        first: where ``fraction`` is 0.
        last: where ``fraction`` is 1.
        fraction: in [0, 1].
    """
    cosine = (first * last).sum(-1, keepdim=True)
    last = torch.where(cosine < 0, -last, last)
    share = fraction[:, None]
    # Unlike acos(cosine), this keeps its digits for small angles.
    difference, total = first - last, first + last
    angle = 2 * torch.atan2(difference.norm(dim=-1), total.norm(dim=-1))[:, None]
    sine = torch.sin(angle)
    parallel = sine < _NEARLY_PARALLEL
    safe_sine = torch.where(parallel, torch.ones_like(sine), sine)
    weight_first = torch.where(parallel, 1 - share, torch.sin((1 - share) * angle) / safe_sine)
    weight_last = torch.where(parallel, share, torch.sin(share * angle) / safe_sine)
    quats = weight_first * first + weight_last * last
    return torch.nn.functional.normalize(quats, dim=-1)


def slerp_rotations(
    first: Float[Tensor, "n 3 3"], last: Float[Tensor, "n 3 3"], fraction: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 3"]:
    """Spherical interpolation of rotation matrices, the short way round; see `slerp_quats`."""
    quats = slerp_quats(rotation_to_quat(first), rotation_to_quat(last), fraction)
    return quat_to_rotation(quats)


def rotation_angle(
    first: Float[Tensor, "*batch 3 3"], last: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """Angle in radians, in [0, pi], of the turn that takes one rotation into the other."""
    turn = first.transpose(-1, -2) @ last
    # atan2 keeps its precision at both ends, where acos of the trace loses half the digits.
    axis = torch.stack(
        [
            turn[..., 2, 1] - turn[..., 1, 2],
            turn[..., 0, 2] - turn[..., 2, 0],
            turn[..., 1, 0] - turn[..., 0, 1],
        ],
        dim=-1,
    )
    trace = turn.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(axis.norm(dim=-1), trace - 1)


def look_inward(
    azimuth_rad: Float[Tensor, " n"], elevation_rad: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3 3"]]:
    """Where on the unit sphere a camera stands, and its rotation when it looks at the centre.

    Closed form, so that looking straight down or up is no special case.

    Args:
        azimuth_rad: about +Z; 0 stands at +Y, a quarter turn at +X.
        elevation_rad: above the horizon.

    Returns:
        Positions (cos e sin a, cos e cos a, sin e), and camera-to-world rotations with OpenCV axes
        and +Z up in the picture.
    """
    sin_a, cos_a = torch.sin(azimuth_rad), torch.cos(azimuth_rad)
    sin_e, cos_e = torch.sin(elevation_rad), torch.cos(elevation_rad)
    outward = torch.stack([cos_e * sin_a, cos_e * cos_a, sin_e], dim=-1)
    right = torch.stack([-cos_a, sin_a, torch.zeros_like(sin_a)], dim=-1)
    down = torch.stack([sin_e * sin_a, sin_e * cos_a, -cos_e], dim=-1)
    return outward, torch.stack([right, down, -outward], dim=-1)
