"""Fitting Gaussians: held-out quality, time and memory on objects, a capture, and generated views.

Three parts, each with its own scenes; ``--part`` picks one:

- ``objects``: the recipes on synthetic objects, 24 views to fit and 8 others to compare with.
- ``capture``: photographs with a camera file (``--capture``), every third one held out.
- ``generated``: three pictures of a held-out scene, fitted alone and with the views that a model
  generates between them (the comparison of the paper's Tab. 4); both are compared with the true
  pictures of cameras that neither had, on the path between two generated views and beside it.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

import genxd_core as gx
from benchmarks._report import PeakMemory, save
from benchmarks.long_path import scenes_on_orbits
from genxd_core.assets import NANO
from genxd_core.lifting.losses import psnr, ssim
from genxd_core.media import contact_sheet, save_image
from genxd_core.synthetic import HELD_OUT, make_object_views

__all__ = ["on_capture", "on_objects", "with_generated_views"]

# Held-out scenes whose seeds no recipe was tuned on begin here.
FIRST_OBJECT = HELD_OUT + 101
# Recipe, side of the pictures, whether masks are given.
OBJECT_SETUPS = (
    ("single_view", 128, True),
    ("demo", 128, True),
    ("demo", 128, False),
    ("test", 64, True),
)
_GIVEN = (0.0, 0.5, 1.0)
_WHITE = (1.0, 1.0, 1.0)  # what fits are told is behind everything, unless told otherwise


def on_objects(
    recipe: str, size: int, masks: bool, seeds: Sequence[int], device: str
) -> dict[str, Any]:
    """One recipe without LPIPS on some objects."""
    rows = []
    with PeakMemory(device) as memory:
        for seed in seeds:
            views = make_object_views(seed, size=size)
            found = gx.fit_gaussians(
                views.images,
                views.cameras,
                recipe=replace(gx.RECIPES[recipe], lpips=0.0),
                masks=views.masks if masks else None,
                held_out=views.held_out,
                device=device,
            )
            rows.append(found.metrics)
    held_out = [row["held_out_psnr"] for row in rows]
    return {
        **{"recipe": recipe, "px": size, "masks": masks, "start": found.start},
        **{"backend": found.backend, "scenes": len(rows)},
        "held_out_psnr_db": round(mean(held_out), 2),
        "by_scene": [round(value, 2) for value in held_out],
        "held_out_ssim": round(mean(row["held_out_ssim"] for row in rows), 4),
        "fitted_psnr_db": round(mean(row["psnr"] for row in rows), 2),
        "gaussians": round(mean(row["num_gaussians"] for row in rows)),
        "seconds": round(mean(row["seconds"] for row in rows), 1),
        "peak_mib": round(memory.mib),
    }


def on_capture(
    capture: gx.Capture, recipe: gx.FitRecipe, device: str, pictures: Path | None, **options: Any
) -> dict[str, Any]:
    """One recipe on photographs, every third one held out."""
    held_out = list(range(1, len(capture.images), 3))
    with PeakMemory(device) as memory:
        found = gx.fit_gaussians(
            capture.images,
            capture.cameras,
            recipe=recipe,
            points=capture.points,
            held_out=held_out,
            device=device,
            **options,
        )
    height, width = capture.images.shape[2:]
    unseen = capture.cameras[torch.tensor(held_out)]
    drawn = _draw(found.gaussians, unseen, width, height)
    each = psnr(drawn, capture.images[held_out])
    if pictures is not None:
        rows = gx.compare_views(found, capture.images, capture.cameras, held_out)
        captions = [f"{capture.names[view]}: photo, drawn, 3 x difference" for view in held_out]
        save_image(contact_sheet(rows, captions=captions), pictures / "capture.png")
    return {
        "size": [width, height],
        "photos": len(capture.images),
        "held_out": [capture.names[view] for view in held_out],
        "held_out_psnr_db": round(found.metrics["held_out_psnr"], 2),
        "by_photo": [round(float(value), 2) for value in each],
        "held_out_ssim": round(found.metrics["held_out_ssim"], 4),
        "fitted_psnr_db": round(found.metrics["psnr"], 2),
        "fitted_ssim": round(found.metrics["ssim"], 4),
        "iterations": recipe.iterations,
        "start": found.start,
        "backend": found.backend,
        "gaussians": found.metrics["num_gaussians"],
        "seconds": round(found.metrics["seconds"], 1),
        "peak_mib": round(memory.mib),
    }


def with_generated_views(
    pipe: gx.GenXDPipeline,
    recipe: gx.FitRecipe,
    *,
    scenes: int,
    num_views: int,
    size: int,
    start: str = "auto",
    pictures: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Three pictures alone against the same with generated views between them."""
    # Every second camera is on the path; those between are what both are compared with.
    clips = scenes_on_orbits(scenes, 2 * num_views - 1, size)
    rows: list[dict[str, float]] = []
    sheets: list[Tensor] = []
    for scene in range(scenes):
        truth, cameras = clips.images[scene], clips.cameras(scene)
        path, unseen = cameras[::2], cameras[1::2]
        at = [round(place * (num_views - 1)) for place in _GIVEN]
        given = truth[::2][at]
        began = time.perf_counter()
        generated = gx.generate_path(pipe, given, path[at], path, seed=scene, **options)
        row = {"seconds_generating": time.perf_counter() - began}
        drawn = {}
        for name, images, seen in (
            ("alone", given, path[at]),
            ("generated", generated.frames, path),
        ):
            found = gx.fit_gaussians(
                images,
                seen,
                recipe=recipe,
                start=start,
                seed=scene,
                perceptual="gradient",
                device=pipe.device,
            )
            drawn[name] = _draw(found.gaussians, unseen, size, size)
            row[f"psnr_{name}"] = float(psnr(drawn[name], truth[1::2]).mean())
            row[f"ssim_{name}"] = float(ssim(drawn[name], truth[1::2]).mean())
            row[f"seconds_{name}"] = found.metrics["seconds"]
        rows.append(row)
        sheets.append(_sheet_row(truth[1::2], drawn["alone"], drawn["generated"]))
        print(scene, {key: round(value, 2) for key, value in row.items()}, flush=True)
    if pictures is not None:
        captions = [f"scene {scene}: true; three alone; with generated" for scene in range(scenes)]
        save_image(contact_sheet(torch.stack(sheets), captions=captions), pictures / "views.png")
    gains = [row["psnr_generated"] - row["psnr_alone"] for row in rows]
    error = stdev(gains) / len(gains) ** 0.5 if scenes > 1 else float("nan")
    return {
        **{"scenes": scenes, "views": num_views, "unseen": num_views - 1, "px": size},
        **{"recipe": _told(recipe), "start": start, **options},
        **{key: round(mean(row[key] for row in rows), 4) for key in rows[0]},
        "gain_db": round(mean(gains), 3),
        "gain_standard_error_db": round(error, 3),
        "scenes_better": sum(gain > 0 for gain in gains),
        "gain_by_scene_db": [round(gain, 2) for gain in gains],
    }


def _draw(gaussians: gx.Gaussians, cameras: gx.Cameras, width: int, height: int) -> Tensor:
    drawn = gx.render_views(gaussians, cameras, width=width, height=height, background=_WHITE)
    return drawn.rgb.clamp(0, 1)


def _sheet_row(*parts: Tensor) -> Tensor:
    """A few unseen views of each part side by side."""
    few = [0, len(parts[0]) // 4, len(parts[0]) // 2]
    return torch.cat([view for part in parts for view in part[few]], -1)


def _told(recipe: gx.FitRecipe) -> dict[str, Any]:
    return {"iterations": recipe.iterations, "gaussians": recipe.num_gaussians, "l1": recipe.l1} | {
        "ssim": recipe.ssim,
        "gradient": recipe.lpips,
    }


def _objects(args: argparse.Namespace) -> dict[str, Any]:
    seeds = [FIRST_OBJECT + number for number in range(args.scenes or 4)]
    rows = []
    for recipe, size, masks in OBJECT_SETUPS:
        rows.append(on_objects(recipe, size, masks, seeds, args.device))
        print(rows[-1], flush=True)
    return {"seeds": seeds, "rows": rows}


def _capture(args: argparse.Namespace) -> dict[str, Any]:
    if args.capture is None:
        raise SystemExit("--part capture needs --capture FOLDER, with a COLMAP model and photos.")
    capture = gx.load_capture(args.capture, max_side=args.max_side)
    recipe = gx.RECIPES[args.recipe or "demo"]
    return {
        "capture": args.capture.name,
        "recipe": args.recipe or "demo",
        **on_capture(
            capture, _adjusted(recipe, args), args.device, args.pictures, perceptual="gradient"
        ),
    }


def _generated(args: argparse.Namespace) -> dict[str, Any]:
    pipe = gx.GenXDPipeline.from_pretrained(NANO, device=args.device)
    return {
        "recipe_name": args.recipe or "demo",
        **with_generated_views(
            pipe,
            _adjusted(gx.RECIPES[args.recipe or "demo"], args),
            scenes=args.scenes or 16,
            num_views=args.views,
            size=64,
            start=args.start,
            pictures=args.pictures,
            num_inference_steps=args.steps,
            guidance_scale=args.guidance,
        ),
    }


def _adjusted(recipe: gx.FitRecipe, args: argparse.Namespace) -> gx.FitRecipe:
    return recipe if args.iterations is None else replace(recipe, iterations=args.iterations)


def main() -> int:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"objects": _objects, "capture": _capture, "generated": _generated}
    parser.add_argument("--part", choices=list(parts), required=True)
    parser.add_argument("--scenes", type=int, help="objects: 4, generated: 16 unless told")
    parser.add_argument("--recipe", choices=list(gx.RECIPES), help="of capture and generated")
    parser.add_argument("--iterations", type=int, help="instead of the recipe's")
    parser.add_argument("--start", default="auto", help="of the fits to generated views")
    parser.add_argument("--capture", type=Path, help="folder of a capture")
    parser.add_argument("--max-side", type=int, default=512, help="of the capture's photos, px")
    parser.add_argument("--views", type=int, default=37, help="of a generated path")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--pictures", type=Path, help="folder for pictures to look at")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    variant = args.part if args.part == "objects" else f"{args.part}_{args.recipe or 'demo'}"
    save("fit", variant, args.device, parts[args.part](args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
