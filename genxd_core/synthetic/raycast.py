"""A batched ray-caster for `Scenes`: pictures, z-depth and object ids.

Letters: s scenes, v views, p object slots, n pixels.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from .scenes import BOX, Scenes

__all__ = ["Rendered", "render"]

_FAR = 1e4
_AMBIENT, _DIFFUSE = 0.45, 0.55
_SHARPNESS = 1.5  # of the floor's squares
_HAZE_START, _HAZE_END = 2.5, 6.0  # the floor fades into the horizon, so no aliasing far away


@dataclass(frozen=True)
class Rendered:
    """What a camera sees.

    Attributes:
        images: in [0, 1].
        depth: z-depth in world units, 0 for sky.
        ids: 0 for floor and sky, k for object slot k - 1.
    """

    images: Float[Tensor, "s v 3 h w"]
    depth: Float[Tensor, "s v h w"]
    ids: Int[Tensor, "s v h w"]


def render(
    scenes: Scenes,
    center: Float[Tensor, "s v p 3"],
    yaw: Float[Tensor, "s v p"],
    c2w: Float[Tensor, "s v 4 4"],
    Ks_norm: Float[Tensor, "s v 3 3"],
    *,
    height: int,
    width: int,
    supersample: int = 1,
) -> Rendered:
    """Cast one ray (or ``supersample`` squared) through every pixel.

    Args:
        scenes: s scenes.
        center: where every object's centre is in every view.
        yaw: turn of every object about +Z in every view, radians.
        c2w: camera poses, OpenCV axes.
        Ks_norm: intrinsics, first row divided by the width, second by the height.
        height: of the pictures.
        width: of the pictures.
        supersample: averages this many rays a side in the pictures; depth and ids are always those
            of the ray through the pixel's centre.
    """
    if supersample % 2 == 0:  # no ray goes through the centre
        args = (scenes, center, yaw, c2w, Ks_norm)
        exact = render(*args, height=height, width=width)
        images = _render(*args, height=height, width=width, supersample=supersample).images
        return Rendered(images, exact.depth, exact.ids)
    return _render(
        scenes, center, yaw, c2w, Ks_norm, height=height, width=width, supersample=supersample
    )


def _render(
    scenes: Scenes,
    center: Tensor,
    yaw: Tensor,
    c2w: Tensor,
    Ks_norm: Tensor,
    *,
    height: int,
    width: int,
    supersample: int,
) -> Rendered:
    """As `render`; with an even ``supersample``, depth and ids are a quarter pixel or less off."""
    h, w, k = height * supersample, width * supersample, supersample
    ys = (torch.arange(h, device=c2w.device) + 0.5) / h
    xs = (torch.arange(w, device=c2w.device) + 0.5) / w
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(-1, 3)
    # z = 1 in camera axes, so that the ray parameter is z-depth.
    in_camera = torch.einsum("svij,nj->svni", torch.linalg.inv(Ks_norm), pixels)
    direction = torch.einsum("svij,svnj->svni", c2w[..., :3, :3], in_camera)
    origin = c2w[..., None, :3, 3]

    depth, ids, normal, albedo = _trace_floor(scenes, origin, direction)
    for slot in range(scenes.present.shape[1]):
        if scenes.present[:, slot].any():
            place = _Place(center[:, :, slot], yaw[:, :, slot], scenes.half_size[:, None, slot])
            t = _hit_object(scenes, slot, place, origin, direction)
            hit = (t < depth).nonzero(as_tuple=True)
            depth[hit], ids[hit] = t[hit], slot + 1
            normal[hit], albedo[hit] = _object_surface(
                scenes, slot, place, hit, origin, direction, depth[hit]
            )

    images = _shade(scenes, direction, depth, normal, albedo)
    images = rearrange(images, "s v (h a w b) c -> s v c h w (a b)", a=k, b=k, h=height, w=width)
    depth = torch.where(depth < _FAR, depth, torch.zeros_like(depth))
    depth, ids = (
        rearrange(t, "s v (h a w b) -> s v h a w b", a=k, b=k, h=height, w=width)[
            :, :, :, k // 2, :, k // 2
        ]
        for t in (depth, ids)
    )
    return Rendered(images.mean(dim=-1).clamp(0, 1), depth, ids)


def _trace_floor(
    scenes: Scenes, origin: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    down = direction[..., 2]
    t = -origin[..., 2] / torch.where(down.abs() < 1e-6, torch.full_like(down, 1e-6), down)
    t = torch.where(t > 1e-3, t, torch.full_like(t, _FAR)).clamp_max(_FAR)
    spot = (origin + t[..., None] * direction)[..., :2]
    cell, turn = scenes.floor[:, 0, None, None], scenes.floor[:, 1, None, None]
    u = (turn.cos() * spot[..., 0] + turn.sin() * spot[..., 1]) / cell + scenes.floor[
        :, 2, None, None
    ]
    v = (turn.cos() * spot[..., 1] - turn.sin() * spot[..., 0]) / cell + scenes.floor[
        :, 3, None, None
    ]
    # Soft squares: sharp enough to follow a camera by, smooth enough not to alias.
    odd = (0.5 + _SHARPNESS * (torch.pi * u).sin() * (torch.pi * v).sin()).clamp(0, 1)[..., None]
    color = scenes.floor_color[:, None, None]
    albedo = torch.lerp(color[..., 0, :], color[..., 1, :], odd)
    normal = torch.zeros_like(direction)
    normal[..., 2] = 1.0
    return t, torch.zeros_like(t, dtype=torch.long), normal, albedo


@dataclass(frozen=True)
class _Place:
    """Where one object slot is in every view."""

    center: Float[Tensor, "s v 3"]
    yaw: Float[Tensor, "s v"]
    half: Float[Tensor, "s 1 3"]

    def to_local(self, vectors: Float[Tensor, "s v n 3"]) -> Float[Tensor, "s v n 3"]:
        """Directions in the object's axes, in units of its half sizes."""
        cos, sin = self.yaw.cos()[..., None], self.yaw.sin()[..., None]
        x, y, z = vectors.unbind(-1)
        local = torch.stack([cos * x + sin * y, cos * y - sin * x, z], dim=-1)
        return local / self.half[:, :, None]


def _hit_object(
    scenes: Scenes, slot: int, place: _Place, origin: Tensor, direction: Tensor
) -> Float[Tensor, "s v n"]:
    """z-depth of the first point of an object on every ray, far where there is none."""
    o = place.to_local(origin - place.center[:, :, None])
    d = place.to_local(direction)
    is_box = scenes.kind[:, slot] == BOX
    if is_box.all():
        t = _box_entry(o, d)
    elif not is_box.any():
        t = _ball_entry(o, d)
    else:
        t = torch.where(is_box[:, None, None], _box_entry(o, d), _ball_entry(o, d))
    seen = (t > 1e-3) & (scenes.present[:, slot] > 0.5)[:, None, None]
    return torch.where(seen, t, torch.full_like(t, _FAR))


def _ball_entry(o: Tensor, d: Tensor) -> Tensor:
    a, b, c = _dot(d, d), _dot(o, d), _dot(o, o) - 1.0
    root = b * b - a * c
    return torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, torch.full_like(a, _FAR))


def _box_entry(o: Tensor, d: Tensor) -> Tensor:
    safe = torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
    first, second = (-1 - o) / safe, (1 - o) / safe
    near, far = torch.minimum(first, second).unbind(-1), torch.maximum(first, second).unbind(-1)
    enter = torch.maximum(torch.maximum(near[0], near[1]), near[2])
    leave = torch.minimum(torch.minimum(far[0], far[1]), far[2])
    return torch.where(enter < leave, enter, torch.full_like(enter, _FAR))


def _object_surface(
    scenes: Scenes,
    slot: int,
    place: _Place,
    hit: tuple[Tensor, ...],
    origin: Tensor,
    direction: Tensor,
    depth: Tensor,
) -> tuple[Float[Tensor, "k 3"], Float[Tensor, "k 3"]]:
    """World normal and albedo of the hit points of one object."""
    scene, view, _ = hit
    half, yaw = place.half[scene, 0], place.yaw[scene, view]
    offset = origin[scene, view, 0] + depth[:, None] * direction[hit] - place.center[scene, view]
    cos, sin = yaw.cos(), yaw.sin()
    x, y, z = offset.unbind(-1)
    local = torch.stack([cos * x + sin * y, cos * y - sin * x, z], dim=-1) / half

    axis = local.abs().argmax(dim=-1)
    face = torch.nn.functional.one_hot(axis, 3) * torch.sign(local)
    is_box = (scenes.kind[scene, slot] == BOX)[:, None]
    nx, ny, nz = torch.where(is_box, face, local / half).unbind(-1)
    normal = torch.stack([cos * nx - sin * ny, cos * ny + sin * nx, nz], dim=-1)

    amplitude, frequency, phase = scenes.texture[scene, slot].unbind(-1)
    wave = (frequency * (local * local.new_tensor([1.0, 0.6, 1.3])).sum(-1) + phase).sin()
    mix = (amplitude * (0.5 + 0.5 * wave))[:, None]
    color = scenes.color[scene, slot]
    albedo = torch.lerp(color[:, 0], color[:, 1], mix)
    return torch.nn.functional.normalize(normal, dim=-1), albedo


def _shade(
    scenes: Scenes, direction: Tensor, depth: Tensor, normal: Tensor, albedo: Tensor
) -> Tensor:
    lambert = _dot(normal, scenes.light[:, None, None]).clamp_min(0)
    length = _dot(direction, direction).sqrt()
    lit = albedo * (_AMBIENT + _DIFFUSE * lambert)[..., None]
    up = (direction[..., 2] / length).clamp_min(0).sqrt()[..., None]
    sky = torch.lerp(scenes.sky[:, None, None, 0], scenes.sky[:, None, None, 1], up)
    reach = depth * length
    haze = ((reach - _HAZE_START) / (_HAZE_END - _HAZE_START)).clamp(0, 1)[..., None]
    return torch.lerp(lit, sky, haze)


def _dot(a: Float[Tensor, "*n 3"], b: Float[Tensor, "*m 3"]) -> Tensor:
    """Dot products over the last axis; faster on a CPU than a reduction of three numbers."""
    (ax, ay, az), (bx, by, bz) = a.unbind(-1), b.unbind(-1)
    return ax * bx + ay * by + az * bz
