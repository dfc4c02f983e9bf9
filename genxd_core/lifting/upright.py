"""Scenes turned upright: Gaussians and cameras together, to the world of splats with -Y up."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.conventions import ideas_of_up, splat_world_rotation
from ..errors import InvalidInputError
from .gaussians import Gaussians

__all__ = ["Up", "turn_cameras", "turn_scene", "turn_upright", "upright_rotation"]

Up = Literal["+Z", "-Y", "from cameras", "keep"]

_LEAST_AGREEMENT = 0.5  # cosine of 60 degrees between the two ideas of what is up
_LEAST_UP_IN_PICTURES = 0.02  # an orbit seen from 89 degrees above: its pictures hardly show up
_CHOOSE = (
    'Choose "+Z" for paths made here, "-Y" for a scene that is upright already, or "keep" to leave '
    "the world as it is."
)


def turn_upright(gaussians: Gaussians, cameras: Cameras, *, up: str) -> tuple[Gaussians, Cameras]:
    """A scene in the world of 3D Gaussian splatting, OpenCV and ComfyUI's SPLAT, with -Y up.

    The scene turns about the world's origin; means, rotations, spherical harmonics and cameras
    move together, so the cameras see the same pictures as before.

    Args:
        gaussians: the scene.
        cameras: of the same world.
        up: what is up in the given world: "+Z" (paths made here), "-Y" (upright already), "from
            cameras" (as they are held, see `genxd_core.cameras.conventions.estimate_up`), or
            "keep" (nobody knows; nothing is turned).

    Returns:
        The scene and its cameras. Where something turns, what the path looked at from its start,
        azimuth 0 or the first camera, comes to lie along +Z.

    Raises:
        InvalidInputError: ``up`` is none of these, or the cameras do not tell what is up.
    """
    return turn_scene(gaussians, cameras, upright_rotation(cameras, up=up))


def turn_scene(
    gaussians: Gaussians, cameras: Cameras, rotation: Float[Tensor, "3 3"]
) -> tuple[Gaussians, Cameras]:
    """Gaussians and cameras turned about the world's origin: ``x -> rotation @ x``.

    With the transpose of `upright_rotation` it undoes `turn_upright`.

    Args:
        gaussians: the scene.
        cameras: of the same world; times and intrinsics stay.
        rotation: orthonormal with determinant 1.

    Raises:
        InvalidInputError: ``rotation`` is no rotation.
    """
    return gaussians.transformed(rotation), turn_cameras(cameras, rotation)


def turn_cameras(cameras: Cameras, rotation: Float[Tensor, "3 3"]) -> Cameras:
    """Cameras turned about the world's origin; times and intrinsics stay."""
    c2w = cameras.c2w.cpu().double().clone()
    c2w[:, :3] = rotation.cpu().double() @ c2w[:, :3]
    c2w = c2w.to(cameras.dtype).to(cameras.device)
    return Cameras(c2w, cameras.Ks_norm, cameras.times)


def upright_rotation(cameras: Cameras, *, up: str) -> Float[Tensor, "3 3"]:
    """The turn of `turn_upright` alone, float64 on the CPU; for scenes of many parts.

    Args:
        cameras: of the scene.
        up: as for `turn_upright`.

    Raises:
        InvalidInputError: as for `turn_upright`.
    """
    if up not in get_args(Up):
        known = ", ".join(f'"{choice}"' for choice in get_args(Up))
        raise InvalidInputError(f'up is "{up}"; expected one of {known}.')
    if up == "+Z":
        return splat_world_rotation()
    if up == "from cameras":
        direction = _certain_up(cameras)
        return splat_world_rotation(direction, _heading(cameras, direction))
    return torch.eye(3, dtype=torch.float64)


def _certain_up(cameras: Cameras) -> Float[Tensor, "3"]:
    """What `estimate_up` gives, refused where it would be a guess."""
    mean_up, level = ideas_of_up(cameras)
    agreement = float(torch.linalg.vector_norm(mean_up))
    if level is None:
        rights = cameras.c2w[:, :3, 0].detach().cpu().double()
        if float((rights @ rights[0]).min()) > 1.0 - 1e-3:
            raise InvalidInputError(
                f'up is "from cameras", but all {len(cameras)} cameras have the same direction to '
                f"their right, so they could as well look straight down as ahead. {_CHOOSE}"
            )
        if agreement < _LEAST_AGREEMENT:
            raise _contradiction(cameras)
        return mean_up / agreement
    along = float(level @ mean_up)
    if abs(along) < max(_LEAST_AGREEMENT * agreement, _LEAST_UP_IN_PICTURES):
        raise _contradiction(cameras)
    return level if along > 0 else -level


def _contradiction(cameras: Cameras) -> InvalidInputError:
    return InvalidInputError(
        f'up is "from cameras", but the {len(cameras)} cameras contradict each other about what is '
        f"up: they roll, are held in different ways, or look straight down. {_CHOOSE}"
    )


def _heading(cameras: Cameras, up: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    """Where the first camera looks, or would look if it were not tilted straight down or up."""
    rotation = cameras.c2w[0, :3, :3].detach().cpu().double()
    right, forward = rotation[:, 0], rotation[:, 2]
    straight = float(torch.linalg.cross(forward, up).norm()) < 1e-2
    return torch.linalg.cross(up, right) if straight else forward
