"""What a procedural scene is made of, drawn from a seed.

World: +Z up, the floor at z = 0, objects near the origin. All tensors carry a leading scene axis.
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["BOX", "ELLIPSOID", "SceneRanges", "Scenes", "sample_scene", "stack_scenes"]

ELLIPSOID, BOX = 0, 1


@dataclass(frozen=True)
class SceneRanges:
    """Ranges that scenes are drawn from; lengths in world units (a camera stands about 2 away)."""

    num_objects: tuple[int, int] = (1, 3)
    box_share: float = 0.5
    half_size: tuple[float, float] = (0.2, 0.42)
    spread: float = 0.7
    texture_amplitude: tuple[float, float] = (0.0, 0.35)
    texture_frequency: tuple[float, float] = (2.0, 6.0)
    floor_cell: tuple[float, float] = (0.6, 1.0)
    floor_contrast: tuple[float, float] = (0.1, 0.3)


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes at rest; s scenes, p object slots (unused ones have ``present`` 0)."""

    present: Float[Tensor, "s p"]
    kind: Int[Tensor, "s p"]
    center: Float[Tensor, "s p 3"]
    yaw: Float[Tensor, "s p"]
    half_size: Float[Tensor, "s p 3"]
    color: Float[Tensor, "s p 2 3"]
    texture: Float[Tensor, "s p 3"]  # amplitude, frequency, phase
    floor_color: Float[Tensor, "s 2 3"]
    floor: Float[Tensor, "s 4"]  # cell size, yaw, shift x, shift y
    sky: Float[Tensor, "s 2 3"]  # horizon, zenith
    light: Float[Tensor, "s 3"]  # unit, towards the light

    def to(self, device: torch.device | str) -> "Scenes":
        """The same scenes on another device."""
        return Scenes(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __len__(self) -> int:
        return self.present.shape[0]


def _uniform(rng: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)


def _vivid_color(rng: torch.Generator) -> Tensor:
    """A colour of any hue, clear enough to tell objects apart."""
    hue = torch.rand((), generator=rng) * 6.0
    saturation, value = _uniform(rng, 0.45, 0.95), _uniform(rng, 0.45, 1.0)
    offsets = torch.tensor([5.0, 3.0, 1.0])
    k = (offsets + hue) % 6.0
    ramp = torch.clamp(torch.minimum(k, 4.0 - k), 0.0, 1.0)
    return value * (1.0 - saturation * ramp)


def _place_objects(rng: torch.Generator, count: int, ranges: SceneRanges) -> tuple[Tensor, Tensor]:
    """Half sizes (count, 3) and floor positions (count, 2) without overlaps, largest gap kept."""
    low, high = ranges.half_size
    half = _uniform(rng, low, high, count, 3)
    reach = half[:, :2].amax(dim=1)
    best, best_gap = torch.zeros(count, 2), -math.inf
    for _ in range(24):
        angle = _uniform(rng, 0.0, 2 * math.pi, count)
        radius = ranges.spread * torch.rand(count, generator=rng).sqrt()
        spot = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
        apart = torch.cdist(spot, spot) - (reach[:, None] + reach[None, :])
        gap = float(apart[~torch.eye(count, dtype=torch.bool)].min()) if count > 1 else math.inf
        if gap > best_gap:
            best, best_gap = spot, gap
        if gap > 0.05:
            break
    return half, best


def sample_scene(seed: int, ranges: SceneRanges, *, slots: int | None = None) -> Scenes:
    """One scene (batch of 1) from a seed, drawn on the CPU so that devices agree.

    Args:
        seed: any 64-bit integer.
        ranges: what to draw from.
        slots: object slots of the result; at least ``ranges.num_objects[1]``, the default.
    """
    rng = torch.Generator().manual_seed(seed)
    slots = slots or ranges.num_objects[1]
    low, high = ranges.num_objects
    count = int(torch.randint(low, high + 1, (), generator=rng))
    half, spot = _place_objects(rng, count, ranges)
    is_box = torch.rand(count, generator=rng) < ranges.box_share
    # A ball is round; a box may have any proportions.
    half = torch.where(is_box[:, None], half, half.mean(dim=1, keepdim=True).expand(-1, 3))

    def padded(values: Tensor) -> Tensor:
        out = torch.zeros(slots, *values.shape[1:], dtype=values.dtype)
        out[:count] = values
        return out[None]

    color = torch.stack([_vivid_color(rng) for _ in range(2 * count)]).view(count, 2, 3)
    texture = torch.stack(
        [
            _uniform(rng, *ranges.texture_amplitude, count),
            _uniform(rng, *ranges.texture_frequency, count),
            _uniform(rng, 0.0, 2 * math.pi, count),
        ],
        dim=1,
    )
    base = _uniform(rng, 0.25, 0.75, 3)
    contrast = float(_uniform(rng, *ranges.floor_contrast))
    floor_color = torch.stack([base + contrast / 2, base - contrast / 2]).clamp(0.02, 0.98)
    zenith, horizon = _uniform(rng, 0.2, 0.8, 3), _uniform(rng, 0.6, 1.0, 3)
    light_azimuth, light_height = _uniform(rng, 0.0, 2 * math.pi), _uniform(rng, 0.6, 1.3)
    light = torch.stack([light_azimuth.cos(), light_azimuth.sin(), light_height])
    return Scenes(
        present=padded(torch.ones(count)),
        kind=padded(is_box.long()),
        center=padded(torch.cat([spot, half[:, 2:]], dim=1)),
        yaw=padded(_uniform(rng, 0.0, 2 * math.pi, count)),
        half_size=padded(half).clamp_min(1e-3),
        color=padded(color),
        texture=padded(texture),
        floor_color=floor_color[None],
        floor=torch.cat(
            [
                _uniform(rng, *ranges.floor_cell, 1),
                _uniform(rng, 0.0, 2 * math.pi, 1),
                _uniform(rng, -1.0, 1.0, 2),
            ]
        )[None],
        sky=torch.stack([horizon, zenith])[None],
        light=(light / light.norm())[None],
    )


def stack_scenes(scenes: list[Scenes]) -> Scenes:
    """Join batches of scenes with equal numbers of slots."""
    return Scenes(
        **{f.name: torch.cat([getattr(s, f.name) for s in scenes]) for f in fields(Scenes)}
    )
