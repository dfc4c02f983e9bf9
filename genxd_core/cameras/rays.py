"""Rays through pixel centres and their Plücker coordinates: what the network sees of cameras."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from .cameras import Cameras
from .conventions import relative_c2w

__all__ = ["camera_rays", "plucker_rays"]


def camera_rays(
    c2w: Float[Tensor, "v 4 4"], Ks_norm: Float[Tensor, "v 3 3"], *, height: int, width: int
) -> tuple[Float[Tensor, "v 3"], Float[Tensor, "v 3 {height} {width}"]]:
    """Origins and unit directions of the rays through all pixel centres, in float32.

    Args:
        c2w: camera-to-world poses with OpenCV axes.
        Ks_norm: normalised intrinsics.
        height: rows of the grid; row i has its centre at y = (i + 0.5) / height.
        width: columns of the grid; column j has its centre at x = (j + 0.5) / width.

    Returns:
        The cameras' centres and one direction per pixel, both in the world of ``c2w``.
    """
    c2w, Ks_norm = c2w.float(), Ks_norm.float()
    x = (torch.arange(width, device=c2w.device) + 0.5) / width
    y = (torch.arange(height, device=c2w.device) + 0.5) / height
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    pixels = torch.stack([grid_x, grid_y, torch.ones_like(grid_x)]).flatten(1)
    # Solving once for all pixels: (R K^-1) turns a pixel into a world direction.
    directions = c2w[:, :3, :3] @ torch.linalg.inv(Ks_norm) @ pixels
    directions = directions / directions.norm(dim=1, keepdim=True)
    return c2w[:, :3, 3], directions.unflatten(2, (height, width))


def plucker_rays(
    cameras: Cameras, *, height: int, width: int, reference: int | Tensor | np.ndarray = 0
) -> Float[Tensor, "v 6 {height} {width}"]:
    """Plücker coordinates of every latent pixel's ray, in the frame of the reference view.

    Light Field Networks (Sitzmann et al. 2021), the camera condition of the paper's Sec. 4:
    r = (d, o x d), with |d| = 1. Moving the whole world changes nothing.

    Args:
        cameras: V cameras.
        height: rows of the latent.
        width: columns of the latent.
        reference: index of the first conditioned view (negative ones count from the end), or its
            4 x 4 camera-to-world pose.

    Returns:
        float32 on the cameras' device: three channels of direction, then three of moment.

    Raises:
        InvalidInputError: a size is not positive, or there is no such reference view.
    """
    for name, value in (("height", height), ("width", width)):
        if value < 1:
            raise InvalidInputError(f"{name} is {value}; expected at least 1 latent pixel.")
    reference_c2w = _reference_pose(cameras, reference)
    relative = relative_c2w(cameras.c2w, reference_c2w)
    origins, directions = camera_rays(relative, cameras.Ks_norm, height=height, width=width)
    moments = torch.linalg.cross(origins[:, :, None, None].expand_as(directions), directions, dim=1)
    return torch.cat([directions, moments], dim=1)


def _reference_pose(cameras: Cameras, reference: int | Tensor | np.ndarray) -> Tensor:
    if isinstance(reference, (int, np.integer)):
        if not -len(cameras) <= int(reference) < len(cameras):
            raise InvalidInputError(
                f"reference is view {reference}, but there are {len(cameras)} cameras; give an "
                f"index from {-len(cameras)} to {len(cameras) - 1}, or a 4 x 4 c2w pose."
            )
        return cameras.c2w[int(reference)]
    # A copy of an array, which may be read-only.
    is_array = isinstance(reference, np.ndarray)
    pose = torch.from_numpy(np.array(reference)) if is_array else torch.as_tensor(reference)
    if pose.shape != (4, 4):
        raise InvalidInputError(
            f"reference has shape {tuple(pose.shape)}; expected an index or one 4 x 4 c2w pose."
        )
    identity = torch.eye(3).expand(1, 3, 3)
    try:
        return Cameras(pose[None].to(cameras.dtype).to(cameras.device), identity).c2w[0]
    except InvalidInputError as error:
        raise InvalidInputError(f"reference is no pose: {error}") from error
