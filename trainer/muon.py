"""Muon: momentum whose matrices are made orthogonal before the step (Jordan et al. 2024).

All directions of a weight are learned at one speed, the weak ones too; on small networks trained
from scratch it needs far fewer steps than AdamW. PyTorch's own takes 2-D weights only; here a
convolution counts as a matrix (outputs x the rest).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalised"]


def orthogonalised(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Nearly the nearest matrix with equal singular values, by Newton-Schulz iterations.

    Args:
        matrix: (m, n).
        iterations: of the quintic polynomial; five bring singular values to about 0.7 to 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more axes, with decoupled weight decay.

    Args:
        parameters: weights; flattened to matrices.
        lr: size of a step: the root mean square change of a weight is about lr / sqrt(inputs).
        momentum: of the gradients (Nesterov).
        weight_decay: decoupled.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(momentum, group["momentum"]).flatten(1)
                update = orthogonalised(update).view_as(weight)
                scale = max(1.0, weight.shape[0] / weight[0].numel()) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * scale)
