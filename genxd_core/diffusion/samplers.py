"""Samplers: one function per published algorithm, all with one signature.

Each takes ``(denoise, noisy, sigmas, *, on_step)`` and returns the latents at the last level. They
are deterministic and copy nothing between devices, so nothing waits for the accelerator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError

__all__ = [
    "SAMPLERS",
    "Denoiser",
    "Sampler",
    "SamplerStep",
    "StepCallback",
    "sample_euler",
    "sample_heun",
]

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``denoise(noisy, sigma)``: the clean latents expected behind noisy ones at a level ``sigma``."""


@dataclass(frozen=True)
class SamplerStep:
    """What a sampler tells after a step.

    Attributes:
        number: steps done, 1..total.
        total: steps in all.
        denoised: what the last call of the denoiser gave.
        latents: where the step arrived.
    """

    number: int
    total: int
    denoised: Tensor
    latents: Tensor


StepCallback = Callable[[SamplerStep], None]


@runtime_checkable
class Sampler(Protocol):
    """The signature that all samplers share."""

    def __call__(
        self,
        denoise: Denoiser,
        noisy: Float[Tensor, "*s"],
        sigmas: Float[Tensor, " n"],
        *,
        on_step: StepCallback | None = None,
    ) -> Float[Tensor, "*s"]:
        """Go from ``noisy``, at the first level, to the last level."""
        ...


def sample_euler(
    denoise: Denoiser,
    noisy: Float[Tensor, "*s"],
    sigmas: Float[Tensor, " n"],
    *,
    on_step: StepCallback | None = None,
) -> Float[Tensor, "*s"]:
    """Implements Algorithm 2 (Euler steps, without churn) from Karras et al. (2022).

    Args:
        denoise: called once a step.
        noisy: latents at ``sigmas[0]``.
        sigmas: falling levels on the device of ``noisy``; the last one is 0.
        on_step: called after every step; it may raise to stop.

    Returns:
        Latents at the last level.
    """
    total = _num_steps(sigmas)
    for number in range(1, total + 1):
        sigma, sigma_next = sigmas[number - 1], sigmas[number]
        denoised = denoise(noisy, sigma)
        slope = (noisy - denoised) / sigma
        noisy = noisy + slope * (sigma_next - sigma)
        if on_step is not None:
            on_step(SamplerStep(number, total, denoised, noisy))
    return noisy


def sample_heun(
    denoise: Denoiser,
    noisy: Float[Tensor, "*s"],
    sigmas: Float[Tensor, " n"],
    *,
    on_step: StepCallback | None = None,
) -> Float[Tensor, "*s"]:
    """Implements Algorithm 1 (Heun steps) from Karras et al. (2022).

    Args:
        denoise: called twice a step, and once in the last.
        noisy: latents at ``sigmas[0]``.
        sigmas: falling levels on the device of ``noisy``; the last one is 0.
        on_step: called after every step; it may raise to stop.

    Returns:
        Latents at the last level.
    """
    total = _num_steps(sigmas)
    for number in range(1, total + 1):
        sigma, sigma_next = sigmas[number - 1], sigmas[number]
        denoised = denoise(noisy, sigma)
        slope = (noisy - denoised) / sigma
        ahead = noisy + slope * (sigma_next - sigma)
        # The last level is 0, where no slope is defined.
        if number < total:
            denoised = denoise(ahead, sigma_next)
            slope = (slope + (ahead - denoised) / sigma_next) / 2
            ahead = noisy + slope * (sigma_next - sigma)
        noisy = ahead
        if on_step is not None:
            on_step(SamplerStep(number, total, denoised, noisy))
    return noisy


SAMPLERS: dict[str, Sampler] = {"euler": sample_euler, "heun": sample_heun}


def _num_steps(sigmas: Tensor) -> int:
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise InvalidInputError(
            f"sigmas has shape {tuple(sigmas.shape)}; expected at least two levels: one to start "
            "from and the final 0."
        )
    return len(sigmas) - 1
