"""Rasterising Gaussians: every backend that works here, forward and with gradients, beside numba.

The scene is a shell of Gaussians around the origin that fills most of the picture, of mean opacity
0.5, with the five channels that a fit needs: colour, depth, alpha. Times hold everything from the
tensors of a fit to its pictures and back: projection, sorting into tiles, compositing.
"""

import argparse
import sys
from typing import Any, get_args

import torch
from torch import Tensor

from benchmarks._report import PeakMemory, save, timed
from genxd_core.lifting.backends import Backend, backend_status
from genxd_core.lifting.projection import project
from genxd_core.lifting.rasterize import TensorRendering, rasterize_tensors
from genxd_core.lifting.tiles import list_tiles

__all__ = ["compare", "scene"]

# By count and side: times of the torch backend over those of numba, forward and with gradients, as
# measured for prototypes of both on one core.
PROTOTYPE = {
    (5_000, 128): (4.20, 3.69),
    (20_000, 128): (6.52, 4.43),
    (50_000, 128): (4.35, 3.87),
    (5_000, 256): (3.68, 3.46),
    (20_000, 256): (4.30, 4.01),
    (50_000, 256): (4.38, 4.37),
}
SLOWER = 1.3  # at most, than those ratios
# Of the largest value, in float32: at the rim of a Gaussian one backend may find just below 1/255,
# and draw nothing, what is just above it for another.
AGREEMENT = {"picture": 5e-3, "gradient": 2e-2}


def scene(count: int, device: torch.device | str) -> list[Tensor]:
    """Means, quats, scales, opacities and colours with gradients."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    directions = torch.nn.functional.normalize(normal(count, 3), dim=-1)
    tensors = [
        directions * (1 + 0.05 * normal(count, 1)),
        normal(count, 4),
        1.5 * count**-0.5 * torch.exp(0.4 * normal(count, 3)),
        torch.rand(count, generator=generator),
        torch.rand(count, 3, generator=generator),
    ]
    return [tensor.to(device).requires_grad_() for tensor in tensors]


def camera(size: int, device: torch.device | str) -> dict[str, Any]:
    """One camera at distance 2.6, as the arguments that tell of it."""
    viewmat = torch.eye(4)
    viewmat[2, 3] = 2.6
    K = torch.tensor([[1.1 * size, 0, size / 2], [0, 1.1 * size, size / 2], [0, 0, 1]])
    seen = {"viewmats": viewmat[None].to(device), "Ks": K[None].to(device)}
    return {**seen, "width": size, "height": size}


def compare(
    count: int, size: int, backends: list[str], device: torch.device | str, runs: int
) -> dict[str, Any]:
    """All backends on one scene: milliseconds, memory, and how far each is from the first."""
    tensors, seen = scene(count, device), camera(size, device)
    row: dict[str, Any] = {"gaussians": count, "px": size, "pairs_per_px": _pairs(tensors, seen)}
    first: list[Tensor] = []

    def draw(backend: str) -> TensorRendering:
        return rasterize_tensors(*tensors, **seen, backend=backend)

    def learn(backend: str) -> tuple[Tensor, ...]:
        found = draw(backend)
        loss = found.rgb.square().sum() + found.depth.sum() + found.alpha.sum()
        return torch.autograd.grad(loss, tensors)

    for backend in backends:
        with torch.no_grad():
            forward = timed(lambda name=backend: draw(name), runs=runs, device=device)
            picture = draw(backend).rgb
        both = timed(lambda name=backend: learn(name), runs=runs, device=device)
        with PeakMemory(device) as peak:
            gradients = learn(backend)
        results = [picture, *gradients]
        first = first or results
        apart = [
            float((mine - theirs).abs().max() / theirs.abs().max())
            for mine, theirs in zip(results, first, strict=True)
        ]
        row[backend] = {
            "forward_ms": round(1e3 * forward.seconds, 2),
            "forward_cpu_ms": round(1e3 * forward.cpu_seconds, 2),
            "with_gradients_ms": round(1e3 * both.seconds, 2),
            "with_gradients_cpu_ms": round(1e3 * both.cpu_seconds, 2),
            "peak_mib": round(peak.mib),
            "apart": {"picture": apart[0], "gradient": max(apart[1:])},
        }
    if "numba" in backends:
        for backend in backends:
            row[backend]["over_numba"] = [
                round(row[backend][kind] / row["numba"][kind], 2)
                for kind in ("forward_cpu_ms", "with_gradients_cpu_ms")
            ]
    return row


@torch.no_grad()
def _pairs(tensors: list[Tensor], seen: dict[str, Any]) -> float:
    """Gaussians in the lists of a pixel's tile of 8 x 8, on average."""
    size = {"width": seen["width"], "height": seen["height"]}
    projection = project(*tensors[:4], seen["viewmats"][0], seen["Ks"][0], **size)
    lists = list_tiles(projection, **size, size=8)
    return round(len(lists.ids) / len(lists.counts), 1)


def main() -> int:
    """Measure and save; the status is 1 where backends disagree or a limit is missed."""
    known = [name for name in get_args(Backend) if name != "auto"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", choices=known, help="all that work, if not given")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--counts", nargs="+", type=int, default=[5_000, 20_000, 50_000])
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 256], help="sides in pixels")
    parser.add_argument("--runs", type=int, default=5, help="the quickest counts")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: as they come")
    args = parser.parse_args()
    statuses = backend_status(args.device)
    backends = args.backends or [status.name for status in statuses if status.usable]
    if args.threads:
        torch.set_num_threads(args.threads)
        if "numba" in backends:
            import numba

            numba.set_num_threads(args.threads)
    for status in statuses:
        print(f"{status.name:<7} {'usable' if status.usable else 'no':<7} {status.reason}")
    rows = []
    for count in args.counts:
        for size in args.sizes:
            row = compare(count, size, backends, args.device, args.runs)
            rows.append(row)
            for backend in backends:
                print(_line(row, backend), flush=True)
    told = {status.name: status.reason for status in statuses}
    limits = {"over_prototype": SLOWER, "apart": AGREEMENT}
    save("rasterize", "all", args.device, {"backends": told, "limits": limits, "rows": rows})
    failed = [(row, name) for row in rows for name in backends if not _holds(row, name)]
    for row, name in failed:
        print(f"misses a limit: {_line(row, name)}", file=sys.stderr)
    return int(bool(failed))


def _holds(row: dict[str, Any], backend: str) -> bool:
    """Whether a backend agrees with the first and is as quick beside numba as it should be."""
    found = row[backend]
    limits = PROTOTYPE.get((row["gaussians"], row["px"]))
    quick = backend != "torch" or limits is None or "over_numba" not in found
    quick = quick or all(
        ratio <= SLOWER * limit
        for ratio, limit in zip(found["over_numba"], limits or (), strict=True)
    )
    return quick and all(found["apart"][what] <= AGREEMENT[what] for what in AGREEMENT)


def _line(row: dict[str, Any], backend: str) -> str:
    found = row[backend]
    ratios = " / ".join(f"{ratio:.2f}" for ratio in found.get("over_numba", ()))
    return (
        f"{row['gaussians']:>6} Gaussians {row['px']:>4} px ({row['pairs_per_px']:>5} pairs/px) "
        f"{backend:<6} {found['forward_ms']:7.1f} / {found['with_gradients_ms']:7.1f} ms "
        f"({found['forward_cpu_ms']:.1f} / {found['with_gradients_cpu_ms']:.1f} CPU)   "
        f"over numba {ratios or '-'}   {found['peak_mib']} MiB   "
        f"apart {found['apart']['picture']:.1e}, {found['apart']['gradient']:.1e}"
    )


if __name__ == "__main__":
    sys.exit(main())
