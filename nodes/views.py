"""Preparing pictures, and bringing generated ones back."""

import math

import torch
from comfy_api.latest import io

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.cameras.conventions import SHAPE_TOLERANCE, picture_aspect
from ..genxd_core.errors import InvalidInputError
from ..genxd_core.fitting import (
    FitMode,
    FitRecord,
    fit_cameras,
    fit_views,
    unfit_cameras,
    unfit_views,
)
from ..genxd_core.sizes import nearest_sizes
from ._checks import check_images, check_mask, checked
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
                io.Image.Input(
                    "images", tooltip="Pictures of one size, in pixels, each a view to condition."
                ),
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
                    tooltip="crop (typical) fills the picture and cuts off what stands over; pad "
                    "keeps everything and adds black bars.",
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
                    "released model, 16 for genxd-nano.",
                ),
                io.Float.Input(
                    "background",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Grey level behind transparent parts, 0 to 1; typically 1, the white "
                    "that the model expects.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="The fitted pictures, width x height pixels."
                ),
                CamerasSocket.Output(
                    display_name="cameras", tooltip="The path for the fitted pictures, if one came."
                ),
                FitSocket.Output(
                    display_name="fit", tooltip="How it was done, for GenXD Unfit Views."
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        images: torch.Tensor,
        width: int,
        height: int,
        mode: FitMode,
        mask_is: str,
        multiple: int,
        background: float,
        mask: torch.Tensor | None = None,
        cameras: Cameras | None = None,
    ) -> io.NodeOutput:
        """Fit pictures and path."""
        check_images(images)
        for name, pixels in (("width", width), ("height", height)):
            _check_multiple(name, pixels, multiple)
        fitted = fit_views(
            image_to_views(images),
            None,
            (height, width),
            mode=mode,
            background=background,
            alpha=_alpha(images, mask, mask_is),
        )
        path = None
        if cameras is not None:
            _check_shape(cameras, images.shape[2], images.shape[1])
            path = fit_cameras(cameras, fitted.record)
        return io.NodeOutput(views_to_image(fitted.images), path, fitted.record)


def _check_shape(cameras: Cameras, width: int, height: int) -> None:
    """Refuse a path that was made for pictures of another shape."""
    aspect = float(picture_aspect(cameras)[0])
    if abs(math.log(aspect * height / width)) > SHAPE_TOLERANCE:
        raise InvalidInputError(
            f"cameras are for pictures of width / height {aspect:.3f}, but images are "
            f"{width}x{height}, which is {width / height:.3f}; set width and height of GenXD Make "
            "Camera Path to those of the picture (Get Image Size gives them)."
        )


def _check_multiple(name: str, pixels: int, multiple: int) -> None:
    if pixels % multiple:
        good = " or ".join(map(str, nearest_sizes(pixels, multiple)))
        raise InvalidInputError(
            f"{name} is {pixels}, which is no multiple of {multiple} (the input multiple: 64 for "
            f"the released model, 16 for genxd-nano). Nearest: {good}."
        )


def _alpha(images: torch.Tensor, mask: torch.Tensor | None, mask_is: str) -> torch.Tensor | None:
    """How opaque every pixel is, (V, 1, H, W); None where nothing is transparent."""
    if mask is None:
        return _own_alpha(images)
    check_mask(mask)
    maps = mask_to_maps(mask)
    if maps.shape[-2:] != images.shape[1:3]:
        stand_in = tuple(maps.shape[-2:]) == (64, 64) and not bool(maps.any())
        if stand_in and mask_is == "transparency":
            return _own_alpha(images)  # what LoadImage gives for a picture without transparency
        raise InvalidInputError(
            f"mask is {maps.shape[-1]}x{maps.shape[-2]}, but images are "
            f"{images.shape[2]}x{images.shape[1]}; connect the mask of the same pictures."
        )
    if len(maps) not in (1, len(images)):
        raise InvalidInputError(
            f"mask has {len(maps)} frames for {len(images)} pictures; give one, or one each."
        )
    opaque = maps if mask_is == "object" else 1.0 - maps
    for number, one in enumerate(opaque):
        if float(one.max()) <= 0.0:
            raise InvalidInputError(
                f'mask {number} with mask_is "{mask_is}" leaves nothing of the picture: it is '
                "empty, or mask_is should be the other choice."
            )
    return opaque.clamp(0.0, 1.0).expand(len(images), -1, -1, -1)


def _own_alpha(images: torch.Tensor) -> torch.Tensor | None:
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
                CamerasSocket.Input(
                    "cameras",
                    optional=True,
                    tooltip="The path of the generated views, typically the cameras output of "
                    "GenXD Fit Views; it comes back with intrinsics for the restored pictures.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="Without padding, at the original resolution."
                ),
                CamerasSocket.Output(
                    display_name="cameras", tooltip="The path for these pictures, if one came."
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, images: torch.Tensor, fit: FitRecord, cameras: Cameras | None = None
    ) -> io.NodeOutput:
        """Undo the fit."""
        check_images(images)
        if tuple(images.shape[1:3]) != fit.size:
            raise InvalidInputError(
                f"images are {images.shape[2]}x{images.shape[1]}, but fit was made for "
                f"{fit.size[1]}x{fit.size[0]}; connect the generated views of that size."
            )
        restored = views_to_image(unfit_views(image_to_views(images), fit))
        return io.NodeOutput(restored, None if cameras is None else unfit_cameras(cameras, fit))


NODES = [GenXDFitViews, GenXDUnfitViews]
