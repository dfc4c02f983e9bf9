"""Photographs with known cameras, and points of the scene that they show."""

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.cameras.describe import describe
from ..genxd_core.capture_masks import load_capture_masks
from ..genxd_core.captures import Capture, capture_files, load_capture
from ..genxd_core.errors import InvalidInputError
from ..genxd_core.lifting.point_cloud import PointCloud
from ..genxd_core.lifting.triangulate import triangulate_points
from ._checks import check_images, check_mask, checked
from ._convert import image_to_views, mask_to_maps, views_to_image
from ._types import CamerasSocket, PointsSocket
from .camera_files import NO_CAMERA_FILES, list_camera_files

__all__ = ["NODES", "GenXDLoadCapture", "GenXDTriangulatePoints"]


class GenXDLoadCapture(io.ComfyNode):
    """Pictures, cameras and points from a folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_LoadCapture",
            display_name="GenXD Load Capture",
            category="GenXD/cameras",
            description="Reads photographs together with their cameras from ComfyUI's input "
            "folder: a COLMAP project, a transforms.json, or a camera file and a folder of "
            "pictures. Lens distortion is undone.",
            search_aliases=["colmap", "nerfstudio", "photos", "dataset", "undistort", "capture"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=list(list_camera_files()) or [NO_CAMERA_FILES],
                    tooltip="A COLMAP folder or camera file inside ComfyUI's input folder, "
                    "typically a COLMAP project with its pictures in the folder images. Press R "
                    "after adding one.",
                ),
                io.Int.Input(
                    "max_side",
                    default=512,
                    min=0,
                    max=8192,
                    tooltip="Larger pictures are made smaller until their longer side has this "
                    "many pixels; 512 is typical, 0 keeps their size.",
                ),
                io.Float.Input(
                    "scale_to",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="0 keeps the file's scale. Otherwise the farthest camera is brought to "
                    "this distance from the first one, in scene units, and the points with it; 2 "
                    "is typical.",
                ),
                io.String.Input(
                    "pictures",
                    default="",
                    tooltip="Folder of the pictures inside ComfyUI's input folder, such as "
                    "my_scene/images_4. Typically empty: where the file says.",
                ),
                io.Boolean.Input(
                    "undistort",
                    default=True,
                    tooltip="Turn pictures of real lenses into those of pinhole cameras, which is "
                    "what everything here expects; typically on. Off: such pictures are refused "
                    "unless their distortion is small.",
                ),
                io.String.Input(
                    "masks",
                    default="",
                    optional=True,
                    tooltip="Folder of masks inside ComfyUI's input folder, such as "
                    "my_scene/masks: a picture of the same name for each, white where the object "
                    "is, or what moves. Typically empty: no masks.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The pictures, without distortion."),
                CamerasSocket.Output(
                    display_name="cameras", tooltip="One camera for each picture."
                ),
                PointsSocket.Output(
                    display_name="points",
                    tooltip="Points of the scene, for fits to start from; empty where the capture "
                    "has none.",
                ),
                io.String.Output(
                    display_name="names", tooltip="Names of the pictures, one in each line."
                ),
                io.String.Output(
                    display_name="report", tooltip="Counts, sizes, scale and field of view."
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="One mask for each picture; nothing where no folder of masks is given.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, pictures: str | None = None, masks: str | None = None) -> bool | str:
        """Refuse folders outside of the input folder."""
        try:
            _folder(pictures or "", "pictures")
            _folder(masks or "", "masks")
        except InvalidInputError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, pictures: str, masks: str = "", **others: Any) -> str:
        """Run again when a file has changed."""
        settings = ":".join([*(str(others[name]) for name in sorted(others)), masks])
        path = list_camera_files().get(file)
        try:
            files = [] if path is None else capture_files(path, _folder(pictures, "pictures"))
            outlines = _folder(masks, "masks")
            files += [] if outlines is None else sorted(outlines.iterdir())
            stamp = max((part.stat().st_mtime_ns for part in files), default=0)
        except (InvalidInputError, OSError) as error:
            # What is wrong is told when the node runs.
            return f"{file}:{pictures}:{settings}:{error}"
        return f"{file}:{pictures}:{settings}:{len(files)}:{stamp}"

    @classmethod
    @checked
    def execute(
        cls,
        file: str,
        max_side: int,
        scale_to: float,
        pictures: str,
        undistort: bool,
        masks: str = "",
    ) -> io.NodeOutput:
        """Read the capture."""
        path = list_camera_files().get(file)
        if path is None:
            raise InvalidInputError(
                f'file is "{file}", which is not in ComfyUI\'s input folder; put a capture there, '
                "press R and choose it."
            )
        capture = load_capture(
            path,
            _folder(pictures, "pictures"),
            max_side=max_side or None,
            undistort=undistort,
            progress=_progress(),
        )
        if scale_to > 0:
            capture = capture.scaled_to(scale_to)
        outlines = _folder(masks, "masks")
        mask = None if outlines is None else _masks(capture, path, outlines)
        report = _describe(capture)
        return io.NodeOutput(
            views_to_image(capture.images),
            capture.cameras,
            capture.points,
            "\n".join(capture.names),
            report,
            mask,
            ui=ui.PreviewText(report),
        )


def _masks(capture: Capture, path: Path, folder: Path) -> torch.Tensor:
    height, width = capture.images.shape[2:]
    maps = load_capture_masks(folder, path, capture.names, width=width, height=height)
    return maps[:, 0]


def _folder(name: str, field: str) -> Path | None:
    """A folder inside ComfyUI's input folder; ``None`` for no name."""
    clean = name.strip().replace("\\", "/").strip("/")
    if not clean:
        return None
    root = Path(folder_paths.get_input_directory())
    folder = root / clean
    if not clean.isprintable() or not folder.resolve().is_relative_to(root.resolve()):
        raise InvalidInputError(
            f"{field} is {name!r:.200}; expected a folder inside ComfyUI's input folder, such as "
            '"my_scene/images", or nothing.'
        )
    return folder


def _describe(capture: Capture) -> str:
    height, width = capture.images.shape[2:]
    points = "no points" if capture.points is None else f"{len(capture.points)} points"
    return (
        f"{len(capture.images)} pictures of {width} x {height} pixels, {points}\n"
        f"{describe(capture.cameras)}"
    )


class GenXDTriangulatePoints(io.ComfyNode):
    """Points that pictures with known cameras share."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_TriangulatePoints",
            display_name="GenXD Triangulate Points",
            category="GenXD/lifting",
            description="Finds points that several pictures show, where their cameras put them: "
            "what a 3D fit may start from.",
            search_aliases=["point cloud", "sfm", "colmap", "sift", "initial points"],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="Pictures of one still scene, typically photographs or generated "
                    "views, at least two.",
                ),
                CamerasSocket.Input("cameras", tooltip="One camera for each picture."),
                io.Int.Input(
                    "max_points",
                    default=20000,
                    min=0,
                    max=1000000,
                    tooltip="Of more points so many are drawn at random; 20000 is typical, 0 keeps "
                    "all.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    tooltip="Of that draw; typically 0.",
                ),
                io.Int.Input(
                    "time_limit",
                    default=600,
                    min=1,
                    max=86400,
                    advanced=True,
                    tooltip="Stop with an error after so many seconds; 600 is typical.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Optional, one for each picture: 1 = object. Only points on it are "
                    "looked for.",
                ),
            ],
            outputs=[
                PointsSocket.Output(display_name="points", tooltip="Positions and colours."),
                io.String.Output(
                    display_name="report", tooltip="How many points, and how far away they are."
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        images: torch.Tensor,
        cameras: Cameras,
        max_points: int,
        seed: int,
        time_limit: int,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        """Find the points."""
        check_images(images)
        if mask is not None:
            check_mask(mask)
        points = triangulate_points(
            image_to_views(images),
            cameras,
            masks=None if mask is None else mask_to_maps(mask),
            max_points=max_points or None,
            seed=seed % (1 << 63),
            num_threads=torch.get_num_threads(),
            progress=_progress(),
            time_limit=time_limit,
        )
        report = _describe_points(points, cameras)
        return io.NodeOutput(points, report, ui=ui.PreviewText(report))


def _describe_points(points: PointCloud, cameras: Cameras) -> str:
    centre = cameras.centres.float().cpu().mean(0)
    distance = float((points.xyz - centre).norm(dim=1).median())
    return (
        f"{len(points)} points from {len(cameras)} views, half of them within {distance:.3g} scene "
        "units of the cameras' middle"
    )


def _progress() -> Any:
    """A bar over the steps; ends the work when the run is interrupted."""
    bar = comfy.utils.ProgressBar(1)

    def progress(step: int, total: int, preview: torch.Tensor | None = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(step, total)

    return progress


NODES = [GenXDLoadCapture, GenXDTriangulatePoints]
