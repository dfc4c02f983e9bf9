"""A training step: samples a second and peak memory, with and without gradient checkpointing.

``--size full``: the released model's size with random weights in bfloat16, forward and backward
alone; what optimiser and averaged weights would take is computed, not measured. ``--size nano``:
the whole step of the embedded model in float32. Every row is measured in a process of its own,
whose peak memory is therefore that row's. The loss is a plain squared error: its share of the time
is nothing beside the network's. Processor time is what other work on the machine hardly changes.
"""

import argparse
import gc
import json
import platform
import subprocess
import sys
import time
from typing import Any

import psutil
import torch
from torch import nn

from benchmarks._random_weights import random_unet
from benchmarks._report import Timing, save, synchronize
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.transformer import SelfAttention
from genxd_core.model.unet import GenXDUNet
from tools.environment import ROOT
from trainer.attention import plain_attention
from trainer.ema import WeightAverage
from trainer.optim import muon_and_adam, set_rates
from trainer.small_recipes import NANO_UNET

__all__ = ["measure", "optimiser_memory", "peak_mib"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_GIB = 2**30
_MODES = {"3d": 0, "4d": 2}
# Frames and latent side of the rows of each size.
_SHAPES = {"full": ((2, 8), (2, 16), (2, 32)), "nano": ((12, 8),)}


def optimiser_memory(parameters: int) -> dict[str, float]:
    """What training needs beside weights and gradients in bfloat16, in GiB: computed."""
    each = parameters * 4 / _GIB
    parts = {
        "weights_in_float32": each,
        "adamw_two_moments_in_float32": 2 * each,
        "averaged_weights_in_float32": each,
    }
    return {name: round(value, 2) for name, value in {**parts, "sum": 4 * each}.items()}


def peak_mib(device: str) -> float:
    """The most memory so far: of PyTorch on a GPU, of this process on a CPU."""
    if torch.device(device).type == "cuda":
        return float(torch.cuda.max_memory_allocated()) / 2**20
    if platform.system() == "Windows":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) / (2**20 if platform.system() == "Darwin" else 2**10)


def measure(
    unet: GenXDUNet,
    *,
    clips: int,
    frames: int,
    latent_px: int,
    mode: str,
    checkpointing: bool,
    optimise: bool,
    runs: int,
) -> dict[str, Any]:
    """Time training steps of a network, the first one left out.

    Args:
        unet: with weights that take gradients.
        clips: in a step.
        frames: of each clip.
        latent_px: side of the latents.
        mode: "3d" or "4d".
        checkpointing: trade time for memory.
        optimise: clip gradients, step Muon and AdamW and average weights, too.
        runs: steps that are timed; the quickest counts.
    """
    weight = unet.conv_in.weight
    device, dtype = weight.device, weight.dtype
    unet.enable_gradient_checkpointing(checkpointing)
    torch.manual_seed(1)
    sample = torch.randn(clips, frames, unet.config.in_channels, latent_px, latent_px)
    target = torch.randn(clips, frames, unet.config.out_channels, latent_px, latent_px)
    sample, target = sample.to(device, dtype), target.to(device)
    options = {
        "added_time_ids": torch.tensor([[0.0, 1.0]] * clips, device=device),
        "indicator": [_MODES[mode]] * clips,
        "motion_ids": torch.full((clips,), 0.5, device=device),
    }
    after = _Optimise(unet) if optimise else None
    steps: list[Timing] = []
    loaded = peak_mib(str(device))
    for _ in range(runs + 1):
        synchronize(device)
        wall, cpu = time.perf_counter(), time.process_time()
        loss = (unet(sample, 0.3, **options).float() - target).square().mean()
        loss.backward()
        if after is not None:
            after()
        synchronize(device)
        steps.append(Timing(time.perf_counter() - wall, time.process_time() - cpu))
        # Without an optimiser gradients add up, as those of several micro-batches do.
        del loss
        gc.collect()
    best = min(steps[1:], key=lambda step: step.seconds)
    return {
        **{"mode": mode, "clips": clips, "frames": frames, "latent_px": latent_px},
        **{"picture_px": 8 * latent_px, "gradient_checkpointing": checkpointing},
        "seconds_per_step": round(best.seconds, 3),
        "cpu_seconds_per_step": round(best.cpu_seconds, 3),
        "samples_per_second": round(clips / best.seconds, 4),
        "frames_per_second": round(clips * frames / best.seconds, 4),
        "samples_per_cpu_second": round(clips / best.cpu_seconds, 4),
        "peak_mib": round(peak_mib(str(device))),
        "peak_mib_before_the_first_step": round(loaded),
    }


class _Optimise:
    """What comes behind the backward pass in `trainer.loop`."""

    def __init__(self, unet: GenXDUNet) -> None:
        self.unet = unet
        self.optimizers = muon_and_adam(
            unet.named_parameters(), ends=("conv_in", "conv_out"), muon_lr=0.01, adam_lr=1e-3
        )
        set_rates(self.optimizers, 0.1)
        self.average = WeightAverage(unet, 300.0)
        self.steps = 0

    def __call__(self) -> None:
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self.average.update(self.unet, self.steps)


def child(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one row in this process."""
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    full = job["size"] == "full"
    unet = random_unet(
        GenXDUNetConfig() if full else NANO_UNET,
        dtype=DTYPES[job["dtype"]],
        device=job["device"],
    )
    unet.train().requires_grad_(True)
    if not full:
        _attend_plainly(unet)
    row = measure(
        unet,
        clips=job["clips"],
        frames=job["frames"],
        latent_px=job["latent_px"],
        mode=job["mode"],
        checkpointing=job["checkpointing"],
        optimise=not full,
        runs=job["runs"],
    )
    return {**row, "dtype": job["dtype"], "parameters": sum(p.numel() for p in unet.parameters())}


def _attend_plainly(unet: GenXDUNet) -> None:
    """What the recipe of nano asks for."""
    for module in unet.modules():
        if isinstance(module, SelfAttention):
            module.attention = plain_attention


def in_child(job: dict[str, Any], limit_gib: float) -> dict[str, Any]:
    """Measure one row in a process of its own; a row that cannot be measured says so."""
    command = [sys.executable, "-m", "benchmarks.training_step", "--row", json.dumps(job)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    watched = psutil.Process(process.pid)
    told = {key: job[key] for key in ("mode", "clips", "frames", "latent_px")}
    told["gradient_checkpointing"] = job["checkpointing"]
    while process.poll() is None:
        try:
            used = watched.memory_info().rss / _GIB
        except psutil.NoSuchProcess:
            break
        if used > limit_gib:
            process.kill()
            process.communicate()
            return {**told, "stopped": f"needs more than {limit_gib:g} GiB"}
        time.sleep(0.05)
    output, _ = process.communicate()
    if process.returncode:
        return {**told, "stopped": f"ended with status {process.returncode}"}
    row: dict[str, Any] = json.loads(output.splitlines()[-1])
    return row


def jobs(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows to measure."""
    common = {"size": args.size, "dtype": args.dtype, "device": args.device}
    common |= {"runs": args.runs, "threads": args.threads, "clips": args.clips}
    shapes = [(args.frames or f, args.latent_size or s) for f, s in _SHAPES[args.size]]
    return [
        {**common, "frames": f, "latent_px": s, "mode": mode, "checkpointing": checkpointing}
        for f, s in dict.fromkeys(shapes)
        for mode in args.modes
        for checkpointing in (False, True)
    ]


def main() -> int:
    """Measure every row in a child process, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=tuple(_SHAPES), default="nano")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=sorted(DTYPES), help="bf16 for full, fp32 for nano")
    parser.add_argument("--modes", nargs="+", choices=tuple(_MODES), default=["4d"])
    parser.add_argument("--clips", type=int, help="in a step; 1 for full, 6 for nano")
    parser.add_argument("--frames", type=int, help="of a clip, instead of the usual ones")
    parser.add_argument("--latent-size", type=int, help="side, instead of the usual ones")
    parser.add_argument("--runs", type=int, default=2, help="steps; the quickest counts")
    parser.add_argument("--limit-gib", type=float, default=12.0, help="a row that needs more stops")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(child(json.loads(args.row))))
        return 0
    full = args.size == "full"
    args.dtype = args.dtype or ("bf16" if full else "fp32")
    args.clips = args.clips or (1 if full else 6)
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    for job in jobs(args):
        rows.append(in_child(job, args.limit_gib))
        print(rows[-1], flush=True)
    result: dict[str, Any] = {"step": "forward and backward" if full else "whole step"}
    parameters = next((row["parameters"] for row in rows if "parameters" in row), None)
    if full and parameters:
        result["computed_gib_for_optimiser"] = optimiser_memory(parameters)
    save("training_step", args.size, args.device, {**result, "rows": rows})
    return int(any("stopped" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
