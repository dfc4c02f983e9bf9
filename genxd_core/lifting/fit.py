"""Views to 3D Gaussians by optimisation (Kerbl et al. 2023; the paper's App. H).

Dimension letters: v views, n Gaussians.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import Cancelled, InvalidInputError
from ..progress import Progress, report
from .backends import Backend, choose_backend
from .density import Densifier, lower_opacities, relocate
from .fit_inputs import FitInputs, check_fit_inputs
from .fit_loss import FitLoss
from .gaussians import Gaussians
from .losses import psnr, ssim
from .parameters import FreeGaussians
from .perceptual import PerceptualModel
from .point_cloud import PointCloud
from .rasterize import TensorRendering, rasterize, rasterize_tensors
from .recipes import FitRecipe, find_recipe
from .start import Start, from_depths, from_frusta, from_masks, from_points

__all__ = ["STARTS", "FitResult", "FitStep", "fit_gaussians"]

STARTS = ("auto", "masks", "points", "triangulate", "depth", "frusta")

_FIRST_OPACITY = 0.1
_LAST_MOVES = 0.8  # of the iterations
_NUM_PREVIEWS = 40
_NUM_EVALUATIONS = 10
_STEPS_BETWEEN_LOOKS = 10  # on devices that must be waited for
_MOST_PREVIEWED = 512  # pixels of a preview's longer side


@dataclass(frozen=True)
class FitStep:
    """Where a fit is.

    Attributes:
        iteration: from 1.
        loss: of this iteration's view.
        psnr: in dB, of this iteration's view.
        num_gaussians: now.
        held_out_psnr: in dB, mean over the held-out views, as of the last look at them; ``None``
            without such views.
        seconds: since the first iteration began.
    """

    iteration: int
    loss: float
    psnr: float
    num_gaussians: int
    held_out_psnr: float | None
    seconds: float


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
        )
        loss = FitLoss(inputs, settings, perceptual, where)
        begin = _start(inputs, settings, start, points, generator, seed, progress)
        fit = _Fit(inputs, settings, begin, loss, drawn_by, where, generator)
        fit.run(progress, on_step)
        return fit.result()


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
    found = from_points(points, images, cameras)
    found = Start(found.means, found.scales, found.rgb, start)
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


class _Fit:
    """The state of one fit."""

    def __init__(
        self,
        inputs: FitInputs,
        recipe: FitRecipe,
        start: Start,
        loss: FitLoss,
        backend: str,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self._inputs, self._recipe, self._start, self._loss = inputs, recipe, start, loss
        self._backend, self._device, self._generator = backend, device, generator
        placed = inputs.cameras.to(device, torch.float32)
        self._viewmats, self._Ks = placed.viewmats, placed.Ks(*inputs.size)
        distance = _distance(start, inputs)
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
        self._densifier = recipe.densify and Densifier(
            recipe.densify,
            max_gaussians=recipe.max_gaussians,
            distance=distance,
            middle=inputs.cameras.centres.mean(0).to(device),
            size=inputs.size,
            generator=generator,
        )
        self._history: list[FitStep] = []
        self._held_out_psnr: float | None = None
        self._best: tuple[float, Gaussians] | None = None
        self._order: list[int] = []
        self._cancelled = False
        self._began = time.perf_counter()
        self._done = 0

    def run(self, progress: Progress | None, on_step: Callable[[FitStep], None] | None) -> None:
        """All iterations, or as many as the caller lets it do."""
        total = self._recipe.iterations
        look = 1 if self._device.type == "cpu" else _STEPS_BETWEEN_LOOKS
        preview_every = max(1, total // _NUM_PREVIEWS)
        evaluate_every = max(1, total // _NUM_EVALUATIONS)
        for iteration in range(1, total + 1):
            loss, quality = self._iterate(iteration)
            self._done = iteration
            if self._inputs.held_out and iteration % evaluate_every == 0 and iteration < total:
                self._evaluate()
            if iteration % look == 0 or iteration == total:
                self._record(iteration, loss, quality, on_step)
            shown = None
            if progress is not None and iteration % preview_every == 0:
                shown = self._preview()
            try:
                report(progress, iteration, total, shown)
            except Cancelled:
                self._cancelled = True
                return

    def result(self) -> FitResult:
        """The Gaussians and how good they are; the best seen if the fit was stopped."""
        gaussians = self._free.gaussians()
        seconds = time.perf_counter() - self._began
        quality, likeness = self._compare(gaussians, self._inputs.held_out)
        if self._cancelled and self._best is not None and self._best[0] > quality:
            gaussians = self._best[1]
            quality, likeness = self._compare(gaussians, self._inputs.held_out)
        metrics: dict[str, float] = {}
        metrics["psnr"], metrics["ssim"] = self._compare(gaussians, self._inputs.training)
        if self._inputs.held_out:
            metrics |= {"held_out_psnr": quality, "held_out_ssim": likeness}
        metrics["num_gaussians"] = len(gaussians)
        metrics["iterations"] = self._done
        metrics["seconds"] = seconds
        return FitResult(
            gaussians.to("cpu"),
            tuple(self._history),
            metrics,
            self._start.kind,
            self._backend,
            self._cancelled,
        )

    def _iterate(self, iteration: int) -> tuple[Tensor, Tensor]:
        """One view: its loss, its gradients, one step, and what densification has to do."""
        recipe, free = self._recipe, self._free
        view = self._next_view()
        degree = min(recipe.sh_degree, (iteration - 1) // recipe.sh_every)
        rendering = self._render(view, degree)
        loss, quality = self._loss(rendering, view, self._generator)
        loss.backward()
        if self._densifier and recipe.densify and iteration < recipe.densify.stop:
            self._densifier.collect(rendering)
        free.step(iteration / recipe.iterations)
        self._change_density(iteration)
        return loss.detach(), quality

    def _change_density(self, iteration: int) -> None:
        settings = self._recipe.densify
        if settings and self._densifier and settings.start <= iteration < settings.stop:
            if iteration % settings.every == 0:
                self._densifier.grow(self._free)
            if settings.reset_every and iteration % settings.reset_every == 0:
                lower_opacities(self._free)
        every = self._recipe.relocate_every
        # Gaussians that move late have no time to settle.
        if every and iteration % every == 0 and iteration <= _LAST_MOVES * self._recipe.iterations:
            relocate(self._free, self._generator)

    def _render(self, view: int, degree: int) -> TensorRendering:
        free = self._free
        width, height = self._inputs.size
        return rasterize_tensors(
            free["means"],
            free["quats"],
            free.scales,
            free.opacities,
            free.colours(degree),
            viewmats=self._viewmats[view : view + 1],
            Ks=self._Ks[view : view + 1],
            width=width,
            height=height,
            backend=self._backend,  # type: ignore[arg-type]  # as choose_backend found it
        )

    def _next_view(self) -> int:
        """Every view once, in random order, then again."""
        if not self._order:
            order = torch.randperm(len(self._inputs.training), generator=self._generator)
            self._order = [self._inputs.training[int(place)] for place in order]
        return self._order.pop()

    def _record(
        self,
        iteration: int,
        loss: Tensor,
        quality: Tensor,
        on_step: Callable[[FitStep], None] | None,
    ) -> None:
        value = float(loss)
        if value != value:
            raise InvalidInputError(
                f"the fit diverged at iteration {iteration}: its loss is not a number. Lower the "
                "recipe's learning rates, and check that the cameras belong to the pictures."
            )
        step = FitStep(
            iteration,
            value,
            float(quality),
            len(self._free),
            self._held_out_psnr,
            time.perf_counter() - self._began,
        )
        self._history.append(step)
        if on_step is not None:
            on_step(step)

    def _evaluate(self) -> None:
        gaussians = self._free.gaussians()
        self._held_out_psnr, _ = self._compare(gaussians, self._inputs.held_out)
        if self._best is None or self._held_out_psnr > self._best[0]:
            self._best = (self._held_out_psnr, gaussians)

    @torch.no_grad()
    def _compare(self, gaussians: Gaussians, views: Sequence[int]) -> tuple[float, float]:
        """Mean PSNR and SSIM of some views; NaN if there are none."""
        found: list[tuple[float, float]] = []
        for view in views:
            picture = self._picture(gaussians, view)
            truth = self._inputs.images[view : view + 1]
            found.append((float(psnr(picture, truth)), float(ssim(picture, truth, window="valid"))))
        if not found:
            return float("nan"), float("nan")
        qualities, likenesses = zip(*found, strict=True)
        return sum(qualities) / len(found), sum(likenesses) / len(found)

    @torch.no_grad()
    def _picture(self, gaussians: Gaussians, view: int) -> Float[Tensor, "1 3 h w"]:
        width, height = self._inputs.size
        rendering = rasterize(
            gaussians,
            self._inputs.cameras[view],
            width=width,
            height=height,
            backend=self._backend,  # type: ignore[arg-type]
            background=self._inputs.background,
        )
        return rendering.rgb.clamp(0, 1).cpu()

    def _preview(self) -> Float[Tensor, "3 h w"]:
        view = (self._inputs.held_out or self._inputs.training)[0]
        picture = self._picture(self._free.gaussians(), view)
        scale = _MOST_PREVIEWED / max(picture.shape[-2:])
        if scale < 1:
            picture = torch.nn.functional.interpolate(picture, scale_factor=scale, mode="area")
        return picture[0]


def _distance(start: Start, inputs: FitInputs) -> float:
    """Of the scene from the cameras: as the start tells, else its points' median distance."""
    if start.distance is not None:
        return start.distance
    sample = start.means[:: max(1, len(start) // 1000)]
    distances = (sample[:, None] - inputs.cameras.centres).norm(dim=-1)
    return max(float(distances.median()), 1e-9)
