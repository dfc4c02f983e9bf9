"""How far pictures are from others: SSIM, PSNR, and differences of gradients at several scales.

All take two batches (V, 3, H, W) in [0, 1] of one size, in float32 or float64, and give (V,), a
number per view; gradients flow to both. The paper fits with a photometric loss, SSIM and LPIPS
(Sec. 4.2); LPIPS is in `genxd_core.lifting.perceptual`.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from ..errors import InvalidInputError

__all__ = ["check_pair", "gradient_loss", "psnr", "ssim"]

_WINDOW = 11  # pixels
_SIGMA = 1.5  # pixels
# (0.01 L)^2 and (0.03 L)^2 for values of range L = 1.
_C1, _C2 = 1e-4, 9e-4
_SCALES = 4


def ssim(a: Tensor, b: Tensor, *, window: str = "same") -> Float[Tensor, " v"]:
    """Structural similarity, 1 for equal pictures: Gaussian window of 11 pixels, sigma 1.5.

    Args:
        a: (V, 3, H, W) in [0, 1].
        b: the same.
        window: "same" counts every pixel, with zeros around the picture, as is usual in training;
            "valid" counts only those whose window lies in the picture, as for reported figures.

    Raises:
        InvalidInputError: the shapes differ, ``window`` is neither, or it is "valid" and a side
            is under 11 pixels.
    """
    check_pair(a, b)
    if window not in ("same", "valid"):
        raise InvalidInputError(f'window is {window!r}; expected "same" or "valid".')
    height, width = a.shape[-2:]
    if window == "valid" and min(height, width) < _WINDOW:
        raise InvalidInputError(
            f'window is "valid", but the pictures are {width} x {height} pixels; expected at '
            f'least {_WINDOW} x {_WINDOW}. Use larger pictures or window="same".'
        )
    # One pass for all four means; the two squares are needed only as their sum.
    moments = _blur(torch.cat([a, b, a * a + b * b, a * b], 1), window)
    mean_a, mean_b, squares, products = moments.chunk(4, 1)
    both, each = mean_a * mean_b, mean_a.square() + mean_b.square()
    luminance = (2 * both + _C1) / (each + _C1)
    structure = (2 * (products - both) + _C2) / (squares - each + _C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def psnr(a: Tensor, b: Tensor) -> Float[Tensor, " v"]:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1]; 100 for equal ones.

    Raises:
        InvalidInputError: the shapes differ.
    """
    check_pair(a, b)
    return -10 * (a - b).square().mean(dim=(1, 2, 3)).clamp_min(1e-10).log10()


def gradient_loss(a: Tensor, b: Tensor) -> Float[Tensor, " v"]:
    """Mean absolute difference of the pictures' finite differences, averaged over scales.

    Each scale halves the picture before; there are up to four, and none has a side of 1 pixel. It
    asks for edges in the right places, as a perceptual model does, and needs no weights.

    Args:
        a: (V, 3, H, W) in [0, 1], at least 2 x 2 pixels.
        b: the same.

    Returns:
        (V,), 0 for pictures that are equal up to a constant, at most 2.

    Raises:
        InvalidInputError: the shapes differ, or a side is 1 pixel.
    """
    check_pair(a, b)
    height, width = a.shape[-2:]
    if min(height, width) < 2:
        raise InvalidInputError(
            f"the pictures are {width} x {height} pixels and have no differences between pixels; "
            "expected at least 2 x 2."
        )
    # Everything here is linear until the absolute values: one picture instead of two.
    error = a - b
    scales: list[Tensor] = []
    while len(scales) < _SCALES and min(error.shape[-2:]) >= 2:
        along = [error.diff(dim=dim).abs().mean(dim=(1, 2, 3)) for dim in (-1, -2)]
        scales.append((along[0] + along[1]) / 2)
        error = avg_pool2d(error, 2)
    return torch.stack(scales).mean(dim=0)


def check_pair(a: Tensor, b: Tensor) -> None:
    """Refuse what are not two batches of pictures of one shape.

    Raises:
        InvalidInputError: with both shapes.
    """
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or 0 in a.shape:
        raise InvalidInputError(
            f"the pictures to compare have shapes {tuple(a.shape)} and {tuple(b.shape)}; expected "
            "(V, 3, H, W) twice, with the same V, H and W. Resize or select views first."
        )


def _blur(images: Float[Tensor, "v c h w"], window: str) -> Tensor:
    channels, pad = images.shape[1], _WINDOW // 2 if window == "same" else 0
    weights = torch.tensor(_gaussian(), dtype=images.dtype, device=images.device)
    down = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    across = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    rows = conv2d(images, down, padding=(pad, 0), groups=channels)
    return conv2d(rows, across, padding=(0, pad), groups=channels)


@cache
def _gaussian() -> tuple[float, ...]:
    steps = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    weights = torch.exp(-steps.square() / (2 * _SIGMA**2))
    return tuple((weights / weights.sum()).tolist())
