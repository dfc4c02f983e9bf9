"""Classifier-free guidance (Ho and Salimans 2022), as a wrapper of what predicts."""

import math

from torch import Tensor

from ..errors import InvalidInputError
from .samplers import Denoiser

__all__ = ["guided", "needs_unconditional"]


def needs_unconditional(guidance_scale: float) -> bool:
    """Whether a scale makes the unconditional branch count: above 1.

    Up to 1 the conditional branch alone is used, as is common for this scale.

    Raises:
        InvalidInputError: the scale is negative, infinite or NaN.
    """
    if not 0.0 <= guidance_scale < math.inf:
        raise InvalidInputError(
            f"guidance_scale is {guidance_scale}; expected a finite number from 0 on. Up to 1 "
            "there is no guidance; 3 is usual."
        )
    return guidance_scale > 1.0


def guided(predict_both: Denoiser, guidance_scale: float) -> Denoiser:
    """Predict with guidance: u + w (c - u), u without and c with the condition.

    Args:
        predict_both: returns both branches, one behind the other in the first dimension, the
            unconditional one first, for latents with a first dimension of 1. What it predicts (v or
            the clean latents) makes no difference but for rounding.
        guidance_scale: w.
    """

    def predict(noisy: Tensor, sigma: Tensor) -> Tensor:
        unconditional, conditional = predict_both(noisy, sigma).chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    return predict
