"""Camera paths: made from presets, and changed."""

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..genxd_core.cameras import editing, trajectories
from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.cameras.conventions import normalise_scale, scale_cameras
from ..genxd_core.errors import InvalidInputError
from ._checks import check_position, checked, why_not_a_choice
from ._types import CamerasSocket

__all__ = ["NODES", "GenXDEditCameras", "GenXDMakeCameraPath"]

_EASINGS = ["linear", "ease-in", "ease-out", "ease-in-out"]


def _number(name: str, default: float, low: float, high: float, step: float, tip: str) -> Any:
    return io.Float.Input(name, default=default, min=low, max=high, step=step, tooltip=tip)


def _radius() -> Any:
    tip = (
        "Distance from the first camera to the middle of the scene, scene units; 2 is what the "
        "released model is used with."
    )
    return _number("radius", 2.0, 0.05, 100.0, 0.05, tip)


def _elevation(tip: str) -> Any:
    return _number("elevation", 0.0, -85.0, 85.0, 1.0, tip)


def _turns(start: float, end: float, start_tip: str, end_tip: str) -> list[Any]:
    return [
        _number("azimuth_from", start, -720.0, 720.0, 1.0, start_tip),
        _number("azimuth_to", end, -720.0, 720.0, 1.0, end_tip),
    ]


def _angle(default: float, tip: str) -> Any:
    return _number("angle", default, -360.0, 360.0, 1.0, tip)


def _swing() -> list[Any]:
    return [
        *_turns(
            -30.0,
            30.0,
            "How far the camera swings to one side, degrees; -30 is typical, 0 or less.",
            "How far it swings to the other side, degrees; 30 is typical, 0 or more.",
        ),
        _elevation(
            "How far the camera also rises and sinks on the way, degrees; 0 keeps it level, 10 is "
            "typical."
        ),
        _radius(),
    ]


_ORBIT = [
    *_turns(
        0.0,
        360.0,
        "First angle around the scene, degrees; 0 is typical.",
        "Angle at which the path ends, degrees; 360 is typical. The end itself is left out, so "
        "that 360 more than the first is a full turn that closes; half a turn is easier for the "
        "model.",
    ),
    _elevation("Height of the camera as an angle in degrees; 0 (level) to 20 is typical."),
    _radius(),
]
_DOLLY = [
    _number(
        "distance",
        0.5,
        -10.0,
        10.0,
        0.05,
        "How far the camera moves forward, scene units; negative = back, 0.5 is typical.",
    ),
    io.Boolean.Input(
        "keep_target_size",
        default=False,
        tooltip="Dolly zoom: the focal length changes on the way, so that what stands at the "
        "radius keeps its size. Typically off.",
    ),
    _radius(),
]
_SLIDE = [
    _number(
        "right",
        0.5,
        -10.0,
        10.0,
        0.05,
        "How far the camera moves sideways, scene units; negative = left, 0.5 is typical.",
    ),
    _number(
        "up",
        0.0,
        -10.0,
        10.0,
        0.05,
        "How far the camera moves upwards, scene units; negative = down, 0 is typical.",
    ),
    _radius(),
]
_STATIC = [
    _elevation("Height of the camera as an angle in degrees; 0 (level) is typical."),
    _radius(),
]
# What a choice is called, which function makes the path, and what it asks for.
_PRESETS: dict[str, tuple[Callable[..., Cameras], list[Any]]] = {
    "orbit": (trajectories.orbit, _ORBIT),
    "forward-facing": (trajectories.sway, _swing()),
    "forward-facing (original, jumps)": (trajectories.forward_facing, _swing()),
    "dolly": (trajectories.dolly, _DOLLY),
    "slide": (trajectories.slide, _SLIDE),
    "pan": (
        trajectories.pan,
        [
            _angle(
                30.0, "How far the camera turns right, degrees; negative = left, 30 is typical."
            ),
            _radius(),
        ],
    ),
    "tilt": (
        trajectories.tilt,
        [
            _angle(20.0, "How far the camera turns up, degrees; negative = down, 20 is typical."),
            _radius(),
        ],
    ),
    "roll": (
        trajectories.roll,
        [
            _angle(
                30.0,
                "How far the camera turns clockwise about its view axis, degrees; 30 is typical.",
            ),
            _radius(),
        ],
    ),
    "static": (trajectories.static, _STATIC),
}
_EASED = {"orbit", "dolly", "slide", "pan", "tilt", "roll"}


class GenXDMakeCameraPath(io.ComfyNode):
    """A path from a preset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_MakeCameraPath",
            display_name="GenXD Make Camera Path",
            category="GenXD/cameras",
            description="Makes a camera path. Only how cameras stand to each other matters to the "
            "model; the conditioned view is the starting point whatever its place.",
            search_aliases=["camera trajectory", "orbit", "dolly", "pan", "camera motion"],
            # So that an unknown kind of path reaches validate_inputs and can be named there.
            accept_all_inputs=True,
            inputs=[
                io.DynamicCombo.Input(
                    "path",
                    options=[
                        io.DynamicCombo.Option(kind, inputs)
                        for kind, (_, inputs) in _PRESETS.items()
                    ],
                    tooltip="The kind of path. forward-facing swings left and right without a "
                    "jump, the typical choice for scenes; orbit suits single objects.",
                ),
                io.Int.Input(
                    "num_views",
                    default=12,
                    min=2,
                    max=1024,
                    tooltip="Cameras on the path, one for each frame; 12 is typical.",
                ),
                io.Combo.Input(
                    "easing",
                    options=_EASINGS,
                    default="linear",
                    tooltip="Speed along the path; typically linear. forward-facing and static "
                    "have a speed of their own and ignore it.",
                ),
                io.Float.Input(
                    "focal",
                    default=1.0938,
                    min=0.1,
                    max=20.0,
                    step=0.01,
                    tooltip="Focal length divided by the picture's shorter side. 1.0938 (49 "
                    "degrees of view) is what the released model is used with; 0.7 is wide, 2 is "
                    "tele.",
                ),
                io.Int.Input(
                    "width",
                    default=256,
                    min=8,
                    max=8192,
                    step=8,
                    tooltip="Width of the pictures in pixels, typically 256; only the shape "
                    "matters.",
                ),
                io.Int.Input(
                    "height",
                    default=256,
                    min=8,
                    max=8192,
                    step=8,
                    tooltip="Height of the pictures in pixels, typically 256; only the shape "
                    "matters.",
                ),
            ],
            outputs=[
                CamerasSocket.Output(
                    display_name="cameras", tooltip="The path, with times from 0 to 1."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, path: Any = None) -> bool | str:
        """Refuse a kind of path that does not exist; ComfyUI checks what belongs to the others."""
        return path is None or isinstance(path, dict) or why_not_a_choice(path, _PRESETS, "path")

    @classmethod
    @checked
    def execute(
        cls,
        num_views: int,
        easing: str,
        focal: float,
        width: int,
        height: int,
        path: Any = None,
        **_: Any,
    ) -> io.NodeOutput:
        """Make the path."""
        kind = path["path"]
        make, inputs = _PRESETS[kind]
        values = {item.id: path[item.id] for item in inputs}
        options: dict[str, Any] = {"focal_norm": focal, "aspect": width / height}
        if "azimuth_from" in values:
            turns = (values.pop("azimuth_from"), values.pop("azimuth_to"))
            _check_turns(kind, *turns)
            options["azimuth_range_deg"] = turns
        if kind in _EASED:
            options["easing"] = easing
        named = {"elevation": "elevation_deg", "angle": "angle_deg"}
        options |= {named.get(name, name): value for name, value in values.items()}
        return io.NodeOutput(editing.with_even_times(make(num_views, **options)))


def _check_turns(kind: str, first: float, last: float) -> None:
    if kind == "forward-facing" and not first <= 0.0 <= last:
        raise InvalidInputError(
            f"path.azimuth_from is {first:g} and path.azimuth_to {last:g}; the swing starts at 0, "
            "where the given picture stands, so the first must be 0 or less and the second 0 or "
            "more."
        )


_VIEWS = {"default": 12, "min": 2, "max": 1024}
_EDITS: dict[str, list[Any]] = {
    "reverse": [],
    "loop": [
        io.Combo.Input(
            "loop_mode",
            options=["there-and-back", "closed"],
            default="there-and-back",
            tooltip="there-and-back (typical) returns the same way; closed leads on from the end "
            "to the start.",
        )
    ],
    "resample": [
        io.Int.Input("num_views", **_VIEWS, tooltip="Cameras on the new path; 12 is typical.")
    ],
    "even speed": [
        io.Int.Input("num_views", **_VIEWS, tooltip="Cameras on the new path; 12 is typical.")
    ],
    "ease": [
        io.Combo.Input(
            "easing",
            options=_EASINGS,
            default="ease-in-out",
            tooltip="Speed along the path; ease-in-out starts and ends slowly.",
        )
    ],
    "scale": [
        _number(
            "factor",
            1.0,
            0.0001,
            10000.0,
            0.01,
            "Multiplies all distances between cameras; 1 changes nothing, 0.1 to 10 is typical.",
        )
    ],
    "scale to": [
        _number(
            "scale",
            2.0,
            0.001,
            1000.0,
            0.1,
            "Distance of the farthest camera from the first one, scene units; 2 is typical.",
        )
    ],
    "relative to view": [
        io.Int.Input(
            "view",
            default=0,
            min=-1024,
            max=1023,
            tooltip="This camera becomes the origin; typically 0, negative counts from the end.",
        )
    ],
    "slice": [
        io.Int.Input(
            "first",
            default=0,
            min=0,
            max=1023,
            tooltip="First camera kept; typically 0, the path's first.",
        ),
        io.Int.Input(
            "count",
            default=12,
            min=1,
            max=1024,
            tooltip="How many cameras are kept; 12 is typical.",
        ),
    ],
    "hold": [
        io.Int.Input(
            "view",
            default=0,
            min=-1024,
            max=1023,
            tooltip="The camera that stands still; typically 0, negative counts from the end.",
        ),
        io.Int.Input(
            "num_views",
            **_VIEWS,
            tooltip="Cameras on the new path, all in one place, while time goes from 0 to 1; 12 "
            "is typical.",
        ),
    ],
    "join": [
        CamerasSocket.Input("second", tooltip="The path that goes on where the first one ends.")
    ],
    "join clips": [
        CamerasSocket.Input(
            "second", tooltip="Cameras of other videos of the same scene, each with its own times."
        )
    ],
}


class GenXDEditCameras(io.ComfyNode):
    """A changed path."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_EditCameras",
            display_name="GenXD Edit Cameras",
            category="GenXD/cameras",
            description="Changes a camera path: direction, speed, number of cameras, scale.",
            search_aliases=["reverse path", "loop", "resample cameras", "ease", "scale cameras"],
            accept_all_inputs=True,
            inputs=[
                CamerasSocket.Input("cameras", tooltip="The path to change."),
                io.DynamicCombo.Input(
                    "edit",
                    options=[io.DynamicCombo.Option(k, inputs) for k, inputs in _EDITS.items()],
                    tooltip="What to do. resample changes the number of cameras, even speed does "
                    "so by distance travelled, scale to brings a COLMAP path to the model's scale; "
                    "join makes one video of two, join clips leaves two their times.",
                ),
            ],
            outputs=[CamerasSocket.Output(display_name="cameras", tooltip="The changed path.")],
        )

    @classmethod
    def validate_inputs(cls, edit: Any = None) -> bool | str:
        """Refuse an edit that does not exist; ComfyUI checks what belongs to the others."""
        return edit is None or isinstance(edit, dict) or why_not_a_choice(edit, _EDITS, "edit")

    @classmethod
    @checked
    def execute(cls, cameras: Cameras, edit: Any = None, **_: Any) -> io.NodeOutput:
        """Change the path."""
        return io.NodeOutput(_CHANGES[edit["edit"]](cameras, edit))


def _slice(cameras: Cameras, values: dict[str, Any]) -> Cameras:
    first, count = values["first"], values["count"]
    if first + count > len(cameras):
        raise InvalidInputError(
            f"edit.first is {first} and edit.count {count}, which asks for cameras {first} to "
            f"{first + count - 1}, but the path has {len(cameras)}; give at most "
            f"{len(cameras)} together."
        )
    return cameras[first : first + count]


def _rebase(cameras: Cameras, values: dict[str, Any]) -> Cameras:
    return editing.rebase(cameras, check_position(values["view"], len(cameras), "edit.view"))


def _hold(cameras: Cameras, values: dict[str, Any]) -> Cameras:
    view = check_position(values["view"], len(cameras), "edit.view")
    return editing.hold(cameras, view, values["num_views"])


def _loop(cameras: Cameras, values: dict[str, Any]) -> Cameras:
    if len(cameras) < 2:
        raise InvalidInputError("cameras has 1 view; a loop needs at least 2.")
    return editing.loop(cameras, mode=values["loop_mode"])


def _join(cameras: Cameras, values: dict[str, Any]) -> Cameras:
    paths = (cameras, values["second"])
    joined = editing.join(*(Cameras(path.c2w, path.Ks_norm) for path in paths))
    # Each path's times run over its own clip; one clip is left.
    timed = any(path.times is not None for path in paths)
    return editing.with_even_times(joined) if timed else joined


_CHANGES: dict[str, Callable[[Cameras, dict[str, Any]], Cameras]] = {
    "reverse": lambda cameras, _: editing.with_even_times(editing.reverse(cameras)),
    "loop": _loop,
    "resample": lambda cameras, values: editing.resample(cameras, values["num_views"]),
    "even speed": lambda cameras, values: editing.resample_by_arc_length(
        cameras, values["num_views"]
    ),
    "ease": lambda cameras, values: editing.ease(cameras, values["easing"]),
    "scale": lambda cameras, values: scale_cameras(cameras, values["factor"]),
    "scale to": lambda cameras, values: normalise_scale(cameras, values["scale"]),
    "relative to view": _rebase,
    "slice": _slice,
    "hold": _hold,
    "join": _join,
    "join clips": lambda cameras, values: editing.join(cameras, values["second"]),
}

NODES = [GenXDMakeCameraPath, GenXDEditCameras]
