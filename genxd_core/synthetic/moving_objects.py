"""Balls that bob before white, seen from all around at several times: to measure 4D fits with.

Dimension letters: t times, p objects, v views (all pictures: every camera at every time).
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from .objects import FOCAL, LIFT, ring
from .raycast import render
from .scenes import SceneRanges, sample_scene

__all__ = ["MovingObjectViews", "make_moving_object_views"]

_RANGES = SceneRanges(
    num_objects=(2, 2), half_size=(0.3, 0.4), spread=0.45, texture_amplitude=(0.5, 1.0)
)
_HEIGHTS = (-0.15, 0.15)
_BOB = 0.33  # as far up and down as about their radius


@dataclass(frozen=True)
class MovingObjectViews:
    """Every camera's picture at every time; the world has +Z up.

    Attributes:
        images: (V, 3, H, W) in [0, 1], over white; all cameras at the first time come first.
        masks: (V, 1, H, W) share of each pixel that the objects cover.
        depths: (V, 1, H, W) z-depth in scene units through the pixel's centre, 0 for background.
        cameras: one per picture, with its time.
        centres: of the objects at each time, in scene units.
        held_out: pictures to compare with: pairs of a camera and a time of which neither is left
            out altogether.
    """

    images: Float[Tensor, "v 3 h w"]
    masks: Float[Tensor, "v 1 h w"]
    depths: Float[Tensor, "v 1 h w"]
    cameras: Cameras
    centres: Float[Tensor, "t p 3"]
    held_out: tuple[int, ...]


def make_moving_object_views(
    seed: int,
    *,
    size: int = 96,
    num_times: int = 12,
    num_views: int = 16,
    num_held_out: int = 12,
    supersample: int = 3,
) -> MovingObjectViews:
    """Render two balls that bob once, one up while the other goes down.

    Args:
        seed: of the objects.
        size: of the square pictures in pixels.
        num_times: evenly from 0 to 1.
        num_views: cameras around it, at elevations of -10, 15 and 40 degrees in turn.
        num_held_out: pictures that are to be compared with, spread over cameras and times; at most
            one at each time but the first.
        supersample: rays a side averaged in each pixel; odd.
    """
    scene = sample_scene(seed, _RANGES)
    centre = scene.center.clone()
    heights = torch.zeros(centre.shape[1])
    heights[:2] = torch.tensor(_HEIGHTS)
    centre[0, :, 2] = LIFT + heights
    scene = replace(scene, center=centre, kind=torch.zeros_like(scene.kind))
    times = torch.linspace(0, 1, num_times)
    bob = _BOB * (2 * math.pi * times).sin()
    moved = centre.expand(num_times, -1, 3).clone()
    moved[:, 0, 2] += bob
    moved[:, 1, 2] -= bob
    c2w = ring(num_views, 0.0, (-10.0, 15.0, 40.0))
    lifted = c2w.clone()
    lifted[:, 2, 3] += LIFT
    Ks_norm = torch.tensor([[FOCAL, 0.0, 0.5], [0.0, FOCAL, 0.5], [0.0, 0.0, 1.0]])
    count = num_times * num_views
    fine = size * supersample
    seen = render(
        scene,
        moved.repeat_interleave(num_views, 0)[None],
        scene.yaw[:, None].expand(-1, count, -1),
        lifted.repeat(num_times, 1, 1)[None],
        Ks_norm.expand(1, count, 3, 3),
        height=fine,
        width=fine,
    )
    there = (seen.ids[0] > 0).float()[:, None]
    images = seen.images[0] * there + (1 - there)
    middle = supersample // 2
    depths = (seen.depth[0][:, None] * there)[..., middle::supersample, middle::supersample]
    pool = torch.nn.functional.avg_pool2d
    centres = moved[:, :2].clone()
    centres[..., 2] -= LIFT
    return MovingObjectViews(
        pool(images, supersample).clamp(0, 1),
        pool(there, supersample),
        depths.contiguous(),
        Cameras(
            c2w.repeat(num_times, 1, 1),
            Ks_norm.expand(count, 3, 3),
            times.repeat_interleave(num_views),
        ),
        centres,
        _held_out(num_times, num_views, num_held_out),
    )


def _held_out(num_times: int, num_views: int, count: int) -> tuple[int, ...]:
    """Pairs along a diagonal; the first time is left to the static stage."""
    pairs = []
    for number in range(min(count, num_times - 1)):
        time = 1 + number * (num_times - 1) // min(count, num_times - 1)
        pairs.append(time * num_views + (5 * number + 2) % num_views)
    return tuple(pairs)
