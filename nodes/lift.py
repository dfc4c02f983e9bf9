"""Views to 3D Gaussians."""

import json
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from latent_preview import MAX_PREVIEW_RESOLUTION
from server import PromptServer

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.errors import InvalidInputError
from ..genxd_core.lifting.backends import drawing_device
from ..genxd_core.lifting.background_masks import masks_from_background
from ..genxd_core.lifting.comparison import (
    compare_views,
    describe_fit,
    held_out_views,
    views_to_compare,
)
from ..genxd_core.lifting.fit import STARTS, FitStep, fit_gaussians
from ..genxd_core.lifting.point_cloud import PointCloud
from ..genxd_core.lifting.recipes import RECIPES, adjusted_recipe
from ..genxd_core.lifting.upright import turn_scene, upright_rotation
from ..genxd_core.pictures import to_pil
from ._checks import check_images, check_mask, checked, parse_colour
from ._convert import image_to_views, mask_to_maps, views_to_image
from ._splats import gaussians_to_splat
from ._types import CamerasSocket, DepthSocket, PerceptualSocket, PointsSocket

__all__ = ["NODES", "GenXDLiftTo3DGS"]

_STOP, _USE = "stop", "use what is there"
_TEXT_EVERY = 10  # iterations between two lines of text on the node


class GenXDLiftTo3DGS(io.ComfyNode):
    """Fit Gaussians to views with cameras."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_LiftTo3DGS",
            display_name="GenXD Lift To 3DGS",
            category="GenXD/lifting",
            description="Fits 3D Gaussians to pictures with known cameras: a scene to walk "
            "through. Works on any device; without a CUDA card the recipe demo takes a minute.",
            search_aliases=["3dgs", "gaussian splatting", "lift", "splat", "reconstruct", "fit"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The views, all of one size; typically 20 or more, generated or taken "
                    "around the scene.",
                ),
                CamerasSocket.Input(
                    "cameras", tooltip="One camera for each of the images, in the same order."
                ),
                io.Combo.Input(
                    "recipe",
                    options=list(RECIPES),
                    default="demo",
                    tooltip="demo (typical on a CPU): 500 iterations. single_view and few_view: "
                    "the paper's, 2,000 and 10,000 iterations, with a perceptual model. test: "
                    "seconds, rough.",
                ),
                io.Combo.Input(
                    "start",
                    options=list(STARTS),
                    default="auto",
                    tooltip="What the Gaussians start from. auto (typical): points if connected, "
                    "else depth, else masks, else what the recipe says. triangulate: points found "
                    "in the pictures (needs pycolmap). frusta: spread through what the cameras "
                    "see.",
                ),
                io.Boolean.Input(
                    "plain_background",
                    default=False,
                    tooltip="Take everything joined to the pictures' border by the background's "
                    "colour for background, and fit the object alone. Typically on for objects "
                    "on white, off for scenes.",
                ),
                io.Color.Input(
                    "background",
                    default="#ffffff",
                    tooltip="The colour behind the object in the images; typically white, #ffffff.",
                ),
                io.Int.Input(
                    "hold_out_every",
                    default=8,
                    min=0,
                    max=1024,
                    tooltip="One view in so many is not fitted but compared with: the honest "
                    "measure of the result. 8 is typical; 0 = all are fitted, as in the paper.",
                ),
                io.Combo.Input(
                    "up",
                    options=["+Z", "-Y", "from cameras", "keep"],
                    default="+Z",
                    tooltip="What is up in the cameras' world, so that viewers show the splat "
                    "upright. +Z (typical): paths made by GenXD nodes. from cameras: captures. "
                    "-Y: upright already. keep: turn nothing.",
                ),
                io.Int.Input(
                    "iterations",
                    default=0,
                    min=0,
                    max=200_000,
                    tooltip="0 (typical) = as the recipe says; fewer are quicker and rougher.",
                ),
                io.Int.Input(
                    "num_gaussians",
                    default=0,
                    min=0,
                    max=2_000_000,
                    tooltip="How many Gaussians to start with, where the start can choose, and at "
                    "least the limit; 0 (typical) = as the recipe says.",
                ),
                io.Float.Input(
                    "lpips_weight",
                    default=-1.0,
                    min=-1.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Weight of the perceptual model; -1 (typical) = as the recipe says: "
                    "0.2 for single_view and few_view. 0 = none is used.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Of everything random; 0 is typical. The same seed gives "
                    "the same splat on one device.",
                ),
                io.Combo.Input(
                    "when_interrupted",
                    options=[_STOP, _USE],
                    default=_STOP,
                    tooltip="What ComfyUI's cancel does during the fit: stop the graph (typical), "
                    "or end the fit early and go on with the best so far.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Optional: 1 = object, one for each of the images; the object alone "
                    "is fitted. Load Image gives 0 for what is opaque: invert that.",
                ),
                PointsSocket.Input(
                    "points",
                    optional=True,
                    tooltip="Optional: points to start from, typically from GenXD Load Capture or "
                    "GenXD Triangulate Points.",
                ),
                DepthSocket.Input(
                    "depth",
                    optional=True,
                    tooltip="Optional: depth of the images in scene units to start from, such as "
                    "that of GenXD Render Splat.",
                ),
                PerceptualSocket.Input(
                    "perceptual",
                    optional=True,
                    tooltip="What single_view and few_view compare pictures with, from GenXD Load "
                    "Perceptual Model; its choice gradient needs no weights.",
                ),
            ],
            outputs=[
                io.Splat.Output(
                    display_name="splat",
                    tooltip="For GenXD Render Splat, and through SplatToFile3D for Save Gaussian "
                    "Splat and Preview Gaussian Splat.",
                ),
                CamerasSocket.Output(
                    display_name="cameras", tooltip="The given cameras in the splat's world."
                ),
                io.Image.Output(
                    display_name="comparisons",
                    tooltip="For each held-out view: the picture, the rendering, three times "
                    "their difference.",
                ),
                io.String.Output(display_name="report", tooltip="Figures of the fit, as JSON."),
            ],
        )

    @classmethod
    def validate_inputs(cls, background: str | None = None) -> bool | str:
        """What can be said before running."""
        try:
            parse_colour("#ffffff" if background is None else background, "background")
        except InvalidInputError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(
        cls,
        images: torch.Tensor,
        cameras: Cameras,
        recipe: str,
        start: str,
        plain_background: bool,
        background: str,
        hold_out_every: int,
        up: str,
        iterations: int,
        num_gaussians: int,
        lpips_weight: float,
        seed: int,
        when_interrupted: str,
        mask: torch.Tensor | None = None,
        points: PointCloud | None = None,
        depth: torch.Tensor | None = None,
        perceptual: Any = None,
    ) -> io.NodeOutput:
        """Check, fit, turn upright, compare."""
        check_images(images)
        views = image_to_views(images)
        colour = parse_colour(background, "background")
        masks = _masks(views, mask, plain_background, colour)
        _check_depth(depth, views)
        settings = adjusted_recipe(
            recipe,
            iterations=iterations or None,
            num_gaussians=num_gaussians or None,
            lpips=lpips_weight if lpips_weight >= 0 else None,
        )
        held_out = held_out_views(len(views), hold_out_every)
        # Before the fit, which would be lost if the cameras do not tell.
        upright = upright_rotation(cameras, up=up)
        device = _free_device()
        watch = _Watch(cls.hidden.unique_id, settings.iterations, when_interrupted == _USE)
        result = fit_gaussians(
            views,
            cameras,
            recipe=settings,
            masks=masks,
            background=colour,
            points=points,
            depths=depth,
            perceptual=perceptual,
            start=start,
            held_out=held_out,
            seed=seed,
            device=device,
            progress=watch.progress,
            on_step=watch.on_step,
        )
        compared = compare_views(
            result, views, cameras, views_to_compare(len(views), held_out), background=colour
        )
        report = describe_fit(result, num_views=len(views), held_out=held_out)
        gaussians, turned = turn_scene(result.gaussians, cameras, upright)
        return io.NodeOutput(
            gaussians_to_splat(gaussians),
            turned,
            views_to_image(compared),
            json.dumps({"recipe": recipe, **report}, indent=2),
        )


def _free_device() -> torch.device:
    """The device that fits, with the memory that models held on it."""
    device = drawing_device(comfy.model_management.get_torch_device())
    if device.type != "cpu":
        # The diffusion model that made the views has done its work.
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
    return device


def _masks(
    views: torch.Tensor,
    mask: torch.Tensor | None,
    plain_background: bool,
    colour: tuple[float, float, float],
) -> torch.Tensor | None:
    if mask is None:
        return masks_from_background(views, colour) if plain_background else None
    if plain_background:
        raise InvalidInputError(
            "mask is connected and plain_background is on; both outline the object. Switch "
            "plain_background off, or disconnect the mask."
        )
    check_mask(mask)
    maps = mask_to_maps(mask)
    if len(maps) == 1 and len(views) > 1:
        raise InvalidInputError(
            f"mask has 1 picture for {len(views)} images; give one mask for each."
        )
    if (len(maps), *maps.shape[2:]) != (len(views), *views.shape[2:]):
        (count, _, height, width), (num_views, _, *size) = maps.shape, views.shape
        raise InvalidInputError(
            f"mask is {width} x {height} pixels in {count} pictures, but images are {size[1]} x "
            f"{size[0]} in {num_views}; give one mask of this size for each."
        )
    return maps


def _check_depth(depth: torch.Tensor | None, views: torch.Tensor) -> None:
    expected = (len(views), 1, *views.shape[2:])
    if depth is not None and tuple(depth.shape) != expected:
        raise InvalidInputError(
            f"depth has shape {tuple(depth.shape)}; expected {expected}, one map of the images' "
            "size for each. Draw it with GenXD Render Splat at their size."
        )


class _Watch:
    """The node's bar, previews and text; and what an interruption means."""

    def __init__(self, node: str | None, total: int, goes_on: bool) -> None:
        self._node, self._total, self._goes_on = node, total, goes_on
        self._bar = comfy.utils.ProgressBar(total)

    def progress(self, step: int, total: int, preview: torch.Tensor | None = None) -> bool:
        """Move the bar; `False` ends the fit."""
        shown = None
        if preview is not None and comfy.utils.PROGRESS_BAR_ENABLED:
            shown = ("JPEG", to_pil(preview), MAX_PREVIEW_RESOLUTION)
        try:
            # The bar, which looks for an interruption too, does so a few times a second only.
            comfy.model_management.throw_exception_if_processing_interrupted()
            self._bar.update_absolute(step, total, shown)
        except comfy.model_management.InterruptProcessingException:
            if not self._goes_on or step == 0:
                raise
            return False
        return True

    def on_step(self, step: FitStep) -> None:
        """Write how good it is on the node."""
        if self._node and (step.iteration % _TEXT_EVERY == 0 or step.iteration == self._total):
            aside = ""
            if step.held_out_psnr is not None:
                aside = f", held-out {step.held_out_psnr:.1f} dB"
            text = (
                f"{step.iteration}/{self._total}: PSNR {step.psnr:.1f} dB{aside}, "
                f"{step.num_gaussians:,} Gaussians"
            )
            PromptServer.instance.send_progress_text(text, self._node)


NODES = [GenXDLiftTo3DGS]
