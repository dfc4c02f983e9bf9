"""Camera paths read from ComfyUI's input folder and written to its output folder."""

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ..genxd_core.cameras import editing
from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.cameras.conventions import normalise_scale
from ..genxd_core.cameras.describe import describe
from ..genxd_core.cameras.io import MAX_DISTORTION, load_cameras, save_cameras
from ..genxd_core.errors import InvalidInputError
from ._checks import checked
from ._outputs import inside, numbered
from ._types import CamerasSocket

__all__ = ["NODES", "GenXDLoadCameras", "GenXDSaveCameras", "list_camera_files"]

NO_CAMERA_FILES = "(no camera files in ComfyUI's input folder)"
_COLMAP_STEMS = {"cameras", "images", "points3D", "rigs", "frames"}


def list_camera_files() -> dict[str, Path]:
    """Camera files and COLMAP folders in ComfyUI's input folder, by their names in the menu."""
    root = Path(folder_paths.get_input_directory())
    names, _ = folder_paths.recursive_search(str(root), excluded_dir_names=[".git"])
    found: dict[str, Path] = {}
    for path in sorted(map(Path, names)):
        suffix = path.suffix.lower()
        if path.stem == "images" and suffix in (".bin", ".txt"):
            folder = path.parent
            found[f"{folder.as_posix()}/ (COLMAP)"] = root / folder
        elif suffix in (".json", ".txt") and path.stem not in _COLMAP_STEMS:
            found[path.as_posix()] = root / path
    return found


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
                    "file",
                    options=list(list_camera_files()) or [NO_CAMERA_FILES],
                    tooltip="A file or COLMAP folder inside ComfyUI's input folder, typically a "
                    "transforms.json. Press R after adding one.",
                ),
                io.Float.Input(
                    "scale_to",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="0 keeps the file's scale. Otherwise the farthest camera is brought to "
                    "this distance from the first one, in scene units; 2 is typical. Paths of "
                    "COLMAP have any scale, and the model only knows moderate ones.",
                ),
                io.Int.Input(
                    "num_views",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="0 keeps all cameras; otherwise the path is resampled to this many. "
                    "12 is typical.",
                ),
                io.Float.Input(
                    "max_distortion",
                    default=MAX_DISTORTION,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Largest lens distortion coefficient that is ignored; 0.02 is typical. "
                    "Cameras here are pinholes: raise it where only the path matters, or undistort "
                    "the pictures first (COLMAP's image_undistorter).",
                ),
            ],
            outputs=[
                CamerasSocket.Output(display_name="cameras", tooltip="The path."),
                io.String.Output(
                    display_name="report", tooltip="Count, scale, length and field of view."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(
        cls, file: str, scale_to: float, num_views: int, max_distortion: float
    ) -> str:
        """Run again when the file has changed."""
        path = list_camera_files().get(file)
        parts = [] if path is None else [path, *(path.iterdir() if path.is_dir() else [])]
        stamp = max((part.stat().st_mtime_ns for part in parts), default=0)
        return f"{file}:{scale_to}:{num_views}:{max_distortion}:{stamp}"

    @classmethod
    @checked
    def execute(
        cls, file: str, scale_to: float, num_views: int, max_distortion: float
    ) -> io.NodeOutput:
        """Read the path."""
        path = list_camera_files().get(file)
        if path is None:
            raise InvalidInputError(
                f'file is "{file}", which is not in ComfyUI\'s input folder; put a camera file '
                "there, press R and choose it."
            )
        cameras = load_cameras(path, max_distortion=max_distortion)
        if num_views:
            cameras = editing.resample(cameras, num_views)
        if scale_to > 0:
            cameras = normalise_scale(cameras, scale_to)
        report = describe(cameras)
        return io.NodeOutput(cameras, report, ui=ui.PreviewText(report))


_SUFFIXES = {
    "genxd": ".json",
    "transforms": ".json",
    "colmap": "",
    "colmap-text": "",
    "realestate10k": ".txt",
}


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
            search_aliases=["export cameras", "colmap", "transforms.json", "nerfstudio"],
            is_output_node=True,
            inputs=[
                CamerasSocket.Input("cameras", tooltip="The path to write."),
                io.String.Input(
                    "filename_prefix",
                    default="genxd/cameras",
                    tooltip="Folder and start of the name inside ComfyUI's output folder, such as "
                    "genxd/cameras; a number is added.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(_SUFFIXES),
                    default="genxd",
                    tooltip="genxd (typical): this pack's JSON, nothing is lost. transforms: "
                    "nerfstudio and Blender. colmap, colmap-text: a folder. realestate10k: text.",
                ),
                io.Int.Input(
                    "width",
                    default=256,
                    min=1,
                    max=8192,
                    tooltip="Width of the pictures in pixels, typically 256; for transforms and "
                    "colmap, which hold pixels.",
                ),
                io.Int.Input(
                    "height",
                    default=256,
                    min=1,
                    max=8192,
                    tooltip="Height of the pictures in pixels, typically 256; for transforms and "
                    "colmap, which hold pixels.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="path", tooltip="The file or folder, inside the output folder."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        """Refuse a name that leads out of the output folder."""
        if filename_prefix is None:
            return True
        try:
            inside(Path(folder_paths.get_output_directory()), filename_prefix)
        except InvalidInputError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(
        cls, cameras: Cameras, filename_prefix: str, format: Any, width: int, height: int
    ) -> io.NodeOutput:
        """Write the path."""
        root = Path(folder_paths.get_output_directory()).resolve()
        prefix = inside(root, filename_prefix)
        try:
            prefix.parent.mkdir(parents=True, exist_ok=True)
            target = numbered(prefix, _SUFFIXES[format], tuple(_SUFFIXES.values()))
            save_cameras(cameras, target, format=format, width=width, height=height)
        except OSError as error:
            raise InvalidInputError(
                f'filename_prefix is "{filename_prefix}", and nothing can be written there '
                f"({error}); choose another name."
            ) from error
        name = target.relative_to(root).as_posix()
        return io.NodeOutput(name, ui=ui.PreviewText(f"saved output/{name}"))


NODES = [GenXDLoadCameras, GenXDSaveCameras]
