"""Similarities of space (scale, rotation, shift), and the one that best lays points on others.

A reconstruction from pictures is known up to one: two of them can only be compared after it.

Dimension letters: n points.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from .cameras import Cameras

__all__ = ["Similarity", "fit_similarity"]


@dataclass(frozen=True, eq=False)
class Similarity:
    """``x -> scale * rotation @ x + translation``.

    Attributes:
        scale: positive.
        rotation: (3, 3).
        translation: (3,).
    """

    scale: float
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]

    def __call__(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """The moved points."""
        return self.scale * points @ self.rotation.T + self.translation

    def of_cameras(self, cameras: Cameras) -> Cameras:
        """The moved cameras; they see the moved scene as they saw it before."""
        c2w = cameras.c2w.clone()
        c2w[:, :3, :3] = self.rotation.to(c2w) @ c2w[:, :3, :3]
        moved = self.scale * c2w[:, :3, 3] @ self.rotation.to(c2w).T
        c2w[:, :3, 3] = moved + self.translation.to(c2w)
        return Cameras(c2w, cameras.Ks_norm, cameras.times)


def fit_similarity(source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Similarity:
    """The similarity after which ``source`` is nearest to ``target``, in least squares.

    Never mirrored. Of points on one line the turn about it is any; of points that all lie in one
    place the rotation is none and the scale 1.

    Args:
        source: points to be moved.
        target: where they should go, in the same order.

    Raises:
        InvalidInputError: no points, or different numbers of them.
    """
    if source.shape != target.shape or source.ndim != 2 or len(source) == 0:
        raise InvalidInputError(
            f"source has shape {tuple(source.shape)} and target {tuple(target.shape)}; expected "
            "the same number of points (N, 3) in both."
        )
    a, b = source.double(), target.double()
    middle_a, middle_b = a.mean(0), b.mean(0)
    a, b = a - middle_a, b - middle_b
    u, s, vh = torch.linalg.svd(b.T @ a)
    signs = s.new_tensor([1.0, 1.0, 1.0])
    signs[2] = 1.0 if float(torch.linalg.det(u @ vh)) > 0 else -1.0
    spread = float((a * a).sum())
    if spread == 0.0:
        rotation, scale = torch.eye(3, dtype=torch.float64), 1.0
    else:
        rotation, scale = u * signs @ vh, float((s * signs).sum()) / spread
    shift = middle_b - scale * rotation @ middle_a
    return Similarity(scale, rotation.to(target), shift.to(target))
