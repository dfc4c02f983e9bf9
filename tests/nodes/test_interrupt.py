"""The button that stops a run: how much the sampler still computes after it."""

import time
from typing import Any

import pytest
from torch import Tensor


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "ddim"])
def test_interrupt_takes_effect_within_one_step(host, scene, sampler):
    network = scene.model.model.diffusion_model
    original = network.forward_embedded
    calls: list[int] = []

    def slow(sample: Tensor, **options: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            host.interrupt()
        # A step of a large model; ComfyUI reports progress, and stops, ten times a second at most.
        time.sleep(0.15)
        return original(sample, **options)

    network.forward_embedded = slow
    try:
        with pytest.raises(AssertionError, match="interrupted at KSampler"):
            scene.sample(steps=20, sampler_name=sampler)
    finally:
        del network.forward_embedded
    assert len(calls) <= 4
    assert scene.sample(steps=1).isfinite().all()  # the next run is not stopped
