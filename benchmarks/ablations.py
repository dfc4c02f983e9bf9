"""The paper's ablations in small: train the variants, measure them, say which directions appear.

``train`` prints (with ``--run`` runs) the trainer's command for every variant and seed.
``evaluate`` measures the finished runs on held-out scenes by the protocol of
`trainer.evaluate_variant`, compares every variant with the full model scene by scene, and says of
each direction of the paper's Tables 5 and 10 whether it appears here: whether the 95 % interval of
the paired difference leaves 0 out. Scenes are resampled, and seeds where there are several.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from benchmarks._report import save
from genxd_core.assets import NANO
from genxd_core.autoencoder import Autoencoder
from genxd_core.evaluation.intervals import Interval, mean_interval, paired_interval
from genxd_core.files import sha256_of, write_atomically
from tools.environment import ROOT
from trainer.camera_attention import load_network
from trainer.evaluate_variant import PARTS, evaluate_variant

__all__ = ["DIRECTIONS", "VARIANTS", "Direction", "compare", "statement", "train_command"]

FULL = "full"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_DISTANCES = ("random_feature_distance", "lpips_alex", "lpips_vgg", "lpips_squeeze")
_LOWER_IS_BETTER = (*_DISTANCES, "_error_px", "spurious_motion_px")


@dataclass(frozen=True)
class Variant:
    """How a variant is evaluated.

    Attributes:
        title: its name in the paper's tables.
        disentangled: False where 3D scenes pass the temporal layers too.
        mode_4d: "3d" where the temporal layers were never trained and would only add noise.
    """

    title: str
    disentangled: bool = True
    mode_4d: str = "4d"


VARIANTS: dict[str, Variant] = {
    FULL: Variant("GenXD"),
    "no_disentangling": Variant("w.o. motion disentangle", disentangled=False),
    "camera_attention": Variant("Camera CA"),
    "without_3d": Variant("w.o. 3D data"),
    "without_4d": Variant("w.o. 4D data", mode_4d="3d"),
}


@dataclass(frozen=True)
class Direction:
    """A claim of the paper: by a kind of figure, the full model is ahead of a variant.

    Attributes:
        table: of the paper.
        variant: key of `VARIANTS`.
        claim: in words, with the paper's own figures.
        stem: what is measured here: beginning of the figures' names.
        figures: their endings.
    """

    table: str
    variant: str
    claim: str
    stem: str
    figures: tuple[str, ...] = ("psnr", "ssim", "distance")


def _worse(table: str, variant: str, re10k: str, llff: str, davis: str) -> list[Direction]:
    return [
        Direction(table, variant, f"few-view 3D worse on Re10K: PSNR {re10k}", "three_views"),
        Direction(table, variant, f"few-view 3D worse on LLFF: PSNR {llff}", "other_three_views"),
        Direction(table, variant, f"4D worse on Cam-DAVIS: FID {davis}", "clip"),
    ]


DIRECTIONS: tuple[Direction, ...] = (
    *_worse(
        *("Table 5", "no_disentangling"),
        *("20.75 to 22.96", "16.89 to 17.94", "122.73 to 101.78"),
    ),
    *_worse(
        *("Table 10", "camera_attention"),
        *("21.73 to 22.96", "17.15 to 17.94", "105.69 to 101.78"),
    ),
    *_worse(
        *("Table 10", "without_3d"),
        *("16.38 to 22.96", "14.98 to 17.94", "107.74 to 101.78"),
    ),
    *_worse(
        *("Table 10", "without_4d"),
        *("20.74 to 22.96", "17.35 to 17.94", "107.93 to 101.78"),
    ),
    Direction(
        *("App. G", "without_4d", "hardly any object movement", "generated_motion"),
        figures=("px",),
    ),
    Direction(
        *("Sec. 5.4", "no_disentangling", "object and camera motion not told apart"),
        *("spurious_motion", ("px",)),
    ),
)


def train_command(variant: str, seed: int, out: Path, data: Path = Path("data")) -> list[str]:
    """The trainer's command for one run; one that was stopped goes on."""
    return [
        *(sys.executable, "-m", "trainer", "train", "--recipe", f"ablation_{variant}", "--resume"),
        *("--data", str(data), "--set", f"engine.seed={seed}"),
        *("--set", "engine.mixed_precision=bf16", "--out", str(out)),
    ]


def run_folder(runs: Path, variant: str, seed: int) -> Path:
    """Where the run of a variant and seed lies."""
    return runs / f"{variant}_seed{seed}"


def train(
    runs: Path,
    variants: Sequence[str],
    seeds: Sequence[int],
    *,
    run: bool,
    data: Path = Path("data"),
) -> int:
    """Print every run's command, and run those that are not finished.

    Seeds come first: with the first of them done, every variant can be compared.
    """
    for seed in seeds:
        for variant in variants:
            out = run_folder(runs, variant, seed)
            command = train_command(variant, seed, out, data)
            print(" ".join(["python", *command[1:]]), flush=True)
            if run and subprocess.run(command, cwd=ROOT, check=False).returncode:
                print(f"the run of {variant}, seed {seed}, failed; see above", file=sys.stderr)
                return 1
    return 0


def finished_runs(runs: Path) -> dict[str, dict[int, Path]]:
    """The folders of finished runs by variant and seed."""
    found: dict[str, dict[int, Path]] = {}
    for variant in VARIANTS:
        for folder in sorted(runs.glob(f"{variant}_seed*")):
            number = folder.name.removeprefix(f"{variant}_seed")
            if number.isdecimal() and _is_finished(folder):
                found.setdefault(variant, {})[int(number)] = folder
    return found


def _is_finished(folder: Path) -> bool:
    """Whether the weights are those of the run's last step."""
    weights = folder / "unet" / _WEIGHTS
    if not weights.is_file() or not (folder / "run.json").is_file():
        return weights.is_file()
    steps = json.loads((folder / "run.json").read_text(encoding="utf-8"))["engine"]["steps"]
    with safe_open(weights, framework="pt") as opened:
        return (opened.metadata() or {}).get("steps") == str(steps)


def evaluate_run(
    folder: Path, variant: Variant, vae: Autoencoder, dtype: torch.dtype, **options: Any
) -> dict[str, Any]:
    """The figures of one run; kept in its folder, and read from there when nothing changed."""
    kept = folder / "evaluation.json"
    wanted = {
        **{"weights": sha256_of(folder / "unet" / _WEIGHTS), "dtype": str(dtype)},
        **{key: str(value) for key, value in options.items()},
        **{"disentangled": variant.disentangled, "mode_4d": variant.mode_4d},
    }
    if kept.is_file():
        record = json.loads(kept.read_text(encoding="utf-8"))
        if record["of"] == wanted:
            found: dict[str, Any] = record["found"]
            return found
    network = load_network(folder / "unet", dtype=dtype, device=vae.device)
    found = evaluate_variant(
        network,
        vae,
        disentangled=variant.disentangled,
        mode_4d=variant.mode_4d,
        **options,
    )
    text = json.dumps({"of": wanted, "found": found}, indent=1)
    write_atomically(kept, lambda path: path.write_text(text, encoding="utf-8"))
    return found


Table = dict[str, dict[str, list[list[float]]]]
"""By variant and figure: for each training seed one value a scene."""


def collect(results: dict[str, dict[int, dict[str, Any]]]) -> Table:
    """Per-scene values of all runs."""
    table: Table = {}
    for variant, by_seed in results.items():
        for seed in sorted(by_seed):
            for name, figure in by_seed[seed]["figures"].items():
                table.setdefault(variant, {}).setdefault(name, []).append(figure["by_scene"])
    return table


def is_better_high(figure: str) -> bool:
    """Whether larger values of a figure are better."""
    return not figure.endswith(_LOWER_IS_BETTER)


def ahead(table: Table, variant: str, figure: str) -> Interval:
    """By how much the full model is ahead of a variant; positive = the full model is better."""
    ours, other = table[FULL][figure], table[variant][figure]
    pair = (ours, other) if is_better_high(figure) else (other, ours)
    return paired_interval(*pair)


def spread_of_seeds(table: Table, figure: str) -> float | None:
    """Largest difference of the full model's means between its seeds; None with one seed."""
    means = [sum(row) / len(row) for row in table[FULL][figure]]
    return max(means) - min(means) if len(means) > 1 else None


def statement(difference: Interval) -> str:
    """Whether a direction appears, by the interval of how far the full model is ahead."""
    return {1: "appears", 0: "does not appear", -1: "reversed"}[difference.sign]


def compare(table: Table) -> list[dict[str, Any]]:
    """A row for each direction and figure that was measured of both sides."""
    rows: list[dict[str, Any]] = []
    for direction in DIRECTIONS:
        for ending in direction.figures:
            names = _DISTANCES if ending == "distance" else (ending,)
            for figure in (f"{direction.stem}_{name}" for name in names):
                sides = (FULL, direction.variant)
                if not all(figure in table.get(side, {}) for side in sides):
                    continue
                rows.append(_row(table, direction, figure))
    return rows


def not_measured(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Directions of the paper that no row is about, for want of runs or parts."""
    told = {(row["variant"], row["claim"]) for row in rows}
    return [
        f"{d.table}, {VARIANTS[d.variant].title}: {d.claim}"
        for d in DIRECTIONS
        if (d.variant, d.claim) not in told
    ]


def _row(table: Table, direction: Direction, figure: str) -> dict[str, Any]:
    difference = ahead(table, direction.variant, figure)
    spread = spread_of_seeds(table, figure)
    seeds = [len(table[side][figure]) for side in (FULL, direction.variant)]
    return {
        **{"table": direction.table, "variant": direction.variant, "claim": direction.claim},
        **{"figure": figure, "better": "higher" if is_better_high(figure) else "lower"},
        "full": mean_interval(table[FULL][figure]).rounded(),
        "without": mean_interval(table[direction.variant][figure]).rounded(),
        "full_ahead_by": difference.rounded(),
        "seeds": seeds,
        "spread_of_full_seeds": None if spread is None else round(spread, 4),
        "beyond_spread": None if spread is None else abs(difference.mean) > spread,
        "direction": statement(difference),
    }


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """The comparison as a plain table."""
    lines = [
        f"{'':9} {'variant':<24} {'figure':<42} {'full':>8} {'variant':>8}   "
        f"{'full ahead by [95 %]':<28} direction of the paper"
    ]
    for row in rows:
        mean, low, high = row["full_ahead_by"]
        note = ", within the spread of seeds" if row["beyond_spread"] is False else ""
        lines.append(
            f"{row['table']:<9} {VARIANTS[row['variant']].title:<24} {row['figure']:<42} "
            f"{row['full'][0]:8.3f} {row['without'][0]:8.3f}   "
            f"{f'{mean:+.3f} [{low:+.3f}, {high:+.3f}]':<28} {row['direction']}{note}"
        )
    lines += [
        f"{VARIANTS[name].title}: 4D clips sampled in 3D mode, as its temporal layers never trained"
        for name in dict.fromkeys(row["variant"] for row in rows)
        if VARIANTS[name].mode_4d == "3d"
    ]
    return "\n".join(lines)


def means_by_variant(table: Table) -> dict[str, dict[str, list[float]]]:
    """``[mean, low, high]`` of every figure of every variant."""
    return {
        variant: {name: mean_interval(values).rounded() for name, values in figures.items()}
        for variant, figures in table.items()
    }


def evaluate(args: argparse.Namespace) -> int:
    """Measure the finished runs and save the report."""
    found = finished_runs(args.runs)
    if FULL not in found or len(found) < 2:
        print(
            f"runs is {args.runs}, which has finished runs of {', '.join(found) or 'nothing'}; "
            f"expected {FULL} and at least one other. Train them first: see `train`.",
            file=sys.stderr,
        )
        return 2
    vae = Autoencoder.from_pretrained(args.vae, device=args.device)
    options = {"scenes": args.scenes, "steps": args.steps, "guidance": args.guidance}
    options |= {"parts": tuple(args.parts), "perceptual": args.perceptual, "batch": args.batch}
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for variant, by_seed in found.items():
        for seed, folder in by_seed.items():
            record = evaluate_run(folder, VARIANTS[variant], vae, DTYPES[args.dtype], **options)
            results.setdefault(variant, {})[seed] = record
            print(f"{variant}, seed {seed}: {record['seconds']} s", flush=True)
    table = collect(results)
    rows = compare(table)
    print(as_text(rows))
    print("\n".join(f"not measured: {line}" for line in not_measured(rows)))
    report = {
        "runs": _runs_record(found),
        "settings": {key: record["settings"] for key, record in _any_of(results).items()},
        "means": means_by_variant(table),
        "directions": rows,
        "not_measured": not_measured(rows),
        "table": as_text(rows).splitlines(),
        "by_scene": table,
    }
    save("ablations", args.name, args.device, report)
    return 0


def _any_of(results: dict[str, dict[int, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {variant: next(iter(by_seed.values())) for variant, by_seed in results.items()}


def _runs_record(found: dict[str, dict[int, Path]]) -> list[dict[str, Any]]:
    """Command, weights and settings of every run."""
    records = []
    for variant, by_seed in found.items():
        for seed, folder in by_seed.items():
            command = train_command(
                variant, seed, run_folder(Path("runs/ablations"), variant, seed)
            )
            records.append(
                {
                    **{"variant": variant, "seed": seed},
                    "command": " ".join(["python", *command[1:]]),
                    "weights_sha256": sha256_of(folder / "unet" / _WEIGHTS),
                    "settings": _settings_of(folder),
                }
            )
    return records


def _settings_of(folder: Path) -> Any:
    """What the trainer recorded of a run, without the places where its files lay."""
    file = folder / "run.json"
    if not file.is_file():
        return None
    return without_places(json.loads(file.read_text(encoding="utf-8")))


def without_places(value: Any) -> Any:
    """The same values with absolute paths cut to their last part."""
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    is_place = isinstance(value, str) and Path(value).is_absolute()
    return Path(value).name if is_place else value


def main() -> int:
    """Train or evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="print or run the trainings")
    training.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    training.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    training.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    training.add_argument("--data", type=Path, default=Path("data"), help="holds latents/")
    training.add_argument("--run", action="store_true", help="run them, one after the other")
    measuring = commands.add_parser("evaluate", help="measure finished runs")
    measuring.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    measuring.add_argument("--vae", type=Path, default=NANO, help="folder that holds vae/")
    measuring.add_argument("--scenes", type=int, default=32, help="of each part")
    measuring.add_argument("--steps", type=int, default=25)
    measuring.add_argument("--guidance", type=float, default=1.0, help="1 = none")
    measuring.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    measuring.add_argument("--perceptual", type=Path, help="AlexNet's file, for real LPIPS")
    measuring.add_argument("--batch", type=int, default=8, help="clips at a time")
    measuring.add_argument("--dtype", choices=sorted(DTYPES), default="fp32")
    measuring.add_argument("--name", default="nano", help="in the name of the results' file")
    measuring.add_argument("--device", default="cpu", help="cpu or cuda")
    measuring.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice"
    )
    args = parser.parse_args()
    if args.command == "train":
        return train(args.runs, args.variants, args.seeds, run=args.run, data=args.data)
    if args.threads:
        torch.set_num_threads(args.threads)
    return evaluate(args)


if __name__ == "__main__":
    sys.exit(main())
