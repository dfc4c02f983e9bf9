"""The benchmark of training steps: what is computed, what is measured, what is stopped."""

import argparse

import pytest
import torch

from benchmarks import training_step
from benchmarks._random_weights import random_unet
from benchmarks.training_step import in_child, jobs, measure, optimiser_memory, peak_mib
from genxd_core.model.config import GenXDUNetConfig


def network():
    config = GenXDUNetConfig.with_widths((32, 32), (1, 1))
    return random_unet(config, dtype=torch.float32, device="cpu").requires_grad_(True)


def test_optimiser_takes_four_float32_copies():
    found = optimiser_memory(2**30)
    assert found == {
        "weights_in_float32": 4.0,
        "adamw_two_moments_in_float32": 8.0,
        "averaged_weights_in_float32": 4.0,
        "sum": 16.0,
    }


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("optimise", [False, True])
def test_row_says_what_was_run(checkpointing, optimise):
    unet = network()
    before = {name: weight.detach().clone() for name, weight in unet.named_parameters()}
    row = measure(
        unet,
        clips=2,
        frames=3,
        latent_px=4,
        mode="4d",
        checkpointing=checkpointing,
        optimise=optimise,
        runs=1,
    )
    assert row["gradient_checkpointing"] is checkpointing
    assert row["picture_px"] == 32
    assert row["samples_per_second"] * row["seconds_per_step"] == pytest.approx(2, rel=0.1)
    assert row["frames_per_second"] == pytest.approx(3 * row["samples_per_second"], rel=0.01)
    assert row["peak_mib"] >= row["peak_mib_before_the_first_step"] > 0
    moved = any(not torch.equal(before[name], weight) for name, weight in unet.named_parameters())
    assert moved is optimise
    assert all((weight.grad is None) is optimise for weight in unet.parameters())


def test_peak_never_falls():
    before = peak_mib("cpu")
    block = torch.ones(16, 2**20)
    after = peak_mib("cpu")
    assert after >= before
    assert after * 2**20 > block.nbytes


def test_every_shape_is_measured_with_and_without_checkpointing():
    args = argparse.Namespace(
        **{"size": "full", "dtype": "bf16", "device": "cpu", "runs": 1, "threads": 1},
        **{"clips": 1, "frames": None, "latent_size": None, "modes": ["3d", "4d"]},
    )
    found = jobs(args)
    assert len(found) == len(training_step._SHAPES["full"]) * 2 * 2
    assert {job["checkpointing"] for job in found} == {False, True}
    args.frames, args.latent_size = 3, 8
    assert {(job["frames"], job["latent_px"]) for job in jobs(args)} == {(3, 8)}
    assert len(jobs(args)) == 4


@pytest.mark.slow
def test_child_measures_nano_and_is_stopped_at_the_limit():
    job = {
        **{"size": "nano", "dtype": "fp32", "device": "cpu", "runs": 1, "threads": 1},
        **{"clips": 1, "frames": 2, "latent_px": 4, "mode": "4d", "checkpointing": False},
    }
    row = in_child(job, limit_gib=8.0)
    assert row["parameters"] == 7_320_604
    assert row["frames_per_second"] > 0
    stopped = in_child(job, limit_gib=0.01)
    assert stopped["stopped"] == "needs more than 0.01 GiB"
    assert stopped["gradient_checkpointing"] is False
