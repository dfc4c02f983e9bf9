"""One picture to a moving scene with genxd-nano, end to end: the objects' paths, times, memory.

Held-out scenes in which a ball hops. Each gives its first picture, its motion strength and nothing
else: a 3D pass makes 40 views along half an orbit, a 4D pass 12 frames along a sixth of one, and
`fit_gaussians_4d` lifts both. The result is drawn before the first camera, standing still, and the
middle of what differs from the empty scene is compared with the truth's, in pixels of 64. Beside it
stand the scene with its time frozen, and what the model itself makes for a camera that stands.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

import genxd_core as gx
from benchmarks._report import PeakMemory, save
from genxd_core.assets import NANO
from genxd_core.evaluation.nano import orbit_from
from genxd_core.evaluation.object_paths import (
    HOP_FAMILY,
    Hop,
    hopping_scenes,
    near_path,
    object_path,
    rise,
)
from genxd_core.lifting.losses import psnr
from genxd_core.media import contact_sheet, save_image
from genxd_core.model.motion_strength import gamma_to_motion_strength
from genxd_core.synthetic import make_clips

__all__ = ["from_one_picture"]

_FRAMES, _VIEWS, _SIZE = 12, 40, 64
_AROUND, _SHOT = 180.0, 60.0


def from_one_picture(
    pipe: gx.GenXDPipeline, scene: Hop, recipe: str, seed: int
) -> tuple[dict[str, float], Tensor]:
    """Figures of one scene, and rows of pictures.

    Before the camera that stands: truth, result, the same frozen, what the model makes; along
    the moving one: the 4D pass, the result.

    Args:
        pipe: the model.
        scene: its first picture alone is given.
        recipe: of `fit_gaussians_4d`.
        seed: of the noise and the fit.
    """
    clip, empty = scene.clip, scene.empty
    truth, first = clip.images[0], clip.c2w[0, 0]
    times = torch.linspace(0, 1, _FRAMES)
    Ks_norm = clip.Ks_norm[0, :1]
    around = gx.Cameras(orbit_from(first, _AROUND, _VIEWS), Ks_norm.expand(_VIEWS, -1, -1))
    turned = orbit_from(first, _SHOT, _FRAMES)
    shot = gx.Cameras(turned, Ks_norm.expand(_FRAMES, -1, -1), times)
    still = gx.Cameras(first.expand(_FRAMES, -1, -1), shot.Ks_norm, times)
    strength = gamma_to_motion_strength(float(clip.motion_strength[0]))
    options: dict[str, Any] = {"mode": "4d", "motion_strength": strength, "guidance_scale": 1.5}
    row: dict[str, float] = {"motion_strength": strength}

    def generated(cameras: gx.Cameras) -> Tensor:
        noise = torch.Generator().manual_seed(seed)
        return pipe(truth[:1], [0], cameras, generator=noise, **options).frames.cpu()

    with _Stage(row, "3d_pass", pipe.device):
        views = gx.generate_path(
            pipe, truth[:1], around[:1], around, seed=seed, guidance_scale=1.5
        ).frames
    with _Stage(row, "4d_pass", pipe.device):
        frames = generated(shot)
    with _Stage(row, "lift", pipe.device):
        found = gx.fit_gaussians_4d(
            frames,
            shot,
            static_images=views,
            static_cameras=around,
            recipe=gx.adjusted_recipe_4d(recipe, lpips=0.0),
            seed=seed,
            device=pipe.device,
        )
    row["lift_static_seconds"] = found.metrics["static_seconds"]
    size = {"width": _SIZE, "height": _SIZE}
    drawn = gx.render_views(found.gaussians, still, **size).rgb.clamp(0, 1)
    frozen = gx.render_views(found.gaussians.at(0.0), still, **size).rgb.clamp(0, 1)
    moving = gx.render_views(found.gaussians, shot, **size).rgb.clamp(0, 1)
    as_generated = generated(still)
    near = near_path(truth, empty)
    path = object_path(truth, empty, near)
    for name, pictures in (("", drawn), ("frozen_", frozen), ("generated_", as_generated)):
        ours = object_path(pictures, empty, near)
        row[f"{name}path_error_px"] = float((ours - path).norm(dim=-1).mean())
        row[f"{name}rise_px"] = rise(ours)
        row[f"{name}psnr_db"] = float(psnr(pictures, truth).mean())
    row["true_rise_px"] = rise(path)
    along = make_clips([scene.seed], HOP_FAMILY, num_frames=_FRAMES, size=_SIZE, c2w=turned[None])
    row["shot_psnr_db"] = float(psnr(moving, along.images[0]).mean())
    return row, torch.stack([truth, drawn, frozen, as_generated, frames, moving])


class _Stage:
    """Seconds and peak memory of a stage, noted in a row."""

    def __init__(self, row: dict[str, float], name: str, device: torch.device) -> None:
        self._row, self._name, self._memory = row, name, PeakMemory(device)

    def __enter__(self) -> None:
        self._memory.__enter__()
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._row[f"{self._name}_seconds"] = time.perf_counter() - self._began
        self._memory.__exit__()
        self._row[f"{self._name}_peak_mib"] = self._memory.mib


def main() -> int:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--recipe", default="demo", choices=list(gx.RECIPES_4D))
    parser.add_argument("--pictures", type=Path, help="folder for pictures to look at")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = gx.GenXDPipeline.from_pretrained(NANO, device=args.device)
    rows = []
    for number, scene in enumerate(hopping_scenes(args.scenes, num_frames=_FRAMES, size=_SIZE)):
        row, pictures = from_one_picture(pipe, scene, args.recipe, seed=number)
        rows.append({key: round(value, 3) for key, value in row.items()})
        print(number, rows[-1], flush=True)
        if args.pictures is not None:
            args.pictures.mkdir(parents=True, exist_ok=True)
            sheet = contact_sheet(pictures.flatten(0, 1), columns=_FRAMES)
            save_image(sheet, args.pictures / f"scene_{number}.png")
    means = {key: round(mean(row[key] for row in rows), 3) for key in rows[0]}
    result = {"recipe": args.recipe, "size_px": _SIZE, "scenes": len(rows), **means}
    save("image_to_4d", args.recipe, args.device, {**result, "by_scene": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
