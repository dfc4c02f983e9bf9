"""Named settings of fits that move: a stage that stands still, then one that moves."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..errors import InvalidInputError
from .recipes import RECIPES, Densify, FitRecipe, adjusted_recipe

__all__ = [
    "RECIPES_4D",
    "RECIPES_BASES",
    "FieldSettings",
    "FitRecipe4D",
    "FitRecipeBases",
    "adjusted_recipe_4d",
    "adjusted_recipe_bases",
    "find_recipe_4d",
    "find_recipe_bases",
]


@dataclass(frozen=True)
class FieldSettings:
    """The deformation field and how it learns.

    Attributes:
        channels: of each feature plane.
        cells: along each axis of space, one number a level.
        time_cells: along time; 0 for half the number of different times, but at least
            one each for up to six of them.
        width: of the network's layers.
        moves_opacity: whether opacities change with time too.
        moves_colours: whether colours do, in all degrees that the recipe has.
        lr_planes: learning rate of the planes; both rates fall exponentially to ``lr_end``.
        lr_network: of the network.
        lr_end: share of both rates that is left at the end.
        space: weight of the squared second differences of the planes of space.
        time: the same along time.
        still: weight of the mean distance of the planes of time from 1, where nothing moves.
    """

    channels: int = 16
    cells: tuple[int, ...] = (32, 64)
    time_cells: int = 0
    width: int = 64
    moves_opacity: bool = False
    moves_colours: bool = False
    lr_planes: float = 3e-2
    lr_network: float = 5e-3
    lr_end: float = 0.1
    space: float = 1e-4
    time: float = 1e-3
    still: float = 1e-4


@dataclass(frozen=True)
class FitRecipe4D:
    """Settings of `fit_gaussians_4d`.

    Attributes:
        static: of the first stage, in which nothing moves.
        moving: iterations, losses and the Gaussians' learning rates of the second stage; nothing
            is added or taken away in it.
        field: the deformation field.
    """

    static: FitRecipe
    moving: FitRecipe
    field: FieldSettings = field(default_factory=FieldSettings)


def _moving(
    iterations: int, *, l1: float = 0.8, ssim: float = 0.2, lpips: float = 0.0
) -> FitRecipe:
    """Rates of a third of the static stage's: what is fitted already moves with care."""
    return FitRecipe(
        iterations=iterations,
        num_gaussians=1,
        max_gaussians=1,
        l1=l1,
        ssim=ssim,
        lpips=lpips,
        relocate_every=0,
        lr_means=6e-4,
        lr_means_end=1.2e-5,
        lr_scales=3e-3,
        lr_quats=1.5e-3,
        lr_opacities=1.5e-2,
        lr_colours=6e-3,
    )


RECIPES_4D: Mapping[str, FitRecipe4D] = MappingProxyType(
    {
        # App. H: 500 iterations without motion, 2k with it; photometric, LPIPS and mask losses.
        "object_4d": FitRecipe4D(
            static=FitRecipe(
                iterations=500,
                num_gaussians=10_000,
                max_gaussians=50_000,
                l1=1.0,
                ssim=0.0,
                lpips=0.2,
                densify=Densify(start=100, stop=400, every=50),
            ),
            moving=_moving(2000, l1=1.0, ssim=0.0, lpips=0.2),
        ),
        # Minutes on a CPU.
        "demo": FitRecipe4D(
            static=FitRecipe(iterations=300, num_gaussians=4000, max_gaussians=6000),
            moving=_moving(1200),
        ),
        # Seconds on a CPU.
        "test": FitRecipe4D(
            static=FitRecipe(iterations=60, num_gaussians=1000, max_gaussians=2000),
            moving=_moving(300),
            field=FieldSettings(
                channels=8, cells=(24,), width=32, lr_planes=5e-2, lr_network=1e-2, time=0.0
            ),
        ),
    }
)


def find_recipe_4d(recipe: str | FitRecipe4D) -> FitRecipe4D:
    """A recipe by its name, or itself.

    Raises:
        InvalidInputError: there is none of this name.
    """
    if isinstance(recipe, FitRecipe4D):
        return recipe
    if recipe not in RECIPES_4D:
        raise InvalidInputError(
            f"recipe is {recipe!r}; expected one of {', '.join(map(repr, RECIPES_4D))}, or a "
            "FitRecipe4D."
        )
    return RECIPES_4D[recipe]


def adjusted_recipe_4d(
    recipe: str | FitRecipe4D,
    *,
    iterations: int | None = None,
    num_gaussians: int | None = None,
    lpips: float | None = None,
) -> FitRecipe4D:
    """A recipe with some settings changed; ``None`` leaves one as it is.

    Args:
        recipe: by its name, or itself.
        iterations: of the second stage.
        num_gaussians: to start the first stage with.
        lpips: of both stages.

    Raises:
        InvalidInputError: there is no such recipe, or it cannot have such a setting.
    """
    settings = find_recipe_4d(recipe)
    return replace(
        settings,
        static=adjusted_recipe(settings.static, num_gaussians=num_gaussians, lpips=lpips),
        moving=adjusted_recipe(settings.moving, iterations=iterations, lpips=lpips),
    )


@dataclass(frozen=True)
class FitRecipeBases:
    """Settings of `fit_motion_bases`.

    Attributes:
        static: of the first stage, which fits what does not move.
        moving: iterations, losses and the Gaussians' learning rates of the second stage; its
            ``num_gaussians`` is how many move at most.
        num_bases: rigid motions that are shared.
        lr_bases: learning rate of the bases.
        lr_weights: of how much of each basis a Gaussian has.
        lr_end: share of both rates that is left at the end.
        acceleration: weight of the bases' second differences over the frames.
        mask: weight of the difference of what moves, as drawn, and the masks.
        depth: weight of the difference of inverse depths.
        guessed_depth: weight of the squared relative distance, along the line of sight, of what
            moves from where the fit guessed it to be, where no depth is given.
        tracks: weight of the mean distance from tracks, as a share of the picture's sides.
    """

    static: FitRecipe
    moving: FitRecipe
    num_bases: int = 6
    lr_bases: float = 1e-2
    lr_weights: float = 5e-2
    lr_end: float = 0.1
    acceleration: float = 0.01
    mask: float = 0.5
    depth: float = 0.5
    guessed_depth: float = 1.0
    tracks: float = 2.0


RECIPES_BASES: Mapping[str, FitRecipeBases] = MappingProxyType(
    {
        # App. E: photometric, depth and mask losses.
        "scene_4d": FitRecipeBases(
            static=FitRecipe(
                iterations=2000,
                num_gaussians=20_000,
                max_gaussians=100_000,
                fill_gaps=True,
                opaque=True,
                densify=Densify(start=300, stop=1500),
            ),
            moving=replace(_moving(4000), num_gaussians=20_000, max_gaussians=20_000, opaque=True),
            num_bases=10,
        ),
        # Minutes on a CPU.
        "demo": FitRecipeBases(
            static=replace(RECIPES["demo"], fill_gaps=True, opaque=True),
            moving=replace(_moving(800), opaque=True, num_gaussians=4000, max_gaussians=4000),
        ),
        # Seconds on a CPU.
        "test": FitRecipeBases(
            static=replace(RECIPES["test"], fill_gaps=True, opaque=True),
            moving=replace(_moving(300), opaque=True, num_gaussians=1000, max_gaussians=1000),
        ),
    }
)


def find_recipe_bases(recipe: str | FitRecipeBases) -> FitRecipeBases:
    """A recipe by its name, or itself.

    Raises:
        InvalidInputError: there is none of this name.
    """
    if isinstance(recipe, FitRecipeBases):
        return recipe
    if recipe not in RECIPES_BASES:
        raise InvalidInputError(
            f"recipe is {recipe!r}; expected one of {', '.join(map(repr, RECIPES_BASES))}, or a "
            "FitRecipeBases."
        )
    return RECIPES_BASES[recipe]


def adjusted_recipe_bases(
    recipe: str | FitRecipeBases, *, iterations: int | None = None
) -> FitRecipeBases:
    """A recipe with another number of iterations of the second stage; ``None`` leaves it.

    Raises:
        InvalidInputError: there is no such recipe, or it cannot have so many.
    """
    settings = find_recipe_bases(recipe)
    return replace(settings, moving=adjusted_recipe(settings.moving, iterations=iterations))
