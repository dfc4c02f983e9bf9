"""One video to videos of many views, with the library's own pipeline (App. D)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from PIL import Image
from torch import Tensor

from ..cameras.cameras import Cameras
from ..latent_preview import LatentPreview
from ..long_paths.sampling import check_seed
from ..long_paths.store import PathStore, fingerprint
from ..pipeline import GenXDPipeline
from ..progress import Progress, part_of
from .generate import (
    check_video,
    decoded_in_chunks,
    encoded_one_by_one,
    frames_at_once,
    group_generator,
    network_identity,
)
from .multiview import (
    MultiviewPlan,
    MultiviewSettings,
    cameras_of_views,
    plan_multiview_videos,
    sample_multiview_videos,
)

__all__ = ["MultiviewVideos", "generate_multiview_videos"]


@dataclass(frozen=True)
class MultiviewVideos:
    """Synchronised videos.

    Attributes:
        frames: of every view at every time, float32 in [0, 1], on the CPU.
        latents: times the VAE's scaling factor, float32, on the CPU.
        cameras: of all frames, view after view, with times from 0 to 1.
        refined: frames that were denoised to the end in 4D mode.
        cancelled: whether the refinement was stopped; the rest is as the 3D mode left it.
        plan: the groups and windows that they were made in.
    """

    frames: Float[Tensor, "n t 3 H W"]
    latents: Float[Tensor, "n t 4 h w"]
    cameras: Cameras
    refined: Bool[Tensor, "n t"]
    cancelled: bool
    plan: MultiviewPlan


@torch.no_grad()
def generate_multiview_videos(
    pipe: GenXDPipeline,
    video: Shaped[Tensor, "..."] | Sequence[Tensor | Image.Image],
    input_cameras: Cameras,
    view_cameras: Cameras,
    *,
    strength: float = 0.5,
    motion_strength: float = 0.5,
    settings: MultiviewSettings | None = None,
    num_inference_steps: int = 25,
    guidance_scale: float = 3.0,
    seed: int = 0,
    decode_chunk_size: int | None = None,
    resume: PathStore | None = None,
    progress: Progress | None = None,
) -> MultiviewVideos:
    """Generate what other cameras would have filmed of a video (App. D, Fig. 12).

    Every frame is seen from all views in 3D mode, conditioned on that frame: rough videos. Every
    view's video is then refined in 4D mode as by `refine_video`, three frames of each window
    staying as they are.

    Args:
        pipe: what generates.
        video: as `refine_video` takes it.
        input_cameras: of the video: one that stands still, or one for each frame.
        view_cameras: N cameras that stand still, in the same world. One that is the input's camera
            gives the input's frames.
        strength: of the refinement, 0 (none) to 1; 0.5 is usual.
        motion_strength: of the refinement, 0 (still) to 50; see `gamma_to_motion_strength`.
        settings: how much goes through the network together.
        num_inference_steps: of every group; the refinement runs the last share of them.
        guidance_scale: as in `GenXDPipeline`.
        seed: every view, and every frame of it, has noise of its own from it.
        decode_chunk_size: frames decoded together; None for the settings' ``window``.
        resume: keeps finished groups and windows. Rough videos are found again whatever the
            refinement's settings.
        progress: one count over everything, with previews of a group's or window's frames. When
            it asks to stop during the refinement, the result is what there is so far.

    Raises:
        InvalidInputError: an argument cannot be used; the message names it.
        Cancelled: ``progress`` asked to stop before all rough videos were there, or while frames
            were decoded.
    """
    settings = settings or MultiviewSettings()
    pictures, steps, refine_steps = check_video(
        pipe,
        video,
        motion_strength=motion_strength,
        num_inference_steps=num_inference_steps,
        strength=strength,
        guidance_scale=guidance_scale,
    )
    at_once = frames_at_once(decode_chunk_size, settings.window)
    check_seed(seed)
    plan = plan_multiview_videos(len(pictures), input_cameras, view_cameras, settings)
    sampled = plan.num_steps(steps, refine_steps)
    num_frames = len(view_cameras) * len(pictures)
    whole = len(pictures) + sampled + num_frames
    encoded = encoded_one_by_one(pipe, pictures, part_of(progress, 0, whole))
    preview = LatentPreview.fit(encoded[:at_once].to(pipe.device), pictures[:at_once])
    shared = {
        "network": network_identity(pipe),
        "encoded": encoded,
        "input_cameras": input_cameras,
        "view_cameras": view_cameras,
    }
    rough = (plan.per_frame, num_inference_steps, guidance_scale, seed)
    refining = (plan, motion_strength, num_inference_steps, guidance_scale, strength, seed)
    options = (num_inference_steps, guidance_scale)
    out = sample_multiview_videos(
        plan,
        input_cameras,
        view_cameras,
        encoded,
        group_generator(pipe, preview, "3d", 0.0, *options),
        group_generator(pipe, preview, "4d", motion_strength, *options, strength=strength),
        steps=steps,
        refine_steps=refine_steps,
        seed=seed,
        store=resume,
        keys=(fingerprint(**shared, settings=rough), fingerprint(**shared, settings=refining)),
        progress=part_of(progress, len(pictures), whole),
    )
    decoded = [
        decoded_in_chunks(
            pipe,
            latents,
            at_once,
            None
            if out.cancelled
            else part_of(progress, len(pictures) + sampled + view * len(pictures), whole),
        )
        for view, latents in enumerate(out.latents)
    ]
    return MultiviewVideos(
        frames=torch.stack(decoded),
        latents=out.latents,
        cameras=cameras_of_views(view_cameras, len(pictures)),
        refined=out.refined,
        cancelled=out.cancelled,
        plan=plan,
    )
