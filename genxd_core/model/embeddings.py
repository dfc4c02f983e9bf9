"""Sinusoids of scalars and the small MLPs that embed them."""

import math
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

__all__ = ["EmbeddingMLP", "sinusoid"]


def sinusoid(values: Num[Tensor, "*n"], dim: int) -> Float[Tensor, "*n {dim}"]:
    """Sinusoidal embedding of scalars: cosines first, base 10000, in float32.

    Args:
        values: any shape; timesteps, added ids, motion strengths or frame numbers.
        dim: width, even.
    """
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float32, device=values.device) / half
    angles = values.float()[..., None] * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class EmbeddingMLP(nn.Module):
    """Linear, SiLU, Linear."""

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        out_dim: int,
        *,
        operations: ModuleType | Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(in_dim, hidden_dim, **factory)
        self.linear_2 = operations.Linear(hidden_dim, out_dim, **factory)

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        """Embed ``x``."""
        out: Tensor = self.linear_2(nn.functional.silu(self.linear_1(x)))
        return out
