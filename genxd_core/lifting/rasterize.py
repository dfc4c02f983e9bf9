"""Pictures of Gaussians: colour, opacity, expected depth and any features, on whatever is there.

`rasterize` takes `Gaussians` and `Cameras`; `rasterize_tensors` takes bare tensors with gradients
and returns what densification needs as well. Both draw the same picture with every backend.

Dimension letters: v views, n Gaussians, k spherical-harmonic coefficients, d features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.rotations import invert_rigid
from ..errors import InvalidInputError
from .backends import Backend, choose_backend
from .gaussians import Gaussians
from .projection import project
from .sh import colours_seen_from

__all__ = ["Rendering", "TensorRendering", "rasterize", "rasterize_tensors"]

_LEAST_ALPHA = 1e-4  # below it there is nothing whose depth could be told
_LARGEST_SIDE = 16384


@dataclass(frozen=True)
class Rendering:
    """What V cameras see.

    Attributes:
        rgb: (V, 3, H, W) colour over the background; at least 0, and above 1 only where the
            Gaussians' colours are.
        alpha: (V, 1, H, W) how much the Gaussians cover, in [0, 1].
        depth: (V, 1, H, W) expected z-depth in scene units, 0 where alpha is next to nothing.
        features: (V, D, H, W) blended features, not divided by alpha; ``None`` if none came.
    """

    rgb: Float[Tensor, "v 3 h w"]
    alpha: Float[Tensor, "v 1 h w"]
    depth: Float[Tensor, "v 1 h w"]
    features: Float[Tensor, "v d h w"] | None


@dataclass(frozen=True)
class TensorRendering(Rendering):
    """A rendering with what a fit needs to know about each Gaussian.

    Attributes:
        means2d: (V, N, 2) centres in pixels, without gradient; see `means2d_gradients`.
        radii: (V, N) half the side of what each may touch, in pixels; 0 where not drawn.
        backend: that drew it.
    """

    means2d: Float[Tensor, "v n 2"]
    radii: Float[Tensor, "v n"]
    backend: str
    _drawn_means2d: tuple[Tensor, ...] = field(repr=False)

    def means2d_gradients(self) -> Float[Tensor, "v n 2"]:
        """After ``backward()``: the loss's gradient per pixel of each centre, 0 where not drawn.

        Times half the picture's width and height it is in half-image units, in which thresholds
        for densification are usually given.
        """
        return torch.stack(
            [
                torch.zeros_like(values) if drawn.grad is None else drawn.grad.view(values.shape)
                for drawn, values in zip(self._drawn_means2d, self.means2d, strict=True)
            ]
        )


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    width: int,
    height: int,
    backend: Backend = "auto",
    background: Tensor | Sequence[float] | None = None,
    features: Tensor | None = None,
) -> Rendering:
    """Draw Gaussians as cameras see them. Gradients flow to the tensors of ``gaussians``.

    Args:
        gaussians: the scene; it may be empty.
        cameras: V cameras; they are brought to the device and dtype of the Gaussians.
        width: of the pictures in pixels.
        height: of the pictures in pixels.
        backend: "gsplat" (CUDA), "numba" (CPU), "torch" (anywhere); "auto" takes the quickest that
            works, see `genxd_core.lifting.backends.active_backend`.
        background: (3,) for all views or (V, 3), in [0, 1]; ``None`` is black.
        features: (N, D) anything to be blended like a colour.

    Raises:
        InvalidInputError: a size, shape or backend that does not fit.
        MissingDependencyError: the backend that was asked for is not installed.
    """
    placed = cameras.to(gaussians.device, gaussians.dtype)
    found = rasterize_tensors(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.sh,
        viewmats=placed.viewmats,
        Ks=placed.Ks(width, height),
        width=width,
        height=height,
        backend=backend,
        background=background,
        features=features,
    )
    return Rendering(found.rgb, found.alpha, found.depth, found.features)


def rasterize_tensors(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colours: Float[Tensor, "n 3"] | Float[Tensor, "n k 3"],
    *,
    viewmats: Float[Tensor, "v 4 4"],
    Ks: Float[Tensor, "v 3 3"],
    width: int,
    height: int,
    backend: Backend = "auto",
    background: Tensor | Sequence[float] | None = None,
    features: Tensor | None = None,
) -> TensorRendering:
    """Draw bare tensors; values are not checked, as a fit calls this in every iteration.

    Args:
        means: in the world.
        quats: wxyz, of any length but 0.
        scales: linear.
        opacities: in [0, 1].
        colours: (N, 3) in [0, 1], or (N, K, 3) spherical harmonics.
        viewmats: world to camera, on the device of the means.
        Ks: intrinsics in pixels.
        width: of the pictures in pixels.
        height: of the pictures in pixels.
        backend: as for `rasterize`.
        background: as for `rasterize`.
        features: as for `rasterize`.

    Returns:
        The rendering; gradients flow to all five tensors and to the features, not to the cameras.

    Raises:
        InvalidInputError: a size, shape or backend that does not fit.
        MissingDependencyError: the backend that was asked for is not installed.
    """
    for name, side in (("width", width), ("height", height)):
        if not 1 <= side <= _LARGEST_SIDE:
            raise InvalidInputError(f"{name} is {side}; expected 1 to {_LARGEST_SIDE} pixels.")
    if features is not None and (features.ndim != 2 or len(features) != len(means)):
        raise InvalidInputError(
            f"features has shape {tuple(features.shape)} for {len(means)} Gaussians; expected "
            "(N, D), one row per Gaussian."
        )
    behind = _background(background, len(viewmats), means)
    chosen = choose_backend(backend, means.device)
    centres = invert_rigid(viewmats)[:, :3, 3]
    extra = [] if features is None else [features.to(means)]
    pictures, means2d, radii = [], [], []
    for view, viewmat in enumerate(viewmats):
        rgb = colours if colours.ndim == 2 else colours_seen_from(colours, means, centres[view])
        values = torch.cat([rgb, *extra], 1)
        picture, seen_means, seen_radii = _draw(
            chosen, means, quats, scales, opacities, values, viewmat, Ks[view], width, height
        )
        pictures.append(picture)
        means2d.append(seen_means)
        radii.append(seen_radii)
    stacked = torch.stack(pictures)
    rgb, alpha = stacked[:, :3], stacked[:, -1:]
    if behind is not None:
        rgb = rgb + (1.0 - alpha) * behind[:, :, None, None]
    there = alpha.detach() > _LEAST_ALPHA
    # The divisor first, then the quotient: else a gradient of NaN comes from where nothing is.
    depth = torch.where(there, stacked[:, -2:-1] / torch.where(there, alpha, 1.0), 0.0)
    return TensorRendering(
        rgb,
        alpha,
        depth,
        None if features is None else stacked[:, 3:-2],
        torch.stack([seen.detach().view(-1, 2) for seen in means2d]),
        torch.stack(radii),
        chosen,
        tuple(means2d),
    )


def _draw(
    backend: str,
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    values: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(C + 2, H, W) values, depth times weight, alpha; centres with their history; (N,) radii."""
    size = {"width": width, "height": height}
    if backend == "gsplat":
        from .composite_gsplat import draw

        if len(means):
            return draw(means, quats, scales, opacities, values, viewmat, K, **size)
    if backend == "numba":
        from .composite_numba import composite
    else:
        from .composite_torch import composite
    projection = project(means, quats, scales, opacities, viewmat, K, **size)
    if projection.means2d.requires_grad:
        projection.means2d.retain_grad()
    depths = projection.depths[:, None]
    picture = composite(
        projection, opacities, torch.cat([values, depths, torch.ones_like(depths)], 1), **size
    )
    return picture, projection.means2d, projection.radii


def _background(
    background: Tensor | Sequence[float] | None, num_views: int, like: Tensor
) -> Tensor | None:
    if background is None:
        return None
    colours = torch.as_tensor(background).to(device=like.device, dtype=like.dtype)
    if colours.shape not in ((3,), (num_views, 3)):
        raise InvalidInputError(
            f"background has shape {tuple(colours.shape)}; expected (3,) for all views, or "
            f"({num_views}, 3), one colour per view."
        )
    return colours.expand(num_views, 3)
