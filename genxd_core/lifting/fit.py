"""Views to 3D Gaussians by optimisation (Kerbl et al. 2023; the paper's App. H).

Dimension letters: v views, n Gaussians.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError
from ..progress import Progress
from .backends import Backend, choose_backend
from .density import Densifier, lower_opacities, relocate
from .fit_inputs import FitInputs, check_fit_inputs
from .fit_loop import DrawnValues, FitLoop, FitStep
from .fit_loss import FitLoss
from .gaussians import Gaussians
from .parameters import FreeGaussians
from .perceptual import PerceptualModel
from .point_cloud import PointCloud
from .rasterize import TensorRendering
from .recipes import FitRecipe, find_recipe
from .sight import seen_by_half
from .start import (
    Start,
    check_masks,
    from_depths,
    from_frusta,
    from_masks,
    from_points,
    typical_distance,
)
from .start_gaps import with_gaps_filled

__all__ = ["STARTS", "FitResult", "FitStep", "fit_gaussians"]

STARTS = ("auto", "masks", "points", "triangulate", "depth", "frusta")

_FIRST_OPACITY = 0.1
_LAST_MOVES = 0.8  # of the iterations


@dataclass(frozen=True)
class FitResult:
    """What came of a fit.

    Attributes:
        gaussians: in the world of the cameras, on the CPU.
        history: a record for each iteration (for every tenth on a GPU).
        metrics: "psnr" and "ssim" of the training views, "held_out_psnr" and "held_out_ssim" of
            the others where there are any, "num_gaussians", "iterations" done, "seconds".
        start: what it started from: "masks", "points", "triangulate", "depth" or "frusta".
        backend: that drew.
        cancelled: whether it was stopped before its end; the Gaussians are the best so far.
    """

    gaussians: Gaussians
    history: tuple[FitStep, ...]
    metrics: dict[str, float]
    start: str
    backend: str
    cancelled: bool


def fit_gaussians(
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    *,
    recipe: str | FitRecipe = "single_view",
    masks: Tensor | None = None,
    ignore: Tensor | None = None,
    background: Sequence[float] = (1.0, 1.0, 1.0),
    points: PointCloud | None = None,
    depths: Tensor | None = None,
    perceptual: PerceptualModel | Literal["gradient"] | None = None,
    start: str = "auto",
    held_out: Sequence[int] = (),
    seed: int = 0,
    backend: Backend = "auto",
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    on_step: Callable[[FitStep], None] | None = None,
) -> FitResult:
    """Fit Gaussians to pictures with known cameras.

    One view an iteration, in random order. With masks the object alone is fitted, over a
    background of random colour in each iteration, so that nothing white floats before it. On one
    device (a CPU, or gsplat aside a GPU) the same seed gives the same Gaussians.

    Args:
        images: in [0, 1], at least two that are not held out; over ``background`` where masks are
            given.
        cameras: one per image.
        recipe: "single_view" (2k iterations; photometric, LPIPS and mask losses) and "few_view"
            (10k; photometric, SSIM, LPIPS) are the paper's; "demo" takes minutes on a CPU, "test"
            seconds. Or settings of your own, best made with ``dataclasses.replace`` from `RECIPES`.
        masks: (V, 1, H, W), 1 = object. `masks_from_background` makes them.
        ignore: (V, 1, H, W), 1 = not looked at, such as what moves in a scene at rest.
        background: colour that the images are over, red, green and blue.
        points: to start from.
        depths: (V, 1, H, W) z-depth in scene units to start from, 0 where unknown.
        perceptual: for recipes with LPIPS, a model of `load_perceptual`, or "gradient", which
            compares gradients at several scales instead and needs no weights.
        start: "auto" takes points, else depth, else masks, else the recipe's own; or one of
            "masks", "points", "triangulate" (pycolmap), "depth", "frusta" (points spread through
            what the cameras see).
        held_out: views to compare with instead of fitting them.
        seed: of everything random.
        backend: of `rasterize`.
        device: where to fit; ``None`` for CUDA where there is one, else the CPU.
        progress: called after every iteration; now and then with a picture (3, h, w) of a held-out
            view, or else of the first. Returning ``False`` ends the fit and keeps the best so far.
        on_step: called with what goes into the history.

    Raises:
        InvalidInputError: inputs that do not fit together, or from which nothing can start.
        MissingDependencyError: "triangulate" without pycolmap, or a backend that is not installed.
        Cancelled: ``progress`` returned ``False`` while points were triangulated, before the fit.
    """
    settings = find_recipe(recipe)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    drawn_by = choose_backend(backend, where)
    generator = torch.Generator().manual_seed(seed)
    # What a caller's inference mode made has no gradients; inputs are copied outside of it.
    with torch.inference_mode(False), torch.enable_grad():
        inputs = check_fit_inputs(
            images,
            cameras,
            masks=masks,
            depths=depths,
            background=background,
            held_out=held_out,
            ignore=ignore,
        )
        loss = FitLoss(inputs, settings, perceptual, where)
        begin = _start(inputs, settings, start, points, generator, seed, progress)
        model = _StillModel(inputs, settings, begin, where, generator)
        fit = FitLoop(model, inputs, settings.iterations, loss, drawn_by, where, generator)
        fit.run(progress, on_step)
        gaussians, metrics = fit.outcome()
        assert isinstance(gaussians, Gaussians)
        return FitResult(
            gaussians.to("cpu"), tuple(fit.history), metrics, begin.kind, drawn_by, fit.cancelled
        )


def _start(
    inputs: FitInputs,
    recipe: FitRecipe,
    start: str,
    points: PointCloud | None,
    generator: torch.Generator,
    seed: int,
    progress: Progress | None,
) -> Start:
    images, cameras, masks, depths = inputs.start_from()
    if masks is not None:
        check_masks(masks)
    given = {"points": points, "depth": depths, "masks": masks}
    if start not in STARTS:
        raise InvalidInputError(f"start is {start!r}; expected one of {', '.join(STARTS)}.")
    if start == "auto":
        chosen = next((name for name, value in given.items() if value is not None), recipe.start)
        start = "frusta" if chosen == "auto" else chosen
    if start in given and given[start] is None:
        argument = "depths" if start == "depth" else start
        raise InvalidInputError(f"start is {start!r}, but no {argument} came; give them.")
    count = min(recipe.num_gaussians, recipe.max_gaussians)
    if start == "masks" and masks is not None:
        return from_masks(images, cameras, masks, count, generator, inputs.training)
    if start == "depth" and depths is not None:
        return from_depths(images, cameras, depths, masks, count, generator)
    if start == "frusta":
        return from_frusta(images, cameras, inputs.background, count, generator)
    if start == "triangulate":
        points = _triangulated(images, cameras, masks, seed, recipe.iterations, progress)
    assert points is not None
    known = from_points(points, images, cameras)
    found = Start(known.means, known.scales, known.rgb, start)
    if recipe.fill_gaps:
        wanted = inputs.looked_at()
        found = with_gaps_filled(found, images, cameras, inputs.background, wanted, generator)
    return found.thinned(recipe.max_gaussians, generator)


def _triangulated(
    images: Tensor,
    cameras: Cameras,
    masks: Tensor | None,
    seed: int,
    iterations: int,
    progress: Progress | None,
) -> PointCloud:
    from .triangulate import triangulate_points

    def waiting(step: int, total: int, preview: Tensor | None = None) -> bool | None:
        # The bar is the fit's; this alone lets a user stop.
        return None if progress is None else progress(0, iterations)

    return triangulate_points(images, cameras, masks=masks, seed=seed, progress=waiting)


class _StillModel:
    """Free Gaussians that are cloned, split and moved as the fit goes on."""

    def __init__(
        self,
        inputs: FitInputs,
        recipe: FitRecipe,
        start: Start,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self._recipe, self._generator = recipe, generator
        distance = start.distance or typical_distance(start.means, inputs.cameras)
        # What a picture's width is at the scene's distance.
        unit = distance / float(inputs.cameras.Ks_norm[:, 0, 0].mean())
        self._free = FreeGaussians(
            start.means.to(device),
            start.scales.to(device),
            start.rgb.to(device),
            opacity=_FIRST_OPACITY,
            recipe=recipe,
            unit=unit,
        )
        # Where masks outline an object, what drifted out of sight is no part of it.
        training = inputs.cameras[torch.tensor(inputs.training)]
        self._outlined = training if start.kind == "masks" else None
        self._densifier = recipe.densify and Densifier(
            recipe.densify,
            max_gaussians=recipe.max_gaussians,
            distance=distance,
            middle=inputs.cameras.centres.mean(0).to(device),
            size=inputs.size,
            generator=generator,
        )

    def __len__(self) -> int:
        return len(self._free)

    def values(self, view: int, iteration: int) -> DrawnValues:
        free = self._free
        degree = min(self._recipe.sh_degree, (iteration - 1) // self._recipe.sh_every)
        return (
            free["means"],
            free["quats"],
            free.scales,
            free.opacities,
            free.colours(degree),
        )

    def features(self, view: int) -> None:
        return None

    def penalty(self) -> None:
        return None

    def learn(self, rendering: TensorRendering, iteration: int) -> None:
        recipe, settings = self._recipe, self._recipe.densify
        if self._densifier and settings and iteration < settings.stop:
            self._densifier.collect(rendering)
        self._free.step(iteration / recipe.iterations)
        if self._densifier and settings and settings.start <= iteration < settings.stop:
            if iteration % settings.every == 0:
                self._densifier.grow(self._free)
            if settings.reset_every and iteration % settings.reset_every == 0:
                lower_opacities(self._free)
        every = recipe.relocate_every
        # Gaussians that move late have no time to settle.
        if every and iteration % every == 0 and iteration <= _LAST_MOVES * recipe.iterations:
            relocate(self._free, self._generator)

    def snapshot(self) -> Gaussians:
        found = self._free.gaussians()
        if self._outlined is None:
            return found
        kept = seen_by_half(found.means, self._outlined).to(found.means.device)
        return found[kept] if bool(kept.any()) else found
