"""Fitting pictures to the size that the network takes, and taking that back.

Either the picture covers the size and what stands over is cut off (crop), or it is padded to the
size's shape first (pad). Pillow's Lanczos filter on 8-bit values, as the reference does; the same
change is applied to intrinsics. One `FitRecord` describes it, so that whole paths follow and views
can be brought back.

Dimension letters: v views.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from .cameras.cameras import Cameras
from .errors import InvalidInputError

__all__ = [
    "FitMode",
    "FitRecord",
    "FittedViews",
    "fit_cameras",
    "fit_masks",
    "fit_views",
    "plan_fit",
    "unfit_cameras",
    "unfit_views",
]

FitMode = Literal["crop", "pad"]
_RANGE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class FitRecord:
    """How a picture was fitted: padded, resized, then cropped. Sizes are (height, width) in pixels.

    Attributes:
        mode: ``"crop"`` or ``"pad"``.
        source_size: of the given picture.
        padding: top, bottom, left, right, in pixels of the given picture.
        resized: of the whole (padded) picture after resizing.
        offset: (top, left) of the crop within that.
        size: of the fitted picture.
    """

    mode: FitMode
    source_size: tuple[int, int]
    padding: tuple[int, int, int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]

    @property
    def padded_size(self) -> tuple[int, int]:
        """(height, width) of the given picture with its padding."""
        top, bottom, left, right = self.padding
        return self.source_size[0] + top + bottom, self.source_size[1] + left + right

    @property
    def pad_info(self) -> tuple[int, int, int, int]:
        """Top, bottom, left, right padding in pixels of the fitted picture, rounded down."""
        height, width = self.padded_size
        top, bottom, left, right = self.padding
        rows, columns = self.resized
        return (
            top * rows // height,
            bottom * rows // height,
            left * columns // width,
            right * columns // width,
        )

    @property
    def focal_factors(self) -> tuple[float, float]:
        """What normalised fx and fy are multiplied by."""
        (height, width), (padded_height, padded_width) = self.source_size, self.padded_size
        return (
            width / padded_width * self.resized[1] / self.size[1],
            height / padded_height * self.resized[0] / self.size[0],
        )

    @property
    def picture_box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the given picture within the fitted one, in its pixels."""
        rows, columns = self.resized[0] / self.padded_size[0], self.resized[1] / self.padded_size[1]
        top = self.padding[0] * rows - self.offset[0]
        left = self.padding[2] * columns - self.offset[1]
        bottom, right = top + self.source_size[0] * rows, left + self.source_size[1] * columns
        height, width = self.size
        return (
            max(float(left), 0.0),
            max(float(top), 0.0),
            min(float(right), float(width)),
            min(float(bottom), float(height)),
        )

    @property
    def restored_size(self) -> tuple[int, int]:
        """(height, width) that `unfit_views` gives: of the part of the picture that was kept."""
        if self.mode == "pad":
            return self.source_size
        left, top, right, bottom = self.picture_box
        rows, columns = self.resized[0] / self.padded_size[0], self.resized[1] / self.padded_size[1]
        return max(1, round((bottom - top) / rows)), max(1, round((right - left) / columns))


@dataclass(frozen=True)
class FittedViews:
    """Fitted pictures, their intrinsics, and how they came about.

    Attributes:
        images: (V, 3, height, width) float32 in [0, 1].
        Ks_norm: (V, 3, 3) normalised intrinsics of the fitted pictures; ``None`` if none came.
        record: the same for all views.
    """

    images: Float[Tensor, "v 3 h w"]
    Ks_norm: Float[Tensor, "v 3 3"] | None
    record: FitRecord


def plan_fit(
    source_size: tuple[int, int], size: int | tuple[int, int], mode: FitMode = "crop"
) -> FitRecord:
    """What fitting pictures of one size to another does, without touching a picture.

    Args:
        source_size: (height, width) of the given pictures.
        size: (height, width) wanted, or one number for a square.
        mode: ``"crop"`` cuts off what stands over; ``"pad"`` keeps the whole picture.

    Raises:
        InvalidInputError: a size is not positive, or there is no such mode.
    """
    both = (size, size) if isinstance(size, (int, np.integer)) else size
    wanted = (int(both[0]), int(both[1]))
    for name, (height, width) in (("size", wanted), ("source_size", source_size)):
        if height < 1 or width < 1:
            raise InvalidInputError(f"{name} is {height} x {width}; expected at least 1 x 1 pixel.")
    if mode not in ("crop", "pad"):
        raise InvalidInputError(f"mode is {mode!r}; expected 'crop' or 'pad'.")
    height, width = source_size
    padding = _padding(source_size, wanted) if mode == "pad" else (0, 0, 0, 0)
    padded = (height + padding[0] + padding[1], width + padding[2] + padding[3])
    scale = max(wanted[0] / padded[0], wanted[1] / padded[1])
    resized = (
        max(round(padded[0] * scale), wanted[0]),
        max(round(padded[1] * scale), wanted[1]),
    )
    offset = ((resized[0] - wanted[0]) // 2, (resized[1] - wanted[1]) // 2)
    return FitRecord(mode, (height, width), padding, resized, offset, wanted)


def fit_views(
    images: Shaped[Tensor, "..."],
    Ks_norm: Shaped[Tensor, "..."] | None,
    size: int | tuple[int, int],
    *,
    mode: FitMode = "crop",
    background: float | Sequence[float] = 1.0,
    pad_color: float | Sequence[float] = 0.0,
    alpha: Shaped[Tensor, "..."] | None = None,
) -> FittedViews:
    """Bring pictures to a size, cropping or padding, and their intrinsics with them.

    As the reference: composited over the background (rounded to 8 bits) or cut (not rounded) to 8
    bits, padded, resized with Pillow's Lanczos filter so that the size is covered, and cropped in
    the middle. The principal point keeps its place relative to the picture's centre, to within the
    pixel that an odd rest is rounded by; at the centre it stays there.

    Args:
        images: (V, 3, H, W) in [0, 1].
        Ks_norm: (V, 3, 3) or (3, 3) normalised intrinsics, or ``None``.
        size: (height, width) in pixels, or one number for a square.
        mode: ``"crop"`` or ``"pad"`` (to the size's shape; an odd pixel goes to the bottom or
            right).
        background: grey value or three, in [0, 1], behind transparent parts.
        pad_color: grey value or three, in [0, 1], of the padding.
        alpha: (V, 1, H, W) or (V, H, W) in [0, 1], 1 = opaque; ``None`` for opaque pictures.

    Returns:
        Pictures of the wanted size, on the device of ``images``.

    Raises:
        InvalidInputError: a shape, range, mode or colour that does not fit.
    """
    _check_images(images, "images")
    record = plan_fit((images.shape[2], images.shape[3]), size, mode)
    fitted_Ks = None if Ks_norm is None else _fitted_Ks(_per_view(Ks_norm, len(images)), record)
    behind = _colour(background, "background") * 255
    values = images.detach().float().cpu().clamp(0, 1) * 255
    if alpha is not None:
        opaque = _checked_alpha(alpha, images).detach().float().cpu().clamp(0, 1)
        # Rounded, as Pillow composites; only what is not composited is cut.
        values = (values * opaque + behind * (1 - opaque)).round()
    levels = values.to(torch.uint8)
    pad_levels = (_colour(pad_color, "pad_color") * 255).to(torch.uint8).flatten().tolist()
    fitted = torch.stack([_fitted_picture(picture, record, pad_levels) for picture in levels])
    return FittedViews(fitted.to(images.device), fitted_Ks, record)


def fit_masks(masks: Shaped[Tensor, "..."], record: FitRecord) -> Float[Tensor, "v 1 h w"]:
    """The same change applied to masks or other single-channel maps; the padding becomes 0.

    Args:
        masks: (V, 1, H, W) in [0, 1], of the size that ``record`` was made for.
        record: of the pictures.

    Returns:
        Lanczos-resized in float, clamped to [0, 1].

    Raises:
        InvalidInputError: the size is not that of the pictures.
    """
    if masks.ndim != 4 or masks.shape[1] != 1 or tuple(masks.shape[2:]) != record.source_size:
        raise InvalidInputError(
            f"masks has shape {tuple(masks.shape)}; expected (V, 1, {record.source_size[0]}, "
            f"{record.source_size[1]}), the size of the pictures that were fitted."
        )
    top, bottom, left, right = record.padding
    padded = torch.nn.functional.pad(masks.detach().float().cpu(), (left, right, top, bottom))
    height, width = record.padded_size
    resized = _resized_float(padded, (0.0, 0.0, float(width), float(height)), record.resized)
    (row, column), (rows, columns) = record.offset, record.size
    return resized[:, :, row : row + rows, column : column + columns].to(masks.device)


def fit_cameras(cameras: Cameras, record: FitRecord) -> Cameras:
    """The same change applied to the intrinsics of a whole path; poses and times stay.

    Args:
        cameras: cameras of pictures as they were given to `fit_views`.
        record: of that call.
    """
    return Cameras(cameras.c2w, _fitted_Ks(cameras.Ks_norm, record), cameras.times)


def unfit_cameras(cameras: Cameras, record: FitRecord) -> Cameras:
    """Intrinsics of views that `unfit_views` brought back.

    After "pad" this is the inverse of `fit_cameras`. After "crop" the views that come back show
    what the fitted ones show, at another resolution, and normalised intrinsics stay.

    Args:
        cameras: cameras of fitted (or generated) views.
        record: of the `fit_views` call.
    """
    if record.mode == "crop":
        return cameras
    factors = cameras.Ks_norm.new_tensor(record.focal_factors)
    return Cameras(cameras.c2w, _scaled_about_centre(cameras.Ks_norm, 1 / factors), cameras.times)


def unfit_views(images: Shaped[Tensor, "..."], record: FitRecord) -> Float[Tensor, "v 3 h w"]:
    """Bring fitted (or generated) views back to the given picture's resolution.

    Padding is cut off and the picture area resized to the given picture's size. After cropping, the
    views get the size of the part that was kept: what was cut off cannot be invented.

    Args:
        images: (V, 3, height, width) in [0, 1], of the fitted size.
        record: of the `fit_views` call.

    Returns:
        (V, 3, *record.restored_size), Lanczos-resized in float, clamped to [0, 1].

    Raises:
        InvalidInputError: the size is not the fitted one.
    """
    _check_images(images, "images")
    if tuple(images.shape[2:]) != record.size:
        raise InvalidInputError(
            f"images are {images.shape[2]} x {images.shape[3]} pixels, but the record was made for "
            f"{record.size[0]} x {record.size[1]} (height x width). Connect the record of the same "
            "views."
        )
    pictures = images.detach().float().cpu()
    restored = _resized_float(pictures, record.picture_box, record.restored_size)
    return restored.to(images.device)


def _padding(source: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int, int, int]:
    height, width = source
    # Compared without division, so that equal shapes are never padded by rounding.
    extra_rows = max(0, math.ceil(width * wanted[0] / wanted[1] - 1e-9) - height)
    extra_columns = max(0, math.ceil(height * wanted[1] / wanted[0] - 1e-9) - width)
    if width * wanted[0] >= height * wanted[1]:
        extra_columns = 0
    else:
        extra_rows = 0
    top, left = extra_rows // 2, extra_columns // 2
    return top, extra_rows - top, left, extra_columns - left


def _check_images(images: Tensor, name: str) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InvalidInputError(
            f"{name} has shape {tuple(images.shape)}; expected (V, 3, H, W) with at least one view."
        )
    if not images.is_floating_point():
        raise InvalidInputError(
            f"{name} is in {images.dtype}; expected floating point in [0, 1] (divide by 255)."
        )
    low, high = (float(x) for x in images.detach().aminmax())
    if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):
        raise InvalidInputError(
            f"{name} lies in [{low:.4g}, {high:.4g}]; expected [0, 1]. From [-1, 1] take x / 2 + "
            "0.5, from [0, 255] x / 255; NaN must be removed."
        )


def _checked_alpha(alpha: Tensor, images: Tensor) -> Tensor:
    opaque = alpha[:, None] if alpha.ndim == 3 else alpha
    if opaque.shape != (len(images), 1, *images.shape[2:]):
        raise InvalidInputError(
            f"alpha has shape {tuple(alpha.shape)} for images of shape {tuple(images.shape)}; "
            f"expected ({len(images)}, 1, {images.shape[2]}, {images.shape[3]})."
        )
    return opaque


def _colour(value: float | Sequence[float], name: str) -> Tensor:
    values = [float(value)] * 3 if isinstance(value, (int, float)) else [float(v) for v in value]
    if len(values) != 3 or not all(0 <= v <= 1 for v in values):
        raise InvalidInputError(f"{name} is {value}; expected one or three numbers in [0, 1].")
    return torch.tensor(values).view(3, 1, 1)


def _per_view(Ks_norm: Tensor, num_views: int) -> Tensor:
    Ks = Ks_norm.expand(num_views, 3, 3) if Ks_norm.ndim == 2 else Ks_norm
    if Ks.shape != (num_views, 3, 3):
        raise InvalidInputError(
            f"Ks_norm has shape {tuple(Ks_norm.shape)} for {num_views} images; expected "
            f"({num_views}, 3, 3), or (3, 3) for all."
        )
    return Ks


def _fitted_Ks(Ks_norm: Tensor, record: FitRecord) -> Tensor:
    return _scaled_about_centre(Ks_norm, Ks_norm.new_tensor(record.focal_factors))


def _scaled_about_centre(Ks_norm: Tensor, factors: Tensor) -> Tensor:
    scaled = Ks_norm.clone()
    scaled[:, :2, :2] *= factors[:, None]
    scaled[:, :2, 2] = 0.5 + (Ks_norm[:, :2, 2] - 0.5) * factors
    return scaled


def _fitted_picture(levels: Tensor, record: FitRecord, pad_levels: list[int]) -> Tensor:
    picture = Image.fromarray(levels.permute(1, 2, 0).numpy())
    if any(record.padding):
        padded_height, padded_width = record.padded_size
        canvas = Image.new("RGB", (padded_width, padded_height), tuple(pad_levels))
        canvas.paste(picture, (record.padding[2], record.padding[0]))
        picture = canvas
    rows, columns = record.resized
    picture = picture.resize((columns, rows), Image.Resampling.LANCZOS)
    (top, left), (height, width) = record.offset, record.size
    picture = picture.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _resized_float(
    maps: Tensor, box: tuple[float, float, float, float], size: tuple[int, int]
) -> Tensor:
    """Lanczos in float, one channel at a time (Pillow's mode F), clamped to [0, 1]."""
    height, width = size
    flat = maps.flatten(0, 1).numpy()
    resized = [
        np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.LANCZOS, box=box))
        for one in flat
    ]
    stacked = torch.from_numpy(np.stack(resized)).clamp(0, 1)
    return stacked.reshape(*maps.shape[:2], height, width)
