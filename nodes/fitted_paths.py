"""Camera paths fitted to given views."""

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..genxd_core.cameras import keyframe_paths
from ..genxd_core.cameras.cameras import Cameras
from ._checks import checked, why_not_a_choice
from ._types import CamerasSocket

__all__ = ["NODES", "GenXDCamerasFromViews"]

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


NODES = [GenXDCamerasFromViews]
