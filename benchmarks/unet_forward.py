"""One forward pass of the full-size network, beside the same network that skips nothing.

The other side of every ratio is the same network with the same weights in the same run, but with
the temporal branch computed in every mode and multiplied by its weight, zero or not, and with the
convolutions over frames run as the 3-D ones that their weights are.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks._random_weights import random_unet
from benchmarks._report import PeakMemory, save, timed
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.fusion import FusionBlender, FusionPlan
from genxd_core.model.residual import frame_conv_class
from genxd_core.model.unet import GenXDUNet
from trainer.small_recipes import NANO_UNET

__all__ = ["nothing_skipped"]

MODES = {"3d": 0, "video": 1, "4d": 2}
LIMITS = {"3d": 0.65, "4d": 0.95}  # of the time of the other side, on a CPU
ROUNDING = 1e-4  # of the output's deviation, in float32
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@contextmanager
def nothing_skipped() -> Iterator[None]:
    """Run networks as their formulas are written: everything computed, zeros multiplied."""

    def fuse(self: FusionBlender, x_s: Tensor, x_mv: Tensor, temporal: Any, plan: Any) -> Tensor:
        shape = (-1,) + (1,) * (x_s.dim() - 1)
        modes = torch.tensor(plan.indicators, device=x_s.device).view(shape)
        spatial = self.spatial_mv_factor.sigmoid()
        still = torch.where(modes == MODES["3d"], 1.0, self.gamma.sigmoid())
        still = torch.where(modes == MODES["video"], 0.0, still).to(x_s.dtype)
        both = spatial * x_s + (1 - spatial) * x_mv
        return still * both + (1 - still) * temporal(x_mv, ...)

    def convolve(self: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return nn.Conv3d._conv_forward(self, x[..., None], weight, bias)[..., 0]

    with (
        patch.object(FusionBlender, "forward", fuse),
        patch.object(FusionPlan, "needs_temporal", True),
        patch.object(frame_conv_class(nn.Conv3d), "_conv_forward", convolve),
    ):
        yield


def inputs(frames: int, size: int, mode: str, unet: GenXDUNet) -> tuple[tuple[Any, ...], Any]:
    """Arguments of one forward pass of one sample."""
    weight: Tensor = unet.conv_in.weight
    like = {"dtype": weight.dtype, "device": weight.device}
    torch.manual_seed(1)
    sample = torch.randn(1, frames, unet.config.in_channels, size, size, **like)
    ids = torch.tensor([[0.0, float(mode != "video")]], device=weight.device)
    options = {
        "added_time_ids": ids,
        "indicator": [MODES[mode]],
        "motion_ids": torch.tensor([0.5], device=weight.device),
    }
    return (sample, 0.3), options


@torch.inference_mode()
def compare(unet: GenXDUNet, frames: int, size: int, mode: str, runs: int) -> dict[str, Any]:
    """Both sides on the same inputs: seconds, memory, and how far their outputs are apart."""
    device = unet.conv_in.weight.device
    args, options = inputs(frames, size, mode, unet)
    row: dict[str, Any] = {"mode": mode, "frames": frames, "latent_px": size}
    outputs: dict[str, Tensor] = {}

    def measure(name: str) -> None:
        timing = timed(lambda: unet(*args, **options), runs=runs, device=device)
        with PeakMemory(device) as peak:
            outputs[name] = unet(*args, **options)
        row[name] = {
            "seconds": round(timing.seconds, 4),
            "cpu_seconds": round(timing.cpu_seconds, 4),
            "peak_mib_above_weights": round(peak.mib),
        }

    measure("ours")
    with nothing_skipped():
        measure("nothing_skipped")
    for name, unit in (("ratio", "seconds"), ("cpu_ratio", "cpu_seconds")):
        row[name] = round(row["ours"][unit] / row["nothing_skipped"][unit], 3)
    ours, other = (outputs[name].double() for name in ("ours", "nothing_skipped"))
    row["difference_over_std"] = float((ours - other).abs().max() / other.std())
    return row


def main() -> int:
    """Measure and save; the status is 1 where float32 misses a limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", choices=("full", "nano"), default="full")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtypes", nargs="+", choices=sorted(DTYPES), default=["fp32"])
    parser.add_argument("--modes", nargs="+", choices=tuple(MODES), default=list(MODES))
    parser.add_argument("--latent-sizes", nargs="+", type=int, default=[16, 32])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--runs", type=int, default=3, help="the quickest counts")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of our side")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    config = GenXDUNetConfig() if args.config == "full" else NANO_UNET
    rows: list[dict[str, Any]] = []
    for dtype in args.dtypes:
        unet = random_unet(config, dtype=DTYPES[dtype], device=args.device)
        weights = sum(p.numel() for p in unet.parameters())
        for size in args.latent_sizes:
            for mode in args.modes:
                row = {"dtype": dtype, **compare(unet, args.frames, size, mode, args.runs)}
                if args.compile:
                    row["compiled"] = _compiled_s(unet, args.frames, size, mode, args.runs)
                rows.append(row)
                print(_line(row), flush=True)
        del unet
    save("unet_forward", args.config, args.device, {"parameters": weights, "rows": rows})
    failed = [row for row in rows if row["dtype"] == "fp32" and not _holds(row, args.device)]
    for row in failed:
        print(f"misses a limit: {_line(row)}", file=sys.stderr)
    return int(bool(failed))


def _holds(row: dict[str, Any], device: str) -> bool:
    """Whether both sides agree within rounding and, on a CPU, ours is as quick as it should be.

    Processor time, which other work on the machine hardly changes.
    """
    quick = device != "cpu" or row["cpu_ratio"] <= LIMITS.get(row["mode"], 1.0)
    return quick and row["difference_over_std"] <= ROUNDING


@torch.inference_mode()
def _compiled_s(unet: GenXDUNet, frames: int, size: int, mode: str, runs: int) -> float:
    args, options = inputs(frames, size, mode, unet)
    compiled = torch.compile(unet)
    timing = timed(lambda: compiled(*args, **options), runs=runs, device=args[0].device)
    return round(timing.seconds, 4)


def _line(row: dict[str, Any]) -> str:
    ours, other = row["ours"], row["nothing_skipped"]
    return (
        f"{row['dtype']} {row['mode']:<5} {row['frames']} frames {row['latent_px']:>2} px: "
        f"{ours['seconds']:8.3f} s ({ours['cpu_seconds']:8.3f} CPU, "
        f"{ours['peak_mib_above_weights']:>5} MiB)   "
        f"nothing skipped {other['seconds']:8.3f} s ({other['cpu_seconds']:8.3f} CPU, "
        f"{other['peak_mib_above_weights']:>5} MiB)   "
        f"ratio {row['ratio']:.3f} ({row['cpu_ratio']:.3f} CPU)   "
        f"difference {row['difference_over_std']:.1e} of std"
    )


if __name__ == "__main__":
    sys.exit(main())
