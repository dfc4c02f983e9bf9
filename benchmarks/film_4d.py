"""A film from one moving camera to a scene that moves: held-out frames, time and memory a stage.

By default the bundled film of a dog (``workflows/inputs/genxd_dog``); ``--film`` takes another
folder with ``images``, ``masks`` (white = moves) and COLMAP's model in ``sparse/0``. One frame in
four is held out. PSNR is told for whole frames, for what is at rest and for what moves, beside the
scene of the first stage, in which nothing moves.
"""

import argparse
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

import genxd_core as gx
from benchmarks._report import PeakMemory, save
from genxd_core.capture_masks import load_capture_masks
from genxd_core.lifting.comparison import held_out_views
from genxd_core.media import contact_sheet, save_image
from tools.environment import ROOT

__all__ = ["on_film"]

FILM = ROOT / "workflows" / "inputs" / "genxd_dog"
_GREY = (0.5, 0.5, 0.5)
_EVERY = 4


def on_film(
    folder: Path, recipe: str, max_side: int, device: str, pictures: Path | None = None
) -> dict[str, Any]:
    """One recipe of `fit_motion_bases` on a film.

    Args:
        folder: with ``images``, ``masks`` and ``sparse/0``.
        recipe: of `fit_motion_bases`.
        max_side: of the frames in pixels.
        device: that fits.
        pictures: folder for what is to be looked at.
    """
    film = gx.load_capture(folder, max_side=max_side)
    height, width = film.images.shape[2:]
    size = {"width": width, "height": height}
    masks = load_capture_masks(folder / "masks", folder / "sparse" / "0", film.names, **size)
    times = torch.linspace(0, 1, len(film.images))
    cameras = gx.Cameras(film.cameras.c2w, film.cameras.Ks_norm, times)
    held_out = held_out_views(len(film.images), _EVERY)
    stages = _Stages(gx.RECIPES_BASES[recipe].static.iterations, device)
    found = gx.fit_motion_bases(
        film.images,
        cameras,
        masks,
        recipe=recipe,
        background=_GREY,
        points=film.points,
        held_out=held_out,
        device=device,
        on_step=stages,
    )
    peaks = stages.done()
    index = torch.tensor(held_out)
    truth, moves = film.images[index], masks[index] > 0.5
    drawn = gx.render_views(found.gaussians, cameras[index], background=_GREY, **size).rgb
    assert found.static is not None
    still = gx.render_views(found.static.gaussians, cameras[index], background=_GREY, **size).rgb
    if pictures is not None:
        rows = gx.compare_views(found, film.images, cameras, held_out, background=_GREY)
        captions = [f"{film.names[view]}: frame, drawn, 3 x difference" for view in held_out]
        save_image(contact_sheet(rows, captions=captions), pictures / "film.png")
    static_seconds = found.metrics["static_seconds"]
    return {
        **{"film": folder.name, "recipe": recipe, "size": [width, height]},
        **{"frames": len(film.images), "held_out": [film.names[view] for view in held_out]},
        **{"start": found.start, "backend": found.backend},
        "held_out_psnr_db": _db(drawn, truth),
        "held_out_ssim": round(found.metrics["held_out_ssim"], 4),
        "at_rest_psnr_db": _db(drawn, truth, ~moves),
        "moving_psnr_db": _db(drawn, truth, moves),
        "by_frame": [_db(drawn[[k]], truth[[k]]) for k in range(len(held_out))],
        "first_stage_psnr_db": _db(still, truth),
        "first_stage_moving_psnr_db": _db(still, truth, moves),
        "fitted_psnr_db": round(found.metrics["psnr"], 2),
        "gaussians": found.metrics["num_gaussians"],
        "moving_gaussians": found.metrics["num_moving"],
        "static_seconds": round(static_seconds, 1),
        "moving_seconds": round(found.metrics["seconds"] - static_seconds, 1),
        "static_peak_mib": peaks[0],
        "moving_peak_mib": peaks[1],
    }


class _Stages:
    """Peak memory of the first stage and of the second, told apart by the iteration."""

    def __init__(self, first: int, device: str) -> None:
        self._first, self._device = first, device
        self._peaks: list[int] = []
        self._memory = PeakMemory(device)
        self._memory.__enter__()

    def __call__(self, step: gx.FitStep) -> None:
        if step.iteration == self._first:
            self._next()

    def _next(self) -> None:
        self._memory.__exit__()
        self._peaks.append(round(self._memory.mib))
        self._memory = PeakMemory(self._device)
        self._memory.__enter__()

    def done(self) -> list[int]:
        self._next()
        self._memory.__exit__()
        return self._peaks


def _db(drawn: Tensor, truth: Tensor, where: Tensor | None = None) -> float:
    """Mean PSNR over pictures, of some of their pixels."""
    found = []
    for view in range(len(truth)):
        error = (drawn[view].clamp(0, 1) - truth[view]).square()
        part = error if where is None else error[where[view].expand_as(error)]
        if part.numel():
            found.append(float(-10 * part.mean().clamp_min(1e-10).log10()))
    return round(mean(found), 2)


def main() -> int:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--film", type=Path, default=FILM)
    parser.add_argument("--recipe", default="demo", choices=list(gx.RECIPES_BASES))
    parser.add_argument("--max-side", type=int, default=320, help="of the frames, px")
    parser.add_argument("--pictures", type=Path, help="folder for pictures to look at")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    row = on_film(args.film, args.recipe, args.max_side, args.device, args.pictures)
    save("film_4d", args.recipe, args.device, row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
