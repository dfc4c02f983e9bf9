"""Rank correlation."""

from jaxtyping import Float
from torch import Tensor

__all__ = ["ranks", "spearman"]


def ranks(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Ranks from 1; equal values share the mean of theirs."""
    below = (values[None, :] < values[:, None]).sum(dim=1)
    equal = (values[None, :] == values[:, None]).sum(dim=1)
    return below + (equal + 1) / 2


def spearman(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> float:
    """Spearman's rank correlation; 0 where one side does not vary."""
    a, b = ranks(x.double()), ranks(y.double())
    a, b = a - a.mean(), b - b.mean()
    scale = a.norm() * b.norm()
    return float((a * b).sum() / scale) if scale > 0 else 0.0
