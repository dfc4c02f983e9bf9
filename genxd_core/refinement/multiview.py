"""Videos of many views from one video (App. D), whatever samples groups and windows.

Every frame is seen from all views in 3D mode; then every view's frames are refined over time.
Dimension letters: n views, t times, c h w of a latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.editing import join, with_even_times
from ..errors import InvalidInputError
from ..long_paths.plan import PathPlan, plan_path
from ..long_paths.sampling import GenerateGroup, sample_path
from ..long_paths.store import PathStore, StorePart
from ..progress import Progress, part_of
from .sampling import refine_latents
from .windows import RefinePlan, plan_windows

__all__ = [
    "MultiviewPlan",
    "MultiviewSettings",
    "ViewLatents",
    "cameras_of_views",
    "each_frames_camera",
    "plan_multiview_videos",
    "sample_multiview_videos",
]


@dataclass(frozen=True)
class MultiviewSettings:
    """How much goes through the network together.

    Attributes:
        views_per_group: views of one frame, in 3D mode; 12 in the paper.
        conditions_per_group: how many of them are conditions.
        window: frames of one view, in 4D mode; 12 in the paper.
        conditions_per_window: how many of them are conditions; 3 in the paper.
        overlap: frames that neighbouring windows share.
    """

    views_per_group: int = 12
    conditions_per_group: int = 3
    window: int = 12
    conditions_per_window: int = 3
    overlap: int = 4


@dataclass(frozen=True)
class MultiviewPlan:
    """What is sampled.

    Attributes:
        per_frame: the groups of every frame's views.
        over_time: the windows of every view that is not the input video itself.
        num_views: of the result.
        given: views that are the input video at every time.
    """

    per_frame: tuple[PathPlan, ...]
    over_time: RefinePlan
    num_views: int
    given: tuple[int, ...]

    @property
    def refined_views(self) -> tuple[int, ...]:
        """Views with something to refine."""
        return tuple(view for view in range(self.num_views) if view not in self.given)

    def num_steps(self, steps: int, refine_steps: int) -> int:
        """Steps of all groups and windows.

        Args:
            steps: of a group.
            refine_steps: of a window.
        """
        groups = sum(len(plan.groups) for plan in self.per_frame)
        windows = len(self.refined_views) * len(self.over_time.pending) if refine_steps else 0
        return groups * steps + windows * refine_steps


@dataclass(frozen=True)
class ViewLatents:
    """Latents of all views at all times.

    Attributes:
        latents: float32 on the CPU, in the units of the input.
        refined: frames that were denoised to the end in 4D mode.
        cancelled: whether the refinement was stopped; the rest is as the 3D mode left it.
    """

    latents: Float[Tensor, "n t c h w"]
    refined: Bool[Tensor, "n t"]
    cancelled: bool


def plan_multiview_videos(
    num_frames: int,
    input_cameras: Cameras,
    view_cameras: Cameras,
    settings: MultiviewSettings | None = None,
) -> MultiviewPlan:
    """Plan the groups and windows of videos of many views.

    Args:
        num_frames: of the input video, at least 2.
        input_cameras: of the input video: one that stands still, or one for each frame.
        view_cameras: one for each view, in the same world; they stand still.
        settings: how much goes through the network together.

    Raises:
        InvalidInputError: a number that cannot be; the message names it.
    """
    settings = settings or MultiviewSettings()
    over_time = plan_windows(
        num_frames,
        window=settings.window,
        conditions_per_window=settings.conditions_per_window,
        overlap=settings.overlap,
    )
    inputs = each_frames_camera(input_cameras, num_frames)
    plans = tuple(
        plan_path(
            view_cameras,
            inputs[[frame]],
            views_per_group=settings.views_per_group,
            conditions_per_group=settings.conditions_per_group,
        )
        for frame in range(num_frames)
    )
    at_all_times = set.intersection(*({view for view, _ in plan.given} for plan in plans))
    return MultiviewPlan(plans, over_time, len(view_cameras), tuple(sorted(at_all_times)))


def each_frames_camera(input_cameras: Cameras, num_frames: int) -> Cameras:
    """One camera for each frame, of one that stands still or of as many as there are frames.

    Raises:
        InvalidInputError: another number of cameras.
    """
    if len(input_cameras) not in (1, num_frames):
        raise InvalidInputError(
            f"video has {num_frames} frames, but input_cameras has {len(input_cameras)} cameras; "
            "give one for each frame, or one alone for a camera that stands still."
        )
    return input_cameras[[0] * num_frames] if len(input_cameras) == 1 else input_cameras


def cameras_of_views(view_cameras: Cameras, num_frames: int) -> Cameras:
    """Cameras of all frames of all views, view after view, with times from 0 to 1."""
    views = range(len(view_cameras))
    return join(*(with_even_times(view_cameras[[view] * num_frames]) for view in views))


def sample_multiview_videos(
    plan: MultiviewPlan,
    input_cameras: Cameras,
    view_cameras: Cameras,
    encoded: Float[Tensor, "t c h w"],
    generate_views: GenerateGroup,
    refine_window: GenerateGroup,
    *,
    steps: int,
    refine_steps: int,
    seed: int,
    store: PathStore | None = None,
    keys: Sequence[str] = ("", ""),
    progress: Progress | None = None,
) -> ViewLatents:
    """Latents of all views at all times (App. D).

    Every view has one noise for all times in 3D mode, so that the rough videos differ from frame to
    frame by what the input shows.

    Args:
        plan: of these cameras.
        input_cameras: of the input video.
        view_cameras: of the views.
        encoded: latents of the input video.
        generate_views: samples a group of views of one frame, in 3D mode.
        refine_window: denoises a window of one view, in 4D mode.
        steps: that ``generate_views`` reports.
        refine_steps: that ``refine_window`` reports; 0 leaves the rough videos as they are.
        seed: 0 to 2^64 - 1.
        store: where finished groups and windows are kept.
        keys: what rough views and windows are kept under; see `fingerprint`.
        progress: called after every step of every group and window.

    Raises:
        InvalidInputError: a seed out of range.
        WeightsError: the network's numbers are not finite.
        Cancelled: ``progress`` asked to stop before all rough videos were there; afterwards it ends
            the refinement, with what is finished.
    """
    times = len(encoded)
    total, done = plan.num_steps(steps, refine_steps), 0
    inputs = each_frames_camera(input_cameras, times)

    latents = torch.zeros(plan.num_views, times, *encoded.shape[1:])
    for time, frame_plan in enumerate(plan.per_frame):
        latents[:, time] = sample_path(
            frame_plan,
            view_cameras,
            inputs[[time]],
            encoded[[time]],
            generate_views,
            steps=steps,
            seed=seed,
            store=None if store is None else StorePart(store, time),
            key=keys[0],
            progress=part_of(progress, done, total),
        )
        done += steps * len(frame_plan.groups)
    refined = torch.zeros(plan.num_views, times, dtype=torch.bool)
    windows = len(plan.over_time.pending)
    for view in plan.refined_views:
        out = refine_latents(
            plan.over_time,
            with_even_times(view_cameras[[view] * times]),
            latents[view],
            refine_window,
            steps=refine_steps,
            seed=seed,
            name=f"view {view} ",
            store=None if store is None else StorePart(store, view),
            key=keys[1],
            progress=part_of(progress, done, total),
        )
        latents[view], refined[view] = out.latents, out.refined
        if out.cancelled:
            return ViewLatents(latents, refined, cancelled=True)
        done += refine_steps * windows
    return ViewLatents(latents, refined, cancelled=False)
