"""Muon: momentum whose matrices are made orthogonal before the step (Jordan et al. 2024).

All directions of a weight are learned at one speed, the weak ones too; on small networks trained
from scratch it needs far fewer steps than AdamW. PyTorch's own takes 2-D weights only; here a
convolution counts as a matrix (outputs x the rest).
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Muon", "orthogonalised"]


def orthogonalised(
    matrices: Float[Tensor, "*n r c"], iterations: int = 5, dtype: torch.dtype | None = None
) -> Float[Tensor, "*n r c"]:
    """Nearly the nearest matrices with equal singular values, by Newton-Schulz iterations.

    Args:
        matrices: any number of matrices of one shape.
        iterations: of the quintic polynomial; five bring singular values to about 0.7 to 1.2.
        dtype: of the iterations, where another is faster; the polynomial forgives rounding.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.to(dtype or matrices.dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    out: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return out


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more axes, with decoupled weight decay.

    Args:
        parameters: weights; flattened to matrices.
        lr: size of a step: the root mean square change of a weight is about lr / sqrt(inputs).
        momentum: of the gradients (Nesterov).
        weight_decay: decoupled.
        dtype: of the iterations of `orthogonalised`; None for that of the weights.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for weights in _by_shape(p for p in group["params"] if p.grad is not None):
                updates = torch.stack([self._momentum(weight, group) for weight in weights])
                scale = max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
                for weight, update in zip(
                    weights, orthogonalised(updates, dtype=self.dtype), strict=True
                ):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.view_as(weight), alpha=-group["lr"] * scale)

    def _momentum(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        """Nesterov's momentum of a weight's gradient, as a matrix."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(weight.grad, 1 - group["momentum"])
        return weight.grad.lerp(momentum, group["momentum"]).flatten(1)


def _by_shape(weights: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Weights that make matrices of one shape go through the iterations together."""
    groups: dict[tuple[int, ...], list[Tensor]] = {}
    for weight in weights:
        groups.setdefault((weight.shape[0], weight[0].numel()), []).append(weight)
    return groups.values()
