"""What came of a fit, to look at and to read: truth beside rendering, and a report."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError
from .fit import FitResult
from .render_views import render_views
from .two_stages import FitResult4D

__all__ = ["compare_views", "describe_fit", "held_out_views", "views_to_compare"]

_MOST_COMPARED = 8
_DIFFERENCE_GAIN = 3.0


def held_out_views(num_views: int, every: int) -> list[int]:
    """One view in so many, from the middle of the first so many; none where ``every`` is 0.

    Raises:
        InvalidInputError: less than two views would be left to fit.
    """
    if every < 0:
        raise InvalidInputError(f"hold_out_every is {every}; expected at least 0, which is none.")
    held_out = list(range(every // 2, num_views, every)) if every else []
    if held_out and num_views - len(held_out) < 2:
        raise InvalidInputError(
            f"hold_out_every is {every}, which leaves {num_views - len(held_out)} of {num_views} "
            "views to fit; a scene needs at least 2. Give more views, or set it to 0."
        )
    return held_out


def views_to_compare(num_views: int, held_out: Sequence[int]) -> list[int]:
    """The held-out views, or where there are none a few of all, spread evenly; at most eight."""
    views = sorted(held_out) or list(range(num_views))
    if len(views) <= _MOST_COMPARED:
        return views
    step = (len(views) - 1) / (_MOST_COMPARED - 1)
    return [views[round(place * step)] for place in range(_MOST_COMPARED)]


def compare_views(
    result: FitResult | FitResult4D,
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    views: Sequence[int],
    *,
    background: Sequence[float] = (1.0, 1.0, 1.0),
) -> Float[Tensor, "k 3 h wide"]:
    """A row for each view: the given picture, the rendering, and three times their difference.

    Args:
        result: of `fit_gaussians` or `fit_gaussians_4d`.
        images: all that were given to it.
        cameras: one per image.
        views: which of them.
        background: behind the Gaussians.
    """
    height, width = images.shape[2:]
    index = torch.tensor(list(views), dtype=torch.long)
    seen = render_views(
        result.gaussians, cameras[index], width=width, height=height, background=background
    ).rgb.clamp(0, 1)
    truth = images[index].detach().cpu().float().clamp(0, 1)
    difference = (_DIFFERENCE_GAIN * (seen - truth).abs()).clamp(0, 1)
    return torch.cat([truth, seen, difference], 3)


def describe_fit(
    result: FitResult | FitResult4D, *, num_views: int, held_out: Sequence[int]
) -> dict[str, Any]:
    """The result in plain values for a report or a JSON file, without the Gaussians.

    Args:
        result: of `fit_gaussians` or `fit_gaussians_4d`.
        num_views: that were given.
        held_out: those of them that were not fitted.
    """
    rounded = {
        name: value if isinstance(value, int) else round(value, 4)
        for name, value in result.metrics.items()
    }
    steps = result.history[:: max(1, len(result.history) // 100)]
    return {
        "views": num_views,
        "held_out": list(held_out),
        **rounded,
        "started_from": result.start,
        "rasteriser": result.backend,
        "cancelled": result.cancelled,
        "history": [
            {
                "iteration": step.iteration,
                "loss": round(step.loss, 6),
                "psnr": round(step.psnr, 3),
                "held_out_psnr": step.held_out_psnr and round(step.held_out_psnr, 3),
                "gaussians": step.num_gaussians,
                "seconds": round(step.seconds, 2),
            }
            for step in steps
        ],
    }
