"""A scene in which some things move: a background at rest, and shared rigid motions (App. E).

Dimension letters: v views, n Gaussians, m of them that move.
"""

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
from .motion_bases import MotionBases
from .moving_start import INSIDE, MaskPath, moving_start
from .perceptual import PerceptualModel
from .point_cloud import PointCloud
from .rasterize import Rendering
from .recipes_4d import FitRecipeBases, find_recipe_bases
from .start import Start
from .tracks import TrackFollower, Tracks
from .two_stages import FitResult4D, LearningRates, MovingModel, check_times, finish, first_stage

__all__ = ["fit_motion_bases"]

_FIRST_OPACITY = 0.5
_LEAST_DEPTH = 1e-6


def fit_motion_bases(
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    masks: Tensor | None,
    *,
    depths: Tensor | None = None,
    tracks: Tracks | None = None,
    plain_background: bool = False,
    recipe: str | FitRecipeBases = "scene_4d",
    background: Sequence[float] = (1.0, 1.0, 1.0),
    points: PointCloud | None = None,
    perceptual: PerceptualModel | Literal["gradient"] | None = None,
    held_out: Sequence[int] = (),
    seed: int = 0,
    backend: Backend = "auto",
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    on_step: Callable[[FitStep], None] | None = None,
) -> FitResult4D:
    """Fit a scene of which the masked part moves, from one video or several.

    First what is at rest is fitted, without looking at what moves. Then Gaussians of what moves are
    placed where it is seen largest: in the common volume of the masks where at least four views
    are of that time, else at its depth, else at the depth of what stands around it. At last all are
    fitted together; those that move share a few rigid motions over the frames.

    Args:
        images: in [0, 1].
        cameras: one per image; ``cameras.times`` in [0, 1] is each image's time.
        masks: (V, 1, H, W), 1 = what moves. May be empty at some times, where it is out of sight.
        depths: (V, 1, H, W) z-depth in the cameras' scene units, 0 where unknown.
        tracks: points of what moves, followed through the images, one row for each of them.
        plain_background: there is nothing but what moves before ``background``, and the first
            stage is left out.
        recipe: "scene_4d" is long, "demo" takes minutes on a CPU, "test" seconds. Or settings of
            your own.
        background: colour behind everything, red, green and blue.
        points: of what is at rest, to start from.
        perceptual: as for `fit_gaussians`.
        held_out: images to compare with instead of fitting them.
        seed: of everything random.
        backend: of `rasterize`.
        device: where to fit; ``None`` for CUDA where there is one, else the CPU.
        progress: called after every iteration of both stages, now and then with a picture.
            Returning ``False`` ends the fit and keeps the best so far.
        on_step: called with what goes into the history.

    Raises:
        InvalidInputError: inputs that do not fit together, images all of one time, masks that are
            empty everywhere, tracks of other pictures, or views from which nothing can start.
        MissingDependencyError: as for `fit_gaussians`.
        Cancelled: as for `fit_gaussians`.
    """
    settings = find_recipe_bases(recipe)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    drawn_by = choose_backend(backend, where)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False), torch.enable_grad():
        inputs = check_fit_inputs(
            images, cameras, masks=masks, depths=depths, background=background, held_out=held_out
        )
        times = check_times(inputs)
        _check_masks(inputs, plain_background)
        loss = _SceneLoss(inputs, settings, perceptual, where, plain=plain_background)
        follower = None
        if tracks is not None:
            # Checked before the first stage, which would be lost; asked after it.
            follower = TrackFollower(
                tracks,
                inputs.cameras,
                inputs.training,
                lambda time: model.means_at(time),
                seed=seed,
                device=where,
            )
        static = None
        if not plain_background:
            static = _at_rest(
                inputs,
                settings,
                points=points,
                perceptual=perceptual,
                seed=seed,
                backend=backend,
                device=where,
                progress=first_stage(progress, settings.moving.iterations),
                on_step=on_step,
            )
        resting = None if static is None else static.gaussians
        start, path = moving_start(inputs, resting, settings.moving.num_gaussians, generator)
        bases = MotionBases.around(
            start.means.to(where),
            times=times,
            num_bases=settings.num_bases,
            path=None if path is None else path.offsets,
            seed=seed,
        )
        gaussians, moves = _together(start, resting, settings.moving.sh_degree)
        groups = bases.groups(bases=settings.lr_bases, weights=settings.lr_weights)
        told = None if plain_background else moves.to(where)
        model = MovingModel(
            inputs,
            gaussians,
            bases,
            settings.moving,
            LearningRates(groups, settings.lr_end),
            _penalty(bases, settings, path, where),
            where,
            features=loss.features,
            outlined=plain_background and start.kind == "masks",
        )
        loss.follow(told, follower)
        fit = FitLoop(model, inputs, settings.moving.iterations, loss, drawn_by, where, generator)
        result = finish(fit, static, start.kind, drawn_by, progress, on_step)
        result.metrics["num_moving"] = len(start)
        return result


def _penalty(
    bases: MotionBases, settings: FitRecipeBases, path: MaskPath | None, device: torch.device
) -> Callable[[], Tensor]:
    """Of jerky motion, and of leaving a guessed depth where nothing else tells of it."""
    if path is None or not path.guessed:
        return lambda: settings.acceleration * bases.acceleration()
    line = [part.to(device) for part in (path.offsets, path.rays, path.distances)]

    def penalty() -> Tensor:
        away = settings.guessed_depth * bases.off_path(*line)
        return settings.acceleration * bases.acceleration() + away

    return penalty


def _together(
    start: Start, resting: Gaussians | None, degree: int
) -> tuple[Gaussians, Float[Tensor, "n 1"]]:
    """What moves and then what is at rest, and 1 for each that moves."""
    count = len(start)
    moving = Gaussians.from_rgb(
        start.means,
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        start.scales[:, None].repeat(1, 3),
        torch.full((count,), _FIRST_OPACITY),
        start.rgb,
    )
    parts = [moving] if resting is None else [moving, resting]
    everything = Gaussians.concatenate([part.with_degree(degree) for part in parts])
    moves = torch.zeros(len(everything), 1)
    moves[:count] = 1
    return everything, moves


def _check_masks(inputs: FitInputs, plain_background: bool) -> None:
    if inputs.masks is None:
        raise InvalidInputError(
            "masks is None, but they tell what moves; give (V, 1, H, W), 1 = what moves."
        )
    moves = inputs.masks[list(inputs.training)] > INSIDE
    if bool(moves.all()) and not plain_background:
        raise InvalidInputError(
            "masks are all full, so nothing is at rest; 1 means what moves. Invert them, or switch "
            "plain_background on where there is nothing else."
        )
    if not bool(moves.any()):
        raise InvalidInputError(
            "masks are all empty, so nothing moves; 1 means what moves. Invert them, or fit the "
            "scene as one at rest, with fit_gaussians (genxd lift, GenXD Lift To 3DGS)."
        )


def _at_rest(
    inputs: FitInputs,
    settings: FitRecipeBases,
    *,
    points: PointCloud | None,
    perceptual: PerceptualModel | Literal["gradient"] | None,
    seed: int,
    backend: Backend,
    device: torch.device,
    progress: Progress | None,
    on_step: Callable[[FitStep], None] | None,
) -> FitResult:
    """What does not move, from all training views at once."""
    assert inputs.masks is not None
    index = torch.tensor(inputs.training)
    cameras = inputs.cameras[index]
    depths = None
    if inputs.depths is not None:
        depths = inputs.depths[index] * (inputs.masks[index] <= INSIDE)
    return fit_gaussians(
        inputs.images[index],
        Cameras(cameras.c2w, cameras.Ks_norm),
        recipe=settings.static,
        ignore=inputs.masks[index],
        depths=depths,
        background=inputs.background.tolist(),
        points=points,
        perceptual=perceptual if settings.static.lpips else None,
        seed=seed,
        backend=backend,
        device=device,
        progress=progress,
        on_step=on_step,
    )


class _SceneLoss(FitLoss):
    """Photometric; what moves, as drawn, against the masks; inverse depth (App. E)."""

    def __init__(
        self,
        inputs: FitInputs,
        recipe: FitRecipeBases,
        perceptual: PerceptualModel | Literal["gradient"] | None,
        device: torch.device,
        *,
        plain: bool,
    ) -> None:
        # Masks of what moves are no outline of everything, unless there is nothing else.
        whole = inputs if plain else replace(inputs, masks=None)
        super().__init__(whole, recipe.moving, perceptual, device)
        assert inputs.masks is not None
        self._scene_recipe = recipe
        self._told: Tensor | None = None
        self._follower: TrackFollower | None = None
        self._moves = inputs.masks.to(device)
        self._inverse: Tensor | None = None
        if inputs.depths is not None:
            depths = inputs.depths.to(device)
            self._inverse = torch.where(depths > 0, 1 / depths.clamp_min(_LEAST_DEPTH), 0.0)
            known = self._inverse[self._inverse > 0]
            self._unit = float(known.median()) if len(known) else 1.0

    def follow(self, told: Float[Tensor, "n 1"] | None, follower: TrackFollower | None) -> None:
        """Compare what moves, 1 in ``told``, with the masks, and where it goes with the tracks."""
        self._told, self._follower = told, follower

    def features(self, view: int) -> Float[Tensor, "n d"] | None:
        """What is drawn in this view beside the picture."""
        if self._follower is None:
            return self._told
        there = self._follower.features(view)
        # What stands still says nothing of where a track goes.
        return there if self._told is None else torch.cat([self._told, self._told * there], 1)

    def __call__(
        self, rendering: Rendering, view: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        loss, quality = super().__call__(rendering, view, generator)
        recipe, drawn = self._scene_recipe, rendering.features
        if self._told is not None and drawn is not None:
            wrong = (drawn[:, :1] - self._moves[view : view + 1]).abs().mean()
            loss = loss + recipe.mask * wrong
        if self._follower is not None and drawn is not None:
            cover = rendering.alpha if self._told is None else drawn[:, :1]
            loss = loss + recipe.tracks * self._follower.loss(view, cover, drawn[:, -3:])
        if self._inverse is not None and recipe.depth:
            target = self._inverse[view : view + 1]
            known = (target > 0) & (rendering.alpha > INSIDE)
            ours = torch.where(known, 1 / rendering.depth.clamp_min(_LEAST_DEPTH), target)
            # As a share of the typical one, so that the scene's scale does not matter.
            loss = loss + recipe.depth * (ours - target).abs().mean() / self._unit
        return loss, quality
