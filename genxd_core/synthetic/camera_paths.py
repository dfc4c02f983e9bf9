"""Random camera paths around a scene, drawn from a seed; OpenCV axes, world +Z up."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["PATHS", "look_at", "sample_path"]

_LOWEST = 0.12  # of a camera above the floor, world units


def look_at(position: Float[Tensor, "v 3"], target: Float[Tensor, "v 3"]) -> Float[Tensor, "v 4 4"]:
    """Upright cameras at ``position`` that look at ``target``."""
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    c2w = torch.eye(4).repeat(len(position), 1, 1)
    c2w[:, :3, :3] = torch.stack([right, down, forward], dim=-1)
    c2w[:, :3, 3] = position
    return c2w


def _around(target: Tensor, azimuth: Tensor, elevation: Tensor, radius: Tensor) -> Tensor:
    flat = elevation.cos() * radius
    offset = torch.stack(
        [flat * azimuth.sin(), flat * azimuth.cos(), radius * elevation.sin()], dim=-1
    )
    return look_at(_above_floor(target + offset), target.expand_as(offset))


def _above_floor(position: Tensor) -> Tensor:
    return torch.cat([position[:, :2], position[:, 2:].clamp_min(_LOWEST)], dim=1)


class _Draw:
    """Uniform draws from one generator."""

    def __init__(self, seed: int) -> None:
        self.rng = torch.Generator().manual_seed(seed)

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.rng))


def _start(draw: _Draw) -> tuple[Tensor, float, float, float]:
    target = torch.tensor([draw(-0.1, 0.1), draw(-0.1, 0.1), draw(0.1, 0.3)])
    return target, draw(0, 2 * math.pi), math.radians(draw(12, 42)), draw(1.8, 2.6)


def _orbit(u: Tensor, draw: _Draw) -> Tensor:
    target, azimuth, elevation, radius = _start(draw)
    span = math.radians(draw(40, 330)) * (1 if draw(0, 1) < 0.5 else -1)
    rise = math.radians(draw(-12, 12))
    return _around(target, azimuth + span * u, elevation + rise * u, radius + 0 * u)


def _sway(u: Tensor, draw: _Draw) -> Tensor:
    target, azimuth, elevation, radius = _start(draw)
    swing, nod = math.radians(draw(15, 50)), math.radians(draw(-10, 10))
    phase = 2 * math.pi * u
    sign = 1 if draw(0, 1) < 0.5 else -1
    return _around(
        target,
        azimuth + sign * swing * phase.sin(),
        elevation + nod * (2 * phase).sin(),
        radius + 0 * u,
    )


def _dolly(u: Tensor, draw: _Draw) -> Tensor:
    target, azimuth, elevation, radius = _start(draw)
    ends = (1.0, draw(0.6, 0.8)) if draw(0, 1) < 0.5 else (1.0, draw(1.2, 1.5))
    scale = ends[0] + (ends[1] - ends[0]) * u
    return _around(target, azimuth + 0 * u, elevation + 0 * u, radius * scale)


def _shift(u: Tensor, draw: _Draw) -> Tensor:
    """Truck, pedestal, pan, tilt and roll in the first camera's own axes."""
    target, azimuth, elevation, radius = _start(draw)
    first = _around(
        target, torch.tensor([azimuth]), torch.tensor([elevation]), torch.tensor([radius])
    )
    move = torch.tensor([draw(-0.8, 0.8), draw(-0.3, 0.3), draw(-0.3, 0.3)])
    angle = torch.tensor([math.radians(draw(-a, a)) for a in (10, 18, 12)])
    step = torch.eye(4).repeat(len(u), 1, 1)
    step[:, :3, :3] = _rotation(u[:, None] * angle)
    step[:, :3, 3] = u[:, None] * move
    return _lift(first @ step)


def _local_orbit(u: Tensor, draw: _Draw) -> Tensor:
    """An orbit about the first camera's own vertical, as users' relative paths make it."""
    target, azimuth, elevation, radius = _start(draw)
    first = _around(
        target, torch.tensor([azimuth]), torch.tensor([elevation]), torch.tensor([radius])
    )
    span = math.radians(draw(30, 110)) * (1 if draw(0, 1) < 0.5 else -1)
    nod = math.radians(draw(-10, 10))
    pivot, back = torch.eye(4), torch.eye(4)
    pivot[2, 3], back[2, 3] = radius, -radius
    turn = torch.eye(4).repeat(len(u), 1, 1)
    turn[:, :3, :3] = _rotation(torch.stack([nod * u, span * u, 0 * u], dim=-1))
    return _lift(first @ pivot @ turn @ back)


def _free(u: Tensor, draw: _Draw) -> Tensor:
    """A smooth path through three random places, looking near the middle of the scene."""
    target, azimuth, elevation, radius = _start(draw)
    span = math.radians(draw(-150, 150))
    bend = [draw(-0.5, 0.5) for _ in range(3)]
    hump = 4 * u * (1 - u)
    return _around(
        target,
        azimuth + span * u + 0.6 * bend[0] * hump,
        (elevation + 0.5 * bend[1] * hump).clamp(math.radians(4), math.radians(50)),
        radius * (1 + 0.4 * bend[2] * hump),
    )


def _still(u: Tensor, draw: _Draw) -> Tensor:
    target, azimuth, elevation, radius = _start(draw)
    return _around(target, azimuth + 0 * u, elevation + 0 * u, radius + 0 * u)


PATHS = {
    "orbit": _orbit,
    "sway": _sway,
    "dolly": _dolly,
    "shift": _shift,
    "local_orbit": _local_orbit,
    "free": _free,
    "still": _still,
}


def sample_path(seed: int, weights: dict[str, float], num_views: int) -> Float[Tensor, "v 4 4"]:
    """Camera poses (c2w) of one clip.

    Args:
        seed: any 64-bit integer.
        weights: how often each name of `PATHS` is drawn, in any unit.
        num_views: cameras on the path, both ends included.
    """
    draw = _Draw(seed)
    names = list(weights)
    pick = draw(0, sum(weights.values()))
    name = names[-1]
    for candidate in names:
        pick -= weights[candidate]
        if pick <= 0:
            name = candidate
            break
    return PATHS[name](torch.linspace(0, 1, num_views), draw)


def _rotation(angles: Tensor) -> Tensor:
    """Rotation matrices (v, 3, 3) of pitch, yaw and roll about a camera's x, y and z axes."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    one, zero = torch.ones_like(cx), torch.zeros_like(cx)
    x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], -1).view(-1, 3, 3)
    y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).view(-1, 3, 3)
    z = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], -1).view(-1, 3, 3)
    return y @ x @ z


def _lift(c2w: Tensor) -> Tensor:
    """Raise a whole path so that it stays above the floor."""
    lowest = float(c2w[:, 2, 3].min())
    out = c2w.clone()
    out[:, 2, 3] += max(0.0, _LOWEST - lowest)
    return out
