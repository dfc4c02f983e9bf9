"""Attention by plain matrix products, for training on a CPU."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

__all__ = ["plain_attention"]


def plain_attention(
    q: Float[Tensor, "n l d"],
    k: Float[Tensor, "n s d"],
    v: Float[Tensor, "n s d"],
    heads: int,
    **_: object,
) -> Float[Tensor, "n l d"]:
    """Softmax attention that keeps its scores; takes the place of the network's own.

    The backward pass of PyTorch's fused attention is slow on a CPU, most of all for many short
    rows, as attention over time has them. This one needs memory for n * heads * l * s scores.

    Args:
        q: queries; channels of all heads side by side.
        k: keys.
        v: values.
        heads: number of heads.
    """
    q, k, v = (rearrange(t, "n l (a d) -> (n a) l d", a=heads) for t in (q, k, v))
    scores = torch.bmm(q, k.mT) * q.shape[-1] ** -0.5
    return rearrange(torch.bmm(scores.softmax(dim=-1), v), "(n a) l d -> n l (a d)", a=heads)
