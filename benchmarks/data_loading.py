"""Does reading clips keep ahead of training? Micro-batches per second by workers, and the step.

Three kinds of sources, each read exactly as the trainer reads it:

- ``latents``: nano's encoded clips (made here of random numbers; their values do not matter).
- ``photos``: 12 of the photographs in ``tests/data/lund`` (640 x 480 JPEG, lens undone) at 256 px.
- ``procedural``: scenes that are rendered while training, 64 px.

The step that the first has to keep ahead of is nano's, measured in the same run: forward, backward
and optimiser. A ratio is clips read in a second over clips trained in a second.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from genxd_core.data.scene import MeasuredMotion
from genxd_core.synthetic.camera_paths import sample_path
from tools.environment import ROOT
from trainer.config import DataConfig, RunConfig, SourceConfig
from trainer.data import MicroBatches, load_micro_batches
from trainer.latent_shards import EncodedScene, write_shard
from trainer.loop import train
from trainer.recipes import RECIPES

from ._report import save

LUND = ROOT / "tests" / "data" / "lund"


def write_latents(folder: Path, source: str, scenes: int, *, size: int, moving: bool) -> None:
    """Encoded scenes of random numbers, 64 in a file."""
    rng = torch.Generator().manual_seed(0)
    K_norm = torch.tensor([[1.1, 0.0, 0.5], [0.0, 1.1, 0.5], [0.0, 0.0, 1.0]])
    for first in range(0, scenes, 64):
        made = []
        for number in range(first, min(first + 64, scenes)):
            tensors = {
                "latents": torch.randn(12, 4, size // 8, size // 8, generator=rng).half(),
                "c2w": sample_path(number, {"orbit": 1.0}, 12),
                "Ks_norm": K_norm.expand(12, 3, 3),
                "times": torch.full((12,), torch.nan),
                "view_depths": torch.full((12,), 2.0),
            }
            motion = MeasuredMotion(0.02) if moving else None
            kind: Any = "4d" if moving else "3d"
            made.append(EncodedScene(str(number), kind, motion, True, tensors))
        path = folder / source / "crop" / f"{first:06d}.safetensors"
        write_shard(path, made, {"size": size, "fit": "crop"})


def nano_run(folder: Path) -> RunConfig:
    """The third stage of nano, from scratch, on random latents."""
    run = RECIPES["nano_stage3"](folder, folder / "run")
    for source in run.data.sources:
        scenes = int(source.options["scenes"])
        moving = source.mode != "3d"
        write_latents(folder / "latents", source.name, scenes, size=64, moving=moving)
    return replace(
        run,
        model=replace(run.model, start="scratch", start_from=None),
        engine=replace(run.engine, trackers=(), mixed_precision="bf16"),
    )


def photo_data(workers: int) -> DataConfig:
    """A capture of photographs, read and fitted while training."""
    source = SourceConfig(name="photos", dataset="captures", root=LUND)
    return DataConfig(sources=(source,), batch_size=1, micro_batch=1, workers=workers)


def procedural_data(workers: int) -> DataConfig:
    """Scenes rendered while training."""
    options = {"family": "nano_3d", "scenes": 1000}
    source = SourceConfig(name="procedural", dataset="synthetic", options=options)
    return DataConfig(sources=(source,), size=64, batch_size=1, micro_batch=1, workers=workers)


def clips_per_second(data: DataConfig, seconds: float) -> float:
    """Clips of the longest length read in a second, after the first micro-batch of each worker."""
    batches = load_micro_batches(MicroBatches(data, seed=0), first=0, last=10**9)
    for _ in range(max(1, data.workers) * 2):
        next(batches)
    frames, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        frames += next(batches).c2w.shape[:2].numel()
    return frames / max(data.views) / (time.perf_counter() - began)


def trained_per_second(run: RunConfig, steps: int) -> tuple[float, float]:
    """Clips trained in a second, and the share of the time that was spent waiting for data."""
    engine = replace(run.engine, steps=2 * steps, log_every=steps, save_every=2 * steps)
    train(replace(run, engine=engine))
    # The first line has the warm-up in it.
    row = json.loads((run.out / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return float(row["clips_per_second"]), float(row["waiting_for_data"])


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each figure")
    parser.add_argument("--steps", type=int, default=20, help="of training, after as many before")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="to try")
    parser.add_argument("--threads", type=int, default=1, help="of the training step")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        run = nano_run(Path(name))
        trained, waiting = trained_per_second(run, args.steps)
        rows = []
        for workers in args.workers:
            latents = clips_per_second(replace(run.data, workers=workers), args.seconds)
            rows.append(
                {
                    "workers": workers,
                    "latents_clips_per_second": round(latents, 2),
                    "latents_over_nano_step": round(latents / trained, 2),
                    "photos_clips_per_second": round(
                        clips_per_second(photo_data(workers), args.seconds), 3
                    ),
                    "procedural_clips_per_second": round(
                        clips_per_second(procedural_data(workers), args.seconds), 3
                    ),
                }
            )
    figures = {
        "nano_step_clips_per_second": round(trained, 3),
        "nano_step_waiting_for_data": waiting,
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "rows": rows,
    }
    for row in rows:
        print(row)
    save("data_loading", "nano", "cpu", figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
