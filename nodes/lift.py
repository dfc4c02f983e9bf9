"""Views to 3D Gaussians."""

import json
from typing import Any

import torch
from comfy_api.latest import io

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.lifting.comparison import (
    compare_views,
    describe_fit,
    held_out_views,
    views_to_compare,
)
from ..genxd_core.lifting.fit import STARTS, fit_gaussians
from ..genxd_core.lifting.point_cloud import PointCloud
from ..genxd_core.lifting.recipes import RECIPES, adjusted_recipe
from ..genxd_core.lifting.upright import turn_scene, upright_rotation
from ._checks import check_images, checked, parse_colour, why_not_a_colour
from ._convert import image_to_views, views_to_image
from ._fits import (
    USE,
    FitWatch,
    background_input,
    check_depth,
    free_device,
    interruption_input,
    object_masks,
    plain_background_input,
    seed_input,
    up_input,
)
from ._splats import gaussians_to_splat
from ._types import CamerasSocket, DepthSocket, PerceptualSocket, PointsSocket

__all__ = ["NODES", "GenXDLiftTo3DGS"]


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
                plain_background_input(),
                background_input(),
                io.Int.Input(
                    "hold_out_every",
                    default=8,
                    min=0,
                    max=1024,
                    tooltip="One view in so many is not fitted but compared with: the honest "
                    "measure of the result. 8 is typical; 0 = all are fitted, as in the paper.",
                ),
                up_input(),
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
                seed_input(),
                interruption_input(),
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
        return why_not_a_colour(background)

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
        masks = object_masks(views, mask, plain_background, colour)
        check_depth(depth, views)
        settings = adjusted_recipe(
            recipe,
            iterations=iterations or None,
            num_gaussians=num_gaussians or None,
            lpips=lpips_weight if lpips_weight >= 0 else None,
        )
        held_out = held_out_views(len(views), hold_out_every)
        # Before the fit, which would be lost if the cameras do not tell.
        upright = upright_rotation(cameras, up=up)
        device = free_device()
        watch = FitWatch(cls.hidden.unique_id, settings.iterations, when_interrupted == USE)
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


NODES = [GenXDLiftTo3DGS]
