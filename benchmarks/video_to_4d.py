"""Video to 4D: the moving splat beside the truth, before and after its round of refinement.

Held-out films of procedural scenes, each taken by a camera that stands still. The splat is drawn at
the cameras whose videos were generated, the film's own among them, and at cameras between, at all
times, and compared with what those cameras see in truth. Flicker is the mean absolute error of
differences between neighbouring times, in [0, 1].
"""

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

import genxd_core as gx
from benchmarks._report import PeakMemory, save
from genxd_core.assets import NANO
from genxd_core.lifting.losses import psnr, ssim
from genxd_core.refinement.multiview import cameras_of_views
from genxd_core.synthetic import HELD_OUT, make_clips

__all__ = ["FIRST_SCENE", "moved_scenes", "on_film", "turned_about"]

FIRST_SCENE = HELD_OUT + 301
_FAMILY = "nano_video"
_WHITE = (1.0, 1.0, 1.0)
_LEAST_MOTION = 0.02  # of a film; about a third of this family's stand still


def moved_scenes(count: int) -> list[int]:
    """Seeds of the first films in which something moves."""
    seeds: list[int] = []
    seed = FIRST_SCENE
    while len(seeds) < count:
        if float(make_clips([seed], _FAMILY, size=64).motion_strength) >= _LEAST_MOTION:
            seeds.append(seed)
        seed += 1
    return seeds


def turned_about(camera: gx.Cameras, azimuths_deg: Sequence[float]) -> gx.Cameras:
    """The same camera turned about the scene's upright axis, once for each angle."""
    turn = torch.eye(4).repeat(len(azimuths_deg), 1, 1)
    angles = torch.deg2rad(torch.tensor(list(azimuths_deg)))
    turn[:, 0, 0] = turn[:, 1, 1] = angles.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -angles.sin(), angles.sin()
    return gx.Cameras(turn @ camera.c2w, camera.Ks_norm.expand(len(turn), 3, 3))


def on_film(
    pipe: gx.GenXDPipeline,
    seed: int,
    *,
    views: Sequence[float],
    between: Sequence[float],
    static: Sequence[float],
    num_frames: int,
    size: int,
    **options: Any,
) -> dict[str, Any]:
    """One film: PSNR, SSIM and flicker before and after, seconds of each stage.

    Args:
        pipe: that generates.
        seed: of the film.
        views: angles of the cameras whose videos are generated; the film's own is 0.
        between: angles of cameras to compare at as well.
        static: angles of more cameras for the first frame.
        num_frames: of the film.
        size: of its pictures, px.
        options: of `video_to_4d`.
    """
    film = make_clips([seed], _FAMILY, num_frames=num_frames, size=size)
    camera = film.cameras(0)[[0]]
    at = {"views": turned_about(camera, views), "between": turned_about(camera, between)}
    truth = {name: _truth(seed, cameras, num_frames, size) for name, cameras in at.items()}
    began = time.perf_counter()
    found = gx.video_to_4d(
        pipe,
        film.images[0],
        camera,
        at["views"],
        static_cameras=turned_about(camera, static),
        seed=seed,
        **options,
    )
    seconds = time.perf_counter() - began
    row: dict[str, Any] = {}
    (last,) = found.rounds
    assert last.fit is not None
    iterations = int(last.fit.metrics["iterations"])
    longer = gx.fit_gaussians_4d(
        found.videos.frames.flatten(0, 1),
        found.videos.cameras,
        recipe=gx.adjusted_recipe_4d(options["recipe"], iterations=iterations),
        resume=found.first.gaussians,
        seed=seed,
        device=options.get("device"),
    )
    scenes = {
        "before": found.first.gaussians,
        "longer": longer.gaussians,
        "after": found.gaussians,
    }
    for when, scene in scenes.items():
        for name, cameras in at.items():
            drawn = _drawn(scene, cameras, num_frames, size)
            pair = (drawn.flatten(0, 1), truth[name].flatten(0, 1))
            row[f"{name}_psnr_{when}"] = float(psnr(*pair).mean())
            row[f"{name}_ssim_{when}"] = float(ssim(*pair).mean())
            row[f"{name}_flicker_{when}"] = _flicker(drawn, truth[name])
    row["generated_psnr"] = float(
        psnr(found.videos.frames.flatten(0, 1), truth["views"].flatten(0, 1)).mean()
    )
    drawn_psnr, refined_psnr = _path_quality(last, seed)
    row |= {"paths_psnr_drawn": drawn_psnr, "paths_psnr_refined": refined_psnr}
    row |= {key: value for key, value in found.metrics.items() if key.endswith("_seconds")}
    return row | {"seconds": seconds}


def _truth(seed: int, cameras: gx.Cameras, num_frames: int, size: int) -> Tensor:
    """What each camera sees of the film's scene at all times, (n, t, 3, H, W)."""
    c2w = cameras.c2w[:, None].expand(-1, num_frames, 4, 4)
    return make_clips([seed] * len(cameras), _FAMILY, size=size, c2w=c2w).images


def _drawn(scene: gx.Gaussians4D, cameras: gx.Cameras, num_frames: int, size: int) -> Tensor:
    path = cameras_of_views(cameras, num_frames)
    drawn = gx.render_views(scene, path, width=size, height=size, background=_WHITE)
    return drawn.rgb.clamp(0, 1).unflatten(0, (len(cameras), num_frames))


def _flicker(drawn: Tensor, truth: Tensor) -> float:
    return float((drawn.diff(dim=1) - truth.diff(dim=1)).abs().mean())


def _path_quality(last: gx.RefinementRound, seed: int) -> tuple[float, float]:
    """PSNR of the frames that were refined, as drawn and as refined."""
    pairs = []
    for path, given, drawn, out in zip(
        last.paths, last.conditions, last.drawn, last.refined, strict=True
    ):
        truth = make_clips([seed], _FAMILY, size=drawn.shape[2:], c2w=path.c2w[None]).images[0]
        made = [frame for frame in range(len(path)) if frame not in given]
        pairs.append([float(psnr(x[made], truth[made]).mean()) for x in (drawn, out.frames)])
    return mean(pair[0] for pair in pairs), mean(pair[1] for pair in pairs)


def main() -> int:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument(
        "--views", type=float, nargs="+", default=[-36, -18, 0, 18, 36], help="degrees"
    )
    parser.add_argument(
        "--between", type=float, nargs="+", default=[-27, -9, 9, 27], help="degrees"
    )
    parser.add_argument("--static", type=float, nargs="+", default=range(-60, 61, 12))
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--size", type=int, default=64, help="of the pictures, px")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--motion", type=float, default=1.5, help="motion strength")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--iterations", type=int, default=600, help="of the recipe, with motion")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = gx.GenXDPipeline.from_pretrained(NANO, device=args.device)
    seeds = moved_scenes(args.scenes)
    shape = {"views": args.views, "between": args.between, "static": list(args.static)}
    shape |= {"num_frames": args.frames, "size": args.size}
    generating = {"num_inference_steps": args.steps, "guidance_scale": args.guidance}
    generating |= {"motion_strength": args.motion}
    recipe = gx.adjusted_recipe_4d(args.recipe, iterations=args.iterations, lpips=0.0)
    rows = []
    with PeakMemory(args.device) as memory:
        for seed in seeds:
            rows.append(
                on_film(pipe, seed, **shape, **generating, recipe=recipe, device=args.device)
            )
            print(seed, rows[-1], flush=True)
    results = {
        **{"seeds": seeds, **shape, **generating},
        **{"recipe": args.recipe, "iterations": args.iterations},
        "mean": {key: round(mean(row[key] for row in rows), 4) for key in rows[0]},
        "by_scene": [{key: round(value, 4) for key, value in row.items()} for row in rows],
        "peak_mib": round(memory.mib),
    }
    save("video_to_4d", "nano", args.device, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
