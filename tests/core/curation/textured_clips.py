"""Clips whose surfaces carry fine patterns, for trackers: the generator's own ones are stripes."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genxd_core import Cameras
from genxd_core.synthetic import FAMILIES, make_clips
from genxd_core.synthetic.camera_paths import look_at
from tests.support import seeded

WAVES = 24
WAVELENGTHS = (0.06, 0.3)  # scene units; some 5 to 25 pixels at 160


@dataclass(frozen=True)
class TexturedClip:
    """One clip; as `SyntheticClips`, without the leading axis."""

    images: Tensor
    depth: Tensor
    ids: Tensor
    cameras: Cameras
    object_strength: Tensor


def textured_clip(
    seed: int,
    *,
    size: int = 128,
    num_frames: int = 6,
    motion: str | None = "slide",
    amount: float = 0.4,
    camera_moves: bool = True,
) -> TexturedClip:
    """Render a clip of the generator's geometry.

    Args:
        seed: of the scene.
        size: of the square pictures.
        num_frames: of them.
        motion: of the balls, as families name it; boxes stand.
        amount: of the motion, in its unit, over the whole clip.
        camera_moves: 3 degrees and 3 % nearer from frame to frame, else it stands.
    """
    family = replace(
        FAMILIES["nano_4d"],
        motion=motion,
        motion_size=(amount, amount * 1.0001),
        still_share=0.0,
    )
    turn = math.radians(3.0 if camera_moves else 0.0) * torch.arange(num_frames)
    radius = 2.2 * (0.97 if camera_moves else 1.0) ** torch.arange(num_frames)
    at = [radius * turn.sin(), -radius * turn.cos(), 0.4 * radius]
    c2w = look_at(torch.stack(at, 1), torch.tensor([[0.0, 0.0, 0.2]]).expand(num_frames, 3))
    made = {"c2w": c2w[None], "supersample": 1}
    fine = make_clips([seed], family, size=2 * size, **made)
    exact = make_clips([seed], family, size=size, **made)
    images = torch.nn.functional.avg_pool2d(_patterned(fine), 2)
    return TexturedClip(
        images.clamp(0, 1),
        exact.depth[0],
        exact.ids[0],
        exact.cameras(0),
        exact.object_strength[0],
    )


def _patterned(clip) -> Tensor:
    """The pictures, with surfaces brighter and darker by what is fixed to each of them."""
    points, ids = _world_points(clip), clip.ids[0]
    pattern = _waves(points, seed=0) * (clip.depth[0] > 0)
    for slot in range(clip.object_center.shape[2]):
        offset = points - clip.object_center[0, :, slot, None, None]
        yaw = -clip.object_yaw[0, :, slot, None, None]
        x, y, z = offset.unbind(-1)
        turned = [yaw.cos() * x - yaw.sin() * y, yaw.sin() * x + yaw.cos() * y, z]
        on_object = _waves(torch.stack(turned, -1), seed=slot + 1)
        pattern = torch.where(ids == slot + 1, on_object, pattern)
    return (0.5 * clip.images[0] + 0.25 + 0.25 * pattern[:, None]).clamp(0, 1)


def _waves(points: Tensor, seed: int) -> Tensor:
    rng = seeded(seed)
    low, high = (math.log(length) for length in WAVELENGTHS)
    length = (low + (high - low) * torch.rand(WAVES, generator=rng)).exp()
    direction = torch.nn.functional.normalize(torch.randn(WAVES, 3, generator=rng), dim=1)
    phase = 2 * math.pi * torch.rand(WAVES, generator=rng)
    waves = (points @ (2 * math.pi * direction / length[:, None]).T + phase).sin()
    return waves.sum(-1) / (0.7 * WAVES**0.5) / 2


def _world_points(clip) -> Tensor:
    height, width = clip.depth.shape[-2:]
    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], -1)
    rays = torch.einsum("vij,hwj->vhwi", torch.linalg.inv(clip.Ks_norm[0]), pixels)
    local = rays * clip.depth[0][..., None]
    turned = torch.einsum("vij,vhwj->vhwi", clip.c2w[0, :, :3, :3], local)
    return turned + clip.c2w[0, :, None, None, :3, 3]
