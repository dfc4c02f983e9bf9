"""Pictures and a path of any length to frames, with the library's own pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from ..cameras.cameras import Cameras
from ..diffusion.guidance import needs_unconditional
from ..diffusion.samplers import SamplerStep
from ..errors import InvalidInputError
from ..latent_preview import LatentPreview
from ..pictures import as_pictures
from ..pipeline import GenXDPipeline
from ..pipeline_inputs import check_motion_strength
from ..progress import Progress, report
from ..sizes import check_size
from .plan import PathPlan, plan_path
from .sampling import GroupTask, ReportStep, sample_path
from .store import PathStore, fingerprint, identity

__all__ = ["GeneratedPath", "check_request", "generate_path", "put_back_"]

_MODES = ("3d", "4d")


@dataclass(frozen=True)
class GeneratedPath:
    """What came of a path.

    Attributes:
        frames: one for each camera, float32 in [0, 1], on the CPU.
        latents: times the VAE's scaling factor, float32, on the CPU.
        plan: the groups that they were made in.
    """

    frames: Float[Tensor, "v 3 H W"]
    latents: Float[Tensor, "v 4 h w"]
    plan: PathPlan


@torch.no_grad()
def generate_path(
    pipe: GenXDPipeline,
    images: Shaped[Tensor, "..."] | Sequence[Tensor | Image.Image],
    image_cameras: Cameras,
    path: Cameras,
    *,
    mode: str = "3d",
    motion_strength: float = 0.0,
    num_inference_steps: int = 25,
    guidance_scale: float = 3.0,
    seed: int = 0,
    grouping: str = "auto",
    views_per_group: int = 12,
    conditions_per_group: int = 3,
    keep_images: bool = True,
    decode_chunk_size: int | None = None,
    resume: PathStore | None = None,
    progress: Progress | None = None,
) -> GeneratedPath:
    """Generate every camera of a path that may be longer than the network takes at once (App. H).

    Args:
        pipe: what generates a group.
        images: the given pictures, as `GenXDPipeline` takes them.
        image_cameras: one camera for each of them, in the path's world. A camera of the path with
            the same pose and intrinsics is not generated.
        path: the cameras to generate, any number, neighbours one after another.
        mode: "3d" (a still scene) or "4d" (a moving one; meant for short paths).
        motion_strength: as in `GenXDPipeline`; without effect in 3D mode.
        num_inference_steps: of every group.
        guidance_scale: as in `GenXDPipeline`.
        seed: every camera has noise of its own from it, so that the order of groups does not
            matter. The same seed gives the same path.
        grouping: "auto", "anchors", "in sequence" or "farthest points"; see `plan_path`.
        views_per_group: cameras that the network sees at once, typically 12.
        conditions_per_group: how many of them are conditions, typically 3.
        keep_images: put the pictures themselves at their places, instead of what the VAE makes of
            them.
        decode_chunk_size: frames decoded together; None for ``views_per_group``, which keeps the
            memory independent of the path.
        resume: keeps finished groups: a second call with the same store and arguments goes on
            where the first was stopped. Weights that were changed in place go unnoticed.
        progress: one count over encoding, all groups and decoding; previews as in
            `GenXDPipeline`, of one group's frames.

    Raises:
        InvalidInputError: an argument cannot be used; the message names it.
        Cancelled: ``progress`` asked to stop; it takes effect within one step.
    """
    pictures = as_pictures(images, "images").detach().float()
    check_request(len(pictures), image_cameras, path, mode=mode)
    check_motion_strength(motion_strength)
    check_size(*pictures.shape[2:], multiple=pipe.size_multiple)
    needs_unconditional(guidance_scale)
    steps = len(pipe.schedule.sigmas(num_inference_steps)) - 1
    at_once = views_per_group if decode_chunk_size is None else decode_chunk_size
    if at_once < 1:
        raise InvalidInputError(
            f"decode_chunk_size is {decode_chunk_size}; expected None or at least 1 frame."
        )
    plan = plan_path(
        path,
        image_cameras,
        grouping=grouping,
        views_per_group=views_per_group,
        conditions_per_group=conditions_per_group,
        still=mode == "3d",
    )
    whole = len(pictures) + steps * len(plan.groups) + len(path)

    def part(before: int) -> Progress:
        def tell(step: int, total: int, preview: Tensor | None = None) -> None:
            report(progress, before + step, whole, preview)

        return tell

    encoded = _encoded(pipe, pictures, part(0))
    preview = LatentPreview.fit(encoded, pictures)
    use_motion_embedding = pipe.unet.config.motion_condition

    def generate(task: GroupTask, report_step: ReportStep) -> Tensor:
        def on_step(step: SamplerStep) -> None:
            report_step(step.number, preview(step.denoised[0]))

        return pipe.sample(
            task.clean[list(task.positions)],
            task.positions,
            task.cameras,
            noise=task.noise,
            mode=mode,
            motion_strength=motion_strength,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            use_motion_embedding=use_motion_embedding,
            on_step=on_step,
        )

    key = fingerprint(
        network=(identity(pipe.unet), identity(pipe.sampler), pipe.dtype, pipe.schedule),
        encoded=encoded,
        image_cameras=image_cameras,
        path=path,
        plan=plan,
        settings=(mode, motion_strength, steps, guidance_scale, seed),
    )
    latents = sample_path(
        plan,
        path,
        image_cameras,
        encoded,
        generate,
        steps=steps,
        seed=seed,
        store=resume,
        key=key,
        progress=part(len(pictures)),
    )
    frames = _decoded(pipe, latents, at_once, part(whole - len(path)))
    if keep_images:
        put_back_(frames, pictures, plan)
    return GeneratedPath(frames, latents, plan)


def check_request(num_images: int, image_cameras: Any, path: Any, *, mode: str) -> None:
    """Refuse what no group can be generated from.

    Args:
        num_images: how many pictures are given.
        image_cameras: of them.
        path: to generate.
        mode: "3d" or "4d".

    Raises:
        InvalidInputError: the message names the argument.
    """
    if mode not in _MODES:
        raise InvalidInputError(
            f'mode is "{mode}"; expected "3d" or "4d": the others do not follow a camera path.'
        )
    for name, value in (("image_cameras", image_cameras), ("path", path)):
        if not isinstance(value, Cameras):
            raise InvalidInputError(
                f"{name} is {type(value).__name__}; expected Cameras, for instance from orbit(48)."
            )
    if num_images != len(image_cameras):
        raise InvalidInputError(
            f"images has {num_images} pictures, but image_cameras has {len(image_cameras)} "
            "cameras; give one camera for each picture."
        )


def put_back_(
    frames: Float[Tensor, "v *picture"], pictures: Float[Tensor, "k *picture"], plan: PathPlan
) -> None:
    """Put the given pictures themselves at their places, in place: a long path is large.

    Args:
        frames: decoded, in any layout.
        pictures: in the same layout and range.
        plan: says where they belong.
    """
    for camera, picture in plan.given:
        frames[camera] = pictures[picture].to(frames)


def _encoded(pipe: GenXDPipeline, pictures: Tensor, progress: Progress) -> Tensor:
    latents = []
    for number, picture in enumerate(pictures, start=1):
        latents.append(pipe.vae.encode(picture[None]))
        report(progress, number, len(pictures))
    return torch.cat(latents)


def _decoded(pipe: GenXDPipeline, latents: Tensor, at_once: int, progress: Progress) -> Tensor:
    frames = []
    for chunk in latents.split(at_once):
        decoded = pipe.vae.decode(chunk)
        frames.append((decoded / 2 + 0.5).clamp(0, 1).cpu())
        report(progress, sum(map(len, frames)), len(latents))
    return torch.cat(frames)
