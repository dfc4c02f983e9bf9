"""Objects before white, seen from all around: pictures, masks, depth and cameras.

What the fits of this project are measured with: balls and boxes with strong textures, one ring of
cameras to fit and another between them to compare with.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from .camera_paths import look_at
from .raycast import render
from .scenes import SceneRanges, sample_scene

__all__ = ["FOCAL", "LIFT", "ObjectViews", "make_object_views", "ring"]

_RANGES = SceneRanges(
    num_objects=(5, 5), half_size=(0.26, 0.42), spread=0.5, texture_amplitude=(0.5, 1.0)
)
_HEIGHTS = (-0.3, 0.3, -0.1, 0.5, -0.5)  # of the objects' middles, so that they fill a ball
LIFT = 100.0  # above the floor, which is then too far away to be seen
_RADIUS, FOCAL = 2.6, 1.25


@dataclass(frozen=True)
class ObjectViews:
    """Views of one set of objects; the world has +Z up.

    Attributes:
        images: (V, 3, H, W) in [0, 1], over white.
        masks: (V, 1, H, W) share of each pixel that the objects cover.
        depths: (V, 1, H, W) z-depth in scene units through the pixel's centre, 0 for background.
        cameras: one per view.
        num_training: the first so many views are to fit, the others to compare with.
    """

    images: Float[Tensor, "v 3 h w"]
    masks: Float[Tensor, "v 1 h w"]
    depths: Float[Tensor, "v 1 h w"]
    cameras: Cameras
    num_training: int

    @property
    def held_out(self) -> list[int]:
        """The views to compare with."""
        return list(range(self.num_training, len(self.images)))


def make_object_views(
    seed: int,
    *,
    size: int = 128,
    num_training: int = 24,
    num_held_out: int = 8,
    supersample: int = 3,
) -> ObjectViews:
    """Render one set of objects.

    Args:
        seed: of the objects.
        size: of the square pictures in pixels.
        num_training: views around it, at elevations of -10, 15 and 40 degrees in turn.
        num_held_out: views between them, at 0 and 28 degrees.
        supersample: rays a side averaged in each pixel; odd.
    """
    scene = sample_scene(seed, _RANGES)
    center = scene.center.clone()
    center[0, :, 2] = LIFT + torch.tensor(_HEIGHTS)
    scene = replace(scene, center=center)
    c2w = torch.cat(
        [
            ring(num_training, 0.0, (-10.0, 15.0, 40.0)),
            ring(num_held_out, 0.5, (0.0, 28.0)),
        ]
    )
    lifted = c2w.clone()
    lifted[:, 2, 3] += LIFT
    Ks_norm = torch.tensor([[FOCAL, 0.0, 0.5], [0.0, FOCAL, 0.5], [0.0, 0.0, 1.0]])
    count, fine = len(c2w), size * supersample
    seen = render(
        scene,
        center[:, None].expand(-1, count, -1, -1),
        scene.yaw[:, None].expand(-1, count, -1),
        lifted[None],
        Ks_norm.expand(1, count, 3, 3),
        height=fine,
        width=fine,
    )
    there = (seen.ids[0] > 0).float()[:, None]
    images = seen.images[0] * there + (1 - there)
    middle = supersample // 2
    depths = (seen.depth[0][:, None] * there)[..., middle::supersample, middle::supersample]
    pool = torch.nn.functional.avg_pool2d
    return ObjectViews(
        pool(images, supersample).clamp(0, 1),
        pool(there, supersample),
        depths.contiguous(),
        Cameras(c2w, Ks_norm.expand(count, 3, 3)),
        num_training,
    )


def ring(count: int, offset: float, elevations: tuple[float, ...]) -> Float[Tensor, "v 4 4"]:
    """Cameras around the origin of the scene, at elevations in degrees in turn."""
    turn = (torch.arange(count) + offset) * (2 * math.pi / max(count, 1))
    tilt = torch.tensor([math.radians(elevations[i % len(elevations)]) for i in range(count)])
    flat = tilt.cos() * _RADIUS
    away = torch.stack([flat * turn.sin(), flat * turn.cos(), _RADIUS * tilt.sin()], -1)
    return look_at(away, torch.zeros_like(away))
