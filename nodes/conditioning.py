"""Masked latent conditioning for the sampler."""

import math
from typing import Any

import torch
from comfy_api.latest import io

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.cameras.conventions import SHAPE_TOLERANCE, picture_aspect
from ..genxd_core.errors import InvalidInputError
from ..genxd_core.fitting import FitRecord
from ..genxd_core.model.conditioning import MODES, check_indices, mode_indicator
from ..genxd_core.model.motion_strength import gamma_to_motion_strength
from ..genxd_core.sizes import check_size
from ._checks import check_images, checked, parse_indices
from ._types import CamerasSocket, FitSocket
from .comfy_model import condition_values
from .comfy_vae import check_vae, encode_pictures

__all__ = ["NODES", "GenXDConditionViews", "GenXDSetMotionStrength"]

_STRENGTH_TOOLTIP = (
    "How much objects move by themselves, as the network takes it (not pixels): 0 = still, 0.25 = "
    "gentle, 0.5 = typical, 1.5 = strong. About 25 times the paper's measured gamma. Without "
    "effect in 3d mode."
)


class GenXDConditionViews(io.ComfyNode):
    """Images, their places on the path, and the path: what the sampler is told."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_ConditionViews",
            display_name="GenXD Condition Views",
            category="GenXD/conditioning",
            description="Puts your images at their places on the camera path. The other places "
            "are what the sampler generates.",
            search_aliases=["genxd conditioning", "image to video", "novel views", "i2v", "4d"],
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE output of GenXD Load Model."),
                io.Image.Input(
                    "images",
                    tooltip="One picture for each of the indices, in that order, all of one size: "
                    "typically 256 x 256 pixels, 64 x 64 for genxd-nano.",
                ),
                CamerasSocket.Input(
                    "cameras", tooltip="The path: one camera for each frame, typically 12."
                ),
                io.String.Input(
                    "indices",
                    default="0",
                    tooltip='Where on the path each image is: "0" for the first frame, "0, 5, 11" '
                    "for first, middle and last of 12. Negative numbers count from the end. The "
                    "first one listed is the reference view.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="3d",
                    tooltip="3d: a still scene seen along the path. 4d: a moving scene seen along "
                    "the path. video: a moving scene without camera control; it ignores the path.",
                ),
                io.Float.Input(
                    "motion_strength",
                    default=0.5,
                    min=0.0,
                    max=20.0,
                    step=0.05,
                    tooltip=_STRENGTH_TOOLTIP,
                ),
                FitSocket.Input(
                    "fit",
                    optional=True,
                    tooltip="Optional: the fit output of GenXD Fit Views. A path whose focal "
                    "lengths do not belong to the fitted pictures is then refused.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", tooltip="Views, rays and motion, for the sampler."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="The same without them, for guidance."
                ),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="Start for the sampler: the encoded views at their places, masked.",
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
        vae: Any,
        images: torch.Tensor,
        cameras: Cameras,
        indices: str,
        mode: str,
        motion_strength: float,
        fit: FitRecord | None = None,
    ) -> io.NodeOutput:
        """Encode the images and gather what the sampler is told."""
        check_vae(vae)
        check_images(images)
        if len(cameras) < 2:
            raise InvalidInputError(
                f"cameras has {len(cameras)} view; expected at least 2, typically 12."
            )
        positions = check_indices(parse_indices(indices), len(cameras))
        if len(images) != len(positions):
            raise InvalidInputError(
                f'images has {len(images)} pictures, but indices "{indices}" has '
                f"{len(positions)} positions; give one position for each picture."
            )
        height, width = images.shape[1:3]
        _check_size(height, width)
        if fit is not None:
            _check_fit(cameras, fit, height, width)
        encoded = encode_pictures(vae, images[..., :3].clamp(0.0, 1.0))
        samples = torch.zeros(len(cameras), *encoded.shape[1:])
        mask = torch.zeros(len(cameras))
        samples[list(positions)], mask[list(positions)] = encoded, 1.0
        positive, negative = condition_values(
            context_latent=samples,
            context_mask=mask,
            cameras=cameras,
            reference=positions[0],
            indicator=mode_indicator(mode),
            motion_strength=motion_strength,
        )
        # A small tensor, not None: nodes that zero or average conditionings compute with it.
        blank = torch.zeros(1, 1, 8)
        to_generate = (1.0 - mask)[:, None, None, None].expand(-1, 1, *samples.shape[-2:]).clone()
        return io.NodeOutput(
            [[blank, positive]],
            [[blank.clone(), negative]],
            {
                "samples": samples.clone(),
                "noise_mask": to_generate,
                # For GenXD Decode Views, which must not mix clips of a repeated latent.
                "genxd_frames_per_clip": len(cameras),
            },
        )


def _check_size(height: int, width: int) -> None:
    try:
        check_size(height, width, multiple=8)
    except InvalidInputError as error:
        raise InvalidInputError(f"images: {error}") from error


def _check_fit(cameras: Cameras, fit: FitRecord, height: int, width: int) -> None:
    if fit.size != (height, width):
        raise InvalidInputError(
            f"fit was made for {fit.size[1]}x{fit.size[0]} pictures, but images are "
            f"{width}x{height}; connect the images and fit outputs of the same GenXD Fit Views."
        )
    aspect = float(picture_aspect(cameras)[0])
    if abs(math.log(aspect * height / width)) > SHAPE_TOLERANCE:
        raise InvalidInputError(
            f"cameras are for pictures of width / height {aspect:.3f}, but the fitted ones have "
            f"{width / height:.3f}; pass the path through GenXD Fit Views, or make it for this "
            "shape."
        )


class GenXDSetMotionStrength(io.ComfyNode):
    """Another motion strength on a conditioning that exists."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_SetMotionStrength",
            display_name="GenXD Set Motion Strength",
            category="GenXD/conditioning",
            description="Changes how much objects move, without encoding the images again.",
            search_aliases=["motion bucket", "motion strength", "gamma"],
            inputs=[
                io.Conditioning.Input(
                    "positive", tooltip="The positive output of GenXD Condition Views."
                ),
                io.Float.Input(
                    "motion_strength",
                    default=0.5,
                    min=0.0,
                    max=20.0,
                    step=0.05,
                    tooltip=_STRENGTH_TOOLTIP,
                ),
                io.Combo.Input(
                    "unit",
                    options=["network", "gamma x100"],
                    default="network",
                    tooltip="network: the number is what the network takes, typically 0 to 1.5. "
                    "gamma x100: it is the paper's measured strength as printed there, typically "
                    "0 to 5, and is converted.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", tooltip="The same with the new strength."
                )
            ],
        )

    @classmethod
    @checked
    def execute(cls, positive: list[Any], motion_strength: float, unit: str) -> io.NodeOutput:
        """Replace the strength."""
        value = motion_strength
        if unit == "gamma x100":
            value = gamma_to_motion_strength(motion_strength / 100)
        if not any("genxd_cameras" in entry for _, entry in positive):
            raise InvalidInputError(
                "positive was not made for GenXD; connect GenXD Condition Views' positive output."
            )
        changed = [
            [tensor, {**entry, "genxd_motion_strength": value}] for tensor, entry in positive
        ]
        return io.NodeOutput(changed)


NODES = [GenXDConditionViews, GenXDSetMotionStrength]
