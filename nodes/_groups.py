"""Groups and windows of frames through ComfyUI's samplers: what the sampling nodes share."""

from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy_api.latest import io

from ..genxd_core.errors import Cancelled, InvalidInputError
from ..genxd_core.long_paths.sampling import GenerateGroup, GroupTask, ReportStep
from ..genxd_core.progress import Progress
from ..genxd_core.refinement.sampling import num_steps_run
from .comfy_model import GenXDBase, condition_values

__all__ = [
    "STOP",
    "USE",
    "Sampling",
    "check_model",
    "group_generator",
    "group_progress",
    "sampler_inputs",
]

STOP, USE = "stop", "use what is there"


@dataclass(frozen=True)
class Sampling:
    """KSampler's settings.

    Attributes:
        steps: of the whole schedule.
        cfg: guidance.
        sampler_name: one of ComfyUI's.
        scheduler: one of ComfyUI's.
    """

    steps: int
    cfg: float
    sampler_name: str
    scheduler: str


def sampler_inputs() -> list[Any]:
    """The seed and KSampler's settings, as inputs of a node."""
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Every frame draws noise of its own from it; any number, typically fixed "
            "while a video is made in several runs.",
        ),
        io.Int.Input(
            "steps",
            default=25,
            min=1,
            max=1000,
            tooltip="Sampling steps of the whole schedule; 25 is typical. A refinement runs the "
            "last part of them, by its strength.",
        ),
        io.Float.Input(
            "cfg",
            default=3.0,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="How strongly to follow the conditions; 3 is typical, 1 is twice as fast and "
            "less faithful.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=list(comfy.samplers.KSampler.SAMPLERS),
            default="euler",
            tooltip="ComfyUI's sampler; euler is what the released model is used with.",
        ),
        io.Combo.Input(
            "scheduler",
            options=list(comfy.samplers.KSampler.SCHEDULERS),
            default="karras",
            tooltip="Noise levels of the steps; karras is what the released model is used with.",
        ),
    ]


def check_model(model: Any) -> None:
    """Refuse a MODEL that is not GenXD's.

    Raises:
        InvalidInputError: it is another.
    """
    if not isinstance(getattr(model, "model", None), GenXDBase):
        raise InvalidInputError(
            "model is not a GenXD model; connect the MODEL output of GenXD Load Model."
        )


def group_generator(
    model: Any,
    indicator: int,
    motion_strength: float,
    sampling: Sampling,
    *,
    strength: float = 1.0,
    goes_on: bool = False,
) -> GenerateGroup:
    """Sample one group as KSampler does, or denoise one window as KSampler (Advanced) does.

    Args:
        model: GenXD's MODEL.
        indicator: the mode's number.
        motion_strength: what the network takes.
        sampling: KSampler's settings.
        strength: for tasks with a ``video``, the share of the steps that is run.
        goes_on: whether an interruption ends the sampling alone (`Cancelled`), and not the graph.
    """
    interrupted = comfy.model_management.InterruptProcessingException

    def generate(task: GroupTask, report_step: ReportStep) -> torch.Tensor:
        frames = len(task.cameras)
        mask = torch.zeros(frames)
        mask[list(task.positions)] = 1.0
        positive, negative = condition_values(
            context_latent=task.clean,
            context_mask=mask,
            cameras=task.cameras,
            reference=task.positions[0],
            indicator=indicator,
            motion_strength=motion_strength,
        )
        targets = [frame for frame in range(frames) if frame not in task.positions]
        shown = targets[len(targets) // 2]

        def callback(step: int, x0: torch.Tensor, x: torch.Tensor, total_steps: int) -> None:
            report_step(step + 1, x0[shown : shown + 1])

        plane = (1.0 - mask)[:, None, None, None].expand(-1, 1, *task.clean.shape[-2:])
        blank = torch.zeros(1, 1, 8)
        first = None
        if task.video is not None:
            first = sampling.steps - num_steps_run(sampling.steps, strength)
        try:
            sampled: torch.Tensor = comfy.sample.sample(
                model,
                task.noise,
                sampling.steps,
                sampling.cfg,
                sampling.sampler_name,
                sampling.scheduler,
                [[blank, positive]],
                [[blank.clone(), negative]],
                (task.clean if task.video is None else task.video).clone(),
                start_step=first,
                noise_mask=plane.clone(),
                callback=callback,
                disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
                seed=task.seed,
            )
        except interrupted as error:
            # ComfyUI looks for an interruption inside a step too.
            if not goes_on:
                raise
            raise Cancelled("interrupted") from error
        return sampled

    return generate


def group_progress(model: Any, bar: Any, *, done: int, goes_on: bool = False) -> Progress:
    """One bar over all groups, with a picture of the frame that ``generate`` shows.

    Args:
        model: GenXD's MODEL.
        bar: a ProgressBar over the whole.
        done: steps before the first group.
        goes_on: whether an interruption ends the sampling alone, and not the graph.
    """
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def progress(step: int, total: int, preview: torch.Tensor | None = None) -> bool:
        picture = None
        if previewer is not None and preview is not None:
            picture = previewer.decode_latent_to_preview_image("JPEG", preview)
        try:
            # The bar, which looks for an interruption too, does so a few times a second only.
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done + step, preview=picture)
        except comfy.model_management.InterruptProcessingException:
            if not goes_on:
                raise
            return False
        return True

    return progress
