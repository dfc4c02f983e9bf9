"""Views at several times to Gaussians that move: a static stage, then a deformation field (App. H).

Dimension letters: v views, n Gaussians.
"""

import copy
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
from .fit import FitResult, fit_gaussians
from .fit_inputs import FitInputs, check_fit_inputs
from .fit_loop import DrawnValues, FitLoop, FitStep
from .fit_loss import FitLoss
from .gaussians import Gaussians
from .gaussians_4d import Gaussians4D
from .hexplane import HexPlaneField
from .parameters import FreeGaussians
from .perceptual import PerceptualModel
from .point_cloud import PointCloud
from .rasterize import TensorRendering
from .recipes_4d import FieldSettings, FitRecipe4D, find_recipe_4d

__all__ = ["FitResult4D", "fit_gaussians_4d"]

_LEAST_AT_ONE_TIME = 4  # views, to fit a static scene to them
_FEW_TIMES = 6  # up to so many each has its own cells


@dataclass(frozen=True)
class FitResult4D:
    """What came of a fit of something that moves.

    Attributes:
        gaussians: in the world of the cameras, on the CPU.
        static: what came of the first stage.
        history: a record for each iteration of both stages (for every tenth on a GPU).
        metrics: "psnr" and "ssim" of the training views, each at its own time, "held_out_psnr" and
            "held_out_ssim" of the others where there are any, "num_gaussians", "iterations" done
            of both stages, "seconds" of both, "static_seconds" of the first.
        start: what the first stage started from.
        backend: that drew.
        cancelled: whether it was stopped before its end; the Gaussians are the best so far.
    """

    gaussians: Gaussians4D
    static: FitResult
    history: tuple[FitStep, ...]
    metrics: dict[str, float]
    start: str
    backend: str
    cancelled: bool


def fit_gaussians_4d(
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    *,
    masks: Tensor | None = None,
    static_images: Tensor | None = None,
    static_cameras: Cameras | None = None,
    static_masks: Tensor | None = None,
    recipe: str | FitRecipe4D = "object_4d",
    background: Sequence[float] = (1.0, 1.0, 1.0),
    points: PointCloud | None = None,
    perceptual: PerceptualModel | Literal["gradient"] | None = None,
    start: str = "auto",
    held_out: Sequence[int] = (),
    resume: Gaussians4D | None = None,
    seed: int = 0,
    backend: Backend = "auto",
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    on_step: Callable[[FitStep], None] | None = None,
) -> FitResult4D:
    """Fit Gaussians and a deformation field to pictures of something that moves.

    First the Gaussians are fitted to views in which nothing moves; then Gaussians and field
    together to all views, each at its own time. The static stage has ``static_images`` (views made
    in 3D mode, App. H) where they are given, else the images of the earliest time if there are at
    least four of them, else all images.

    Args:
        images: in [0, 1], over ``background`` where masks are given.
        cameras: one per image; ``cameras.times`` in [0, 1] is each image's time.
        masks: (V, 1, H, W), 1 = object. With them the object alone is fitted.
        static_images: (S, 3, H', W') of the scene as it is at the earliest time.
        static_cameras: one per static image.
        static_masks: (S, 1, H', W'); as ``masks`` for the static images.
        recipe: "object_4d" (500 and 2k iterations; photometric, LPIPS and mask losses) is the
            paper's, "demo" takes minutes on a CPU, "test" seconds. Or settings of your own.
        background: colour that the images are over, red, green and blue.
        points: for the static stage to start from.
        perceptual: as for `fit_gaussians`.
        start: of the static stage, as for `fit_gaussians`.
        held_out: images to compare with instead of fitting them.
        resume: of an earlier fit: its Gaussians and its field are fitted on, without a static
            stage.
        seed: of everything random.
        backend: of `rasterize`.
        device: where to fit; ``None`` for CUDA where there is one, else the CPU.
        progress: called after every iteration of both stages, now and then with a picture.
            Returning ``False`` ends the fit and keeps the best so far.
        on_step: called with what goes into the history.

    Raises:
        InvalidInputError: inputs that do not fit together, images all of one time, masks that are
            empty at one time, or views from which nothing can start.
        MissingDependencyError: as for `fit_gaussians`.
        Cancelled: as for `fit_gaussians`.
    """
    settings = find_recipe_4d(recipe)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    drawn_by = choose_backend(backend, where)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False), torch.enable_grad():
        inputs = check_fit_inputs(
            images, cameras, masks=masks, depths=None, background=background, held_out=held_out
        )
        times = check_times(inputs)
        loss = FitLoss(inputs, settings.moving, perceptual, where)
        still = _static_views(inputs, static_images, static_cameras, static_masks)
        if resume is None:
            static = fit_gaussians(
                still.images,
                still.cameras,
                recipe=settings.static,
                masks=still.masks,
                background=background,
                points=points,
                perceptual=perceptual if settings.static.lpips else None,
                start=start,
                seed=seed,
                backend=backend,
                device=where,
                progress=_first_of(progress, settings.moving.iterations),
                on_step=on_step,
            )
            field = _field(static.gaussians, settings.field, times, seed)
        else:
            static = _nothing_done(resume, drawn_by)
            field = _resumed_field(resume)
        model = _MovingModel(inputs, settings, static.gaussians, field, where)
        fit = FitLoop(model, inputs, settings.moving.iterations, loss, drawn_by, where, generator)
        fit.cancelled = static.cancelled
        if not static.cancelled:
            done = int(static.metrics["iterations"])
            fit.run(progress, on_step, done_before=done)
        return _result(fit, static, drawn_by)


def check_times(inputs: FitInputs) -> list[float]:
    """The different times of the views, in order.

    Raises:
        InvalidInputError: there are none, or all are the same, or masks are empty at one of them.
    """
    found = inputs.cameras.times
    if found is None:
        raise InvalidInputError(
            "cameras have no times, so nothing tells when each picture was taken. Give "
            "Cameras(c2w, Ks_norm, times) with a time from 0 (first frame) to 1 (last frame) for "
            "each picture."
        )
    times = sorted({float(time) for time in found[list(inputs.training)]})
    if len(times) < 2:
        raise InvalidInputError(
            f"all pictures that are fitted are of the time {times[0]:.3g}; something that moves "
            "needs at least two different times. For a scene at rest use fit_gaussians (GenXD "
            "Lift To 3DGS)."
        )
    if inputs.masks is not None:
        covered = inputs.masks.flatten(1).amax(1) > 0.5
        for time in times:
            if not bool(covered[found == time].any()):
                raise InvalidInputError(
                    f"masks are empty in all pictures of the time {time:.3g}, where the object "
                    "cannot be seen; leave these pictures out, or give masks that outline it."
                )
    return times


def _static_views(
    inputs: FitInputs,
    images: Tensor | None,
    cameras: Cameras | None,
    masks: Tensor | None,
) -> FitInputs:
    if (images is None) != (cameras is None):
        given, missing = ("images", "cameras") if cameras is None else ("cameras", "images")
        raise InvalidInputError(
            f"static_{given} came without static_{missing}; give both, or neither of them."
        )
    if images is not None and cameras is not None:
        if (masks is None) != (inputs.masks is None):
            raise InvalidInputError(
                "masks and static_masks belong together: give both, or neither of them."
            )
        return check_fit_inputs(
            images,
            Cameras(cameras.c2w, cameras.Ks_norm),
            masks=masks,
            depths=None,
            background=inputs.background.tolist(),
            held_out=(),
        )
    assert inputs.cameras.times is not None
    index = torch.tensor(inputs.training)
    earliest = index[inputs.cameras.times[index] == inputs.cameras.times[index].min()]
    if len(earliest) >= _LEAST_AT_ONE_TIME:
        index = earliest
    still = inputs.cameras[index]
    return FitInputs(
        images=inputs.images[index],
        cameras=Cameras(still.c2w, still.Ks_norm),
        masks=None if inputs.masks is None else inputs.masks[index],
        depths=None,
        background=inputs.background,
        training=tuple(range(len(index))),
        held_out=(),
    )


def _first_of(progress: Progress | None, to_come: int) -> Progress | None:
    """One bar over both stages."""
    if progress is None:
        return None

    def first(step: int, total: int, preview: Tensor | None = None) -> bool | None:
        if preview is None:
            return progress(step, total + to_come)
        return progress(step, total + to_come, preview)

    return first


def _field(
    gaussians: Gaussians, settings: FieldSettings, times: list[float], seed: int
) -> HexPlaneField:
    return HexPlaneField.around(
        gaussians.means,
        seed=seed,
        channels=settings.channels,
        cells=settings.cells,
        time_cells=settings.time_cells or max(min(len(times), _FEW_TIMES), len(times) // 2),
        width=settings.width,
        moves_opacity=settings.moves_opacity,
    )


def _resumed_field(resume: Gaussians4D) -> HexPlaneField:
    field = copy.deepcopy(resume.motion)
    if not isinstance(field, HexPlaneField):
        raise InvalidInputError(
            f"resume has the motion {resume.motion.kind!r}; fit_gaussians_4d goes on with "
            f"{HexPlaneField.kind!r} alone."
        )
    return field.requires_grad_()


def _nothing_done(resume: Gaussians4D, backend: str) -> FitResult:
    metrics = {"num_gaussians": float(len(resume)), "iterations": 0.0, "seconds": 0.0}
    return FitResult(resume.canonical, (), metrics, "resume", backend, False)


def _result(fit: FitLoop, static: FitResult, backend: str) -> FitResult4D:
    gaussians, metrics = fit.outcome()
    assert isinstance(gaussians, Gaussians4D)
    metrics["iterations"] += static.metrics["iterations"]
    metrics["static_seconds"] = static.metrics["seconds"]
    metrics["seconds"] += static.metrics["seconds"]
    return FitResult4D(
        gaussians.to("cpu"),
        static,
        (*static.history, *fit.history),
        metrics,
        static.start,
        backend,
        fit.cancelled,
    )


class _MovingModel:
    """Free Gaussians, a fixed number of them, and the field that moves them."""

    def __init__(
        self,
        inputs: FitInputs,
        recipe: FitRecipe4D,
        gaussians: Gaussians,
        field: HexPlaneField,
        device: torch.device,
    ) -> None:
        self._recipe = recipe
        assert inputs.cameras.times is not None
        self._times = inputs.cameras.times.tolist()
        distances = (gaussians.means[:, None] - inputs.cameras.centres).norm(dim=-1)
        unit = float(distances.median() / inputs.cameras.Ks_norm[:, 0, 0].mean())
        self._free = FreeGaussians.resumed(gaussians.to(device), recipe=recipe.moving, unit=unit)
        self._field = field.to(device)
        rates = recipe.field
        self._optimiser = torch.optim.Adam(
            self._field.groups(planes=rates.lr_planes, network=rates.lr_network),
            eps=1e-15,
            fused=device.type in ("cpu", "cuda"),
        )
        self._first_rates = [group["lr"] for group in self._optimiser.param_groups]

    def __len__(self) -> int:
        return len(self._free)

    def values(self, view: int, iteration: int) -> DrawnValues:
        moving = self._recipe.moving
        degree = min(moving.sh_degree, (iteration - 1) // moving.sh_every)
        moved = self._field(self._free.moving(), self._times[view])
        return (
            moved.means,
            moved.quats,
            moved.log_scales.exp(),
            moved.logits.sigmoid(),
            self._free.colours(degree),
        )

    def penalty(self) -> Float[Tensor, ""]:
        weights = self._recipe.field
        space, time, still = self._field.roughness()
        return weights.space * space + weights.time * time + weights.still * still

    def learn(self, rendering: TensorRendering, iteration: int) -> None:
        done = iteration / self._recipe.moving.iterations
        self._free.step(done)
        for group, first in zip(self._optimiser.param_groups, self._first_rates, strict=True):
            group["lr"] = first * self._recipe.field.lr_end**done
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def snapshot(self) -> Gaussians4D:
        field = copy.deepcopy(self._field).requires_grad_(False)
        return Gaussians4D(self._free.gaussians(), field)
