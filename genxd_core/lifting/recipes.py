"""Named settings of a fit: how long, how many Gaussians, which losses, which learning rates.

The paper (App. H) states iterations and losses; weights, numbers of Gaussians and learning rates
are this project's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from ..errors import InvalidInputError

__all__ = ["RECIPES", "Densify", "FitRecipe", "adjusted_recipe", "find_recipe"]


@dataclass(frozen=True)
class Densify:
    """When and where Gaussians are added, taken away and made faint.

    Attributes:
        start: first iteration at which Gaussians are added.
        stop: from this iteration on nothing is added or taken away any more.
        every: iterations between two rounds.
        gradient: mean gradient of the loss by a centre's place, in half-image units, above which a
            Gaussian is cloned (a small one) or split (a large one).
        large: what counts as large, as a fraction of the scene's distance, or its own if farther.
        reset_every: iterations between two times when all opacities are lowered; 0 for never.
    """

    start: int
    stop: int
    every: int = 100
    gradient: float = 2e-4
    large: float = 0.01
    reset_every: int = 0


@dataclass(frozen=True)
class FitRecipe:
    """Settings of `fit_gaussians`.

    Attributes:
        iterations: steps of Adam, one view each.
        num_gaussians: to start with, where the start can choose.
        max_gaussians: never more than these, whatever the start or densification would give.
        sh_degree: of the colours, 0 to 3; above 0 one more degree every `sh_every` iterations.
        sh_every: see ``sh_degree``.
        l1: weight of the mean absolute difference.
        ssim: weight of 1 - SSIM.
        lpips: weight of LPIPS, or of its stand-in "gradient".
        mask: weight of the mean absolute difference of opacity and mask, where masks are given.
        start: what it starts from when nothing is given: "auto" (see `fit_gaussians`) or
            "triangulate".
        fill_gaps: whether points to start from are joined by others where pictures show something
            and no point is; for views that are near each other, such as a video's.
        opaque: whether a whole scene, without masks, is drawn over a random colour in each
            iteration, so that no background shines through it.
        relocate_every: iterations between two times when Gaussians too faint to be seen are moved
            to where there is something; 0 for never.
        densify: adding Gaussians, or ``None``.
        lr_means: as a fraction of the picture's width at the scene's distance; falls
            exponentially to ``lr_means_end``.
        lr_means_end: see ``lr_means``.
        lr_scales: of the logarithms of the scales.
        lr_quats: of the rotations.
        lr_opacities: of the logits of the opacities.
        lr_colours: of the logits of the base colours; the further coefficients have a twentieth.
        lr_others_end: all rates but that of the means fall exponentially to this share.
    """

    iterations: int
    num_gaussians: int
    max_gaussians: int
    sh_degree: int = 0
    sh_every: int = 1000
    l1: float = 0.8
    ssim: float = 0.2
    lpips: float = 0.0
    mask: float = 0.5
    start: str = "auto"
    fill_gaps: bool = False
    opaque: bool = False
    relocate_every: int = 100
    densify: Densify | None = None
    lr_means: float = 5e-3
    lr_means_end: float = 2e-5
    lr_scales: float = 2e-2
    lr_quats: float = 5e-3
    lr_opacities: float = 5e-2
    lr_colours: float = 2e-2
    lr_others_end: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise InvalidInputError(
                    f"{field.name} of the recipe is {value}; expected a number that is at least 0."
                )
        for name in ("iterations", "num_gaussians", "max_gaussians"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} of the recipe is 0; expected at least 1.")
        if self.sh_degree > 3:
            raise InvalidInputError(
                f"sh_degree of the recipe is {self.sh_degree}; expected 0, 1, 2 or 3."
            )


RECIPES: Mapping[str, FitRecipe] = MappingProxyType(
    {
        # App. H: single-view 3D generation.
        "single_view": FitRecipe(
            iterations=2000,
            num_gaussians=10_000,
            max_gaussians=50_000,
            l1=1.0,
            ssim=0.0,
            lpips=0.2,
            densify=Densify(start=300, stop=1500),
            lr_others_end=0.1,
        ),
        # App. H: few-view reconstruction.
        "few_view": FitRecipe(
            iterations=10_000,
            num_gaussians=10_000,
            max_gaussians=200_000,
            sh_degree=1,
            lpips=0.2,
            start="triangulate",
            densify=Densify(start=500, stop=7500, reset_every=3000),
            lr_means_end=1e-5,
            lr_scales=5e-3,
            lr_quats=1e-3,
        ),
        # Minutes on a CPU.
        "demo": FitRecipe(
            iterations=500,
            num_gaussians=5000,
            max_gaussians=20_000,
            densify=Densify(start=100, stop=400, every=50),
            lr_means=1e-2,
            lr_means_end=5e-5,
        ),
        # Seconds on a CPU.
        "test": FitRecipe(iterations=200, num_gaussians=2000, max_gaussians=5000),
    }
)


def find_recipe(recipe: str | FitRecipe) -> FitRecipe:
    """A recipe by its name, or itself.

    Raises:
        InvalidInputError: there is none of this name.
    """
    if isinstance(recipe, FitRecipe):
        return recipe
    if recipe not in RECIPES:
        raise InvalidInputError(
            f"recipe is {recipe!r}; expected one of {', '.join(map(repr, RECIPES))}, or a "
            "FitRecipe."
        )
    return RECIPES[recipe]


def adjusted_recipe(
    recipe: str | FitRecipe,
    *,
    iterations: int | None = None,
    num_gaussians: int | None = None,
    sh_degree: int | None = None,
    lpips: float | None = None,
) -> FitRecipe:
    """A recipe with some settings changed; ``None`` leaves one as it is.

    Args:
        recipe: by its name, or itself.
        iterations: see `FitRecipe`.
        num_gaussians: to start with, and at least the limit.
        sh_degree: reached before the last iteration, however few there are.
        lpips: see `FitRecipe`.

    Raises:
        InvalidInputError: there is no such recipe, or it cannot have such a setting.
    """
    settings = find_recipe(recipe)
    if iterations is not None:
        settings = replace(settings, iterations=iterations)
    if num_gaussians is not None:
        most = max(settings.max_gaussians, num_gaussians)
        settings = replace(settings, num_gaussians=num_gaussians, max_gaussians=most)
    if sh_degree is not None:
        settings = replace(settings, sh_degree=sh_degree)
    if lpips is not None:
        settings = replace(settings, lpips=lpips)
    if settings.sh_degree:
        every = max(1, settings.iterations // (settings.sh_degree + 1))
        settings = replace(settings, sh_every=min(settings.sh_every, every))
    return settings
