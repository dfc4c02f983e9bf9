"""Preparing pictures, and bringing generated ones back."""

import torch
from comfy_api.latest import io

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.errors import InvalidInputError
from ..genxd_core.fitting import FitRecord, fit_cameras, fit_views, unfit_views
from ..genxd_core.sizes import check_size
from ._checks import check_images, named_errors
from ._convert import image_to_views, mask_to_maps, views_to_image
from ._types import CamerasSocket, FitSocket

__all__ = ["NODES", "GenXDFitViews", "GenXDUnfitViews"]


class GenXDFitViews(io.ComfyNode):
    """Pictures of any size to pictures that the model takes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_FitViews",
            display_name="GenXD Fit Views",
            category="GenXD/conditioning",
            description="Crops or pads pictures to a size the model takes, and changes the "
            "cameras' focal lengths with them. Transparent parts become white, padding black.",
            search_aliases=["resize", "crop", "pad", "prepare image", "genxd resize"],
            inputs=[
                io.Image.Input("images", tooltip="Pictures of one size, each a view to condition."),
                io.Int.Input(
                    "width",
                    default=256,
                    min=16,
                    max=4096,
                    step=8,
                    tooltip="Width in pixels. The released model is trained at 256, genxd-nano "
                    "at 64.",
                ),
                io.Int.Input(
                    "height",
                    default=256,
                    min=16,
                    max=4096,
                    step=8,
                    tooltip="Height in pixels, typically as the width.",
                ),
                io.Combo.Input(
                    "mode",
                    options=["crop", "pad"],
                    default="crop",
                    tooltip="crop fills the picture and cuts off what stands over; pad keeps "
                    "everything and adds black bars.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Optional. What is cut out is replaced by white. LoadImage's mask is "
                    "transparency (1 = transparent); masks of segmenters are 1 = object.",
                ),
                io.Combo.Input(
                    "mask_is",
                    options=["transparency", "object"],
                    default="transparency",
                    tooltip="What 1 means in the mask: transparency (LoadImage) or object "
                    "(segmentation nodes).",
                ),
                CamerasSocket.Input(
                    "cameras",
                    optional=True,
                    tooltip="Optional. A path made for the original pictures; its focal lengths "
                    "follow the crop or the padding.",
                ),
                io.Int.Input(
                    "multiple",
                    default=64,
                    min=8,
                    max=512,
                    step=8,
                    advanced=True,
                    tooltip="Width and height must be multiples of this many pixels: 64 for the "
                    "released model, 32 for genxd-nano.",
                ),
                io.Float.Input(
                    "background",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Grey level behind transparent parts, 0 to 1. The model expects white, 1.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images"),
                CamerasSocket.Output(display_name="cameras"),
                FitSocket.Output(display_name="fit"),
            ],
        )

    @classmethod
    @named_errors
    def execute(
        cls,
        images: torch.Tensor,
        width: int,
        height: int,
        mode: str,
        mask_is: str,
        multiple: int,
        background: float,
        mask: torch.Tensor | None = None,
        cameras: Cameras | None = None,
    ) -> io.NodeOutput:
        """Fit pictures and path."""
        check_images(images)
        check_size(height, width, multiple=multiple)
        alpha = _alpha(images, mask, mask_is)
        fitted = fit_views(
            image_to_views(images), None, (height, width), mode=mode, background=background,
            alpha=alpha,
        )
        path = None if cameras is None else fit_cameras(cameras, fitted.record)
        return io.NodeOutput(views_to_image(fitted.images), path, fitted.record)


def _alpha(images: torch.Tensor, mask: torch.Tensor | None, mask_is: str) -> torch.Tensor | None:
    if mask is None:
        return image_alpha(images)
    maps = mask_to_maps(mask)
    if maps.shape[-2:] != images.shape[1:3]:
        if float(maps.abs().max()) == 0.0 and tuple(maps.shape[-2:]) == (64, 64):
            return image_alpha(images)  # what LoadImage gives for a picture without transparency
        raise InvalidInputError(
            f"mask is {maps.shape[-1]}x{maps.shape[-2]}, but the pictures are "
            f"{images.shape[2]}x{images.shape[1]}; connect the mask of the same pictures."
        )
    if len(maps) not in (1, len(images)):
        raise InvalidInputError(
            f"mask has {len(maps)} frames for {len(images)} pictures; give one, or one each."
        )
    opaque = maps if mask_is == "object" else 1.0 - maps
    if float(opaque.max()) <= 0.0:
        raise InvalidInputError(
            f'mask with mask_is "{mask_is}" leaves nothing of the pictures; it is empty, or '
            "mask_is should be the other choice."
        )
    return opaque.expand(len(images), -1, -1, -1)


def image_alpha(images: torch.Tensor) -> torch.Tensor | None:
    """The fourth channel of an IMAGE, if it has one."""
    return images[..., 3:4].movedim(-1, 1) if images.shape[-1] == 4 else None


class GenXDUnfitViews(io.ComfyNode):
    """Generated pictures back to the original resolution."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_UnfitViews",
            display_name="GenXD Unfit Views",
            category="GenXD/conditioning",
            description="Undoes GenXD Fit Views on generated pictures: cuts off padding and "
            "resizes to the original pictures' resolution. What a crop cut off stays lost.",
            search_aliases=["unpad", "uncrop", "restore size"],
            inputs=[
                io.Image.Input("images", tooltip="Generated views, of the fitted size."),
                FitSocket.Input("fit", tooltip="The fit output of GenXD Fit Views."),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    @named_errors
    def execute(cls, images: torch.Tensor, fit: FitRecord) -> io.NodeOutput:
        """Undo the fit."""
        check_images(images)
        return io.NodeOutput(views_to_image(unfit_views(image_to_views(images), fit)))


NODES = [GenXDFitViews, GenXDUnfitViews]
