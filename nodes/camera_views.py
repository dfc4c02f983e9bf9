"""Looking at camera paths, and exchanging cameras with ComfyUI's 3D viewers."""

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..genxd_core.cameras import editing
from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.cameras.conventions import camera_to_load3d, load3d_to_camera
from ..genxd_core.cameras.orbit_between import orbit_between
from ..genxd_core.cameras.preview import draw_camera_path
from ..genxd_core.errors import InvalidInputError
from ._checks import check_position, checked, parse_indices
from ._convert import views_to_image
from ._types import CamerasSocket

__all__ = ["NODES", "GenXDCamerasFromLoad3D", "GenXDCamerasToLoad3D", "GenXDPreviewCameras"]


class GenXDPreviewCameras(io.ComfyNode):
    """A picture of a path."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_PreviewCameras",
            display_name="GenXD Preview Cameras",
            category="GenXD/cameras",
            description="Draws the path in perspective and from above; frustums are coloured from "
            "first to last, and conditioned views are marked.",
            search_aliases=["show cameras", "draw path", "frustums", "camera path picture"],
            is_output_node=True,
            inputs=[
                CamerasSocket.Input("cameras", tooltip="The path to draw."),
                io.String.Input(
                    "indices",
                    default="",
                    tooltip='Conditioned views to mark, such as "0" or "0, 5, 11"; empty = none.',
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="One picture, 1024 x 512 pixels.")
            ],
        )

    @classmethod
    def validate_inputs(cls, indices: str | None = None) -> bool | str:
        """What can be said before running."""
        try:
            _marked(indices or "")
        except InvalidInputError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(cls, cameras: Cameras, indices: str) -> io.NodeOutput:
        """Draw the path."""
        marked = [check_position(view, len(cameras), "indices") for view in _marked(indices)]
        picture = views_to_image(draw_camera_path(cameras, conditioned=marked)[None])
        return io.NodeOutput(picture, ui=ui.PreviewImage(picture, cls=cls))


def _marked(indices: str) -> tuple[int, ...]:
    return parse_indices(indices) if indices.strip() else ()


class GenXDCamerasFromLoad3D(io.ComfyNode):
    """Cameras of ComfyUI's 3D viewers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_CamerasFromLoad3D",
            display_name="GenXD Cameras From Load3D",
            category="GenXD/cameras",
            description="Takes the camera of a 3D viewer; with a second one, a path that goes "
            "around the scene from the first to the second.",
            search_aliases=["load3d camera", "3d viewer camera", "camera_info"],
            inputs=[
                io.Load3DCamera.Input(
                    "camera_info", tooltip="Camera of a 3D viewer: the first view."
                ),
                io.Load3DCamera.Input(
                    "last_camera_info",
                    optional=True,
                    tooltip="Optional: the last view. Without it the camera stands still.",
                ),
                io.Int.Input(
                    "num_views",
                    default=12,
                    min=2,
                    max=1024,
                    tooltip="Cameras on the path, typically 12.",
                ),
                io.Int.Input(
                    "width",
                    default=256,
                    min=8,
                    max=8192,
                    step=8,
                    tooltip="Width of the pictures in pixels, typically 256: the viewer's field of "
                    "view is that of the shorter side.",
                ),
                io.Int.Input(
                    "height",
                    default=256,
                    min=8,
                    max=8192,
                    step=8,
                    tooltip="Height of the pictures in pixels, typically 256.",
                ),
            ],
            outputs=[
                CamerasSocket.Output(
                    display_name="cameras", tooltip="The path, with times from 0 to 1."
                )
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        camera_info: dict[str, Any],
        num_views: int,
        width: int,
        height: int,
        last_camera_info: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        """Convert."""
        first = _from_info("camera_info", camera_info, width, height)
        if last_camera_info is None:
            cameras = first[[0] * num_views]
        else:
            last = _from_info("last_camera_info", last_camera_info, width, height)
            cameras = orbit_between(editing.join(first, last), num_views)
        return io.NodeOutput(editing.with_even_times(cameras))


def _from_info(name: str, info: dict[str, Any], width: int, height: int) -> Cameras:
    """The camera of a dictionary that a viewer, another pack or an API client filled."""
    fov_deg = info.get("fov") or 35.0
    try:
        c2w, K_norm = load3d_to_camera(info, width=width, height=height)
        if not 0.0 < float(fov_deg) < 180.0:
            raise InvalidInputError(
                f"its fov is {fov_deg} degrees; expected more than 0 and less than 180."
            )
        return Cameras(torch.stack([c2w]), torch.stack([K_norm]))
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {str(error).removeprefix('camera_info: ')}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{name} cannot be read ({error}); expected what a 3D viewer gives: position, "
            "quaternion (or target), fov."
        ) from error


class GenXDCamerasToLoad3D(io.ComfyNode):
    """One view of a path as a camera of ComfyUI's 3D viewers and renderers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_CamerasToLoad3D",
            display_name="GenXD Cameras To Load3D",
            category="GenXD/cameras",
            description="Gives one camera of a path to ComfyUI's 3D viewers and splat renderer.",
            search_aliases=["load3d camera", "camera_info", "render splat camera"],
            inputs=[
                CamerasSocket.Input("cameras", tooltip="The path."),
                io.Int.Input(
                    "view",
                    default=0,
                    min=-1024,
                    max=1023,
                    tooltip="Which camera of the path, typically 0, the first; negative counts "
                    "from the end.",
                ),
                io.Int.Input(
                    "width",
                    default=256,
                    min=8,
                    max=8192,
                    step=8,
                    tooltip="Width in pixels of what will be rendered, typically 256.",
                ),
                io.Int.Input(
                    "height",
                    default=256,
                    min=8,
                    max=8192,
                    step=8,
                    tooltip="Height in pixels of what will be rendered, typically 256.",
                ),
                io.Float.Input(
                    "target_distance",
                    default=2.0,
                    min=0.01,
                    max=1000.0,
                    step=0.1,
                    tooltip="Distance to the point that the viewer orbits, scene units; typically "
                    "the path's radius, 2.",
                ),
            ],
            outputs=[
                io.Load3DCamera.Output(
                    display_name="camera_info", tooltip="For Load 3D viewers and Render Splat."
                )
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, cameras: Cameras, view: int, width: int, height: int, target_distance: float
    ) -> io.NodeOutput:
        """Convert."""
        position = check_position(view, len(cameras), "view")
        info = camera_to_load3d(
            cameras.c2w[position],
            cameras.Ks_norm[position],
            width=width,
            height=height,
            target_distance=target_distance,
        )
        return io.NodeOutput(info)


NODES = [GenXDPreviewCameras, GenXDCamerasFromLoad3D, GenXDCamerasToLoad3D]
