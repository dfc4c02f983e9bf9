"""Views at several times to Gaussians that move: a static stage, then a deformation field (App. H).

Dimension letters: v views, n Gaussians.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from .fit_loop import FitLoop, FitStep
from .fit_loss import FitLoss
from .gaussians import Gaussians
from .gaussians_4d import Gaussians4D
from .hexplane import HexPlaneField
from .perceptual import PerceptualModel
from .point_cloud import PointCloud
from .recipes_4d import FitRecipe4D, find_recipe_4d
from .start import check_masks, looked_at_distance, meeting_point
from .two_stages import (
    FitResult4D,
    LearningRates,
    MovingModel,
    check_seen_at_all_times,
    check_times,
    finish,
    first_stage,
)
from .upright import turn_cameras

__all__ = ["around_what_is_looked_at", "fit_gaussians_4d"]

_LEAST_AT_ONE_TIME = 4  # views, to fit a static scene to them
_NEAR = 1.5  # distances of what the cameras look at
_ENOUGH = 50  # Gaussians to put a box around
# Of the field's rates where it has learnt already: Adam's first steps have their full size however
# small the gradients are. A fit that goes on for 12 steps loses 1.5 dB with all of it, 0.1 dB so.
_GOING_ON = 0.3
_FEW_TIMES = 6  # up to so many each has its own cells


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
            stage, in the world that it was turned to; the field learns at 0.3 of its rates.
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
        if inputs.masks is not None:
            check_masks(inputs.masks)
        check_seen_at_all_times(inputs, times)
        loss = FitLoss(inputs, settings.moving, perceptual, where)
        static: FitResult | None = None
        if resume is None:
            still = _static_views(inputs, static_images, static_cameras, static_masks)
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
                progress=first_stage(progress, settings.moving.iterations),
                on_step=on_step,
            )
            gaussians, begun = static.gaussians, static.start
            field = _field(gaussians, still.cameras, settings, times, seed)
        else:
            field = _resumed_field(resume, static_images, static_cameras, static_masks)
            gaussians, begun = resume.canonical, "resume"
            # The field is of a world that the scene may have been turned away from.
            turned = turn_cameras(inputs.cameras, resume.rotation.T)
            inputs = replace(inputs, cameras=turned)
        field = field.to(where)
        weights = settings.field

        def penalty() -> Float[Tensor, ""]:
            space, time, still = field.roughness()
            return weights.space * space + weights.time * time + weights.still * still

        share = 1.0 if resume is None else _GOING_ON
        groups = field.groups(planes=share * weights.lr_planes, network=share * weights.lr_network)
        model = MovingModel(
            inputs,
            gaussians,
            field,
            settings.moving,
            LearningRates(groups, weights.lr_end),
            penalty,
            where,
            outlined=begun == "masks",
        )
        fit = FitLoop(model, inputs, settings.moving.iterations, loss, drawn_by, where, generator)
        result = finish(fit, static, begun, drawn_by, progress, on_step)
    if resume is None:
        return result
    return replace(result, gaussians=result.gaussians.turned(resume.rotation))


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


def _field(
    gaussians: Gaussians,
    cameras: Cameras,
    recipe: FitRecipe4D,
    times: list[float],
    seed: int,
) -> HexPlaneField:
    settings = recipe.field
    return HexPlaneField.around(
        around_what_is_looked_at(gaussians.means, cameras),
        seed=seed,
        channels=settings.channels,
        cells=settings.cells,
        time_cells=settings.time_cells or max(min(len(times), _FEW_TIMES), len(times) // 2),
        width=settings.width,
        moves_opacity=settings.moves_opacity,
        moves_sh=(recipe.moving.sh_degree + 1) ** 2 if settings.moves_colours else 0,
    )


def around_what_is_looked_at(means: Float[Tensor, "n 3"], cameras: Cameras) -> Float[Tensor, "k 3"]:
    """Points near what the cameras look at: with a sky far behind, cells would be too large."""
    distance = looked_at_distance(cameras)
    if distance is None:
        return means
    point, _ = meeting_point(cameras)
    near = means[(means - point).norm(dim=-1) < _NEAR * distance]
    return near if len(near) >= _ENOUGH else means


def _resumed_field(resume: Gaussians4D, *static: Tensor | Cameras | None) -> HexPlaneField:
    if any(given is not None for given in static):
        raise InvalidInputError(
            "static_images came with resume, but a fit that goes on has no static stage; leave "
            "one of them out."
        )
    field = copy.deepcopy(resume.motion)
    if not isinstance(field, HexPlaneField):
        raise InvalidInputError(
            f"resume has the motion {resume.motion.kind!r}; fit_gaussians_4d goes on with "
            f"{HexPlaneField.kind!r} alone."
        )
    return field.requires_grad_()
