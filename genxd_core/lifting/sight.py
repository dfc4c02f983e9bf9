"""Gaussians of an object that hardly any camera has in its picture, and that nothing can teach.

Dimension letters: v views, n Gaussians.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from ..cameras.cameras import Cameras
from .start import in_view

__all__ = ["seen_by_half"]


def seen_by_half(
    means: Float[Tensor, "n 3"] | list[Tensor], cameras: Cameras
) -> Bool[Tensor, " n"]:
    """Whether half of the cameras, and at least two, have a Gaussian's centre in their pictures.

    What masks outline is in nearly all of them; what drifted out of sight is never told off.

    Args:
        means: of all Gaussians; or a list with where they are for each camera.
        cameras: that the masks belong to, on the CPU.
    """
    seen: Tensor | None = None
    for view in range(len(cameras)):
        there = means[view] if isinstance(means, list) else means
        _, inside = in_view(there.detach().float().cpu(), cameras, view)
        seen = inside.long() if seen is None else seen + inside
    assert seen is not None
    found: Tensor = seen >= max(2, len(cameras) // 2)
    return found
