"""v-prediction with EDM noise levels (Karras et al. 2022; SVD's parametrisation).

z_noisy = z + sigma eps          network input  c_in z_noisy,  c_in = 1 / sqrt(sigma^2 + 1)
denoised = c_out F + c_skip z_noisy,  c_skip = 1 / (sigma^2 + 1),  c_out = -sigma c_in
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["c_in", "denoised_from_v", "timestep_of", "v_target"]


def timestep_of(sigma: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """What the network takes as time: 0.25 ln(sigma)."""
    return 0.25 * sigma.log()


def c_in(sigma: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Scale of the noisy latents at the network's input."""
    return torch.rsqrt(sigma**2 + 1)


def denoised_from_v(
    v: Float[Tensor, "*n"], noisy: Float[Tensor, "*n"], sigma: Float[Tensor, "*b"]
) -> Float[Tensor, "*n"]:
    """The clean latents that a prediction ``v`` stands for; ``sigma`` broadcasts from the left."""
    sigma = sigma.reshape(*sigma.shape, *[1] * (noisy.dim() - sigma.dim()))
    return noisy / (sigma**2 + 1) - v * sigma * c_in(sigma)


def v_target(
    clean: Float[Tensor, "*n"], noise: Float[Tensor, "*n"], sigma: Float[Tensor, "*b"]
) -> Float[Tensor, "*n"]:
    """What the network should predict: (eps - sigma z) / sqrt(1 + sigma^2)."""
    sigma = sigma.reshape(*sigma.shape, *[1] * (clean.dim() - sigma.dim()))
    return (noise - sigma * clean) * c_in(sigma)
