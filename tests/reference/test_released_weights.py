"""The released weights themselves, where they are at hand."""

import os
from pathlib import Path

import pytest
import torch

import genxd_core as gx

pytestmark = [pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def pipe() -> gx.GenXDPipeline:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return gx.GenXDPipeline.from_pretrained(Path(os.environ["GENXD_WEIGHTS"]), device=device)


def test_released_configuration_is_the_default_one(pipe):
    assert pipe.unet.config.block_out_channels == gx.GenXDUNetConfig().block_out_channels
    assert pipe.size_multiple == 64


def test_given_view_comes_back_and_the_others_are_pictures(pipe):
    picture = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(picture, size=(256, 256), mode="bicubic").clamp(0, 1)
    out = pipe(picture, [0], gx.orbit(12), num_inference_steps=2)
    assert out.frames.shape == (12, 3, 256, 256)
    assert bool(out.frames.isfinite().all())
    # Smooth colours survive the VAE almost unchanged.
    assert float((out.frames[0].cpu() - picture[0]).abs().mean()) < 0.03
