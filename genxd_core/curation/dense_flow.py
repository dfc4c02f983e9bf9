"""Dense optical flow by Lucas and Kanade, coarse to fine, in plain torch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["dense_flow"]

_WINDOW = 7
_COARSEST = 20  # pixels of the smaller side
_ROUNDS = 5
_LARGEST_STEP = 1.0  # pixels of a level in a round
_DAMPING = 1e-4


def dense_flow(
    first: Float[Tensor, "1 1 h w"], second: Float[Tensor, "1 1 h w"]
) -> Float[Tensor, "1 2 h w"]:
    """Where each pixel of the first picture went in the second, as (right, down) in pixels.

    Where a picture has no structure the flow is that of coarser levels around it.

    Args:
        first: grey levels in [0, 1].
        second: of the same size.
    """
    levels = [(first, second)]
    while min(levels[-1][0].shape[2:]) >= 2 * _COARSEST:
        levels.append(tuple(F.avg_pool2d(one, 2) for one in levels[-1]))  # type: ignore[arg-type]
    flow = torch.zeros(1, 2, *levels[-1][0].shape[2:])
    for a, b in reversed(levels):
        size = a.shape[2:]
        if flow.shape[2:] != size:
            scale = torch.tensor([size[1] / flow.shape[3], size[0] / flow.shape[2]])
            flow = F.interpolate(flow, size, mode="bilinear") * scale.view(1, 2, 1, 1)
        flow = _refined(a, b, flow)
    return flow


def _refined(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    padded = F.pad(first, (1, 1, 1, 1), mode="replicate")
    gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    xx, xy, yy = _window(gx * gx), _window(gx * gy), _window(gy * gy)
    xx, yy = xx + _DAMPING, yy + _DAMPING
    determinant = xx * yy - xy * xy
    for _ in range(_ROUNDS):
        change = warped(second, flow) - first
        bx, by = _window(gx * change), _window(gy * change)
        step = torch.cat([xy * by - yy * bx, xy * bx - xx * by], 1) / determinant
        flow = flow + step.clamp(-_LARGEST_STEP, _LARGEST_STEP)
        flow = F.avg_pool2d(flow, 3, 1, 1, count_include_pad=False)
    return flow


def _window(values: Tensor) -> Tensor:
    """Means around each pixel; twice a box is near to a Gaussian."""
    once = F.avg_pool2d(values, _WINDOW, 1, _WINDOW // 2, count_include_pad=False)
    return F.avg_pool2d(once, _WINDOW, 1, _WINDOW // 2, count_include_pad=False)


def warped(picture: Float[Tensor, "1 c h w"], flow: Float[Tensor, "1 2 h w"]) -> Tensor:
    """The picture looked up where the flow points; its border goes on outside."""
    height, width = picture.shape[2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    place = torch.stack([(x + flow[0, 0]) / width, (y + flow[0, 1]) / height], -1) * 2 - 1
    return F.grid_sample(picture, place[None], align_corners=False, padding_mode="border")
