"""Rigid object motion, and the motion strength that follows from it exactly (Eq. 3-4)."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .scenes import BOX, Scenes

__all__ = ["MOTIONS", "hop", "motion_strength", "slide", "spin"]


def hop(
    scenes: Scenes, size: Float[Tensor, "s p"], times: Float[Tensor, "s v"]
) -> tuple[Float[Tensor, "s v p 3"], Float[Tensor, "s v p"]]:
    """Every object of ``size`` > 0 leaves the floor at time 0 and lands at time 1.

    Args:
        scenes: the scenes at rest.
        size: height of the flight, world units; 0 keeps an object still.
        times: time of each view in [0, 1].

    Returns:
        Centres and turns of all objects in every view.
    """
    rise = 4 * times * (1 - times)
    lift = torch.zeros(*times.shape, size.shape[1], 3, device=times.device)
    lift[..., 2] = rise[..., None] * size[:, None]
    return scenes.center[:, None] + lift, _still_yaw(scenes, times)


def slide(
    scenes: Scenes, size: Float[Tensor, "s p"], times: Float[Tensor, "s v"]
) -> tuple[Float[Tensor, "s v p 3"], Float[Tensor, "s v p"]]:
    """Every object of ``size`` > 0 moves along its own x axis, that far until time 1."""
    heading = torch.stack(
        [scenes.yaw.cos(), scenes.yaw.sin(), torch.zeros_like(scenes.yaw)], dim=-1
    )
    shift = times[..., None, None] * (size[..., None] * heading)[:, None]
    return scenes.center[:, None] + shift, _still_yaw(scenes, times)


def spin(
    scenes: Scenes, size: Float[Tensor, "s p"], times: Float[Tensor, "s v"]
) -> tuple[Float[Tensor, "s v p 3"], Float[Tensor, "s v p"]]:
    """Every object of ``size`` > 0 turns about its vertical axis, ``size`` turns until time 1."""
    center = scenes.center[:, None].expand(-1, times.shape[1], -1, -1)
    return center, _still_yaw(scenes, times) + 2 * math.pi * times[..., None] * size[:, None]


MOTIONS = {"hop": hop, "slide": slide, "spin": spin}


def _still_yaw(scenes: Scenes, times: Tensor) -> Tensor:
    return scenes.yaw[:, None].expand(-1, times.shape[1], -1)


def balls(scenes: Scenes) -> Bool[Tensor, "s p"]:
    """Which objects are balls; the families let these move and keep boxes still."""
    return (scenes.kind != BOX) & (scenes.present > 0.5)


def motion_strength(
    depth: Float[Tensor, "s v h w"],
    ids: Int[Tensor, "s v h w"],
    center: Float[Tensor, "s v p 3"],
    yaw: Float[Tensor, "s v p"],
    c2w: Float[Tensor, "s v 4 4"],
    Ks_norm: Float[Tensor, "s v 3 3"],
) -> Float[Tensor, "s p"]:
    """Measured strength gamma of each object (Sec. 3.3, Eq. 3-4), from exact depth.

    Every object pixel of view i is lifted to the world and projected into view i+1 twice: as if
    it stood still, and as it really moves. The strength is the mean length of the difference, as
    a fraction of the picture, over pixels and pairs; an object under 0.2 % of the picture does
    not count in that pair. A clip's strength is the maximum over its objects.
    """
    s, _, h, w = depth.shape
    y = (torch.arange(h, device=depth.device) + 0.5) / h
    x = (torch.arange(w, device=depth.device) + 0.5) / w
    grid = torch.stack(
        [*torch.meshgrid(x, y, indexing="xy"), torch.ones(h, w, device=depth.device)]
    )
    rays = torch.einsum("svij,jhw->svihw", torch.linalg.inv(Ks_norm), grid)[:, :-1]
    in_camera = rays * depth[:, :-1, None]
    world = _apply(c2w[:, :-1], in_camera)
    w2c = torch.linalg.inv(c2w[:, 1:])

    def project(points: Tensor) -> Tensor:
        seen = torch.einsum("svij,svjhw->svihw", Ks_norm[:, 1:], _apply(w2c, points))
        return seen[:, :, :2] / seen[:, :, 2:].clamp_min(1e-3)

    standing = project(world)
    total = torch.zeros(s, center.shape[2], device=depth.device)
    count = torch.zeros_like(total)
    for slot in range(center.shape[2]):
        turn = yaw[:, 1:, slot] - yaw[:, :-1, slot]
        moved = _turn(world - center[:, :-1, slot, :, None, None], turn)
        moved = moved + center[:, 1:, slot, :, None, None]
        length = (project(moved) - standing).norm(dim=2)
        mask = (ids[:, :-1] == slot + 1).float()
        mask = mask * (mask.mean(dim=(-2, -1), keepdim=True) >= 0.002)
        total[:, slot] = (length * mask).sum(dim=(1, 2, 3))
        count[:, slot] = mask.sum(dim=(1, 2, 3))
    return total / count.clamp_min(1.0)


def _apply(pose: Tensor, points: Tensor) -> Tensor:
    moved = torch.einsum("svij,svjhw->svihw", pose[..., :3, :3], points)
    return moved + pose[..., :3, 3, None, None]


def _turn(points: Tensor, angle: Tensor) -> Tensor:
    cos, sin = (t[..., None, None] for t in (angle.cos(), angle.sin()))
    x, y, z = points.unbind(2)
    return torch.stack([cos * x - sin * y, cos * y + sin * x, z], dim=2)
