"""Refining the windows of a plan, whatever denoises one of them: the pipeline or a host.

Dimension letters: v frames of the video, c h w of a latent.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import Cancelled, InvalidInputError
from ..long_paths.sampling import (
    GenerateGroup,
    GroupTask,
    camera_noise,
    check_finite,
    check_seed,
    mixed_seed,
    steps_of,
)
from ..long_paths.store import PathStore
from ..progress import Progress, report
from .windows import RefinePlan, Window

__all__ = ["RefinedLatents", "check_strength", "num_steps_run", "refine_latents"]


@dataclass(frozen=True)
class RefinedLatents:
    """What came of the windows.

    Attributes:
        latents: of every frame, in the units of the input, float32 on the CPU.
        refined: frames that all of their windows denoised. Conditions are not among them.
        cancelled: whether it was stopped before its end. Frames of windows that were not finished
            are the input's.
    """

    latents: Float[Tensor, "v c h w"]
    refined: Bool[Tensor, "v"]
    cancelled: bool


def check_strength(strength: float) -> None:
    """Refuse strengths outside 0 to 1.

    Raises:
        InvalidInputError: out of range or NaN.
    """
    if not 0.0 <= strength <= 1.0:
        raise InvalidInputError(
            f"strength is {strength}; expected 0 (the video as it is) to 1 (nothing of it but its "
            "conditions), typically 0.5."
        )


def num_steps_run(steps: int, strength: float) -> int:
    """How many of the last steps of a schedule are run: int(steps * strength), as SDEdit's.

    Args:
        steps: of the whole schedule.
        strength: 0 to 1.

    Raises:
        InvalidInputError: ``strength`` is out of range, or above 0 and yet leaves no step.
    """
    check_strength(strength)
    kept = min(int(steps * strength), steps)
    if kept < 1 and strength > 0.0:
        raise InvalidInputError(
            f"strength is {strength}, which leaves none of {steps} steps to run; raise it to at "
            f"least {1 / steps:.3g}, use more steps, or set it to 0 to keep the video."
        )
    return kept


def refine_latents(
    plan: RefinePlan,
    cameras: Cameras,
    video: Float[Tensor, "v c h w"],
    generate: GenerateGroup,
    *,
    steps: int,
    seed: int,
    noise: Float[Tensor, "v c h w"] | None = None,
    name: str = "",
    store: PathStore | None = None,
    key: str = "",
    progress: Progress | None = None,
) -> RefinedLatents:
    """Denoise the windows of a video one after another and blend them.

    Beside a few tensors of the video's latents, on the CPU, memory is that of one window.

    Args:
        plan: of this video.
        cameras: one for each frame.
        video: latents to start from, those of conditions clean.
        generate: denoises one window from its task's ``video``, with noise on it.
        steps: that ``generate`` reports for a window; 0 returns the input.
        seed: 0 to 2^64 - 1. Every frame has noise of its own from it, the same in all windows, so
            that their order does not matter.
        noise: unit noise of every frame, in place of the seed's.
        name: of this video, where several are refined with one seed.
        store: where finished windows are kept; those it has are not made again.
        key: what the run is kept under; see `fingerprint`.
        progress: called after every step of every window, with the preview of ``generate``.

    Raises:
        InvalidInputError: a seed out of range.
        WeightsError: the network's numbers are not finite.
        Cancelled: what ``generate`` raises other than it goes through; a ``progress`` that asks to
            stop ends the refinement within one step, with what is finished.
    """
    check_seed(seed)
    start = video.float().cpu()
    pending = plan.pending if steps else ()
    blended = torch.zeros_like(start)
    share = torch.zeros(plan.num_frames, dtype=torch.float64)
    total, done, cancelled = steps * len(pending), 0, False
    kept = {} if store is None else store.finished(key)
    for number in pending:
        window = plan.windows[number]
        # A frame has a number of its own in every window.
        places = {frame: number * plan.num_frames + frame for frame in window.targets}
        try:
            if all(place in kept for place in places.values()):
                finished = {frame: kept[place] for frame, place in places.items()}
                report(progress, done + steps, total)
            else:
                task = _task(window, cameras, start, noise, seed, name)
                sampled = generate(task, steps_of(progress, done, steps, total)).float().cpu()
                check_finite(sampled)
                finished = {frame: sampled[frame - window.frames[0]] for frame in window.targets}
                if store is not None:
                    store.add(key, {places[frame]: one for frame, one in finished.items()})
        except Cancelled:
            cancelled = True
            break
        done += steps
        for frame in window.targets:
            weight = window.weights[frame - window.frames[0]]
            blended[frame] += weight * finished[frame]
            share[frame] += weight
    refined = share > 1 - 1e-6
    # Where windows are missing, and at conditions, the rest is the video as it was.
    rest = torch.where(refined, 0.0, 1.0 - share).float()
    return RefinedLatents(blended + rest[:, None, None, None] * start, refined, cancelled)


def _task(
    window: Window,
    cameras: Cameras,
    video: Tensor,
    noise: Tensor | None,
    seed: int,
    name: str,
) -> GroupTask:
    frames = list(window.frames)
    positions = tuple(frame - frames[0] for frame in window.conditions)
    start = video[frames]
    clean = torch.zeros_like(start)
    clean[list(positions)] = start[list(positions)]
    if noise is None:
        shape = tuple(video.shape[1:])
        drawn = torch.stack([camera_noise(seed, f"{name}frame {frame}", shape) for frame in frames])
    else:
        drawn = noise[frames].float().cpu()
    return GroupTask(
        cameras=cameras[frames],
        clean=clean,
        positions=positions,
        noise=drawn,
        seed=mixed_seed(seed, f"{name}window {frames[0]}"),
        video=start,
    )
