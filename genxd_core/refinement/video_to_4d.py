"""One video to Gaussians that move, with rounds of refinement (App. C).

Videos of many views, a fit to them, and then in each round: the fitted scene drawn along paths,
noised and denoised in 4D mode, and fitted on.

The paper does not say which frames lead a refinement. Here they are the video's own, at paths that
leave its camera and come back to it (`swing_paths`). On one held-out film of genxd-nano, still
views that are led by drawn frames came out 0.2 to 0.4 dB farther from the truth than they were
drawn, one path away from the film's camera 1.5 dB, swings 1.2 to 1.8 dB nearer.

Each round is fitted to the video and the refined frames alone: with the videos of many views beside
them, less is gained. Over six other films the refined frames are by themselves no nearer to the
truth (PSNR -0.3 dB), but the scene fitted on to them is: +0.7 dB and +0.03 SSIM, each film better,
flicker 4 % less; fitted on for as long without them it gains nothing (-0.1 to -0.4 dB;
``benchmarks/results/video_to_4d_*``).
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.editing import join, with_even_times
from ..errors import Cancelled, InvalidInputError
from ..lifting.backends import Backend
from ..lifting.background_masks import masks_from_background
from ..lifting.fit_4d import fit_gaussians_4d
from ..lifting.fit_loss import check_perceptual
from ..lifting.gaussians_4d import Gaussians4D
from ..lifting.perceptual import PerceptualModel
from ..lifting.recipes_4d import FitRecipe4D, adjusted_recipe_4d, find_recipe_4d
from ..lifting.render_views import render_views
from ..lifting.two_stages import FitResult4D
from ..long_paths.generate import GeneratedPath, generate_path
from ..long_paths.store import PathStore
from ..pictures import as_pictures
from ..pipeline import GenXDPipeline
from ..progress import Progress, Stages
from .generate import RefinedVideo, refine_video
from .generate_multiview import MultiviewVideos, generate_multiview_videos
from .multiview import MultiviewSettings, each_frames_camera
from .swings import same_cameras, swing_paths

__all__ = ["RefinementRound", "VideoTo4D", "video_to_4d"]

# Of one bar, about as long as they take.
_SHARES = {"videos": 300, "static": 100, "fit": 300, "path": 25, "refit": 100}
_RUNS = 2  # in a store: rough videos, and refined ones


@dataclass(frozen=True)
class RefinementRound:
    """One round: drawn, refined, fitted on.

    Attributes:
        paths: that the scene was drawn along; those that a stop left out are missing.
        conditions: frames of each path that are the video's own.
        drawn: of each path, as the fitted scene showed them, in [0, 1].
        refined: of each path; its ``cancelled`` says whether it was stopped on the way.
        fit: to the video and the refined frames; ``None`` where it was not reached.
    """

    paths: tuple[Cameras, ...]
    conditions: tuple[tuple[int, ...], ...]
    drawn: tuple[Float[Tensor, "t 3 H W"], ...]
    refined: tuple[RefinedVideo, ...]
    fit: FitResult4D | None


@dataclass(frozen=True)
class VideoTo4D:
    """A video as a scene that moves, and what it was made of.

    Attributes:
        gaussians: of the last fit that there is, in the world of the cameras, on the CPU.
        videos: what other cameras would have filmed.
        static: more views of the first frame, where they were asked for.
        first: the fit before any refinement.
        rounds: of refinement.
        metrics: seconds of each stage: "videos_seconds", "static_seconds", "fit_seconds",
            "refine_seconds" and "refit_seconds" of all rounds; "psnr" of the last fit's pictures.
        cancelled: whether it was stopped before its end.
    """

    gaussians: Gaussians4D
    videos: MultiviewVideos
    static: GeneratedPath | None
    first: FitResult4D
    rounds: tuple[RefinementRound, ...]
    metrics: dict[str, float]
    cancelled: bool


def video_to_4d(
    pipe: GenXDPipeline,
    video: Shaped[Tensor, "..."] | Sequence[Tensor | Image.Image],
    input_cameras: Cameras,
    view_cameras: Cameras,
    *,
    static_cameras: Cameras | None = None,
    refine_paths: Sequence[Cameras] | None = None,
    rounds: int = 1,
    strength: float = 0.5,
    motion_strength: float = 0.5,
    settings: MultiviewSettings | None = None,
    num_inference_steps: int = 25,
    guidance_scale: float = 3.0,
    recipe: str | FitRecipe4D = "object_4d",
    refine_iterations: int | None = None,
    perceptual: PerceptualModel | Literal["gradient"] | None = None,
    background: Sequence[float] = (1.0, 1.0, 1.0),
    plain_background: bool = False,
    seed: int = 0,
    backend: Backend = "auto",
    device: torch.device | str | None = None,
    decode_chunk_size: int | None = None,
    resume: PathStore | None = None,
    progress: Progress | None = None,
) -> VideoTo4D:
    """Make a moving scene of a video (App. C).

    Args:
        pipe: what generates.
        video: (T, 3, H, W) in [0, 1], T at least 3, or pictures, as `refine_video` takes them.
        input_cameras: of the video: one that stands still, or one for each frame.
        view_cameras: still cameras to see it from as well, in the same world.
        static_cameras: for more views of the first frame, made in 3D mode, which the Gaussians are
            fitted to before anything moves. Without them the first frames of the view cameras are
            taken if there are at least four, else all frames.
        refine_paths: to draw and refine, T cameras each. Where one is the video's camera, the
            video's frame leads. By default `swing_paths` of the view cameras.
        rounds: of refinement; 1 in the paper, 0 for none.
        strength: of every refinement, 0 to 1; 0.5 is usual.
        motion_strength: in 4D mode, 0 (still) to 50.
        settings: how much goes through the network together.
        num_inference_steps: as in `GenXDPipeline`.
        guidance_scale: as in `GenXDPipeline`.
        recipe: of the fits, as for `fit_gaussians_4d`.
        refine_iterations: of the fit in each round; by default a third of the recipe's iterations
            with motion.
        perceptual: as for `fit_gaussians_4d`.
        background: colour behind the scene, red, green and blue.
        plain_background: take what is of this colour and joined to a picture's border for
            background, and fit the object alone.
        seed: of everything random.
        backend: of `rasterize`.
        device: where to fit and draw; ``None`` for CUDA where there is one, else the CPU.
        decode_chunk_size: frames decoded together; None for the settings' ``window``.
        resume: keeps finished groups and windows, as for `generate_multiview_videos`: a second call
            with the same store and arguments finds them again and makes the fits anew. It must have
            room for a run of each stage; the message says how many there are.
        progress: one bar over all stages, with previews. When it asks to stop after the first
            fit began, the result is what there is so far.

    Raises:
        InvalidInputError: an argument cannot be used; the message names it.
        MissingDependencyError: as for `fit_gaussians`.
        Cancelled: ``progress`` asked to stop before there was anything to fit.
    """
    pictures = as_pictures(video, "video").detach().float().cpu()
    shape = settings or MultiviewSettings()
    chosen = find_recipe_4d(recipe)
    for stage in (chosen.static, chosen.moving):
        check_perceptual(stage, perceptual)
    inputs = with_even_times(each_frames_camera(input_cameras, len(pictures)))
    paths = _refine_paths(refine_paths, inputs, view_cameras, shape.window) if rounds else ()
    _check_numbers(rounds, refine_iterations, len(paths), static_cameras is not None, resume)
    work = _Work(
        pipe=pipe,
        film=pictures,
        inputs=inputs,
        settings=shape,
        strength=strength,
        motion_strength=motion_strength,
        generating={
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "decode_chunk_size": decode_chunk_size,
            "resume": resume,
        },
        fitting={"perceptual": perceptual, "background": background, "backend": backend},
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        plain_background=plain_background,
        seed=seed,
        stages=Stages(progress, _shares(static_cameras is not None, rounds, len(paths))),
    )
    videos = work.videos(input_cameras, view_cameras)
    static = still = None
    if static_cameras is not None:
        static = work.static(static_cameras)
        still = work.still_views(static, static_cameras)
    first = work.first_fit(videos, still, chosen)
    done: list[RefinementRound] = []
    fit, cancelled = first, first.cancelled
    again = adjusted_recipe_4d(
        chosen, iterations=refine_iterations or max(1, chosen.moving.iterations // 3)
    )
    while len(done) < rounds and not cancelled:
        done.append(work.round(fit.gaussians, paths, again, len(done)))
        fit = done[-1].fit or fit
        cancelled = done[-1].fit is None or fit.cancelled
    metrics = work.seconds | {"psnr": fit.metrics["psnr"]}
    return VideoTo4D(fit.gaussians, videos, static, first, tuple(done), metrics, cancelled)


@dataclass
class _Work:
    """One video on its way.

    Attributes:
        generating: what all calls of the network share.
        fitting: what all fits share.
        stages: of the bar.
        seconds: of the stages so far.
    """

    pipe: GenXDPipeline
    film: Float[Tensor, "t 3 H W"]
    inputs: Cameras
    settings: MultiviewSettings
    strength: float
    motion_strength: float
    generating: dict[str, Any]
    fitting: dict[str, Any]
    device: torch.device | str
    plain_background: bool
    seed: int
    stages: Stages
    seconds: dict[str, float] = field(default_factory=dict)

    def videos(self, input_cameras: Cameras, view_cameras: Cameras) -> MultiviewVideos:
        """What the other cameras would have filmed."""
        with self._clock("videos"):
            out = generate_multiview_videos(
                self.pipe,
                self.film,
                input_cameras,
                view_cameras,
                strength=self.strength,
                motion_strength=self.motion_strength,
                settings=self.settings,
                seed=self.seed,
                progress=self.stages.following(),
                **self.generating,
            )
        if out.cancelled:
            raise Cancelled("stopped on request before all videos were there")
        return out

    def static(self, cameras: Cameras) -> GeneratedPath:
        """More views of the first frame."""
        with self._clock("static"):
            return generate_path(
                self.pipe,
                self.film[:1],
                _untimed(self.inputs[[0]]),
                _untimed(cameras),
                seed=self.seed,
                views_per_group=self.settings.views_per_group,
                conditions_per_group=self.settings.conditions_per_group,
                progress=self.stages.following(),
                **self.generating,
            )

    def still_views(self, static: GeneratedPath, cameras: Cameras) -> tuple[Tensor, Cameras]:
        """The film's first frame, and the generated ones at other cameras."""
        given = {camera for camera, _ in static.plan.given}
        made = [camera for camera in range(len(cameras)) if camera not in given]
        images = torch.cat([self.film[:1], static.frames[made]])
        return images, join(_untimed(self.inputs[[0]]), _untimed(cameras[made]))

    def first_fit(
        self, videos: MultiviewVideos, still: tuple[Tensor, Cameras] | None, recipe: FitRecipe4D
    ) -> FitResult4D:
        """To the film and to what was made of it."""
        made = list(videos.plan.refined_views)
        times = len(self.film)
        images = torch.cat([self.film, videos.frames[made].flatten(0, 1)])
        frames = [view * times + time for view in made for time in range(times)]
        cameras = join(self.inputs, videos.cameras[frames])
        given: dict[str, Any] = {}
        if still is not None:
            shown, seen_by = still
            given = {"static_images": shown, "static_cameras": seen_by}
            if self.plain_background:
                given["static_masks"] = self._masks(shown)
        with self._clock("fit"):
            return self._fit(images, cameras, recipe, self.seed, **given)

    def round(
        self, scene: Gaussians4D, paths: Sequence[Cameras], recipe: FitRecipe4D, number: int
    ) -> RefinementRound:
        """Draw, refine, fit on; what a stop left of it."""
        conditions = tuple(self._led(path) for path in paths)
        drawn: list[Tensor] = []
        refined: list[RefinedVideo] = []
        seed = self.seed + number + 1

        def there(fit: FitResult4D | None) -> RefinementRound:
            count = len(refined)
            return RefinementRound(
                tuple(paths[:count]), conditions[:count], tuple(drawn[:count]), tuple(refined), fit
            )

        with self._clock("refine"):
            for path, given in zip(paths, conditions, strict=True):
                try:
                    drawn.append(self._drawn(scene, path))
                    refined.append(self._refined(drawn[-1], path, given, seed))
                except Cancelled:
                    return there(None)
                if refined[-1].cancelled:
                    return there(None)
        images = [
            self._with_film(out.frames, at) for out, at in zip(refined, conditions, strict=True)
        ]
        with self._clock("refit"):
            fit = self._fit(
                torch.cat([self.film, *images]),
                join(self.inputs, *paths),
                recipe,
                seed,
                resume=scene,
            )
        return there(fit)

    def _led(self, path: Cameras) -> tuple[int, ...]:
        """Frames at which a path is the film's camera."""
        same = same_cameras(path, self.inputs)
        return tuple(int(frame) for frame in same.nonzero()[:, 0])

    def _drawn(self, scene: Gaussians4D, path: Cameras) -> Float[Tensor, "t 3 H W"]:
        height, width = self.film.shape[2:]
        pictures = render_views(
            scene,
            path,
            width=width,
            height=height,
            backend=self.fitting["backend"],
            background=self.fitting["background"],
            device=self.device,
        )
        return pictures.rgb.clamp(0, 1)

    def _refined(
        self, drawn: Tensor, path: Cameras, conditions: tuple[int, ...], seed: int
    ) -> RefinedVideo:
        # Where the film leads, frames of the drawn video are not to.
        least = 1 if conditions else self.settings.conditions_per_window
        return refine_video(
            self.pipe,
            drawn,
            path,
            conditions=conditions,
            condition_images=self.film[list(conditions)] if conditions else None,
            strength=self.strength,
            motion_strength=self.motion_strength,
            window=self.settings.window,
            conditions_per_window=least,
            overlap=self.settings.overlap,
            seed=seed,
            progress=self.stages.following(),
            **self.generating,
        )

    def _with_film(self, frames: Tensor, conditions: tuple[int, ...]) -> Float[Tensor, "t 3 H W"]:
        """The film's own pictures at their places, instead of what the VAE makes of them."""
        put = frames.clone()
        put[list(conditions)] = self.film[list(conditions)]
        return put

    def _fit(
        self, images: Tensor, cameras: Cameras, recipe: FitRecipe4D, seed: int, **given: Any
    ) -> FitResult4D:
        return fit_gaussians_4d(
            images,
            cameras,
            masks=self._masks(images) if self.plain_background else None,
            recipe=recipe,
            seed=seed,
            device=self.device,
            progress=self.stages.following(),
            **self.fitting,
            **given,
        )

    def _masks(self, images: Tensor) -> Float[Tensor, "v 1 H W"]:
        return masks_from_background(images, self.fitting["background"])

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            key = f"{stage}_seconds"
            self.seconds[key] = self.seconds.get(key, 0.0) + taken


def _shares(static: bool, rounds: int, num_paths: int) -> list[int]:
    """Of the bar, for each stage."""
    before = ["videos", "static", "fit"] if static else ["videos", "fit"]
    names = [*before, *(["path"] * num_paths + ["refit"]) * rounds]
    return [_SHARES[name] for name in names]


def _untimed(cameras: Cameras) -> Cameras:
    return Cameras(cameras.c2w, cameras.Ks_norm)


def _refine_paths(
    given: Sequence[Cameras] | None, inputs: Cameras, view_cameras: Cameras, window: int
) -> tuple[Cameras, ...]:
    """Of the rounds, with times."""
    if given is None:
        return swing_paths(_untimed(inputs), view_cameras, len(inputs), window=window).paths
    for number, path in enumerate(given):
        if len(path) != len(inputs):
            raise InvalidInputError(
                f"refine_paths: path {number} has {len(path)} cameras for a video of {len(inputs)} "
                "frames; give one camera for each frame."
            )
    if not given:
        raise InvalidInputError(
            "refine_paths is empty; give at least one path, None for swings to the view cameras, "
            "or rounds=0 for no refinement."
        )
    return tuple(with_even_times(_untimed(path)) for path in given)


def _check_numbers(
    rounds: int, iterations: int | None, num_paths: int, static: bool, store: PathStore | None
) -> None:
    if rounds < 0:
        raise InvalidInputError(f"rounds is {rounds}; expected 0 (no refinement) or more.")
    if iterations is not None and iterations < 1:
        raise InvalidInputError(
            f"refine_iterations is {iterations}; expected None or at least 1, typically a third "
            "of the recipe's."
        )
    runs = _RUNS + static + rounds * num_paths
    if store is not None and store.max_runs < runs:
        raise InvalidInputError(
            f"resume keeps {store.max_runs} runs, but {runs} are made, so the first would be lost "
            f"before the last is there; give PathStore(max_runs={runs})."
        )
