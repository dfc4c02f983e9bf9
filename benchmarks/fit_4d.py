"""Fitting Gaussians that move: held-out quality against a scene at rest, and the objects' paths.

Two balls that bob before white, 16 cameras at 12 times; pairs of a camera and a time are held out.
The path is measured before a still camera: the mean place of what the two balls cover together
would stay where it is, so each ball's own mean colour tells it from the other.
"""

import argparse
import sys
from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

import genxd_core as gx
from benchmarks._report import PeakMemory, save
from genxd_core.lifting.losses import psnr
from genxd_core.synthetic import HELD_OUT, MovingObjectViews, make_moving_object_views

__all__ = ["on_moving_objects", "path_error"]

# Held-out scenes whose seeds nothing was tuned on begin here.
FIRST_SCENE = HELD_OUT + 201
_WHITE = (1.0, 1.0, 1.0)


def on_moving_objects(
    method: str, recipe: str, seeds: Sequence[int], device: str, **shape: int
) -> dict[str, Any]:
    """One recipe without LPIPS on some scenes.

    Args:
        method: "hexplane" (`fit_gaussians_4d`) or "bases" (`fit_motion_bases`).
        recipe: of the method.
        seeds: of the scenes.
        device: that fits.
        **shape: of `make_moving_object_views`.
    """
    rows = []
    with PeakMemory(device) as memory:
        for seed in seeds:
            views = make_moving_object_views(seed, **shape)
            given = {"held_out": views.held_out, "device": device}
            if method == "hexplane":
                settings = gx.adjusted_recipe_4d(recipe, lpips=0.0)
                found = gx.fit_gaussians_4d(
                    views.images, views.cameras, masks=views.masks, recipe=settings, **given
                )
            else:
                found = gx.fit_motion_bases(
                    views.images,
                    views.cameras,
                    views.masks,
                    plain_background=True,
                    recipe=recipe,
                    **given,
                )
            rows.append(_row(views, found))
            print(seed, rows[-1], flush=True)
    count = len(rows)
    return {
        **{"method": method, "recipe": recipe, "scenes": count, "backend": found.backend},
        **{"pictures": len(views.images), "held_out": len(views.held_out)},
        "by_scene": [row["psnr_db"] for row in rows],
        **{key: round(mean(row[key] for row in rows), 3) for key in rows[0]},
        "peak_mib": round(memory.mib),
    }


def _row(views: MovingObjectViews, found: gx.FitResult4D) -> dict[str, float]:
    index = torch.tensor(views.held_out)
    unseen, truth = views.cameras[index], views.images[index]
    # Where no stage stands still, the first moment does.
    rest = found.gaussians.at(0.0) if found.static is None else found.static.gaussians
    still = psnr(_draw(rest, unseen, views), truth).mean()
    return {
        "psnr_db": round(found.metrics["held_out_psnr"], 2),
        "ssim": round(found.metrics["held_out_ssim"], 4),
        "static_psnr_db": round(float(still), 2),
        "path_error_px": round(path_error(found.gaussians, views), 3),
        "frozen_path_error_px": round(path_error(found.gaussians.at(0.0), views), 3),
        "static_seconds": round(found.metrics["static_seconds"], 1),
        "seconds": round(found.metrics["seconds"], 1),
        "gaussians": found.metrics["num_gaussians"],
    }


def path_error(scene: gx.Gaussians | gx.Gaussians4D, views: MovingObjectViews) -> float:
    """Mean distance in pixels of the balls' middles from the truth, before every camera in turn.

    A pixel belongs to the ball whose projected true middle is nearer; pictures in which one hides a
    part of the other are left out.
    """
    num_times = len(views.centres)
    num_views = len(views.images) // num_times
    drawn = gx.render_views(
        scene, views.cameras, width=views.images.shape[3], height=views.images.shape[2]
    ).alpha[:, 0]
    errors = []
    for view in range(len(views.images)):
        middles = _projected(views, view, view // num_views)
        apart = float((middles[0] - middles[1]).norm())
        if apart < _APART * views.images.shape[3]:
            continue
        ours, true = (_middles(share, middles) for share in (drawn[view], views.masks[view, 0]))
        errors.append(float((ours - true).norm(dim=-1).mean()))
    return mean(errors) if errors else float("nan")


_APART = 0.3  # of the picture's width: the two balls are beside each other


def _projected(views: MovingObjectViews, view: int, time: int) -> Tensor:
    """(2, 2) places of the balls' middles in pixels."""
    camera = views.cameras[view]
    height, width = views.images.shape[2:]
    viewmat, K = camera.viewmats[0], camera.Ks(width, height)[0]
    local = views.centres[time] @ viewmat[:3, :3].T + viewmat[:3, 3]
    flat = local @ K.T
    return flat[:, :2] / flat[:, 2:]


def _middles(cover: Tensor, middles: Tensor) -> Tensor:
    """(2, 2) mean places of what covers the picture, each pixel counted for the nearer ball."""
    height, width = cover.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    place = torch.stack([x, y], -1)
    nearer = (place[:, :, None] - middles).norm(dim=-1).argmin(-1)
    found = []
    for ball in range(2):
        weight = cover * (nearer == ball)
        found.append((weight[..., None] * place).sum((0, 1)) / weight.sum().clamp_min(1e-6))
    return torch.stack(found)


def _draw(scene: gx.Gaussians, cameras: gx.Cameras, views: MovingObjectViews) -> Tensor:
    height, width = views.images.shape[2:]
    drawn = gx.render_views(scene, cameras, width=width, height=height, background=_WHITE)
    return drawn.rgb.clamp(0, 1)


def main() -> int:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=["hexplane", "bases"], default="hexplane")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--size", type=int, default=96, help="of the pictures, px")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    seeds = [FIRST_SCENE + number for number in range(args.scenes)]
    row = on_moving_objects(args.method, args.recipe, seeds, args.device, size=args.size)
    save(
        "fit_4d",
        f"{args.method}_{args.recipe}",
        args.device,
        {"seeds": seeds, "size_px": args.size, **row},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
