"""Clips of procedural scenes: pictures, depth, object ids, cameras, motion, all exact."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError
from .camera_paths import sample_path
from .families import FAMILIES, Family
from .motion import MOTIONS, balls, motion_strength
from .raycast import render
from .scenes import Scenes, sample_scene, stack_scenes

__all__ = ["SyntheticClips", "make_clips"]


@dataclass(frozen=True)
class SyntheticClips:
    """s clips of v frames with their ground truth.

    Attributes:
        images: in [0, 1].
        depth: z-depth in world units, 0 for sky.
        ids: 0 for what stands (floor, sky), k for object k; the same id is the same object.
        c2w: camera poses, OpenCV axes, world +Z up.
        Ks_norm: normalised intrinsics.
        times: time of each frame in [0, 1].
        object_center: world position of each object in each frame.
        object_yaw: turn of each object about +Z, radians.
        object_strength: measured motion strength gamma of each object, a fraction of the picture.
        scenes: the scenes at rest.
    """

    images: Float[Tensor, "s v 3 h w"]
    depth: Float[Tensor, "s v h w"]
    ids: Int[Tensor, "s v h w"]
    c2w: Float[Tensor, "s v 4 4"]
    Ks_norm: Float[Tensor, "s v 3 3"]
    times: Float[Tensor, "s v"]
    object_center: Float[Tensor, "s v p 3"]
    object_yaw: Float[Tensor, "s v p"]
    object_strength: Float[Tensor, "s p"]
    scenes: Scenes

    @property
    def motion_strength(self) -> Float[Tensor, "s"]:
        """Measured strength gamma of each clip: the maximum over its objects (Sec. 3.3)."""
        return self.object_strength.amax(dim=1)

    def cameras(self, clip: int) -> Cameras:
        """The camera path of one clip."""
        return Cameras(self.c2w[clip], self.Ks_norm[clip], self.times[clip])

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> "SyntheticClips":
        """The same clips on another device."""
        return SyntheticClips(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def make_clips(
    seeds: Sequence[int],
    family: str | Family,
    *,
    num_frames: int = 12,
    size: int | tuple[int, int] = 64,
    supersample: int = 2,
    motion_scale: float = 1.0,
    c2w: Float[Tensor, "s v 4 4"] | None = None,
    without_objects: bool = False,
    device: torch.device | str = "cpu",
) -> SyntheticClips:
    """Make one clip a seed.

    Args:
        seeds: a clip depends on its own seed alone.
        family: a name in `FAMILIES`, or a family of your own.
        num_frames: views on each path.
        size: picture size, or (height, width).
        supersample: rays a side averaged in each pixel.
        motion_scale: multiplies the drawn sizes of motion (a sweep of strengths of one scene).
        c2w: cameras instead of the family's own.
        without_objects: the same scenes, empty.
        device: where to render.

    Raises:
        InvalidInputError: an unknown family, or a number that is not positive.
    """
    if isinstance(family, str):
        if family not in FAMILIES:
            raise InvalidInputError(
                f"family is {family!r}, expected one of {sorted(FAMILIES)} or a Family."
            )
        family = FAMILIES[family]
    height, width = (size, size) if isinstance(size, int) else size
    if min(num_frames, height, width, supersample, len(seeds)) < 1:
        raise InvalidInputError(
            f"num_frames ({num_frames}), size ({size}), supersample ({supersample}) and the "
            f"number of seeds ({len(seeds)}) must be at least 1."
        )
    scenes = stack_scenes([sample_scene(3 * s, family.scenes) for s in seeds]).to(device)
    if without_objects:
        scenes = replace(scenes, present=torch.zeros_like(scenes.present))
    if c2w is None:
        c2w = torch.stack([sample_path(3 * s + 1, dict(family.paths), num_frames) for s in seeds])
    c2w = c2w.to(device)
    num_frames = c2w.shape[1]
    Ks_norm = _intrinsics(family.focal_norm, height, width).to(device)
    Ks_norm = Ks_norm.expand(len(seeds), num_frames, 3, 3)
    times = torch.linspace(0, 1, num_frames, device=device).expand(len(seeds), -1)
    amounts = torch.stack([_motion_size(3 * s + 2, family) for s in seeds]).to(device)
    moving = balls(scenes).float() * amounts[:, None] * motion_scale
    center, yaw = MOTIONS[family.motion or "hop"](scenes, moving, times)
    seen = render(
        scenes, center, yaw, c2w, Ks_norm, height=height, width=width, supersample=supersample
    )
    strength = motion_strength(seen.depth, seen.ids, center, yaw, c2w, Ks_norm)
    return SyntheticClips(
        seen.images, seen.depth, seen.ids, c2w, Ks_norm, times, center, yaw, strength, scenes
    )


def _intrinsics(focal_norm: float, height: int, width: int) -> Tensor:
    aspect = width / height
    fx = focal_norm / max(aspect, 1.0)
    return torch.tensor([[fx, 0.0, 0.5], [0.0, fx * aspect, 0.5], [0.0, 0.0, 1.0]])


def _motion_size(seed: int, family: Family) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    still, amount = torch.rand(2, generator=rng).tolist()
    if family.motion is None or still < family.still_share:
        return torch.tensor(0.0)
    low, high = (math.log(x) for x in family.motion_size)
    return torch.tensor(math.exp(low + (high - low) * amount))
