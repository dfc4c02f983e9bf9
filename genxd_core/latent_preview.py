"""A cheap picture of latents while they are sampled, without running the VAE's decoder."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["LatentPreview"]

_RIDGE = 1e-3


@dataclass(frozen=True)
class LatentPreview:
    """A linear map from latent channels to colours, made for the VAE and the scene at hand.

    Attributes:
        weights: from the latent channels and a constant 1 to red, green and blue.
    """

    weights: Float[Tensor, "c1 3"]

    @classmethod
    def fit(
        cls, latents: Float[Tensor, "k c h w"], images: Float[Tensor, "k 3 H W"]
    ) -> "LatentPreview":
        """Least squares from the latents of the given pictures to their colours.

        Works for any VAE, without numbers recorded for it.

        Args:
            latents: of ``images``.
            images: in [0, 1].
        """
        small = F.interpolate(images.to(latents), size=latents.shape[-2:], mode="area")
        columns = cls._with_constant(latents).flatten(0, 2)
        colours = small.permute(0, 2, 3, 1).flatten(0, 2)
        gram = columns.T @ columns
        ridge = _RIDGE * len(columns) * torch.eye(len(gram), device=gram.device)
        return cls(torch.linalg.solve(gram + ridge, columns.T @ colours))

    def __call__(self, latents: Float[Tensor, "v c h w"]) -> Float[Tensor, "v 3 h w"]:
        """One small picture a frame, in [0, 1], on the device of the latents."""
        colours = self._with_constant(latents) @ self.weights
        return colours.permute(0, 3, 1, 2).clamp(0, 1)

    @staticmethod
    def _with_constant(latents: Tensor) -> Tensor:
        last = latents.permute(0, 2, 3, 1)
        return torch.cat([last, torch.ones_like(last[..., :1])], dim=-1)
