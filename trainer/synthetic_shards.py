"""Procedural clips on disk, for training a VAE: shards of rendered pictures.

A shard is a safetensors file of up to ``clips_per_shard`` clips of one family: ``images``
(n, v, 3, h, w) uint8.
"""

import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from genxd_core.errors import InvalidInputError
from genxd_core.files import write_atomically
from genxd_core.synthetic import HELD_OUT, make_clips

__all__ = ["RenderJob", "render_shards"]


@dataclass(frozen=True)
class RenderJob:
    """A set of clips to render.

    Attributes:
        out: folder of the shards.
        family: name in `genxd_core.synthetic.FAMILIES`.
        clips: how many.
        first_seed: of the first clip; clip i has seed ``first_seed + i``.
        num_frames: of each clip.
        size: of the pictures.
        clips_per_shard: clips in one file.
        workers: processes.
    """

    out: Path
    family: str
    clips: int
    first_seed: int = 0
    num_frames: int = 12
    size: int = 64
    clips_per_shard: int = 64
    workers: int = 1


def render_shards(job: RenderJob) -> list[Path]:
    """Render what is missing of a job and return all its shards; a killed job goes on."""
    seeds = range(job.first_seed, job.first_seed + job.clips)
    if not 0 <= seeds.start <= seeds.stop <= HELD_OUT:
        raise InvalidInputError(
            f"first_seed is {job.first_seed} for {job.clips} clips; seeds from {HELD_OUT} on are "
            "held out for evaluation."
        )
    chunks = [seeds[i : i + job.clips_per_shard] for i in range(0, len(seeds), job.clips_per_shard)]
    paths = [job.out / f"{job.family}_{chunk[0]:09d}.safetensors" for chunk in chunks]
    todo = [(p, c, job) for p, c in zip(paths, chunks, strict=True) if not p.exists()]
    if job.workers <= 1:
        for args in todo:
            _render_shard(args)
    else:
        with multiprocessing.get_context("spawn").Pool(job.workers) as pool:
            for _ in pool.imap_unordered(_render_shard, todo):
                pass
    return paths


def _render_shard(args: tuple[Path, range, RenderJob]) -> None:
    path, seeds, job = args
    torch.set_num_threads(1)
    # One at a time: a clip's tensors then fit the processor's cache.
    clips = [
        make_clips([seed], job.family, num_frames=job.num_frames, size=job.size) for seed in seeds
    ]
    images = torch.cat([(clip.images * 255).round().to(torch.uint8) for clip in clips])
    meta = {"family": job.family, "first_seed": str(seeds[0])}
    write_atomically(path, partial(save_file, {"images": images.contiguous()}, metadata=meta))
