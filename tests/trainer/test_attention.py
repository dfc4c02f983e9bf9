"""Attention by plain matrix products."""

import torch

from genxd_core.model.transformer import sdpa
from tests.support import seeded
from trainer.attention import plain_attention


def test_plain_attention_is_the_networks_own():
    q, k, v = (torch.randn(3, n, 8, generator=seeded(n)) for n in (5, 7, 7))
    torch.testing.assert_close(plain_attention(q, k, v, 2), sdpa(q, k, v, 2))
