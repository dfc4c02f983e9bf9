"""Which frames of a scene make a training clip."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import InvalidInputError
from .scene import BrokenSceneError, SceneKind

__all__ = ["DrawnFrames", "FrameSampling", "draw_frames"]


@dataclass(frozen=True, kw_only=True)
class FrameSampling:
    """How frames are drawn.

    Attributes:
        strides: the gaps between frames that are drawn from, with equal chance among those that
            the scene is long enough for.
        reverse: chance of playing a still scene backwards; moving ones never are.
        start: "any" frame, or the "first" (for clips whose motion begins there).
    """

    strides: tuple[int, ...] = (1,)
    reverse: float = 0.5
    start: Literal["any", "first"] = "any"

    def __post_init__(self) -> None:
        if not self.strides or min(self.strides) < 1:
            raise InvalidInputError(f"strides are {self.strides}, expected numbers from 1 on.")
        if not 0.0 <= self.reverse <= 1.0:
            raise InvalidInputError(f"reverse is {self.reverse}, expected a chance from 0 to 1.")
        if self.start not in ("any", "first"):
            raise InvalidInputError(f"start is {self.start!r}, expected 'any' or 'first'.")


@dataclass(frozen=True)
class DrawnFrames:
    """Positions of a clip's frames in its scene, and the gap between them."""

    indices: tuple[int, ...]
    stride: int


def draw_frames(
    num_frames: int,
    views: int,
    kind: SceneKind,
    sampling: FrameSampling,
    rng: torch.Generator,
    *,
    ordered: bool = True,
    where: str = "the scene",
) -> DrawnFrames:
    """Draw the frames of one clip.

    Args:
        num_frames: of the scene.
        views: frames wanted.
        kind: still scenes may run backwards.
        sampling: strides, reversal, start.
        rng: CPU generator.
        ordered: False draws any views in any order.
        where: names the scene in messages.

    Raises:
        BrokenSceneError: the scene has fewer frames than asked for.
    """
    if num_frames < views:
        raise BrokenSceneError(f"{where} has {num_frames} frames, expected at least {views}.")
    if not ordered:
        picked = torch.randperm(num_frames, generator=rng)[:views]
        return DrawnFrames(tuple(picked.tolist()), 1)
    fitting = [s for s in sampling.strides if s * (views - 1) < num_frames]
    # A scene too short for every stride is taken at the widest that it allows.
    strides = fitting or [(num_frames - 1) // max(1, views - 1)]
    stride = strides[_draw(len(strides), rng)]
    latest = num_frames - 1 - stride * (views - 1)
    start = _draw(latest + 1, rng) if sampling.start == "any" else 0
    indices = [start + stride * i for i in range(views)]
    if kind == "3d" and float(torch.rand((), generator=rng)) < sampling.reverse:
        indices.reverse()
    return DrawnFrames(tuple(indices), stride)


def _draw(count: int, rng: torch.Generator) -> int:
    drawn: Tensor = torch.randint(count, (), generator=rng)
    return int(drawn)
