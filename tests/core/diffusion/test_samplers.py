import itertools

import pytest
import torch

from genxd_core.diffusion.samplers import SAMPLERS, sample_euler, sample_heun
from genxd_core.diffusion.schedules import karras_sigmas
from genxd_core.errors import Cancelled, InvalidInputError
from genxd_core.progress import report
from tests.support import seeded

VARIANCE = 0.25  # of the data of the closed-form denoiser


def gaussian_denoiser(noisy, sigma):
    """The exact denoiser of data drawn from N(0, VARIANCE)."""
    return noisy * VARIANCE / (VARIANCE + sigma**2)


def exact_end(noisy, sigma):
    """Solution at sigma = 0: x / sqrt(VARIANCE + sigma^2) stays the same along the flow."""
    return noisy * (VARIANCE / (VARIANCE + sigma**2)) ** 0.5


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_samplers_reach_the_data_in_one_step_when_the_denoiser_knows_it(sampler):
    clean = torch.randn(2, 3, generator=seeded())
    noisy = clean + 700.0 * torch.randn(2, 3, generator=seeded(1))
    out = sampler(lambda x, sigma: clean, noisy, torch.tensor([700.0, 0.0]))
    torch.testing.assert_close(out, clean, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("sampler", "order"), [(sample_euler, 1), (sample_heun, 2)])
def test_samplers_converge_to_the_closed_form_at_their_order(sampler, order):
    noisy = torch.tensor([3.0], dtype=torch.float64)
    errors = []
    for steps in (32, 64, 128):
        # Evenly spaced levels, so that halving the step is what changes.
        sigmas = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
        errors.append(
            float((sampler(gaussian_denoiser, noisy, sigmas) - exact_end(noisy, 1)).abs())
        )
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.15)


def test_euler_steps_agree_with_the_recurrence_by_hand():
    # From sigma 4: slope = (10 - 2) / 4 = 2, to sigma 1: 10 - 6 = 4; slope 2, to 0: 2.
    seen = []
    out = sample_euler(
        lambda x, sigma: torch.tensor(2.0),
        torch.tensor(10.0),
        torch.tensor([4.0, 1.0, 0.0]),
        on_step=lambda step: seen.append((step.number, step.total, float(step.latents))),
    )
    assert seen == [(1, 2, 4.0), (2, 2, 2.0)]
    assert float(out) == 2.0


def test_heun_calls_the_denoiser_twice_but_once_in_the_last_step():
    levels = []

    def denoise(x, sigma):
        levels.append(float(sigma))
        return gaussian_denoiser(x, sigma)

    sample_heun(denoise, torch.ones(1), torch.tensor([4.0, 1.0, 0.0]))
    assert levels == [4.0, 1.0, 1.0]


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_samplers_leave_their_input_alone_and_repeat_exactly(sampler):
    noisy = 700 * torch.randn(1, 4, generator=seeded())
    kept = noisy.clone()
    first = sampler(gaussian_denoiser, noisy, karras_sigmas(5))
    assert torch.equal(noisy, kept)
    assert torch.equal(first, sampler(gaussian_denoiser, noisy, karras_sigmas(5)))


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_samplers_stop_within_the_step_that_was_refused(sampler):
    done = []

    def on_step(step):
        done.append(step.number)
        report(lambda *_: step.number < 2, step.number, step.total)

    with pytest.raises(Cancelled, match="after step 2 of 5"):
        sampler(gaussian_denoiser, torch.ones(1), karras_sigmas(5), on_step=on_step)
    assert done == [1, 2]


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_samplers_refuse_a_schedule_without_a_step(sampler):
    with pytest.raises(InvalidInputError, match="at least two levels"):
        sampler(gaussian_denoiser, torch.ones(1), torch.ones(1))
