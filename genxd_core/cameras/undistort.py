"""Pinhole pictures from those of real lenses: COLMAP's radial and tangential distortion.

With x, y on the plane at depth 1 and r^2 = x^2 + y^2, a lens shows a point at

    x (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2)

and likewise for y. SIMPLE_RADIAL, RADIAL, OPENCV and FULL_OPENCV are this with fewer coefficients.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from ..pictures import check_pictures

__all__ = ["COEFFICIENTS", "Undistorter", "distort", "pinhole_of_lens", "undistort_images"]

COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")

_LARGEST_ZOOM = 4.0
_ZOOM_STEPS = 40
_GRID = 65
_SLOPE_STEP = 1e-6


def distort(
    points: Float[Tensor, "*batch 2"], coefficients: Mapping[str, float]
) -> Float[Tensor, "*batch 2"]:
    """Where a lens shows points.

    Args:
        points: x, y on the plane at depth 1: a pinhole camera's.
        coefficients: by name, of `COEFFICIENTS`; those that are not named are 0.
    """
    k1, k2, p1, p2, k3, k4, k5, k6 = (coefficients.get(name, 0.0) for name in COEFFICIENTS)
    x, y = points.unbind(-1)
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return torch.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        dim=-1,
    )


def undistort_images(
    images: Float[Tensor, "v 3 h w"],
    Ks_norm: Float[Tensor, "v 3 3"],
    distortion: Sequence[Mapping[str, float]],
) -> tuple[Float[Tensor, "v 3 h w"], Float[Tensor, "v 3 3"]]:
    """The pictures that pinhole cameras in the same places would have taken, of the same size.

    Each new camera keeps its principal point; its focal length is the smallest for which every
    pixel was seen by the lens, so no border stays empty. Views without distortion are unchanged.

    Args:
        images: in [0, 1].
        Ks_norm: normalised intrinsics of the lenses.
        distortion: for each view its coefficients by name, of `COEFFICIENTS`.

    Returns:
        Pictures, and the normalised intrinsics of the pinhole cameras.

    Raises:
        InvalidInputError: counts that differ, an unknown or infinite coefficient, or a lens that
            folds the picture over itself.
    """
    check_pictures(images, "images")
    if len(Ks_norm) != len(images) or len(distortion) != len(images):
        raise InvalidInputError(
            f"images has {len(images)} pictures for {len(Ks_norm)} Ks_norm and "
            f"{len(distortion)} entries of distortion; give one of each for every picture."
        )
    pictures, pinholes = torch.empty_like(images), Ks_norm.clone()
    undistort = Undistorter()
    for view, coefficients in enumerate(distortion):
        pictures[view], pinholes[view] = undistort(
            images[view], Ks_norm[view], coefficients, f"view {view}"
        )
    return pictures, pinholes


def pinhole_of_lens(
    K_norm: Float[Tensor, "3 3"],
    coefficients: Mapping[str, float],
    *,
    width: int,
    height: int,
    where: str,
) -> Float[Tensor, "3 3"]:
    """Normalised intrinsics of the pinhole camera that `undistort_images` puts in a lens' place.

    Args:
        K_norm: normalised intrinsics of the lens.
        coefficients: by name, of `COEFFICIENTS`.
        width: of the picture in pixels.
        height: of the picture in pixels.
        where: names the view in a message.

    Raises:
        InvalidInputError: as `undistort_images`.
    """
    _check_coefficients(coefficients, where)
    if not any(coefficients.values()):
        return K_norm
    K, scale = _in_pixels(K_norm, width, height)
    pinhole = _scaled(K, _least_zoom(K, coefficients, width, height, where))
    return (pinhole / scale).to(K_norm)


class Undistorter:
    """`undistort_images` for one picture after another; what it knows of the last lens is kept."""

    def __init__(self) -> None:
        self._last: tuple[object, tuple[Tensor, Tensor]] | None = None

    def __call__(
        self,
        image: Float[Tensor, "3 h w"],
        K_norm: Float[Tensor, "3 3"],
        coefficients: Mapping[str, float],
        where: str,
        *,
        pinhole: Float[Tensor, "3 3"] | None = None,
    ) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 3"]]:
        """Picture and normalised intrinsics of the pinhole camera.

        Args:
            image: in [0, 1].
            K_norm: normalised intrinsics of the lens.
            coefficients: by name, of `COEFFICIENTS`.
            where: names the view in a message.
            pinhole: normalised intrinsics that are wanted, of `pinhole_of_lens` for a picture of
                this shape and perhaps another size; by default for this picture. Where it sees a
                fraction of a pixel past the border, the border's colour goes on.

        Raises:
            InvalidInputError: as `undistort_images`.
        """
        _check_coefficients(coefficients, where)
        if not any(coefficients.values()):
            return image, K_norm
        height, width = image.shape[1:]
        K, scale = _in_pixels(K_norm, width, height)
        wanted = None if pinhole is None else _in_pixels(pinhole, width, height)[0]
        told = () if wanted is None else tuple(wanted.flatten().tolist())
        key = (*K.flatten().tolist(), *sorted(coefficients.items()), width, height, told)
        last = self._last
        if last is None or key != last[0]:
            if wanted is None:
                wanted = _scaled(K, _least_zoom(K, coefficients, width, height, where))
            # One assignment, so that threads cannot mix the plans of two lenses.
            last = self._last = key, (wanted, _grid(K, wanted, coefficients, width, height))
        used, grid = last[1]
        # torch's bicubic kernel does not keep straight ramps: it moves edges by up to 0.06 pixels.
        sampled = F.grid_sample(
            image[None], grid.to(image), "bilinear", padding_mode="border", align_corners=False
        )
        return sampled[0].clamp(0, 1), (used / scale).to(K_norm)


def _in_pixels(K_norm: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    scale = torch.tensor([width, height, 1.0], dtype=torch.float64)[:, None]
    return K_norm.detach().cpu().double() * scale, scale


def _check_coefficients(coefficients: Mapping[str, float], where: str) -> None:
    for name, value in coefficients.items():
        if name not in COEFFICIENTS:
            raise InvalidInputError(
                f"distortion of {where} names {name!r}; expected some of {', '.join(COEFFICIENTS)}."
            )
        if not abs(value) < float("inf"):
            raise InvalidInputError(
                f"distortion of {where} has {name} = {value}; expected a finite number."
            )


def _grid(
    K: Tensor, pinhole: Tensor, coefficients: Mapping[str, float], width: int, height: int
) -> Tensor:
    """Where `grid_sample` looks for the pinhole camera's pixels; both cameras in pixels."""
    columns = torch.arange(width, dtype=torch.float64) + 0.5
    rows = torch.arange(height, dtype=torch.float64) + 0.5
    source = _source(_pixels(columns, rows), pinhole, K, coefficients)
    size = source.new_tensor([width, height])
    return (2 * source / size - 1).float()[None]


def _least_zoom(
    K: Tensor, coefficients: Mapping[str, float], width: int, height: int, where: str
) -> float:
    """The smallest factor on the focal length with which every pixel has a source, by bisection."""
    low, high = 1 / _LARGEST_ZOOM, _LARGEST_ZOOM
    if not _is_filled(K, high, coefficients, width, height):
        told = ", ".join(f"{name} = {value:.4g}" for name, value in coefficients.items())
        raise InvalidInputError(
            f"distortion of {where} ({told}) cannot be undone: the lens would show nothing, or "
            "the same thing twice, in part of the picture. Check the coefficients; fisheye lenses "
            "have other models."
        )
    for _ in range(_ZOOM_STEPS):
        middle = (low * high) ** 0.5
        if _is_filled(K, middle, coefficients, width, height):
            high = middle
        else:
            low = middle
    return high


def _is_filled(
    K: Tensor, zoom: float, coefficients: Mapping[str, float], width: int, height: int
) -> bool:
    """Whether all pixels have their source between the centres of the picture's outermost ones."""
    pinhole = _scaled(K, zoom)
    columns = torch.linspace(0.5, width - 0.5, max(_GRID, width), dtype=torch.float64)
    rows = torch.linspace(0.5, height - 0.5, max(_GRID, height), dtype=torch.float64)
    border = torch.cat(
        [
            _pixels(columns, rows[[0, -1]]).reshape(-1, 2),
            _pixels(columns[[0, -1]], rows).reshape(-1, 2),
        ]
    )
    seen = _source(border, pinhole, K, coefficients)
    limit = seen.new_tensor([width - 0.5, height - 0.5]) + 1e-9
    if not bool(((seen >= 0.5 - 1e-9) & (seen <= limit)).all()):
        return False
    return _keeps_its_orientation(pinhole, coefficients, width, height)


def _keeps_its_orientation(
    pinhole: Tensor, coefficients: Mapping[str, float], width: int, height: int
) -> bool:
    """Whether the lens shows everything within the pinhole's view once: nothing is folded over."""
    columns = torch.linspace(0.0, float(width), _GRID, dtype=torch.float64)
    rows = torch.linspace(0.0, float(height), _GRID, dtype=torch.float64)
    points = _unproject(_pixels(columns, rows), pinhole)
    steps = _SLOPE_STEP * torch.eye(2, dtype=torch.float64)
    by_x, by_y = (
        distort(points + step, coefficients) - distort(points - step, coefficients)
        for step in steps
    )
    turned = by_x[..., 0] * by_y[..., 1] - by_x[..., 1] * by_y[..., 0]
    # Shown on their own side: a negative factor would turn the picture by half a turn.
    outward = (distort(points, coefficients) * points).sum(-1)
    return bool((turned > 0).all() and (outward >= 0).all())


def _pixels(columns: Tensor, rows: Tensor) -> Tensor:
    """Positions (row, column, 2) as x, y."""
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1)


def _scaled(K: Tensor, zoom: float) -> Tensor:
    pinhole = K.clone()
    pinhole[:2, :2] *= zoom
    return pinhole


def _unproject(pixels: Tensor, K: Tensor) -> Tensor:
    inverse: Tensor = torch.linalg.inv(K[:2, :2])
    return (pixels - K[:2, 2]) @ inverse.T


def _source(
    pixels: Tensor, pinhole: Tensor, K: Tensor, coefficients: Mapping[str, float]
) -> Tensor:
    """Where the lens shows what the pinhole camera sees at a pixel; both in pixels."""
    shown = distort(_unproject(pixels, pinhole), coefficients)
    return shown @ K[:2, :2].T + K[:2, 2]
