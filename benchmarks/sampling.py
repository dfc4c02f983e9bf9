"""Sampling through the library's pipeline and through ComfyUI: seconds a step, and the difference.

Both run in this process, one after the other, on the same weights, picture, cameras and noise.
"""

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import genxd_core as gx
from benchmarks._random_weights import random_unet
from benchmarks._report import save
from genxd_core.assets import NANO
from genxd_core.model.config import GenXDUNetConfig
from tests.host.in_process import Host
from tools.comfy_server import prepare_base, remove_link
from tools.host_source import find_host

__all__ = ["through_host", "through_pipeline"]

FRAMES, GUIDANCE, SEED = 12, 3.0, 0
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PATH = {"azimuth_range_deg": (0.0, 90.0)}


def picture(size: int) -> Tensor:
    """A picture in [0, 1] with something in it."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    return torch.stack([x, y, ((x * 6).sin() * (y * 5).cos() + 1) / 2])[None]


def through_pipeline(
    folder: Path, dtype: str, size: int, steps: int, device: str
) -> tuple[dict[str, float], Tensor]:
    """Times and frames of the library's own pipeline."""
    pipe = gx.GenXDPipeline.from_pretrained(folder, dtype=DTYPES[dtype], device=device)
    stamps: list[float] = []
    noise = torch.Generator().manual_seed(SEED)
    began = time.perf_counter()

    def progress(step: int, total: int, preview: Tensor | None = None) -> None:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())

    out = pipe(
        picture(size),
        [0],
        gx.orbit(FRAMES, **PATH),
        mode="4d",
        motion_strength=0.5,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        generator=noise,
        progress=progress,
    )
    # The first stamp is the encoded picture's, the last one the decoder's.
    return _times(stamps[0], stamps[1 : 1 + steps], time.perf_counter() - began), out.frames


def through_host(
    host: Host, model: str, dtype: str, size: int, steps: int
) -> tuple[dict[str, float], Tensor]:
    """Times and frames of the nodes and ComfyUI's KSampler."""
    graph: dict[str, dict[str, Any]] = {
        "load": {
            "class_type": "GenXD_LoadModel",
            "inputs": {"model": model, "weight_dtype": dtype, "vae": "beside the model"},
        },
        "picture": host.value(picture(size).movedim(1, -1)),
        "path": host.value(host.module("genxd_core").orbit(FRAMES, **PATH)),
        "condition": {
            "class_type": "GenXD_ConditionViews",
            "inputs": {
                **{"vae": ["load", 1], "images": ["picture", 0], "cameras": ["path", 0]},
                **{"indices": "0", "mode": "4d", "motion_strength": 0.5},
            },
        },
        "sample": {
            "class_type": "KSampler",
            "inputs": {
                **{"model": ["load", 0], "seed": SEED, "steps": steps, "cfg": GUIDANCE},
                **{"sampler_name": "euler", "scheduler": "karras", "denoise": 1.0},
                **{"positive": ["condition", 0], "negative": ["condition", 1]},
                "latent_image": ["condition", 2],
            },
        },
        "decode": {
            "class_type": "GenXD_DecodeViews",
            "inputs": {"samples": ["sample", 0], "vae": ["load", 1], "frames_per_chunk": 0},
        },
        "out": host.capture(["decode", 0]),
    }
    stamps: list[float] = []
    started: dict[str, float] = {}

    def on_event(name: str, data: dict[str, Any]) -> None:
        if name == "executing" and data.get("node"):
            started[data["node"]] = time.perf_counter()
        elif name == "progress" and list(started)[-1:] == ["sample"] and data["value"]:
            stamps.append(time.perf_counter())

    frames = host.run(graph, on_event=on_event).captured["out"]
    whole = time.perf_counter() - started["condition"]
    return _times(started["sample"], stamps[-steps:], whole), frames.movedim(-1, 1).clone()


def _times(start: float, stamps: list[float], whole: float) -> dict[str, float]:
    gaps = [b - a for a, b in itertools.pairwise(stamps)]
    return {
        "seconds_per_step": round(median(gaps), 4),
        "seconds_of_first_step": round(stamps[0] - start, 4),
        "seconds_of_all": round(whole, 3),
    }


def _psnr(a: Tensor, b: Tensor) -> float:
    return round(float(-10 * (a - b).square().mean().clamp_min(1e-12).log10()), 2)


def run(host: Host, args: argparse.Namespace, folder: Path, model: str) -> list[dict[str, Any]]:
    """Every precision both ways; frames against float32's of the pipeline."""
    rows: list[dict[str, Any]] = []
    reference: Tensor | None = None
    for dtype in args.dtypes:
        size, steps = args.size, args.steps
        # Each twice: the first of them pays for loading, packing of weights and page faults.
        for _ in range(args.warm_up + 1):
            pipeline, ours = through_pipeline(folder, dtype, size, steps, args.device)
        for _ in range(args.warm_up + 1):
            comfy, theirs = through_host(host, model, dtype, size, steps)
        reference = ours if reference is None else reference
        overhead = comfy["seconds_per_step"] - pipeline["seconds_per_step"]
        row = {
            **{"dtype": dtype, "size_px": size, "frames": FRAMES, "steps": steps},
            **{"pipeline": pipeline, "comfyui": comfy},
            "overhead_s_per_step": round(overhead, 4),
            "overhead_share": round(overhead / pipeline["seconds_per_step"], 4),
            "psnr_db_between_both": _psnr(ours, theirs),
            f"psnr_db_to_{args.dtypes[0]}": _psnr(ours, reference),
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> int:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", choices=("nano", "full"), default="nano")
    parser.add_argument("--steps", type=int, default=None, help="default: 25; full on a CPU: 3")
    parser.add_argument("--size", type=int, default=None, help="default: nano 64, full 128 px")
    parser.add_argument("--dtypes", nargs="+", choices=sorted(DTYPES), default=["fp32"])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--warm-up", type=int, default=1, help="runs before the one that counts")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    args = parser.parse_args()
    full = args.config == "full"
    args.steps = args.steps or (3 if full and args.device == "cpu" else 25)
    args.size = args.size or (128 if full else 64)
    if args.threads:
        torch.set_num_threads(args.threads)
    comfy_root = find_host()
    if comfy_root is None:
        print("no ComfyUI: set COMFYUI_PATH, or run `python dev.py setup`", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as base:
        pack = prepare_base(Path(base))
        folder, model = NANO, "genxd-nano (built in)"
        if full:
            folder, model = Path(base) / "models" / "genxd" / "full", "full"
            _lay_out_full_size(folder)
        host = Host(comfy_root, Path(base), pack, cpu=args.device == "cpu")
        try:
            rows = run(host, args, folder, model)
        finally:
            host.close()
            remove_link(pack)
    save("sampling", args.config, args.device, {"guidance": GUIDANCE, "rows": rows})
    return 0


def _lay_out_full_size(folder: Path) -> None:
    """A model folder of the released size with random weights, and the small VAE."""
    unet = random_unet(GenXDUNetConfig(), dtype=torch.float16, device="cpu")
    gx.save_unet(unet, folder / "unet")
    for part in ("vae", "scheduler"):
        shutil.copytree(NANO / part, folder / part)


if __name__ == "__main__":
    sys.exit(main())
