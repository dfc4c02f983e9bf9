"""Sampling paths with more cameras than the network takes at once."""

from typing import Any

import comfy.samplers
import comfy.utils
import torch
from comfy_api.latest import io

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.errors import InvalidInputError
from ..genxd_core.long_paths.generate import check_request, put_back_
from ..genxd_core.long_paths.plan import GROUPINGS, plan_path
from ..genxd_core.long_paths.sampling import sample_path
from ..genxd_core.long_paths.store import PathStore, fingerprint, identity
from ..genxd_core.model.conditioning import check_indices, mode_indicator
from ..genxd_core.sizes import check_size
from ._checks import check_images, checked, parse_indices
from ._groups import Sampling, check_model, group_generator, group_progress
from ._types import CamerasSocket
from .comfy_vae import check_vae, decode_frames, encode_pictures

__all__ = ["NODES", "GenXDSamplePath"]

# Finished groups of the last runs: what a run after an interruption goes on from.
_STORE = PathStore(max_runs=4, max_bytes=512 * 2**20)


class GenXDSamplePath(io.ComfyNode):
    """Pictures and a path of any length to frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_SamplePath",
            display_name="GenXD Sample Path",
            category="GenXD/sampling",
            description="Generates a path with any number of cameras, group after group. Run it "
            "again after an interruption and it goes on from the groups that are finished.",
            search_aliases=["long path", "long video", "anchors", "many views", "few views"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL output of GenXD Load Model."),
                io.Vae.Input("vae", tooltip="The VAE output of GenXD Load Model."),
                io.Image.Input(
                    "images",
                    tooltip="One picture for each of the indices or image_cameras, all of one "
                    "size: typically 256 x 256 pixels, 64 x 64 for genxd-nano.",
                ),
                CamerasSocket.Input(
                    "cameras",
                    tooltip="The path: one camera for each frame, any number, neighbours one "
                    "after another.",
                ),
                io.String.Input(
                    "indices",
                    default="0",
                    tooltip='Where on the path each image is: "0" for the first frame, "0, 20, '
                    '39" for first, middle and last of 40. Negative numbers count from the end. '
                    "Without effect when image_cameras are connected.",
                ),
                io.Combo.Input(
                    "mode",
                    options=["3d", "4d"],
                    default="3d",
                    tooltip="3d: a still scene, what long paths are for. 4d: a moving one; motion "
                    "is only followed within a group.",
                ),
                io.Float.Input(
                    "motion_strength",
                    default=0.5,
                    min=0.0,
                    max=20.0,
                    step=0.05,
                    tooltip="How much objects move by themselves, as the network takes it (not "
                    "pixels): 0 = still, 0.5 = typical, 1.5 = strong. Without effect in 3d mode.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Each camera draws noise of its own from it; any number, typically "
                    "fixed while a path is made in several runs.",
                ),
                io.Int.Input(
                    "steps",
                    default=25,
                    min=1,
                    max=1000,
                    tooltip="Sampling steps of each group; 25 is typical.",
                ),
                io.Float.Input(
                    "cfg",
                    default=3.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How strongly to follow the pictures; 3 is typical, 1 is twice as fast "
                    "and less faithful.",
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
                    tooltip="Noise levels of the steps; karras is what the released model is used "
                    "with.",
                ),
                io.Combo.Input(
                    "grouping",
                    options=list(GROUPINGS),
                    default="auto",
                    tooltip="auto (typical): anchors for one picture, in sequence for several. "
                    "anchors: cameras spread over the path first, the others from the nearest of "
                    "them. in sequence: neighbours from the nearest pictures. farthest points: "
                    "cameras near in space, for paths that pass a place more than once.",
                ),
                io.Int.Input(
                    "views_per_group",
                    default=12,
                    min=2,
                    max=256,
                    tooltip="Frames that the network sees at once; 12 is typical. Memory grows "
                    "with it, not with the path.",
                ),
                io.Int.Input(
                    "conditions_per_group",
                    default=3,
                    min=1,
                    max=128,
                    tooltip="How many frames of each group are conditions, pictures or anchors, at "
                    "least: those between its cameras always are. 3 is typical.",
                ),
                io.Boolean.Input(
                    "keep_images",
                    default=True,
                    tooltip="Put the pictures themselves at their places on the path; off shows "
                    "what the VAE makes of them. Typically on.",
                ),
                io.Int.Input(
                    "frames_per_chunk",
                    default=12,
                    min=0,
                    max=1024,
                    tooltip="Frames decoded together; 12 is typical, 0 = all at once, for which "
                    "memory grows with the path.",
                ),
                CamerasSocket.Input(
                    "image_cameras",
                    optional=True,
                    tooltip="Optional: one camera for each picture, for pictures that are not on "
                    "the path, typically from GenXD Load Cameras.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="All frames, in the path's order."),
                io.Latent.Output(
                    display_name="latent", tooltip="Their latents, for refining or decoding again."
                ),
                CamerasSocket.Output(
                    display_name="cameras", tooltip="The path: one camera for each frame."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, indices: str | None = None) -> bool | str:
        """What can be said before running."""
        try:
            parse_indices("0" if indices is None else indices)
        except InvalidInputError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        vae: Any,
        images: torch.Tensor,
        cameras: Cameras,
        indices: str,
        mode: str,
        motion_strength: float,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        grouping: str,
        views_per_group: int,
        conditions_per_group: int,
        keep_images: bool,
        frames_per_chunk: int,
        image_cameras: Cameras | None = None,
    ) -> io.NodeOutput:
        """Plan, sample what is not there yet, decode."""
        check_model(model)
        check_vae(vae)
        check_images(images)
        check_size(*images.shape[1:3], multiple=8)
        if image_cameras is None:
            image_cameras = _on_path(cameras, indices, len(images))
        check_request(len(images), image_cameras, cameras, mode=mode)
        plan = plan_path(
            cameras,
            image_cameras,
            grouping=grouping,
            views_per_group=views_per_group,
            conditions_per_group=conditions_per_group,
            still=mode == "3d",
        )
        num_images = len(images)
        bar = comfy.utils.ProgressBar(num_images + steps * len(plan.groups) + len(cameras))
        pictures = images[..., :3].clamp(0.0, 1.0)
        encoded = encode_pictures(vae, pictures, bar=bar)
        sampling = Sampling(steps, cfg, sampler_name, scheduler)
        latents = sample_path(
            plan,
            cameras,
            image_cameras,
            encoded,
            group_generator(model, mode_indicator(mode), motion_strength, sampling),
            steps=steps,
            seed=seed,
            store=_STORE,
            key=fingerprint(
                model=(identity(model), model.patches_uuid),
                encoded=encoded,
                image_cameras=image_cameras,
                path=cameras,
                plan=plan,
                settings=(mode, motion_strength, seed, sampling),
            ),
            progress=group_progress(model, bar, done=num_images),
        )
        frames = decode_frames(vae, latents, frames_per_chunk=frames_per_chunk, bar=bar)
        if keep_images:
            put_back_(frames, pictures, plan)
        out = {"samples": latents, "genxd_frames_per_clip": len(cameras)}
        return io.NodeOutput(frames, out, cameras)


def _on_path(cameras: Cameras, indices: str, num_images: int) -> Cameras:
    """The path's cameras at the pictures' places."""
    positions = check_indices(parse_indices(indices), len(cameras))
    if num_images != len(positions):
        raise InvalidInputError(
            f'images has {num_images} pictures, but indices "{indices}" has {len(positions)} '
            "positions; give one position for each picture, or connect image_cameras."
        )
    return cameras[positions]


NODES = [GenXDSamplePath]
