"""Rough videos refined in 4D mode, and videos of many views from one."""

from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.errors import Cancelled, InvalidInputError
from ..genxd_core.long_paths.store import PathStore, fingerprint, identity
from ..genxd_core.model.conditioning import mode_indicator
from ..genxd_core.refinement.clips import frames_per_clip, refine_clips
from ..genxd_core.refinement.multiview import (
    MultiviewSettings,
    cameras_of_views,
    plan_multiview_videos,
    sample_multiview_videos,
)
from ..genxd_core.refinement.sampling import num_steps_run
from ..genxd_core.refinement.windows import plan_windows
from ..genxd_core.sizes import check_size
from ._checks import check_images, checked, parse_indices
from ._groups import (
    STOP,
    USE,
    Sampling,
    check_model,
    group_generator,
    group_progress,
    sampler_inputs,
)
from ._types import CamerasSocket
from .comfy_vae import check_vae, decode_frames, encode_pictures

__all__ = ["NODES", "GenXDRefineVideo", "GenXDSampleMultiviewVideos"]

# Finished groups and windows of the last runs: what a run after an interruption goes on from.
_STORE = PathStore(max_runs=8, max_bytes=512 * 2**20)


def _net_inputs() -> list[Any]:
    return [
        io.Model.Input("model", tooltip="The MODEL output of GenXD Load Model."),
        io.Vae.Input("vae", tooltip="The VAE output of GenXD Load Model."),
    ]


def _strength_inputs() -> list[Any]:
    return [
        io.Float.Input(
            "strength",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="How much of the schedule is run in 4D mode: 0 = the rough video as it is, "
            "0.5 = typical, 1 = nothing of it is left but the conditions.",
        ),
        io.Float.Input(
            "motion_strength",
            default=0.5,
            min=0.0,
            max=20.0,
            step=0.05,
            tooltip="How much objects move by themselves in 4D mode, as the network takes it (not "
            "pixels): 0 = still, 0.5 = typical, 1.5 = strong.",
        ),
    ]


def _window_inputs() -> list[Any]:
    return [
        io.Int.Input(
            "window",
            default=12,
            min=2,
            max=256,
            tooltip="Frames that the network sees at once in 4D mode; 12 is typical. Memory grows "
            "with it, not with the video.",
        ),
        io.Int.Input(
            "conditions_per_window",
            default=3,
            min=1,
            max=128,
            tooltip="How many frames of each window stay as they are and lead the others; 3 is "
            "typical.",
        ),
        io.Int.Input(
            "overlap",
            default=4,
            min=0,
            max=255,
            tooltip="Frames that neighbouring windows share, at least, where they are blended; 4 "
            "is typical, 0 blends nothing.",
        ),
        io.Int.Input(
            "frames_per_chunk",
            default=12,
            min=0,
            max=1024,
            tooltip="Frames decoded together; 12 is typical, 0 = all of a video at once, for "
            "which memory grows with its length.",
        ),
        io.Combo.Input(
            "when_interrupted",
            options=[STOP, USE],
            default=STOP,
            tooltip="What ComfyUI's cancel does during the refinement: stop the graph (typical), "
            "or go on with the frames that are refined and the others as they were.",
        ),
    ]


class GenXDRefineVideo(io.ComfyNode):
    """A rough video, noised and denoised window after window."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_RefineVideo",
            display_name="GenXD Refine Video",
            category="GenXD/sampling",
            description="Makes a rough video consistent over time: adds noise to its frames and "
            "denoises them in 4D mode, a window of frames at a time, led by some that stay; "
            "several clips one after the other.",
            search_aliases=["sdedit", "video to video", "vid2vid", "denoise video", "refine"],
            inputs=[
                *_net_inputs(),
                io.Image.Input(
                    "video",
                    tooltip="The frames of the rough video, at least 2, all of one size: typically "
                    "256 x 256 pixels, 64 x 64 for genxd-nano. Or several clips of one length, one "
                    "after the other.",
                ),
                CamerasSocket.Input(
                    "cameras",
                    tooltip="One camera for each frame, typically the path that the video was "
                    "made or drawn with. Where their times fall back a new clip begins.",
                ),
                io.String.Input(
                    "conditions",
                    default="",
                    tooltip='Frames of each clip that stay as they are, such as "0, 5, 11"; '
                    "negative numbers count from the end, and the first listed is the reference "
                    "view. Empty (typical) chooses some for each window.",
                ),
                *_strength_inputs(),
                *sampler_inputs(),
                *_window_inputs(),
                io.Image.Input(
                    "condition_images",
                    optional=True,
                    tooltip="Optional: pictures in place of the frames that conditions names, in "
                    "that order, typically photographs. Or a whole video as long as a clip, whose "
                    "frames at these positions are taken.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="Optional: the video's latents, typically from GenXD Sample Path, "
                    "instead of encoding its frames again.",
                ),
                io.Noise.Input(
                    "noise",
                    optional=True,
                    tooltip="Optional: noise for all frames in place of the seed's, typically "
                    "from RandomNoise.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="All frames, in order."),
                io.Latent.Output(
                    display_name="latent", tooltip="Their latents, for decoding again."
                ),
                CamerasSocket.Output(
                    display_name="cameras", tooltip="The cameras: one for each frame."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, conditions: str | None = None) -> bool | str:
        """What can be said before running."""
        try:
            _conditions(conditions or "")
        except InvalidInputError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        vae: Any,
        video: torch.Tensor,
        cameras: Cameras,
        conditions: str,
        strength: float,
        motion_strength: float,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        window: int,
        conditions_per_window: int,
        overlap: int,
        frames_per_chunk: int,
        when_interrupted: str,
        condition_images: torch.Tensor | None = None,
        latent: dict[str, Any] | None = None,
        noise: Any = None,
    ) -> io.NodeOutput:
        """Plan the windows, encode, denoise, decode."""
        _check_nets_and_video(model, vae, video)
        if len(cameras) != len(video):
            raise InvalidInputError(
                f"video has {len(video)} frames, but cameras has {len(cameras)}; give one camera "
                "for each frame."
            )
        given = _conditions(conditions)
        length = frames_per_clip(cameras)
        clips = len(video) // length
        plan = plan_windows(
            length,
            conditions=given,
            window=window,
            conditions_per_window=conditions_per_window,
            overlap=overlap,
        )
        run = num_steps_run(steps, strength)
        shown = _condition_images(condition_images, given, length, video)
        start = None if latent is None else _latents(latent, video)
        num_encoded = (len(video) if start is None else 0) + (0 if shown is None else len(shown))
        sampled = run * len(plan.pending) * clips
        bar = comfy.utils.ProgressBar(num_encoded + sampled + len(video))
        if start is None:
            start = encode_pictures(vae, video[..., :3].clamp(0.0, 1.0), bar=bar)
        if shown is not None:
            places = [place % length for place in given]
            start.unflatten(0, (clips, length))[:, places] = encode_pictures(vae, shown, bar=bar)
        drawn = None if noise is None else noise.generate_noise({"samples": start})
        sampling = Sampling(steps, cfg, sampler_name, scheduler)
        goes_on = when_interrupted == USE
        out = refine_clips(
            plan,
            cameras,
            start,
            group_generator(
                model,
                mode_indicator("4d"),
                motion_strength,
                sampling,
                strength=strength,
                goes_on=goes_on,
            ),
            steps=run,
            seed=seed,
            noise=drawn,
            store=_STORE,
            key=fingerprint(
                model=(identity(model), model.patches_uuid),
                video=start,
                cameras=cameras,
                plan=plan,
                noise=drawn,
                settings=(strength, motion_strength, seed, sampling),
            ),
            progress=group_progress(model, bar, done=num_encoded, goes_on=goes_on),
        )
        frames = decode_frames(
            vae, out.latents, frames_per_chunk=frames_per_chunk, frames_per_clip=length, bar=bar
        )
        samples = {"samples": out.latents, "genxd_frames_per_clip": length}
        return io.NodeOutput(frames, samples, cameras)


class GenXDSampleMultiviewVideos(io.ComfyNode):
    """One video to videos of many views."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_SampleMultiviewVideos",
            display_name="GenXD Sample Multiview Videos",
            category="GenXD/sampling",
            description="Generates what other cameras would have filmed of a video: every frame "
            "from all views in 3D mode, then every view refined over time in 4D mode.",
            search_aliases=["multi-view video", "synchronised videos", "video to 4d", "4d"],
            inputs=[
                *_net_inputs(),
                io.Image.Input(
                    "video",
                    tooltip="The frames of the video, at least 2, all of one size: typically "
                    "256 x 256 pixels, 64 x 64 for genxd-nano.",
                ),
                CamerasSocket.Input(
                    "input_cameras",
                    tooltip="The camera of the video: one that stands still (typical), or one for "
                    "each frame.",
                ),
                CamerasSocket.Input(
                    "view_cameras",
                    tooltip="The cameras to see it from, one for each view, typically 3 to 11. "
                    "They stand still.",
                ),
                *_strength_inputs(),
                *sampler_inputs(),
                io.Int.Input(
                    "views_per_group",
                    default=12,
                    min=2,
                    max=256,
                    tooltip="Views of one frame that the network sees at once in 3D mode; 12 is "
                    "typical.",
                ),
                io.Int.Input(
                    "conditions_per_group",
                    default=3,
                    min=1,
                    max=128,
                    tooltip="How many of them are conditions where one group is not enough for "
                    "all views; 3 is typical.",
                ),
                *_window_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip="All frames: those of the first view, then those of the next.",
                ),
                io.Latent.Output(
                    display_name="latent", tooltip="Their latents, for decoding again."
                ),
                CamerasSocket.Output(
                    display_name="cameras",
                    tooltip="One camera for each of the images, with times from 0 to 1 in each "
                    "view.",
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        vae: Any,
        video: torch.Tensor,
        input_cameras: Cameras,
        view_cameras: Cameras,
        strength: float,
        motion_strength: float,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        views_per_group: int,
        conditions_per_group: int,
        window: int,
        conditions_per_window: int,
        overlap: int,
        frames_per_chunk: int,
        when_interrupted: str,
    ) -> io.NodeOutput:
        """Plan, encode, sample what is not there yet, decode."""
        _check_nets_and_video(model, vae, video)
        settings = MultiviewSettings(
            views_per_group, conditions_per_group, window, conditions_per_window, overlap
        )
        times = len(video)
        plan = plan_multiview_videos(times, input_cameras, view_cameras, settings)
        run = num_steps_run(steps, strength)
        num_frames = len(view_cameras) * times
        bar = comfy.utils.ProgressBar(times + plan.num_steps(steps, run) + num_frames)
        encoded = encode_pictures(vae, video[..., :3].clamp(0.0, 1.0), bar=bar)
        sampling = Sampling(steps, cfg, sampler_name, scheduler)
        goes_on = when_interrupted == USE
        shared = {
            "model": (identity(model), model.patches_uuid),
            "encoded": encoded,
            "input_cameras": input_cameras,
            "view_cameras": view_cameras,
        }
        refining = (plan, strength, motion_strength, seed, sampling)
        try:
            out = sample_multiview_videos(
                plan,
                input_cameras,
                view_cameras,
                encoded,
                group_generator(model, mode_indicator("3d"), 0.0, sampling),
                group_generator(
                    model,
                    mode_indicator("4d"),
                    motion_strength,
                    sampling,
                    strength=strength,
                    goes_on=goes_on,
                ),
                steps=steps,
                refine_steps=run,
                seed=seed,
                store=_STORE,
                keys=(
                    fingerprint(**shared, settings=(plan.per_frame, seed, sampling)),
                    fingerprint(**shared, settings=refining),
                ),
                progress=group_progress(model, bar, done=times, goes_on=goes_on),
            )
        except Cancelled as error:
            # Before all rough videos are there, nothing can be gone on with.
            raise comfy.model_management.InterruptProcessingException from error
        samples = out.latents.flatten(0, 1)
        frames = decode_frames(
            vae, samples, frames_per_chunk=frames_per_chunk, frames_per_clip=times, bar=bar
        )
        latent = {"samples": samples, "genxd_frames_per_clip": times}
        return io.NodeOutput(frames, latent, cameras_of_views(view_cameras, times))


def _check_nets_and_video(model: Any, vae: Any, video: torch.Tensor) -> None:
    check_model(model)
    check_vae(vae)
    check_images(video, "video")
    check_size(*video.shape[1:3], multiple=8)


def _conditions(text: str) -> tuple[int, ...]:
    """Frames written as "0, 5, 11"; none where nothing is written."""
    return parse_indices(text, "conditions") if text.strip() else ()


def _condition_images(
    shown: torch.Tensor | None, given: tuple[int, ...], length: int, video: torch.Tensor
) -> torch.Tensor | None:
    """A picture for each of the conditions, where there are any to take their place."""
    if shown is None:
        return None
    check_images(shown, "condition_images")
    if len(shown) not in (len(given), length):
        raise InvalidInputError(
            f"condition_images has {len(shown)} pictures, but conditions names {len(given)} "
            f"frames; give one picture for each, or a video of {length} frames to take them from."
        )
    if shown.shape[1:3] != video.shape[1:3]:
        raise InvalidInputError(
            f"condition_images are {shown.shape[2]}x{shown.shape[1]}, but video is "
            f"{video.shape[2]}x{video.shape[1]}; bring them to the video's size with GenXD Fit "
            "Views."
        )
    if not given:
        raise InvalidInputError(
            "condition_images is connected, but conditions is empty; say which frames they are."
        )
    chosen = shown if len(shown) == len(given) else shown[list(given)]
    return chosen[..., :3].clamp(0.0, 1.0)


def _latents(latent: dict[str, Any], video: torch.Tensor) -> torch.Tensor:
    samples: torch.Tensor = latent["samples"]
    expected = (len(video), 4, video.shape[1] // 8, video.shape[2] // 8)
    if tuple(samples.shape) != expected:
        raise InvalidInputError(
            f"latent has shape {tuple(samples.shape)}; expected {expected} for the frames of "
            "video. Connect the latent output of the node that made them, or nothing."
        )
    if not bool(samples.isfinite().all()):
        raise InvalidInputError(
            "latent holds values that are not finite (NaN or infinity); look at the node before."
        )
    return samples.detach().float().cpu().clone()


NODES = [GenXDRefineVideo, GenXDSampleMultiviewVideos]
