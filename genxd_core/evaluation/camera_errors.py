"""How far estimated cameras are from the true ones (App. F, and the measure used for curation).

A path from pictures is known up to a similarity, so every number here is free of one. Two
definitions exist; they are never mixed, and each result says which it is:

- ``aligned``: the estimated centres are laid on the true ones by the best similarity. Rotations are
  compared relative to frame 0, for a short or straight path leaves the alignment's own turn loose.
- ``paper`` (Table 9): both paths relative to their frame 0, centres divided by the largest distance
  from it. The paper does not say whether its rotation errors are degrees or radians; both are here.

Dimension letters: v views.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.conventions import relative_c2w
from ..cameras.rotations import rotation_angle
from ..cameras.similarity import fit_similarity
from ..errors import InvalidInputError

__all__ = ["CameraErrors", "camera_errors", "paper_camera_errors"]

_STANDS_STILL = 1e-9


@dataclass(frozen=True, kw_only=True)
class CameraErrors:
    """Means over the frames of a clip.

    Attributes:
        variant: which definition it is.
        rotation_deg: mean angle between the rotations relative to frame 0.
        translation: mean distance of the centres, without a unit: for "aligned" a fraction of the
            true path's diameter, for "paper" of each path's largest distance from frame 0. ``None``
            where a path has no extent.
        frames: that were compared.
    """

    variant: Literal["aligned", "paper"]
    rotation_deg: float
    translation: float | None
    frames: int

    @property
    def rotation_rad(self) -> float:
        """``rotation_deg`` in radians."""
        return math.radians(self.rotation_deg)


def camera_errors(estimated: Cameras, reference: Cameras) -> CameraErrors:
    """Errors after the best similarity ("aligned").

    Args:
        estimated: the cameras to judge.
        reference: the true ones of the same frames, in the same order.

    Raises:
        InvalidInputError: different numbers of cameras, or fewer than two.
    """
    _check(estimated, reference)
    moved = fit_similarity(_centres(estimated), _centres(reference))(_centres(estimated))
    truth = _centres(reference)
    diameter = float(torch.cdist(truth, truth).max())
    away = float((moved - truth).norm(dim=1).mean())
    return CameraErrors(
        variant="aligned",
        rotation_deg=float(_turned_deg(estimated, reference).mean()),
        translation=away / diameter if diameter > _STANDS_STILL else None,
        frames=len(reference),
    )


def paper_camera_errors(estimated: Cameras, reference: Cameras) -> CameraErrors:
    """Errors as App. F normalises them ("paper"); the same arguments and errors."""
    _check(estimated, reference)
    centres = [_from_first(cameras) for cameras in (estimated, reference)]
    reaches = [float(one.norm(dim=1).max()) for one in centres]
    translation = None
    if min(reaches) > _STANDS_STILL:
        apart = centres[0] / reaches[0] - centres[1] / reaches[1]
        translation = float(apart.norm(dim=1).mean())
    return CameraErrors(
        variant="paper",
        rotation_deg=float(_turned_deg(estimated, reference).mean()),
        translation=translation,
        frames=len(reference),
    )


def _check(estimated: Cameras, reference: Cameras) -> None:
    if len(estimated) != len(reference) or len(reference) < 2:
        raise InvalidInputError(
            f"estimated has {len(estimated)} cameras and reference {len(reference)}; give the "
            "cameras of the same frames, at least two."
        )


def _centres(cameras: Cameras) -> Float[Tensor, "v 3"]:
    return cameras.centres.detach().cpu().double()


def _from_first(cameras: Cameras) -> Float[Tensor, "v 3"]:
    exact = cameras.c2w.detach().cpu().double()
    return relative_c2w(exact, exact[0])[:, :3, 3]


def _turned_deg(estimated: Cameras, reference: Cameras) -> Float[Tensor, " v"]:
    turns = []
    for cameras in (estimated, reference):
        R = cameras.c2w[:, :3, :3].detach().cpu().double()
        turns.append(R[0].T @ R)
    return rotation_angle(turns[0], turns[1]).rad2deg()
