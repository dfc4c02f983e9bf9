"""Gaussians in the world to Gaussians in a picture, differentiably (EWA splatting, Zwicker 2001).

A Gaussian stays a Gaussian under the projection's linear part at its centre; 0.3 square pixels are
added to its covariance so that none falls between the pixels. Constants are those of gsplat, so
that all backends draw the same picture.

Dimension letters: n Gaussians. Rows of coordinates come first inside (3, N), which keeps the
elementwise work on contiguous memory.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["ALPHA_MAX", "ALPHA_MIN", "NEAR", "TRANSMITTANCE_MIN", "Projection", "project"]

ALPHA_MIN = 1 / 255  # what would be fainter than this in a pixel is not drawn there
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4  # a pixel is full before the Gaussian that would let less through
NEAR = 0.01  # in scene units; what lies nearer to the camera's plane is not drawn

_BLUR = 0.3  # square pixels
_LEAST_CONIC = 1e-20  # what is wider than 10^10 pixels has no digits left
_SLACK_PX = 0.01  # for rounding, where a box ends


@dataclass(frozen=True)
class Projection:
    """N Gaussians as one camera sees them.

    Attributes:
        means2d: (N, 2) x and y in pixels; the first pixel's centre is at (0.5, 0.5).
        conics: (N, 3) entries xx, xy, yy of the inverse covariance, in 1 / square pixels.
        depths: (N,) z in the camera's frame, 1 where nothing is visible.
        visible: (N,) whether anything of it may be drawn.
        boxes: (4, N) first column, last column, first row, last row that it may touch, within the
            picture; int32. Meaningless where not visible.
        radii: (N,) half the longer side of its box in pixels, 0 where not visible.
    """

    means2d: Float[Tensor, "n 2"]
    conics: Float[Tensor, "n 3"]
    depths: Float[Tensor, " n"]
    visible: Bool[Tensor, " n"]
    boxes: Int[Tensor, "4 n"]
    radii: Float[Tensor, " n"]


def project(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    *,
    width: int,
    height: int,
) -> Projection:
    """Project Gaussians into one camera; gradients flow to means, quats and scales.

    Args:
        means: in the world.
        quats: wxyz, of any length but 0.
        scales: linear.
        opacities: in [0, 1]; they decide how far out a Gaussian is drawn.
        viewmat: world to camera.
        K: intrinsics in pixels.
        width: of the picture in pixels.
        height: of the picture in pixels.
    """
    (fx, skew, cx), (_, fy, cy), _ = K.tolist()
    rotation = viewmat[:3, :3]
    x, y, z = (rotation @ means.T + viewmat[:3, 3:]).unbind(0)
    in_front = z.detach() > NEAR
    # Before any division: what lies behind would otherwise poison the gradients of the rest.
    z = torch.where(in_front, z, 1.0)
    inverse_z = z.reciprocal()
    x, y = x * inverse_z, y * inverse_z
    means2d = torch.stack([fx * x + skew * y + cx if skew else fx * x + cx, fy * y + cy], -1)

    # Far outside the picture the linear part would grow without limit.
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    x = x.clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x)
    y = y.clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y)
    first, second, third = rotation[:, :, None].unbind(0)
    along_y = (second - third * y) * inverse_z
    along_x = fx * ((first - third * x) * inverse_z)
    along_x = along_x + skew * along_y if skew else along_x
    turned = torch.stack([along_x, fy * along_y])[:, :, None] * _rotations(quats)
    factor = turned.sum(1) * scales.T
    var_x, var_y = (factor * factor).sum(1).unbind(0)
    covariance = (factor[0] * factor[1]).sum(0)
    # det(F F^T + b I) as a sum of what cannot be negative, so that needles keep their digits.
    minors = (
        factor[0, [1, 2, 0]] * factor[1, [2, 0, 1]] - factor[0, [2, 0, 1]] * factor[1, [1, 2, 0]]
    )
    inverse_det = ((minors * minors).sum(0) + _BLUR * (var_x + var_y) + _BLUR**2).reciprocal()
    conics = torch.stack(
        [(var_y + _BLUR) * inverse_det, -covariance * inverse_det, (var_x + _BLUR) * inverse_det],
        -1,
    )
    with torch.no_grad():
        reach = (2 * torch.log(opacities / ALPHA_MIN)).clamp_min(0).sqrt()
        half = torch.stack([var_x, var_y]).add(_BLUR).sqrt() * reach + _SLACK_PX
        boxes, meets = _boxes(means2d.T, half, width, height)
        drawable = (conics[:, ::2] > _LEAST_CONIC).all(-1) & torch.isfinite(half).all(0)
        visible = meets & in_front & drawable & (opacities >= ALPHA_MIN)
        radii = half.amax(0) * visible
    return Projection(means2d, conics, z, visible, boxes, radii)


def _rotations(quats: Tensor) -> Tensor:
    """(3, 3, N) rotation matrices; unlike `quat_to_rotation` without a look at the values."""
    w, x, y, z = torch.nn.functional.normalize(quats.T, dim=0).unbind(0)
    xx, yy, zz = x * x, y * y, z * z
    xy, xz, yz = x * y, x * z, y * z
    wx, wy, wz = w * x, w * y, w * z
    entries = [
        0.5 - (yy + zz),
        xy - wz,
        xz + wy,
        xy + wz,
        0.5 - (xx + zz),
        yz - wx,
        xz - wy,
        yz + wx,
        0.5 - (xx + yy),
    ]
    return 2 * torch.stack(entries).view(3, 3, -1)


def _boxes(means: Tensor, half: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Pixels whose centres may be reached, and whether there are any in the picture."""
    last = means.new_tensor([[width - 1], [height - 1]])
    low = torch.minimum((means - half - 0.5).ceil().clamp_min(0), last + 1)
    high = torch.minimum((means + half - 0.5).floor(), last).clamp_min(-1)
    meets = (low <= high).all(0)
    return torch.stack([low[0], high[0], low[1], high[1]]).int(), meets
