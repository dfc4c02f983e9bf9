"""What a fit is given, checked once and brought to its device.

Dimension letters: v views.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.conventions import picture_aspect
from ..errors import InvalidInputError

__all__ = ["FitInputs", "check_fit_inputs"]

_SMALLEST_SIDE = 11  # of SSIM's window
_ONE_COLOUR = 0.01  # between the darkest and the brightest value at most
_STRETCH = 0.02  # of the pixels, that still passes for rounding


@dataclass(frozen=True)
class FitInputs:
    """Checked inputs on the CPU in float32.

    Attributes:
        images: as composited over the background.
        cameras: one per image.
        masks: 1 = object, or ``None``.
        depths: z-depth in scene units, 0 where unknown, or ``None``.
        ignore: 1 = not looked at, or ``None``.
        background: of the images.
        training: views to fit.
        held_out: views to compare with, never fitted.
    """

    images: Float[Tensor, "v 3 h w"]
    cameras: Cameras
    masks: Float[Tensor, "v 1 h w"] | None
    depths: Float[Tensor, "v 1 h w"] | None
    background: Float[Tensor, "3"]
    training: tuple[int, ...]
    held_out: tuple[int, ...]
    ignore: Float[Tensor, "v 1 h w"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures in pixels."""
        return self.images.shape[3], self.images.shape[2]

    def start_from(self) -> tuple[Tensor, Cameras, Tensor | None, Tensor | None]:
        """Images, cameras, masks and depths of the training views."""
        index = torch.tensor(self.training)
        masks = None if self.masks is None else self.masks[index]
        depths = None if self.depths is None else self.depths[index]
        return self.images[index], self.cameras[index], masks, depths

    def looked_at(self) -> Float[Tensor, "t 1 h w"] | None:
        """1 where the training views show what is fitted; ``None`` for everywhere."""
        index = torch.tensor(self.training)
        if self.masks is None and self.ignore is None:
            return None
        wanted = torch.ones_like(self.images[index, :1])
        if self.masks is not None:
            wanted = wanted * self.masks[index]
        return wanted if self.ignore is None else wanted * (1 - self.ignore[index])


def check_fit_inputs(
    images: Tensor,
    cameras: Cameras,
    *,
    masks: Tensor | None,
    depths: Tensor | None,
    background: Sequence[float],
    held_out: Sequence[int],
    ignore: Tensor | None = None,
) -> FitInputs:
    """Check what a fit is given, and copy it out of any inference mode.

    Raises:
        InvalidInputError: a shape, number, colour or index that does not fit.
    """
    if not isinstance(images, Tensor):
        raise InvalidInputError(
            f"images is a {type(images).__name__}; expected a tensor, such as torch.from_numpy "
            "makes of an array."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise InvalidInputError(
            f"images has shape {tuple(images.shape)}; expected (V, 3, height, width)."
        )
    count, _, height, width = images.shape
    if count != len(cameras):
        raise InvalidInputError(
            f"images has {count} pictures for {len(cameras)} cameras; give one camera per picture, "
            "in the same order."
        )
    if min(height, width) < _SMALLEST_SIDE:
        raise InvalidInputError(
            f"images are {width} x {height} pixels; the smaller side must be at least "
            f"{_SMALLEST_SIDE}."
        )
    kept = _checked(images, "images")
    if float(kept.max() - kept.min()) < _ONE_COLOUR:
        raise InvalidInputError(
            "images show one colour and nothing else, so there is nothing to fit; look at what "
            "made them, and whether the right folder was given."
        )
    _check_aspect(cameras, width, height)
    # Checked before anything is computed from it, for a wrong one shows only as a poor fit.
    colour = torch.as_tensor(list(background), dtype=torch.float32)
    if colour.shape != (3,) or not bool(((colour >= 0) & (colour <= 1)).all()):
        raise InvalidInputError(
            f"background is {tuple(background)}; expected red, green and blue in [0, 1]."
        )
    training, compared = _split(count, held_out)
    if ignore is not None and bool((ignore > 0.5).all()):
        raise InvalidInputError(
            "ignore covers all pixels of all images, so there is nothing to fit; 1 means not "
            "looked at. Invert it, or leave it out."
        )
    return FitInputs(
        images=kept,
        cameras=cameras.to("cpu", torch.float32),
        masks=None if masks is None else _map(masks, "masks", kept),
        depths=None if depths is None else _map(depths, "depths", kept, limit=False),
        background=colour,
        training=training,
        held_out=compared,
        ignore=None if ignore is None else _map(ignore, "ignore", kept),
    )


def _checked(values: Tensor, name: str, *, limit: bool = True) -> Tensor:
    if not values.is_floating_point():
        raise InvalidInputError(
            f"{name} are of type {values.dtype}; expected floating-point numbers"
            f"{' in [0, 1]' if limit else ''}."
        )
    copied = values.detach().to("cpu", torch.float32, copy=True)
    finite = copied.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        raise InvalidInputError(
            f"{name} of view {int((~finite).nonzero()[0, 0])} holds NaN or infinite numbers; look "
            "at what made it."
        )
    if limit:
        low, high = float(copied.min()), float(copied.max())
        if low < -0.5 or high > 1.5:
            raise InvalidInputError(
                f"{name} holds values from {low:.3g} to {high:.3g}; expected 0 to 1."
            )
        copied.clamp_(0, 1)
    return copied


def _map(values: Tensor, name: str, images: Tensor, *, limit: bool = True) -> Tensor:
    expected = (len(images), 1, *images.shape[2:])
    if tuple(values.shape) != expected:
        raise InvalidInputError(
            f"{name} has shape {tuple(values.shape)}; expected {expected}, one map of the "
            "pictures' size per picture."
        )
    return _checked(values, name, limit=limit)


def _check_aspect(cameras: Cameras, width: int, height: int) -> None:
    aspects = picture_aspect(cameras)
    stretch = (aspects * height / width).log().abs()
    worst = int(stretch.argmax())
    if float(stretch[worst]) > _STRETCH:
        raise InvalidInputError(
            f"images are {width} x {height} pixels, but camera {worst} has intrinsics for pictures "
            f"of aspect {float(aspects[worst]):.4g} (width / height), not {width / height:.4g}: "
            "the scene would be stretched. Fit the cameras together with the pictures."
        )


def _split(count: int, held_out: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    compared = []
    for index in held_out:
        if not -count <= index < count:
            raise InvalidInputError(
                f"held_out names view {index}, but there are {count} views; give 0 to {count - 1}."
            )
        compared.append(index % count)
    training = tuple(view for view in range(count) if view not in set(compared))
    if len(training) < 2:
        raise InvalidInputError(
            f"{len(training)} of {count} views are left to fit; a scene needs at least 2 views "
            "from different places, and typically 20 or more. Generate views along a path first "
            "(generate_path, GenXD Sample Path)."
        )
    return training, tuple(sorted(set(compared)))
