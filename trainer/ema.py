"""An exponential moving average of weights."""

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Average of a network's parameters, kept in float32 beside it.

    Args:
        network: whose parameters to follow.
        half_life: steps after which a value's share has halved.
    """

    def __init__(self, network: nn.Module, half_life: float) -> None:
        self.half_life = half_life
        self.values: dict[str, Tensor] = {
            name: value.detach().float().clone() for name, value in network.named_parameters()
        }

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the parameters after optimiser step ``step`` (from 1)."""
        # A short memory at first, so that the initial weights are soon forgotten.
        half_life = min(self.half_life, step / 4)
        keep = 0.5 ** (1 / half_life)
        for name, value in network.named_parameters():
            self.values[name].lerp_(value.detach().float(), 1 - keep)
