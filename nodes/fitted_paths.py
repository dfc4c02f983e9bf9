"""Camera paths fitted to given views, and out to views and back."""

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..genxd_core.cameras import keyframe_paths
from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.refinement.swings import swing_paths
from ._checks import checked, why_not_a_choice
from ._types import CamerasSocket

__all__ = ["NODES", "GenXDCamerasFromViews", "GenXDSwingPaths"]

_SPLINE = [
    io.Float.Input(
        "smoothness",
        default=0.03,
        min=0.0,
        max=100.0,
        step=0.01,
        tooltip="How far the path may stay from the given views (sum of squares, scene units); 0 "
        "passes through all of them, 0.03 is typical for scenes of scale 1 to 4.",
    ),
    io.Float.Input(
        "rotation_weight",
        default=0.1,
        min=0.001,
        max=100.0,
        step=0.01,
        tooltip="What turning counts against moving, in scene units; 0.1 is typical.",
    ),
]
_SPIRAL = [
    io.Float.Input(
        "turns",
        default=2.0,
        min=0.1,
        max=20.0,
        step=0.1,
        tooltip="How many times around the average view; 2 is typical.",
    )
]
_ELLIPSE = [
    io.Float.Input(
        "z_variation",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="How much of the given views' range of heights the path uses; 0 (level) is "
        "typical, 1 is all of it.",
    )
]
# What a choice is called, which function makes the path, and what it asks for.
_KINDS: dict[str, tuple[Callable[..., Cameras], list[Any]]] = {
    "spline": (keyframe_paths.interpolate, _SPLINE),
    "spiral": (keyframe_paths.spiral, _SPIRAL),
    "ellipse": (keyframe_paths.ellipse, _ELLIPSE),
}


def _shift(name: str, along: str) -> Any:
    return io.Float.Input(
        name,
        default=0.0,
        min=-4.0,
        max=4.0,
        step=0.05,
        tooltip=f"Other than 0: two more paths beside the first, shifted {along} (the world's "
        "axis; the path's own for spiral and ellipse) to this side and to the other, as a fraction "
        "of half the spread of the given views. 0 (none) or 0.4 is typical.",
    )


class GenXDCamerasFromViews(io.ComfyNode):
    """A path fitted to the cameras of a few pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_CamerasFromViews",
            display_name="GenXD Cameras From Views",
            category="GenXD/cameras",
            description="Fits a path to the cameras of your pictures: through them, or around "
            "what they see, and beside it on request.",
            search_aliases=["few views", "fit path", "interpolate cameras", "spline", "spiral"],
            # So that an unknown kind of path reaches validate_inputs and can be named there.
            accept_all_inputs=True,
            inputs=[
                CamerasSocket.Input(
                    "cameras",
                    tooltip="The cameras of your pictures, in the order of the path; typically 3 "
                    "or more, from GenXD Load Cameras.",
                ),
                io.DynamicCombo.Input(
                    "path",
                    options=[
                        io.DynamicCombo.Option(kind, inputs) for kind, (_, inputs) in _KINDS.items()
                    ],
                    tooltip="spline (typical): through the views in their order. spiral: about the "
                    "average of views that face the same way. ellipse: around a scene that the "
                    "views surround.",
                ),
                io.Int.Input(
                    "num_views",
                    default=36,
                    min=1,
                    max=1024,
                    tooltip="Cameras on the path, and on each shifted one; 36 is typical.",
                ),
                _shift("shift_x", "along x"),
                _shift("shift_y", "along y"),
                _shift("shift_z", "along z"),
            ],
            outputs=[
                CamerasSocket.Output(
                    display_name="cameras",
                    tooltip="The path, then the shifted ones: x, y, z, each to one side and the "
                    "other.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, path: Any = None) -> bool | str:
        """Refuse a kind of path that does not exist; ComfyUI checks what belongs to the others."""
        return path is None or isinstance(path, dict) or why_not_a_choice(path, _KINDS, "path")

    @classmethod
    @checked
    def execute(
        cls,
        cameras: Cameras,
        num_views: int,
        shift_x: float,
        shift_y: float,
        shift_z: float,
        path: Any = None,
        **_: Any,
    ) -> io.NodeOutput:
        """Fit the path."""
        make, inputs = _KINDS[path["path"]]
        options = {item.id: path[item.id] for item in inputs}
        sides = keyframe_paths.both_sides(shift_x, shift_y, shift_z)
        return io.NodeOutput(make(cameras, num_views, shifts=sides, **options))


class GenXDSwingPaths(io.ComfyNode):
    """Paths from a film's camera to other views and back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_SwingPaths",
            display_name="GenXD Swing Paths",
            category="GenXD/cameras",
            description="Makes paths that leave a film's camera for other views and come back, to "
            "draw a fitted scene along and refine it: true frames lead at both ends and between.",
            search_aliases=["refinement paths", "there and back", "swing", "video to 4d"],
            inputs=[
                CamerasSocket.Input(
                    "input_cameras",
                    tooltip="The camera of the film: one that stands still (typical), or one for "
                    "each frame.",
                ),
                CamerasSocket.Input(
                    "view_cameras",
                    tooltip="The cameras to swing to, typically those of GenXD Sample Multiview "
                    "Videos; the film's own is left out.",
                ),
                io.Int.Input(
                    "num_frames",
                    default=12,
                    min=3,
                    max=1024,
                    tooltip="Frames of the film, and of each path; 12 is typical.",
                ),
                io.Int.Input(
                    "window",
                    default=12,
                    min=3,
                    max=256,
                    tooltip="The window of GenXD Refine Video; 12 is typical. The film's frames "
                    "are at most half a window apart.",
                ),
            ],
            outputs=[
                CamerasSocket.Output(
                    display_name="cameras",
                    tooltip="All paths one after the other, each with times from 0 to 1: clips for "
                    "GenXD Render Splat and GenXD Refine Video.",
                ),
                io.String.Output(
                    display_name="conditions",
                    tooltip="Frames of every path that are the film's own, for the input of this "
                    "name of GenXD Refine Video.",
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, input_cameras: Cameras, view_cameras: Cameras, num_frames: int, window: int
    ) -> io.NodeOutput:
        """Make the paths."""
        swings = swing_paths(input_cameras, view_cameras, num_frames, window=window)
        return io.NodeOutput(swings.cameras, ", ".join(map(str, swings.conditions)))


NODES = [GenXDCamerasFromViews, GenXDSwingPaths]
