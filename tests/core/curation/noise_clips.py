"""Clips with exact cameras whose surfaces carry noise of many sizes, as features need it.

The scenes are the project's own; what is drawn on them is replaced, since their smooth patterns
give SIFT next to nothing.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genxd_core.cameras.cameras import Cameras
from genxd_core.synthetic import Family, SyntheticClips, make_clips
from genxd_core.synthetic.motion import balls
from genxd_core.synthetic.scenes import SceneRanges
from tests.support import seeded

__all__ = ["NoiseClip", "noise_clip", "straight_path", "turning_path"]

SCENES = SceneRanges(num_objects=(4, 6), spread=1.0)
_OCTAVES = 5
_VOLUME = 48


@dataclass(frozen=True)
class NoiseClip:
    """Frames (T, 3, H, W), masks of what moves (T, 1, H, W), z-depth (T, H, W), true cameras."""

    images: Tensor
    masks: Tensor
    depth: Tensor
    cameras: Cameras


def noise_clip(
    seed: int,
    *,
    path: str = "sway",
    size: int | tuple[int, int] = 256,
    frames: int = 24,
    moving: float = 1.0,
    c2w: Tensor | None = None,
) -> NoiseClip:
    """Balls slide that far while boxes stand; ``c2w`` (T, 4, 4) replaces the path."""
    family = Family(SCENES, {path: 1.0}, motion="slide", motion_size=(1.0, 1.0), still_share=0.0)
    height, width = (size, size) if isinstance(size, int) else size
    clip = make_clips(
        [seed],
        family,
        num_frames=frames,
        size=(2 * height, 2 * width),
        supersample=1,
        motion_scale=moving,
        c2w=None if c2w is None else c2w[None],
    )
    images = torch.stack([_painted(clip, view) for view in range(clip.images.shape[1])])
    of_balls = F.pad(balls(clip.scenes)[0], (1, 0))
    masks = of_balls[clip.ids[0]].float()[:, None]
    # Exactly what is at the middle of a pixel lies between four of the finer ones.
    depth = clip.depth[0, :, 1::2, 1::2]
    return NoiseClip(
        F.avg_pool2d(images, 2).clamp(0, 1), F.max_pool2d(masks, 2), depth, clip.cameras(0)
    )


def _painted(clip: SyntheticClips, view: int) -> Tensor:
    image, z, ids = clip.images[0, view], clip.depth[0, view], clip.ids[0, view]
    height, width = z.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    K = clip.cameras(0).Ks(width, height)[view]
    seen = torch.stack([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z], -1)
    pose = clip.c2w[0, view]
    world = seen @ pose[:3, :3].T + pose[:3, 3]
    moved = clip.object_center[0, view] - clip.scenes.center[0]
    own = world - F.pad(moved, (0, 0, 1, 0))[ids]
    level = _noise(own)
    # Far away it would be finer than a pixel.
    fade = (1.4 - z / 5).clamp(0, 1) * (z > 0)
    return image + (level - 0.5) * 1.6 * fade


def _noise(points: Tensor) -> Tensor:
    """Of each point in space, in about [0, 1]: noise of lengths 0.5, 0.25, ... together."""
    volume = torch.rand(1, 1, _VOLUME, _VOLUME, _VOLUME, generator=seeded(7))
    total = torch.zeros(points.shape[:2])
    for octave in range(_OCTAVES):
        cells = points * (2.0 * 2**octave) + 13.7 * octave
        # The volume goes on in its own mirror image.
        place = (cells / _VOLUME * 2) % 4 - 2
        place = 1 - (place.abs() - 1).abs() * 2
        grid = place[None, None]
        drawn = F.grid_sample(volume, grid, mode="bilinear", align_corners=True)[0, 0, 0]
        total += (drawn - 0.5) * 0.75**octave
    return 0.5 + total


def straight_path(start: Tensor, towards: Tensor, length: float, frames: int) -> Tensor:
    """(T, 4, 4): ``start`` (4, 4) moved along a direction in its own axes, never turned."""
    c2w = start.repeat(frames, 1, 1)
    step = F.normalize(start[:3, :3] @ towards, dim=0) * length
    c2w[:, :3, 3] += torch.linspace(0, 1, frames)[:, None] * step
    return c2w


def turning_path(start: Tensor, angle_rad: float, frames: int) -> Tensor:
    """(T, 4, 4): ``start`` (4, 4) turned about its own vertical axis, never moved."""
    angle = torch.linspace(0, angle_rad, frames)
    c2w = start.repeat(frames, 1, 1)
    turn = torch.eye(3).repeat(frames, 1, 1)
    turn[:, 0, 0], turn[:, 0, 2] = angle.cos(), angle.sin()
    turn[:, 2, 0], turn[:, 2, 2] = -angle.sin(), angle.cos()
    c2w[:, :3, :3] = start[:3, :3] @ turn
    return c2w
