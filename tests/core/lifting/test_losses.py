import math

import pytest
import torch
from torch.nn.functional import pad

from genxd_core.errors import InvalidInputError
from genxd_core.lifting.losses import gradient_loss, psnr, ssim
from tests.support import assert_same_up_to, seeded

ALL = [ssim, psnr, gradient_loss]


def pictures(count=2, height=24, width=31, seed=0, dtype=torch.float32):
    """Smooth pictures and noisy copies."""
    generator = seeded(seed)
    coarse = torch.rand(count, 3, 5, 6, generator=generator, dtype=dtype)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    noise = torch.randn(smooth.shape, generator=generator, dtype=dtype)
    return smooth, (smooth + 0.1 * noise).clamp(0, 1)


def ssim_map_by_definition(a, b):
    """One weighted sum of 121 pixels after the other, for one channel that is padded already."""
    weights = torch.tensor(
        [
            [math.exp(-((y - 5) ** 2 + (x - 5) ** 2) / (2 * 1.5**2)) for x in range(11)]
            for y in range(11)
        ],
        dtype=torch.float64,
    )
    weights /= weights.sum()
    rows, columns = a.shape[0] - 10, a.shape[1] - 10
    values = torch.empty(rows, columns, dtype=torch.float64)
    for y in range(rows):
        for x in range(columns):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            var_p = (weights * (p - mean_p) ** 2).sum()
            var_q = (weights * (q - mean_q) ** 2).sum()
            covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
            values[y, x] = (
                (2 * mean_p * mean_q + 0.01**2)
                * (2 * covariance + 0.03**2)
                / ((mean_p**2 + mean_q**2 + 0.01**2) * (var_p + var_q + 0.03**2))
            )
    return values


@pytest.mark.parametrize("window", ["same", "valid"])
def test_ssim_is_the_sum_over_windows(window):
    a, b = pictures(1, 14, 17, dtype=torch.float64)
    border = 5 if window == "same" else 0
    maps = [
        ssim_map_by_definition(pad(p, [border] * 4), pad(q, [border] * 4))
        for p, q in zip(a[0], b[0], strict=True)
    ]
    assert_same_up_to(ssim(a, b, window=window), torch.stack(maps).mean()[None], 1e-12)


@pytest.mark.parametrize("window", ["same", "valid"])
def test_ssim_is_torchmetrics(window):
    """Which mirrors the picture at its border, and counts that; its map is cropped to agree."""
    theirs = pytest.importorskip("torchmetrics.functional.image", reason="extra `eval`")
    a, b = pictures()
    border = 5 if window == "same" else 0
    _, everywhere = theirs.structural_similarity_index_measure(
        pad(a, [border] * 4), pad(b, [border] * 4), data_range=1.0, return_full_image=True
    )
    inside = everywhere[..., 5:-5, 5:-5]
    assert_same_up_to(ssim(a, b, window=window), inside.mean(dim=(1, 2, 3)), 1e-5)


def test_ssim_of_equal_pictures_is_one_and_of_noise_is_small():
    a, b = pictures()
    assert_same_up_to(ssim(a, a), torch.ones(2), 1e-6)
    noise = torch.rand(2, 3, 64, 64, generator=seeded(1))
    assert float(ssim(noise, noise.flip(-1), window="valid").abs().max()) < 0.1
    assert float(ssim(a, b).max()) < 0.95


def test_psnr_of_a_constant_error_is_known():
    a = torch.full((2, 3, 4, 4), 0.5)
    b = a.clone()
    b[1] += 0.1
    assert psnr(a, b).tolist() == pytest.approx([100.0, 20.0], abs=1e-3)


def test_gradient_loss_of_a_ramp_is_known():
    """A slope of s a pixel is one of 2s, 4s and 8s at the coarser scales, across only."""
    ramp = 0.01 * torch.arange(32, dtype=torch.float64).expand(1, 3, 32, 32)
    expected = 0.01 * (1 + 2 + 4 + 8) / 4 / 2
    assert_same_up_to(
        gradient_loss(ramp, torch.zeros_like(ramp))[0], ramp.new_tensor(expected), 1e-15
    )


def test_gradient_loss_forgives_a_constant_and_no_blur():
    a, _ = pictures(height=32, width=32)
    assert float(gradient_loss(a, a - 0.3).max()) < 1e-6
    noise = torch.rand(2, 3, 32, 32, generator=seeded(2))
    blurred = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    assert float(gradient_loss(noise, blurred).min()) > 0.05


@pytest.mark.parametrize("size", [(2, 2), (2, 9), (5, 3)])
def test_gradient_loss_takes_the_smallest_pictures(size):
    a = torch.rand(1, 3, *size, generator=seeded())
    loss = gradient_loss(a, torch.zeros_like(a))
    assert bool(torch.isfinite(loss).all())
    assert float(loss) > 0


@pytest.mark.parametrize("loss", ALL)
def test_each_view_is_compared_by_itself(loss):
    a, b = pictures(3)
    singly = torch.cat([loss(a[v : v + 1], b[v : v + 1]) for v in range(3)])
    assert_same_up_to(loss(a, b), singly, 1e-5)


@pytest.mark.parametrize("loss", ALL)
def test_gradients_are_those_of_finite_differences(loss):
    a, b = pictures(1, 6, 5, dtype=torch.float64)
    b = b + 0.01 * torch.rand(b.shape, generator=seeded(3), dtype=b.dtype)  # none are equal
    assert torch.autograd.gradcheck(loss, (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 16, 15), (2, 1, 16, 16), (3, 16, 16)])
def test_pictures_that_cannot_be_compared_are_refused(loss, shape):
    with pytest.raises(InvalidInputError, match=r"have shapes \(2, 3, 16, 16\) and .* expected"):
        loss(torch.zeros(2, 3, 16, 16), torch.zeros(shape))


def test_what_has_no_window_or_no_differences_is_refused():
    small = torch.zeros(1, 3, 10, 20)
    with pytest.raises(InvalidInputError, match=r"the pictures are 20 x 10 pixels.*11 x 11"):
        ssim(small, small, window="valid")
    assert_same_up_to(ssim(small, small), torch.ones(1), 1e-6)
    with pytest.raises(InvalidInputError, match="window is 'full'"):
        ssim(small, small, window="full")
    with pytest.raises(InvalidInputError, match="at least 2 x 2"):
        gradient_loss(small[..., :1], small[..., :1])
