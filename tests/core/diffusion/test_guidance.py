import math

import pytest
import torch

from genxd_core.diffusion.guidance import guided, needs_unconditional
from genxd_core.errors import InvalidInputError


@pytest.mark.parametrize(
    ("scale", "expected"), [(0.0, False), (0.5, False), (1.0, False), (1 + 1e-9, True), (3.0, True)]
)
def test_unconditional_branch_counts_only_above_one(scale, expected):
    assert needs_unconditional(scale) is expected


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan])
def test_guidance_that_makes_no_sense_is_refused(scale):
    with pytest.raises(InvalidInputError, match=r"guidance_scale is .* finite number from 0 on"):
        needs_unconditional(scale)


def test_guidance_moves_from_the_unconditional_branch_along_the_difference():
    def both(noisy, sigma):
        return torch.stack([torch.full((3,), 2.0), torch.full((3,), 5.0)])

    # 2 + 4 (5 - 2) = 14.
    out = guided(both, 4.0)(torch.zeros(1, 3), torch.tensor(1.0))
    assert out.shape == (1, 3)
    assert torch.equal(out, torch.full((1, 3), 14.0))


def test_guidance_of_zero_and_one_give_the_branches_themselves():
    unconditional, conditional = torch.randn(1, 4), torch.randn(1, 4)

    def both(noisy, sigma):
        return torch.cat([unconditional, conditional])

    assert torch.equal(guided(both, 0.0)(torch.zeros(1, 4), torch.tensor(1.0)), unconditional)
    torch.testing.assert_close(guided(both, 1.0)(torch.zeros(1, 4), torch.tensor(1.0)), conditional)
