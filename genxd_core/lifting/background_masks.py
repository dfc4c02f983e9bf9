"""Masks of objects that stand before a plain background, such as white."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from ..optional import require

__all__ = ["masks_from_background"]


def masks_from_background(
    images: Float[Tensor, "v 3 h w"],
    background: Sequence[float] = (1.0, 1.0, 1.0),
    tolerance: float = 0.06,
    *,
    names: Sequence[str] = (),
) -> Float[Tensor, "v 1 h w"]:
    """Everything that is not joined to the picture's border by pixels of the background's colour.

    What has that colour within the object stays object.

    Args:
        images: in [0, 1].
        background: red, green and blue in [0, 1].
        tolerance: largest difference in any channel that still counts as background.
        names: of the pictures, for messages; by default they are counted from 0.

    Returns:
        Masks of 0 and 1; 1 = object.

    Raises:
        InvalidInputError: a picture has no border of that colour, or nothing else.
        MissingDependencyError: scipy is not installed.
    """
    ndimage = require("scipy.ndimage", extra="lift", purpose="find a plain background")
    colour = images.new_tensor(list(background))[:, None, None]
    plain = ((images - colour).abs().amax(1) <= tolerance).cpu().numpy()
    masks = []
    for view, like in enumerate(plain):
        border = np.ones_like(like)
        border[1:-1, 1:-1] = False
        outside = ndimage.binary_propagation(like & border, mask=like)
        share = outside.mean()
        if share < 0.01 or share > 0.999:
            told = "next to no border" if share < 0.01 else "next to nothing but background"
            which = names[view] if names else view
            raise InvalidInputError(
                f"picture {which} has {told} of the colour {tuple(background)} (tolerance "
                f"{tolerance:g}; {100 * share:.1f} % of its pixels), so its object cannot be told "
                "from the background. Give masks, or none to fit the whole scene."
            )
        masks.append(torch.from_numpy(~outside))
    return torch.stack(masks)[:, None].to(images)
