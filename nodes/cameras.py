"""Camera paths: making, reading, changing, looking at them."""

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io, ui

from ..genxd_core.cameras import editing, trajectories
from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.cameras.conventions import (
    camera_to_load3d,
    load3d_to_camera,
    normalise_scale,
    path_scale,
    scale_cameras,
)
from ..genxd_core.cameras.describe import describe
from ..genxd_core.cameras.io import load_cameras, save_cameras
from ..genxd_core.cameras.orbit_between import orbit_between
from ..genxd_core.cameras.preview import draw_camera_path
from ..genxd_core.errors import InvalidInputError
from ..genxd_core.model.conditioning import check_indices
from ._checks import named_errors, parse_indices
from ._convert import views_to_image
from ._types import CamerasSocket

__all__ = ["NODES"]

_EASINGS = ["linear", "ease-in", "ease-out", "ease-in-out"]


def _number(name: str, default: float, low: float, high: float, step: float, tip: str) -> Any:
    return io.Float.Input(name, default=default, min=low, max=high, step=step, tooltip=tip)


def _radius() -> Any:
    return _number(
        "radius", 2.0, 0.05, 100.0, 0.05,
        "Distance from camera to the middle of the scene, in scene units. The released model is "
        "used at 2.",
    )


def _elevation() -> Any:
    return _number(
        "elevation", 0.0, -85.0, 85.0, 1.0, "Height of the camera as an angle in degrees; 0 = level."
    )


def _from_to(start: float, end: float) -> list[Any]:
    return [
        _number("azimuth_from", start, -720.0, 720.0, 1.0, "First angle around the scene, degrees."),
        _number(
            "azimuth_to", end, -720.0, 720.0, 1.0,
            "Last angle around the scene, degrees. 360 more than the first is a full turn.",
        ),
    ]


def _angle(default: float, tip: str) -> Any:
    return _number("angle", default, -360.0, 360.0, 1.0, tip)


_PRESETS: dict[str, tuple[str, list[Any]]] = {
    "orbit": ("orbit", [*_from_to(0.0, 360.0), _elevation(), _radius()]),
    "forward-facing": ("sway", [*_from_to(-30.0, 30.0), _elevation(), _radius()]),
    "forward-facing (original, jumps)": (
        "forward_facing", [*_from_to(-30.0, 30.0), _elevation(), _radius()],
    ),
    "dolly": (
        "dolly",
        [
            _number("distance", 0.5, -10.0, 10.0, 0.05,
                    "How far the camera moves forward, scene units; negative = back."),
            io.Boolean.Input(
                "keep_target_size", default=False,
                tooltip="Dolly zoom: the focal length changes so that the middle keeps its size.",
            ),
            _radius(),
        ],
    ),
    "slide": (
        "slide",
        [
            _number("right", 0.5, -10.0, 10.0, 0.05, "Sideways, scene units; negative = left."),
            _number("up", 0.0, -10.0, 10.0, 0.05, "Upwards, scene units; negative = down."),
            _radius(),
        ],
    ),
    "pan": ("pan", [_angle(30.0, "Turn to the right, degrees; negative = left."), _radius()]),
    "tilt": ("tilt", [_angle(20.0, "Turn upwards, degrees; negative = down."), _radius()]),
    "roll": ("roll", [_angle(30.0, "Turn about the view axis, degrees."), _radius()]),
    "static": ("static", [_elevation(), _radius()]),
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
            inputs=[
                io.DynamicCombo.Input(
                    "path",
                    options=[io.DynamicCombo.Option(k, inputs) for k, (_, inputs) in _PRESETS.items()],
                    tooltip="The kind of path. forward-facing swings left and right without a "
                    "jump, the typical choice for scenes; orbit suits single objects.",
                ),
                io.Int.Input(
                    "num_views", default=12, min=2, max=1024,
                    tooltip="Cameras on the path, one for each frame. The model is trained on 12.",
                ),
                io.Combo.Input(
                    "easing", options=_EASINGS, default="linear",
                    tooltip="Speed along the path. forward-facing and static have a speed of their "
                    "own and ignore it.",
                ),
                io.Float.Input(
                    "focal", default=1.0938, min=0.1, max=20.0, step=0.01,
                    tooltip="Focal length divided by the picture's longer side. 1.0938 (49 degrees "
                    "of view) is what the released model is used with; 0.7 is wide, 2 is tele.",
                ),
                io.Int.Input(
                    "width", default=256, min=8, max=8192, step=8,
                    tooltip="Width of the pictures in pixels; only the shape matters.",
                ),
                io.Int.Input(
                    "height", default=256, min=8, max=8192, step=8,
                    tooltip="Height of the pictures in pixels; only the shape matters.",
                ),
            ],
            outputs=[CamerasSocket.Output(display_name="cameras")],
        )

    @classmethod
    @named_errors
    def execute(
        cls, path: dict[str, Any], num_views: int, easing: str, focal: float, width: int, height: int
    ) -> io.NodeOutput:
        """Make the path."""
        kind = path["path"]
        if kind not in _PRESETS:
            raise InvalidInputError(f'path is "{kind}", expected one of: {", ".join(_PRESETS)}.')
        function, inputs = _PRESETS[kind]
        values = {i.id: path.get(i.id, i.default) for i in inputs}
        options: dict[str, Any] = {"focal_norm": focal, "aspect": width / height}
        if "azimuth_from" in values:
            options["azimuth_range_deg"] = (values.pop("azimuth_from"), values.pop("azimuth_to"))
        if function in _EASED:
            options["easing"] = easing
        named = {"elevation": "elevation_deg", "angle": "angle_deg"}
        options |= {named.get(name, name): value for name, value in values.items()}
        cameras = getattr(trajectories, function)(num_views, **options)
        return io.NodeOutput(editing.with_even_times(cameras))


def _camera_files() -> dict[str, Path]:
    """Camera files and COLMAP folders in ComfyUI's input folder."""
    root = Path(folder_paths.get_input_directory())
    found: dict[str, Path] = {}
    if not root.is_dir():
        return found
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() in (".json", ".txt") and path.stem not in _COLMAP_STEMS:
            found[name] = path
        elif path.stem == "images" and path.suffix in (".bin", ".txt"):
            folder = path.parent
            found[f"{folder.relative_to(root).as_posix()}/ (COLMAP)"] = folder
    return found


_COLMAP_STEMS = {"cameras", "images", "points3D", "rigs", "frames"}
NO_CAMERA_FILES = "(no camera files in ComfyUI's input folder)"


class GenXDLoadCameras(io.ComfyNode):
    """A path from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_LoadCameras",
            display_name="GenXD Load Cameras",
            category="GenXD/cameras",
            description="Reads a camera path from ComfyUI's input folder: transforms.json of "
            "nerfstudio or Blender, a COLMAP model, RealEstate10K text, or this pack's JSON.",
            search_aliases=["colmap", "nerfstudio", "transforms.json", "realestate10k", "poses"],
            inputs=[
                io.Combo.Input(
                    "file", options=list(_camera_files()) or [NO_CAMERA_FILES],
                    tooltip="A file or COLMAP folder inside ComfyUI's input folder. Press R after "
                    "adding one.",
                ),
                io.Float.Input(
                    "scale_to", default=0.0, min=0.0, max=100.0, step=0.1,
                    tooltip="0 keeps the file's scale. Otherwise the farthest camera is brought to "
                    "this distance from the first one, in scene units; 2 is typical. Paths of "
                    "COLMAP have any scale, and the model only knows moderate ones.",
                ),
                io.Int.Input(
                    "num_views", default=0, min=0, max=1024,
                    tooltip="0 keeps all cameras; otherwise the path is resampled to this many. "
                    "The model is trained on 12.",
                ),
            ],
            outputs=[
                CamerasSocket.Output(display_name="cameras"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, scale_to: float, num_views: int) -> str:
        """Run again when the file has changed."""
        path = _camera_files().get(file)
        stamp = path.stat().st_mtime_ns if path else 0
        return f"{file}:{scale_to}:{num_views}:{stamp}"

    @classmethod
    @named_errors
    def execute(cls, file: str, scale_to: float, num_views: int) -> io.NodeOutput:
        """Read the path."""
        path = _camera_files().get(file)
        if path is None:
            raise InvalidInputError(
                f'file "{file}" is not in ComfyUI\'s input folder; put a camera file there, press '
                "R and choose it."
            )
        cameras = load_cameras(path)
        report = describe(cameras)
        if num_views:
            cameras = editing.resample(cameras, num_views)
        if scale_to > 0:
            cameras = normalise_scale(cameras, scale_to)
            report += f"\nscaled to {path_scale(cameras):.3g}"
        return io.NodeOutput(cameras, report, ui=ui.PreviewText(report))


class GenXDSaveCameras(io.ComfyNode):
    """A path to a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_SaveCameras",
            display_name="GenXD Save Cameras",
            category="GenXD/cameras",
            description="Writes a camera path into ComfyUI's output folder.",
            search_aliases=["export cameras", "colmap", "transforms.json"],
            is_output_node=True,
            inputs=[
                CamerasSocket.Input("cameras", tooltip="The path to write."),
                io.String.Input(
                    "filename_prefix", default="genxd/cameras",
                    tooltip="Folder and start of the name inside ComfyUI's output folder; a number "
                    "is added.",
                ),
                io.Combo.Input(
                    "format", options=list(_SUFFIXES), default="genxd",
                    tooltip="genxd: this pack's JSON, nothing is lost. transforms: nerfstudio and "
                    "Blender. colmap: a folder. realestate10k: text.",
                ),
                io.Int.Input(
                    "width", default=256, min=1, max=8192,
                    tooltip="Width of the pictures in pixels, for the formats that need it.",
                ),
                io.Int.Input(
                    "height", default=256, min=1, max=8192,
                    tooltip="Height of the pictures in pixels, for the formats that need it.",
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
        )

    @classmethod
    @named_errors
    def execute(
        cls, cameras: Cameras, filename_prefix: str, format: str, width: int, height: int
    ) -> io.NodeOutput:
        """Write the path."""
        root = Path(folder_paths.get_output_directory())
        prefix = _inside(root, filename_prefix)
        suffix = _SUFFIXES[format]
        taken = {p.name for p in prefix.parent.glob(f"{prefix.name}_*")}
        number = 1
        while any(name.startswith(f"{prefix.name}_{number:05d}") for name in taken):
            number += 1
        target = prefix.with_name(f"{prefix.name}_{number:05d}{suffix}")
        target.parent.mkdir(parents=True, exist_ok=True)
        save_cameras(cameras, target, format=format, width=width, height=height)
        name = target.relative_to(root).as_posix()
        return io.NodeOutput(name, ui=ui.PreviewText(f"saved output/{name}"))


_SUFFIXES = {"genxd": ".json", "transforms": ".json", "colmap": "", "realestate10k": ".txt"}


def _inside(root: Path, prefix: str) -> Path:
    """A file name prefix that stays inside a folder."""
    clean = prefix.strip().replace("\\", "/").strip("/")
    path = (root / clean).resolve()
    if not clean or not path.is_relative_to(root.resolve()) or path == root.resolve():
        raise InvalidInputError(
            f'filename_prefix is "{prefix}"; expected a name inside the output folder, such as '
            '"genxd/cameras".'
        )
    return path


_VIEWS = {"default": 12, "min": 2, "max": 1024}
_EDITS: dict[str, list[Any]] = {
    "reverse": [],
    "loop": [
        io.Combo.Input(
            "loop_mode", options=["there-and-back", "closed"], default="there-and-back",
            tooltip="there-and-back returns the same way; closed joins the end to the start.",
        )
    ],
    "resample": [io.Int.Input("num_views", **_VIEWS, tooltip="Cameras on the new path.")],
    "even speed": [io.Int.Input("num_views", **_VIEWS, tooltip="Cameras on the new path.")],
    "ease": [
        io.Combo.Input(
            "easing", options=_EASINGS, default="ease-in-out", tooltip="Speed along the path."
        )
    ],
    "scale": [
        _number("factor", 1.0, 0.0001, 10000.0, 0.01, "Multiplies all distances between cameras.")
    ],
    "scale to": [
        _number(
            "scale", 2.0, 0.001, 1000.0, 0.1,
            "Distance of the farthest camera from the first one, scene units; 2 is typical.",
        )
    ],
    "relative to view": [
        io.Int.Input(
            "view", default=0, min=-1024, max=1023,
            tooltip="This camera becomes the origin; negative counts from the end.",
        )
    ],
    "slice": [
        io.Int.Input("first", default=0, min=0, max=1023, tooltip="First camera kept."),
        io.Int.Input("count", default=12, min=1, max=1024, tooltip="How many are kept."),
    ],
    "join": [CamerasSocket.Input("second", tooltip="The path that goes on where the first ends.")],
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
            inputs=[
                CamerasSocket.Input("cameras", tooltip="The path to change."),
                io.DynamicCombo.Input(
                    "edit",
                    options=[io.DynamicCombo.Option(k, inputs) for k, inputs in _EDITS.items()],
                    tooltip="What to do. even speed also resamples, by distance travelled.",
                ),
            ],
            outputs=[CamerasSocket.Output(display_name="cameras")],
        )

    @classmethod
    @named_errors
    def execute(cls, cameras: Cameras, edit: dict[str, Any]) -> io.NodeOutput:
        """Change the path."""
        return io.NodeOutput(_edited(cameras, edit["edit"], edit))


def _edited(cameras: Cameras, kind: str, values: dict[str, Any]) -> Cameras:
    if kind == "reverse":
        return editing.with_even_times(editing.reverse(cameras))
    if kind == "loop":
        return editing.loop(cameras, mode=values["loop_mode"])
    if kind == "resample":
        return editing.resample(cameras, values["num_views"])
    if kind == "even speed":
        return editing.resample_by_arc_length(cameras, values["num_views"])
    if kind == "ease":
        return editing.ease(cameras, values["easing"])
    if kind == "scale":
        return scale_cameras(cameras, values["factor"])
    if kind == "scale to":
        return normalise_scale(cameras, values["scale"])
    if kind == "relative to view":
        return editing.rebase(cameras, values["view"])
    if kind == "slice":
        first, count = values["first"], values["count"]
        if first + count > len(cameras):
            raise InvalidInputError(
                f"slice asks for cameras {first} to {first + count - 1}, but the path has "
                f"{len(cameras)}."
            )
        return cameras[first : first + count]
    if kind == "join":
        if values.get("second") is None:
            raise InvalidInputError("join needs a second path; connect one to second.")
        return editing.join(cameras, values["second"])
    raise InvalidInputError(f'edit is "{kind}", expected one of: {", ".join(_EDITS)}.')


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
            search_aliases=["show cameras", "draw path", "frustums"],
            is_output_node=True,
            inputs=[
                CamerasSocket.Input("cameras", tooltip="The path to draw."),
                io.String.Input(
                    "indices", default="",
                    tooltip='Conditioned views to mark, such as "0" or "0, 5, 11"; empty = none.',
                ),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    @named_errors
    def execute(cls, cameras: Cameras, indices: str) -> io.NodeOutput:
        """Draw the path."""
        marked: tuple[int, ...] = ()
        if indices.strip():
            # A preview may mark all views; a sampler needs one that is left.
            marked = tuple(
                check_indices([i], len(cameras) + 1 if len(cameras) == 1 else len(cameras))[0]
                for i in parse_indices(indices)
            )
        picture = views_to_image(draw_camera_path(cameras, conditioned=marked)[None])
        return io.NodeOutput(picture, ui=ui.PreviewImage(picture, cls=cls))


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
                io.Load3DCamera.Input("camera_info", tooltip="Camera of a 3D viewer; the first view."),
                io.Load3DCamera.Input(
                    "last_camera_info", optional=True,
                    tooltip="Optional: the last view. Without it the camera stands still.",
                ),
                io.Int.Input("num_views", **_VIEWS, tooltip="Cameras on the path, typically 12."),
                io.Int.Input(
                    "width", default=256, min=8, max=8192, step=8,
                    tooltip="Width of the pictures in pixels: the viewer's field of view is of the "
                    "shorter side.",
                ),
                io.Int.Input(
                    "height", default=256, min=8, max=8192, step=8,
                    tooltip="Height of the pictures in pixels.",
                ),
            ],
            outputs=[CamerasSocket.Output(display_name="cameras")],
        )

    @classmethod
    @named_errors
    def execute(
        cls,
        camera_info: dict[str, Any],
        num_views: int,
        width: int,
        height: int,
        last_camera_info: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        """Convert."""
        infos = [camera_info, last_camera_info or camera_info]
        parts = [load3d_to_camera(info, width=width, height=height) for info in infos]
        ends = Cameras(torch.stack([c2w for c2w, _ in parts]), torch.stack([k for _, k in parts]))
        if last_camera_info is None:
            cameras = ends[[0] * num_views]
        else:
            cameras = orbit_between(ends, num_views)
        return io.NodeOutput(editing.with_even_times(cameras))


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
                    "view", default=0, min=-1024, max=1023,
                    tooltip="Which camera; negative counts from the end.",
                ),
                io.Int.Input(
                    "width", default=256, min=8, max=8192, step=8,
                    tooltip="Width in pixels of what will be rendered.",
                ),
                io.Int.Input(
                    "height", default=256, min=8, max=8192, step=8,
                    tooltip="Height in pixels of what will be rendered.",
                ),
                io.Float.Input(
                    "target_distance", default=2.0, min=0.01, max=1000.0, step=0.1,
                    tooltip="Distance to the point that the viewer orbits, scene units.",
                ),
            ],
            outputs=[io.Load3DCamera.Output(display_name="camera_info")],
        )

    @classmethod
    @named_errors
    def execute(
        cls, cameras: Cameras, view: int, width: int, height: int, target_distance: float
    ) -> io.NodeOutput:
        """Convert."""
        if not -len(cameras) <= view < len(cameras):
            raise InvalidInputError(
                f"view is {view}, but the path has {len(cameras)} cameras; give 0 to "
                f"{len(cameras) - 1}, or negative numbers from the end."
            )
        info = camera_to_load3d(
            cameras.c2w[view],
            cameras.Ks_norm[view],
            width=width,
            height=height,
            target_distance=target_distance,
        )
        return io.NodeOutput(info)


NODES = [
    GenXDMakeCameraPath,
    GenXDLoadCameras,
    GenXDSaveCameras,
    GenXDEditCameras,
    GenXDPreviewCameras,
    GenXDCamerasFromLoad3D,
    GenXDCamerasToLoad3D,
]
