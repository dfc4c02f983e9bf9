"""The loss of a fit: photometric, SSIM, perceptual, mask (App. H)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from .fit_inputs import FitInputs
from .losses import gradient_loss, ssim
from .perceptual import PerceptualModel, PreparedTargets
from .rasterize import Rendering
from .recipes import FitRecipe

__all__ = ["FitLoss", "check_perceptual"]

_IGNORED = 0.1  # of a pixel; blurred rims are left out as well


def check_perceptual(
    recipe: FitRecipe, perceptual: PerceptualModel | Literal["gradient"] | None
) -> None:
    """Refuse what a recipe cannot compare pictures with.

    Raises:
        InvalidInputError: the recipe needs a perceptual model and none came, or it is none.
    """
    if recipe.lpips and perceptual is None:
        raise InvalidInputError(
            f"perceptual is missing, but the recipe has an LPIPS term of weight "
            f"{recipe.lpips:g}. Give a model (load_perceptual, GenXD Load Perceptual Model), "
            'or "gradient", which needs no weights; or take the recipe "demo", or set the '
            "weight lpips to 0."
        )
    if isinstance(perceptual, str) and perceptual != "gradient":
        raise InvalidInputError(
            f'perceptual is {perceptual!r}; expected a model of load_perceptual or "gradient".'
        )


class FitLoss:
    """Compares a rendering over black with a view.

    With masks the rendering and the view's object are put over the same random colour. The
    perceptual term alone sees both over the view's own background, so that what it needs of the
    view is computed once.

    Args:
        inputs: the views.
        recipe: the weights.
        perceptual: a model, "gradient", or ``None`` where the recipe has no such term.
        device: of the renderings.

    Raises:
        InvalidInputError: the recipe needs a perceptual model, and none came.
    """

    def __init__(
        self,
        inputs: FitInputs,
        recipe: FitRecipe,
        perceptual: PerceptualModel | Literal["gradient"] | None,
        device: torch.device,
    ) -> None:
        check_perceptual(recipe, perceptual)
        self._recipe = recipe
        self._images = inputs.images.to(device)
        self._background = inputs.background.to(device)[:, None, None]
        self._masks = None if inputs.masks is None else inputs.masks.to(device)
        self._ignore = None if inputs.ignore is None else inputs.ignore.to(device) > _IGNORED
        self._objects: Tensor | None = None
        if self._masks is not None:
            over = (1 - self._masks) * self._background
            self._objects = (self._images - over).clamp_min(0)
        self._model = perceptual.to(device) if isinstance(perceptual, PerceptualModel) else None
        self._prepared: dict[int, PreparedTargets] = {}

    def __call__(
        self, rendering: Rendering, view: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the PSNR of the picture in dB.

        Args:
            rendering: of this view, over black.
            view: which.
            generator: on the CPU, for the background.
        """
        recipe = self._recipe
        behind, target = self._background, self._images[view : view + 1]
        loss = rendering.rgb.new_zeros(())
        if self._masks is not None and self._objects is not None:
            mask = self._masks[view : view + 1]
            behind = torch.rand(3, generator=generator).to(target)[:, None, None]
            target = self._objects[view : view + 1] + (1 - mask) * behind
            loss = loss + recipe.mask * (rendering.alpha - mask).abs().mean()
        elif recipe.opaque:
            behind = torch.rand(3, generator=generator).to(target)[:, None, None]
        picture = self._looked_at(rendering.rgb + (1 - rendering.alpha) * behind, target, view)
        difference = picture - target
        if recipe.l1:
            loss = loss + recipe.l1 * difference.abs().mean()
        if recipe.ssim:
            loss = loss + recipe.ssim * (1 - ssim(picture, target, window="same").mean())
        if recipe.lpips:
            loss = loss + recipe.lpips * self._perceptual(rendering, view)
        quality = -10 * difference.detach().square().mean().clamp_min(1e-10).log10()
        return loss, quality

    def _looked_at(self, picture: Tensor, target: Tensor, view: int) -> Tensor:
        """The picture with the truth where it is not looked at, so that nothing is learnt there."""
        if self._ignore is None:
            return picture
        return torch.where(self._ignore[view : view + 1], target, picture)

    def _perceptual(self, rendering: Rendering, view: int) -> Float[Tensor, ""]:
        target = self._images[view : view + 1]
        over = rendering.rgb + (1 - rendering.alpha) * self._background
        picture = self._looked_at(over, target, view)
        if self._model is None:
            # One stand-in for what LPIPS adds to a plain difference: edges and structure.
            likeness = ssim(picture, target, window="same").mean()
            return gradient_loss(picture, target).mean() + (1 - likeness)
        if view not in self._prepared:
            with torch.no_grad():
                self._prepared[view] = self._model.prepare(target)
        return self._model.distance(picture, self._prepared[view]).mean()
