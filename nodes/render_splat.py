"""Pictures of splats along a camera path, with the mask and depth that belong to them."""

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import Types, io
from latent_preview import MAX_PREVIEW_RESOLUTION

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.errors import InvalidInputError
from ..genxd_core.lifting.backends import drawing_device
from ..genxd_core.lifting.gaussians import Gaussians
from ..genxd_core.lifting.gaussians_4d import Gaussians4D
from ..genxd_core.lifting.render_views import depth_picture, picture_size, render_views
from ..genxd_core.pictures import to_pil
from ._checks import checked, parse_colour, why_not_a_colour
from ._convert import views_to_image
from ._splats import splat_to_gaussians
from ._types import CamerasSocket, DepthSocket, Splat4DSocket

__all__ = ["NODES", "GenXDRenderSplat"]


class GenXDRenderSplat(io.ComfyNode):
    """A frame for each camera of a path."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_RenderSplat",
            display_name="GenXD Render Splat",
            category="GenXD/lifting",
            description="Draws a splat as every camera of a path sees it. A batch with as many "
            "splats as the path has cameras is drawn over time.",
            search_aliases=["render splat", "gaussian splatting", "splat to video", "spin", "4dgs"],
            inputs=[
                io.MultiType.Input(
                    "splat",
                    types=[io.Splat, Splat4DSocket],
                    tooltip="One splat for all cameras, or one for each camera: the scene over "
                    "time. A splat4d is drawn at each camera's own time.",
                ),
                CamerasSocket.Input(
                    "cameras",
                    tooltip="The path, in the world of the splat: typically the cameras that the "
                    "node which made the splat gives with it.",
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=0,
                    max=8192,
                    tooltip="Width of the pictures in pixels, typically 512; 0 = from the height "
                    "and the cameras.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Height of the pictures in pixels, typically 0 = from the width and "
                    "the cameras.",
                ),
                io.Color.Input(
                    "background",
                    default="#ffffff",
                    tooltip="Colour behind the splat: typically white, #ffffff; black is #000000.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="A picture for each camera."),
                io.Mask.Output(display_name="mask", tooltip="What the splat covers: 1 = splat."),
                DepthSocket.Output(
                    display_name="depth",
                    tooltip="Distance along the viewing direction in scene units, 0 where nothing "
                    "is.",
                ),
                io.Image.Output(
                    display_name="depth_picture",
                    tooltip="Depth to look at: near is white, far is dark, nothing is black.",
                ),
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
        splat: Types.SPLAT | Gaussians4D,
        cameras: Cameras,
        width: int,
        height: int,
        background: str,
    ) -> io.NodeOutput:
        """Draw frame after frame."""
        colour = parse_colour(background, "background")
        width, height = picture_size(cameras, width, height)
        drawn = render_views(
            _over_time(splat, cameras),
            cameras,
            width=width,
            height=height,
            background=colour,
            device=drawing_device(comfy.model_management.get_torch_device()),
            progress=_progress(len(cameras)),
        )
        return io.NodeOutput(
            views_to_image(drawn.rgb.clamp(0.0, 1.0)),
            drawn.alpha[:, 0].clamp(0.0, 1.0),
            drawn.depth,
            views_to_image(depth_picture(drawn.depth, drawn.alpha)),
        )


def _over_time(
    splat: Types.SPLAT | Gaussians4D, cameras: Cameras
) -> Gaussians | Gaussians4D | Sequence[Gaussians]:
    if isinstance(splat, Gaussians4D):
        return splat
    if not isinstance(splat, Types.SPLAT):
        raise InvalidInputError(
            f"splat is a {type(splat).__name__}; expected a splat, or the splat4d of GenXD Lift To "
            "4DGS or GenXD Load 4D."
        )
    scenes = splat_to_gaussians(splat)
    if len(scenes) == 1:
        return scenes[0]
    if len(scenes) != len(cameras):
        raise InvalidInputError(
            f"splat has a batch of {len(scenes)}, but the path has {len(cameras)} cameras; give "
            "one splat for all cameras, or one for each of them."
        )
    return scenes


def _progress(num_views: int) -> Any:
    """A bar with the picture of the frame that was just drawn."""
    bar = comfy.utils.ProgressBar(num_views)
    comfy.model_management.throw_exception_if_processing_interrupted()

    def progress(step: int, total: int, preview: torch.Tensor | None = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        shown = None
        if preview is not None and comfy.utils.PROGRESS_BAR_ENABLED:
            shown = ("JPEG", to_pil(preview), MAX_PREVIEW_RESOLUTION)
        bar.update_absolute(step, total, shown)

    return progress


NODES = [GenXDRenderSplat]
