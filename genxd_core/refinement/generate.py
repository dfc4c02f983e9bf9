"""Refining a rough video with the library's own pipeline (App. C and D)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from PIL import Image
from torch import Tensor

from ..cameras.cameras import Cameras
from ..diffusion.guidance import needs_unconditional
from ..diffusion.samplers import SamplerStep
from ..errors import InvalidInputError
from ..latent_preview import LatentPreview
from ..long_paths.sampling import GenerateGroup, GroupTask, ReportStep, check_seed
from ..long_paths.store import PathStore, fingerprint, identity
from ..pictures import as_pictures
from ..pipeline import GenXDPipeline
from ..pipeline_inputs import check_motion_strength
from ..progress import Progress, part_of, report
from ..sizes import check_size
from .sampling import num_steps_run, refine_latents
from .windows import RefinePlan, plan_windows

__all__ = [
    "RefinedVideo",
    "check_video",
    "decoded_in_chunks",
    "encoded_one_by_one",
    "frames_at_once",
    "group_generator",
    "network_identity",
    "refine_video",
]


@dataclass(frozen=True)
class RefinedVideo:
    """A video after refinement.

    Attributes:
        frames: float32 in [0, 1], on the CPU.
        latents: times the VAE's scaling factor, float32, on the CPU; those of conditions are the
            encoded pictures'.
        refined: frames that were denoised to the end.
        cancelled: whether it was stopped; frames that were not reached are the input's.
        plan: the windows that it was made in.
    """

    frames: Float[Tensor, "v 3 H W"]
    latents: Float[Tensor, "v 4 h w"]
    refined: Bool[Tensor, "v"]
    cancelled: bool
    plan: RefinePlan


@torch.no_grad()
def refine_video(
    pipe: GenXDPipeline,
    video: Shaped[Tensor, "..."] | Sequence[Tensor | Image.Image],
    cameras: Cameras,
    *,
    conditions: Sequence[int] = (),
    condition_images: Shaped[Tensor, "..."] | Sequence[Tensor | Image.Image] | None = None,
    strength: float = 0.5,
    motion_strength: float = 0.5,
    window: int = 12,
    conditions_per_window: int = 3,
    overlap: int = 4,
    num_inference_steps: int = 25,
    guidance_scale: float = 3.0,
    seed: int = 0,
    latents: Shaped[Tensor, "..."] | None = None,
    noise: Shaped[Tensor, "..."] | None = None,
    decode_chunk_size: int | None = None,
    resume: PathStore | None = None,
    progress: Progress | None = None,
) -> RefinedVideo:
    """Refine a rough video: noise on its latents, denoised in 4D mode (App. C and D).

    The network sees ``window`` frames at once, some of which stay as they are and lead the others
    (SDEdit, Meng et al. 2022, with masked latent conditioning). Windows overlap and are blended in
    latent space; memory for the network and the decoder is that of one window.

    Args:
        pipe: what denoises.
        video: (V, 3, H, W) in [0, 1], V at least 2, or a list of PIL pictures and (3, H, W) tensors
            of one size; sides are multiples of ``pipe.size_multiple``.
        cameras: one for each frame, with intrinsics for pictures of this shape.
        conditions: frames to condition on; negative numbers count from the end, the first listed is
            the reference view. More are chosen where windows have too few; see `plan_windows`.
        condition_images: pictures in place of the video's frames at ``conditions``, in that order.
        strength: the share of the steps that is run, 0 (the video as it is) to 1 (nothing is left
            of it but its conditions); 0.5 is usual.
        motion_strength: how much moves, 0 (still) to 50; see `gamma_to_motion_strength`.
        window: frames that the network sees at once; 12 in the paper.
        conditions_per_window: how many of them are conditions, at least; 3 in the paper.
        overlap: frames that neighbouring windows share, at least.
        num_inference_steps: of the whole schedule, of which the last share is run.
        guidance_scale: as in `GenXDPipeline`.
        seed: every frame has noise of its own from it, the same in every window.
        latents: scaled latents of the video, (V, 4, h, w), instead of encoding it.
        noise: unit noise of every frame, (V, 4, h, w), instead of the seed's.
        decode_chunk_size: frames decoded together; None for ``window``.
        resume: keeps finished windows: a second call with the same store and arguments goes on
            where the first was stopped. Weights that were changed in place go unnoticed.
        progress: one count over encoding, all windows and decoding; previews of one window's
            frames. When it asks to stop while windows are denoised, that takes effect within one
            step, and the result is what there is so far.

    Raises:
        InvalidInputError: an argument cannot be used; the message names it.
        Cancelled: ``progress`` asked to stop while frames were encoded or decoded.
    """
    pictures, _, count = check_video(
        pipe,
        video,
        motion_strength=motion_strength,
        num_inference_steps=num_inference_steps,
        strength=strength,
        guidance_scale=guidance_scale,
    )
    at_once = frames_at_once(decode_chunk_size, window)
    check_seed(seed)
    _check_cameras(cameras, len(pictures))
    plan = plan_windows(
        len(pictures),
        conditions=conditions,
        window=window,
        conditions_per_window=conditions_per_window,
        overlap=overlap,
    )
    shown = None if condition_images is None else as_pictures(condition_images, "condition_images")
    if shown is not None:
        _check_condition_images(shown, conditions, pictures)
    shape = (len(pictures), 4, *(side // pipe.vae.factor for side in pictures.shape[2:]))
    given = {name: _given(value, shape, name) for name, value in _named(latents, noise)}
    extra = 0 if shown is None else len(shown)
    to_encode = (len(pictures) if latents is None else 0) + extra
    whole = to_encode + count * len(plan.pending) + len(pictures)

    if latents is None:
        encoded = encoded_one_by_one(pipe, pictures, part_of(progress, 0, whole))
    else:
        encoded = given["latents"].clone()
    if shown is not None:
        told = part_of(progress, to_encode - extra, whole)
        encoded[list(conditions)] = encoded_one_by_one(pipe, shown.detach().float(), told).to(
            encoded
        )
    preview = LatentPreview.fit(encoded[:at_once].to(pipe.device), pictures[:at_once])
    settings = (motion_strength, num_inference_steps, guidance_scale)
    out = refine_latents(
        plan,
        cameras,
        encoded,
        group_generator(pipe, preview, "4d", *settings, strength=strength),
        steps=count,
        seed=seed,
        noise=given.get("noise"),
        store=resume,
        key=fingerprint(
            network=network_identity(pipe),
            encoded=encoded,
            cameras=cameras,
            plan=plan,
            noise=given.get("noise"),
            settings=(*settings, strength, seed),
        ),
        progress=part_of(progress, to_encode, whole),
    )
    told = None if out.cancelled else part_of(progress, whole - len(pictures), whole)
    frames = decoded_in_chunks(pipe, out.latents, at_once, told)
    return RefinedVideo(frames, out.latents, out.refined, out.cancelled, plan)


def check_video(
    pipe: GenXDPipeline,
    video: Shaped[Tensor, "..."] | Sequence[Tensor | Image.Image],
    *,
    motion_strength: float,
    num_inference_steps: int,
    strength: float,
    guidance_scale: float,
) -> tuple[Float[Tensor, "v 3 H W"], int, int]:
    """The frames of a video, the steps of the schedule, and how many of them are run.

    Args:
        pipe: that is to refine it.
        video: as `refine_video` takes it.
        motion_strength: as there, like all that follow.
        num_inference_steps: as there.
        strength: as there.
        guidance_scale: as there.

    Raises:
        InvalidInputError: the message names the argument.
    """
    pictures = as_pictures(video, "video").detach().float()
    check_size(*pictures.shape[2:], multiple=pipe.size_multiple)
    check_motion_strength(motion_strength)
    needs_unconditional(guidance_scale)
    steps = len(pipe.schedule.sigmas(num_inference_steps)) - 1
    return pictures, steps, num_steps_run(steps, strength)


def group_generator(
    pipe: GenXDPipeline,
    preview: LatentPreview,
    mode: str,
    motion_strength: float,
    num_inference_steps: int,
    guidance_scale: float,
    *,
    strength: float = 1.0,
) -> GenerateGroup:
    """What samples a group, or denoises a window, with a pipeline.

    Args:
        pipe: the pipeline.
        preview: what shows the latents.
        mode: "3d" or "4d".
        motion_strength: as in `GenXDPipeline`, like all that follow.
        num_inference_steps: as there.
        guidance_scale: as there.
        strength: for tasks with a ``video``.
    """

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
            video=task.video,
            strength=strength if task.video is not None else 1.0,
            use_motion_embedding=pipe.unet.config.motion_condition,
            on_step=on_step,
        )

    return generate


def network_identity(pipe: GenXDPipeline) -> tuple[object, ...]:
    """What a pipeline's results depend on, for a fingerprint."""
    return (identity(pipe.unet), identity(pipe.sampler), pipe.dtype, pipe.schedule)


def encoded_one_by_one(
    pipe: GenXDPipeline, pictures: Float[Tensor, "v 3 H W"], progress: Progress | None
) -> Float[Tensor, "v 4 h w"]:
    """Scaled latents on the CPU, with the memory of one picture on the pipeline's device."""
    latents = []
    for number, picture in enumerate(pictures, start=1):
        latents.append(pipe.vae.encode(picture[None]).cpu())
        report(progress, number, len(pictures))
    return torch.cat(latents)


def decoded_in_chunks(
    pipe: GenXDPipeline,
    latents: Float[Tensor, "v 4 h w"],
    at_once: int,
    progress: Progress | None,
) -> Float[Tensor, "v 3 H W"]:
    """Pictures in [0, 1] on the CPU, with the memory of ``at_once`` frames on the device."""
    frames, done = [], 0
    for chunk in latents.split(at_once):
        decoded = pipe.vae.decode(chunk.to(pipe.device))
        frames.append((decoded / 2 + 0.5).clamp(0, 1).cpu())
        done += len(chunk)
        report(progress, done, len(latents))
    return torch.cat(frames)


def frames_at_once(decode_chunk_size: int | None, window: int) -> int:
    """How many frames are decoded together: ``window`` unless said.

    Raises:
        InvalidInputError: fewer than one.
    """
    at_once = window if decode_chunk_size is None else decode_chunk_size
    if decode_chunk_size is not None and at_once < 1:
        raise InvalidInputError(
            f"decode_chunk_size is {decode_chunk_size}; expected None or at least 1 frame."
        )
    return at_once


def _check_cameras(cameras: Cameras, frames: int) -> None:
    if len(cameras) != frames:
        raise InvalidInputError(
            f"video has {frames} frames, but cameras has {len(cameras)}; give one camera for each "
            "frame (static(...) for a camera that stands still)."
        )


def _check_condition_images(
    shown: Tensor, conditions: Sequence[int], pictures: Float[Tensor, "v 3 H W"]
) -> None:
    if len(shown) != len(conditions):
        raise InvalidInputError(
            f"condition_images has {len(shown)} pictures, but conditions names {len(conditions)} "
            "frames; give one position for each picture."
        )
    if shown.shape[2:] != pictures.shape[2:]:
        height, width = shown.shape[2:]
        raise InvalidInputError(
            f"condition_images are {width}x{height}, but video is "
            f"{pictures.shape[3]}x{pictures.shape[2]}; bring them to the video's size."
        )


def _named(latents: Tensor | None, noise: Tensor | None) -> list[tuple[str, Tensor]]:
    return [(n, v) for n, v in (("latents", latents), ("noise", noise)) if v is not None]


def _given(value: Tensor, shape: tuple[int, ...], name: str) -> Float[Tensor, "v 4 h w"]:
    if tuple(value.shape) != shape or not value.is_floating_point():
        raise InvalidInputError(
            f"{name} has shape {tuple(value.shape)} ({value.dtype}); expected {shape}, floating "
            "point, for the frames of the video."
        )
    if not bool(torch.isfinite(value).all()):
        raise InvalidInputError(f"{name} must be finite numbers, without NaN.")
    return value.detach().float().cpu()
