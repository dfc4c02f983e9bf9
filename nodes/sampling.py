"""What stands behind ComfyUI's own samplers."""

from typing import Any

import torch
from comfy_api.latest import io

from ..genxd_core.errors import InvalidInputError
from ._checks import checked
from .comfy_vae import check_vae, decode_frames

__all__ = ["NODES", "GenXDDecodeViews"]


class GenXDDecodeViews(io.ComfyNode):
    """Latents to pictures, with a stated number of frames decoded together."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_DecodeViews",
            display_name="GenXD Decode Views",
            category="GenXD/sampling",
            description="Decodes generated views. The temporal decoder mixes the frames that it "
            "sees together, so how many that are is your choice here and not the free memory's.",
            search_aliases=["vae decode", "video decode", "decode frames"],
            inputs=[
                io.Latent.Input("samples", tooltip="The sampler's latent output."),
                io.Vae.Input("vae", tooltip="The VAE output of GenXD Load Model."),
                io.Int.Input(
                    "frames_per_chunk",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="Frames decoded together; 0 = all at once, as the original does. Fewer "
                    "need less memory and may flicker where chunks meet. 14 is typical for long "
                    "paths.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="All frames, in the path's order.")
            ],
        )

    @classmethod
    @checked
    def execute(cls, samples: dict[str, Any], vae: Any, frames_per_chunk: int) -> io.NodeOutput:
        """Decode."""
        check_vae(vae)
        latents: torch.Tensor = samples["samples"]
        if latents.dim() != 4 or latents.shape[1] != 4 or 0 in latents.shape:
            raise InvalidInputError(
                f"samples has shape {tuple(latents.shape)}; expected (frames, 4, height, width), "
                "as GenXD's latents are."
            )
        if not bool(latents.isfinite().all()):
            raise InvalidInputError(
                "samples holds values that are not finite (NaN or infinity): sampling failed. "
                "Another weight_dtype (bf16 or fp32) or a lower cfg usually helps."
            )
        pictures = decode_frames(
            vae,
            latents,
            frames_per_chunk=frames_per_chunk,
            frames_per_clip=int(samples.get("genxd_frames_per_clip", 0)),
        )
        return io.NodeOutput(pictures)


NODES = [GenXDDecodeViews]
