"""The benchmark's other side is the same function, computed the long way."""

import pytest
import torch

from benchmarks._random_weights import random_unet
from benchmarks.unet_forward import MODES, compare, inputs, nothing_skipped
from genxd_core.model.config import GenXDUNetConfig
from tests.support import seeded


@pytest.fixture(scope="module")
def unet():
    network = random_unet(
        GenXDUNetConfig.with_widths((32, 32), (1, 1)), dtype=torch.float32, device="cpu"
    )
    for name, weight in network.named_parameters():  # as different as trained ones
        if weight.dim() == 1:
            weight.add_(torch.randn(weight.shape, generator=seeded(len(name))), alpha=0.3)
    return network


@pytest.mark.parametrize("mode", MODES)
def test_both_sides_agree(unet, mode):
    row = compare(unet, frames=3, size=4, mode=mode, runs=1)
    assert row["difference_over_std"] < 1e-4
    assert row["ours"]["seconds"] > 0
    assert row["nothing_skipped"]["seconds"] > 0


@pytest.mark.parametrize(("skip", "expected"), [(True, 0), (False, 1)])
def test_temporal_branch_of_a_still_scene_runs_on_the_other_side_only(unet, skip, expected):
    calls = []
    block = unet.mid_block.resnets[0].temporal_res_block
    handle = block.register_forward_hook(lambda *_: calls.append(1))
    args, options = inputs(3, 4, "3d", unet)
    try:
        if skip:
            unet(*args, **options)
        else:
            with nothing_skipped():
                unet(*args, **options)
    finally:
        handle.remove()
    assert len(calls) == expected
