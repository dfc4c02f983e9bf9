"""Pictures as tensors: what every part of the library expects of them, and how PIL's become such.

Inside the library a set of pictures is (V, 3, H, W), floating point, in [0, 1].
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image, ImageOps
from torch import Tensor

from .errors import InvalidInputError

__all__ = ["as_pictures", "check_pictures", "from_pil", "to_pil"]

_RANGE_TOLERANCE = 1e-3


def check_pictures(images: Shaped[Tensor, "..."], name: str) -> None:
    """Refuse what is no set of pictures.

    Args:
        images: should be (V, 3, H, W), floating point, in [0, 1].
        name: of the argument, for the message.

    Raises:
        InvalidInputError: a shape, type or range that does not fit, or NaN.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        hint = ""
        if images.ndim == 4 and images.shape[-1] == 3:
            hint = " The channels come last here; use .permute(0, 3, 1, 2)."
        raise InvalidInputError(
            f"{name} has shape {tuple(images.shape)}; expected (V, 3, H, W), V at least 1.{hint}"
        )
    if not images.is_floating_point():
        raise InvalidInputError(
            f"{name} is in {images.dtype}; expected floating point in [0, 1] (divide by 255)."
        )
    low, high = (float(value) for value in images.detach().aminmax())
    if not (low >= -_RANGE_TOLERANCE and high <= 1.0 + _RANGE_TOLERANCE):
        raise InvalidInputError(
            f"{name} lies in [{low:.4g}, {high:.4g}]; expected [0, 1] and no NaN. From [-1, 1] "
            "take x / 2 + 0.5, from [0, 255] x / 255."
        )


def as_pictures(
    images: Tensor | Sequence[Tensor | Image.Image], name: str
) -> Float[Tensor, "v 3 h w"]:
    """One checked tensor of a tensor or a list of pictures.

    Args:
        images: (V, 3, H, W), or a list of (3, H, W) tensors in [0, 1] and PIL pictures of one size.
            Transparent PIL pictures are composited on white.
        name: of the argument, for messages.

    Raises:
        InvalidInputError: pictures of different sizes, or as `check_pictures`.
    """
    if isinstance(images, Tensor):
        check_pictures(images, name)
        return images
    if isinstance(images, (str, bytes)) or not isinstance(images, Sequence) or len(images) == 0:
        raise InvalidInputError(
            f"{name} is {images!r:.60}; expected a (V, 3, H, W) tensor in [0, 1], or a list of "
            "pictures."
        )
    pictures = []
    for number, image in enumerate(images):
        if isinstance(image, Image.Image):
            colour, alpha = from_pil(image)
            image = colour if alpha is None else colour * alpha + (1.0 - alpha)
        if not isinstance(image, Tensor) or image.ndim != 3:
            got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise InvalidInputError(
                f"{name}[{number}] is {got}; expected a (3, H, W) tensor or a PIL picture."
            )
        pictures.append(image)
    sizes = {tuple(picture.shape) for picture in pictures}
    if len(sizes) > 1:
        told = ", ".join(f"{shape[-2]} x {shape[-1]}" for shape in sorted(sizes))
        raise InvalidInputError(
            f"{name} have different sizes ({told}, height x width); bring them to one size first, "
            "for instance with fit_views."
        )
    stacked = torch.stack(pictures)
    check_pictures(stacked, name)
    return stacked


def from_pil(image: Image.Image) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "1 h w"] | None]:
    """Colour and, where the picture has it, alpha (1 = opaque) in [0, 1].

    Turned upright by its EXIF orientation. Palettes, grey levels, CMYK and 16-bit pictures are
    converted; of an animation the current frame is taken.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image), None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        levels = _levels(image.convert("RGBA"))
        return levels[:3], levels[3:]
    return _levels(image.convert("RGB")), None


def to_pil(image: Shaped[Tensor, "3 h w"]) -> Image.Image:
    """An 8-bit picture of a tensor in [0, 1]; values are clamped and rounded."""
    levels = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def _levels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _from_deep_grey(image: Image.Image) -> Tensor:
    """16-bit grey levels; Pillow's own conversion to 8 bits would cut them off at 255."""
    values = torch.from_numpy(np.array(image).astype(np.float64))
    largest = 65535.0 if float(values.max()) > 255.0 else 255.0
    if image.mode == "F" and float(values.max()) <= 1.0:
        largest = 1.0
    return (values / largest).clamp(0, 1).float().expand(3, -1, -1).clone()
