"""Long paths: how visible the seams between groups are, seconds, and memory by length of the path.

Held-out procedural scenes, orbits with the true pictures of every camera. Seams are the mean
absolute differences between neighbouring views: ``inside`` a group, ``joined`` from a condition to
what was made from it, ``across`` groups that share neither. Without seams all three are equal; the
true pictures are measured at the same pairs. Given pictures count as the VAE shows them.
"""

import argparse
import gc
import sys
import time
from statistics import mean
from typing import Any

import torch
from torch import Tensor

import genxd_core as gx
from benchmarks._report import PeakMemory, save, synchronize
from genxd_core.assets import NANO
from genxd_core.lifting.losses import psnr
from genxd_core.synthetic import FAMILIES, HELD_OUT, Family, SyntheticClips, make_clips

__all__ = ["compare", "memory_by_length", "scenes_on_orbits"]

# Pictures at the start, and at the start, in the middle and at the end.
SETUPS: tuple[tuple[str, tuple[float, ...], str], ...] = (
    ("one picture", (0.0,), "anchors"),
    ("one picture", (0.0,), "in sequence"),
    ("three pictures", (0.0, 0.5, 1.0), "anchors"),
    ("three pictures", (0.0, 0.5, 1.0), "in sequence"),
    ("three pictures", (0.0, 0.5, 1.0), "farthest points"),
)


def scenes_on_orbits(count: int, num_views: int, size: int) -> SyntheticClips:
    """Held-out scenes at rest, seen from part of an orbit each."""
    family = Family(scenes=FAMILIES["nano_3d"].scenes, paths={"orbit": 1.0})
    seeds = [HELD_OUT + number for number in range(count)]
    return make_clips(seeds, family, num_frames=num_views, size=size)


def generate(
    pipe: gx.GenXDPipeline, truth: Tensor, path: gx.Cameras, at: list[int], **options: Any
) -> gx.GeneratedPath:
    """One path from some of its true pictures."""
    return gx.generate_path(pipe, truth[at], path[at], path, keep_images=False, **options)


def compare(
    pipe: gx.GenXDPipeline,
    clips: SyntheticClips,
    setup: tuple[str, tuple[float, ...], str],
    **options: Any,
) -> dict[str, Any]:
    """Seams, PSNR and seconds of one way to group, averaged over scenes."""
    name, where, grouping = setup
    rows: list[dict[str, float]] = []
    for scene in range(len(clips)):
        truth, path = clips.images[scene], clips.cameras(scene)
        at = sorted({round(place * (len(path) - 1)) for place in where})
        began = time.perf_counter()
        out = generate(pipe, truth, path, at, grouping=grouping, seed=scene, **options)
        synchronize(pipe.device)
        seconds = time.perf_counter() - began
        plan = out.plan
        ours, true = gx.measure_seams(out.frames, plan), gx.measure_seams(truth, plan)
        made = [camera for camera in range(len(path)) if camera not in at]
        row = {
            "psnr_db": float(psnr(out.frames, truth)[made].mean()),
            "seconds": seconds,
        }
        for kind, seams in (("ours", ours), ("truth", true)):
            for part in ("inside", "joined", "across"):
                value = getattr(seams, part)
                if value is not None:
                    row[f"{kind}_{part}"] = value
        rows.append(row)
    return {
        **{"given": name, "grouping": grouping, "views": plan.num_cameras, "scenes": len(clips)},
        **{"groups": len(plan.groups), "frames_through_the_network": plan.num_frames},
        "pairs": {part: getattr(true, f"num_{part}") for part in ("inside", "joined", "across")},
        **{key: round(mean(row[key] for row in rows), 4) for key in rows[0]},
    }


def memory_by_length(
    pipe: gx.GenXDPipeline, lengths: list[int], size: int
) -> list[dict[str, float]]:
    """Peak memory of paths of several lengths above what was in use before, one step a group."""
    rows = []
    for length in [lengths[0], *lengths]:  # the first warms up
        clips = scenes_on_orbits(1, length, size)
        gc.collect()
        with PeakMemory(pipe.device) as memory:
            out = generate(
                pipe, clips.images[0], clips.cameras(0), [0], num_inference_steps=1, seed=0
            )
        kept = (out.frames.nbytes + out.latents.nbytes) / 2**20
        rows.append(
            {"views": length, "peak_mib": round(memory.mib, 1), "result_mib": round(kept, 2)}
        )
    return rows[1:]


def main() -> int:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--views", type=int, default=48, help="cameras of each path")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=64, help="of the pictures, px")
    parser.add_argument("--lengths", type=int, nargs="+", default=[24, 96], help="for the memory")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = gx.GenXDPipeline.from_pretrained(NANO, device=args.device)
    clips = scenes_on_orbits(args.scenes, args.views, args.size)
    options = {"num_inference_steps": args.steps, "guidance_scale": args.guidance}
    rows = []
    for setup in SETUPS:
        rows.append(compare(pipe, clips, setup, **options))
        print(rows[-1], flush=True)
    memory = memory_by_length(pipe, args.lengths, args.size)
    print(memory, flush=True)
    results = {**options, "size_px": args.size, "rows": rows, "memory": memory}
    save("long_path", "nano", args.device, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
