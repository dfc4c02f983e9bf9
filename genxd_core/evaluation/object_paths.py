"""Where moving objects are in pictures, against the same scene without them.

Held-out scenes of hopping balls before a camera that stands; the middle of what differs from the
empty scene is compared with the truth's, in pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..synthetic import FAMILIES, HELD_OUT, Family, SyntheticClips, make_clips
from ..synthetic.motion import balls

__all__ = ["FIRST_HOP", "HOP_FAMILY", "Hop", "hopping_scenes", "near_path", "object_path", "rise"]

FIRST_HOP = HELD_OUT + 600_000
"""Seed from which `hopping_scenes` looks for scenes."""
HOP_FAMILY = Family(
    scenes=FAMILIES["nano_video"].scenes, paths={"still": 1.0}, motion="hop", still_share=0.0
)
"""Hopping balls and standing boxes before a camera that stands."""

_DIFFERS = 0.15  # from the empty scene, to count
_NEAR = 6  # pixels around the true path; what else is there is not the object


@dataclass(frozen=True)
class Hop:
    """A scene of balls alone before a still camera.

    Attributes:
        seed: of the scene.
        clip: its pictures at all times.
        empty: the same picture without the balls.
    """

    seed: int
    clip: SyntheticClips
    empty: Float[Tensor, "3 h w"]


def hopping_scenes(count: int, *, num_frames: int = 12, size: int = 64) -> list[Hop]:
    """Held-out scenes whose balls are seen.

    Args:
        count: how many.
        num_frames: of each clip.
        size: of the pictures, px.
    """
    found: list[Hop] = []
    seed = FIRST_HOP
    while len(found) < count:
        clip = make_clips([seed], HOP_FAMILY, num_frames=num_frames, size=size)
        visible = float((clip.ids[0, 0] > 0).float().mean())
        if bool((balls(clip.scenes) == (clip.scenes.present > 0.5)).all()) and visible > 0.02:
            away = make_clips([seed], HOP_FAMILY, num_frames=1, size=size, without_objects=True)
            found.append(Hop(seed, clip, away.images[0, 0]))
        seed += 1
    return found


def near_path(truth: Float[Tensor, "t 3 h w"], empty: Float[Tensor, "3 h w"]) -> Tensor:
    """(H, W), 1 within 6 pixels of where an object is at any time, else 0."""
    ever = (_weight(truth, empty) > 0).float().amax(0)
    return F.max_pool2d(ever[None, None], 2 * _NEAR + 1, 1, _NEAR)[0, 0]


def object_path(
    frames: Float[Tensor, "t 3 h w"],
    empty: Float[Tensor, "3 h w"],
    near: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, "t 2"]:
    """Middles (x, y) of what differs from the empty scene, in pixels; (0, 0) where nothing does.

    Args:
        frames: in [0, 1].
        empty: the scene without the objects.
        near: of `near_path`, to look nowhere else; None looks everywhere.
    """
    weight = _weight(frames, empty)
    weight = weight if near is None else weight * near
    across = torch.arange(frames.shape[-1], device=frames.device) + 0.5
    down = torch.arange(frames.shape[-2], device=frames.device) + 0.5
    mass = weight.sum((1, 2)).clamp_min(1e-6)
    x, y = (weight.sum(1) * across).sum(1) / mass, (weight.sum(2) * down).sum(1) / mass
    return torch.stack([x, y], -1)


def rise(path: Float[Tensor, "t 2"]) -> float:
    """How far a path rises above its first place at most, in pixels."""
    return float((path[0, 1] - path[:, 1]).amax())


def _weight(frames: Tensor, empty: Tensor) -> Tensor:
    return ((frames - empty).abs().amax(1) - _DIFFERS).clamp_min(0)
