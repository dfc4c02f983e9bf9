"""Moving splats: one moment of them, all of them as a batch, a player, and their files."""

import uuid
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.errors import InvalidInputError
from ..genxd_core.lifting.files_4d import export_sequence, load_gaussians_4d, save_gaussians_4d
from ..genxd_core.lifting.gaussians_4d import Gaussians4D
from ._checks import checked
from ._outputs import inside, numbered, shown_sequence
from ._splats import gaussians_to_splat
from ._types import CamerasSocket, Splat4DSocket

__all__ = [
    "NODES",
    "GenXDLoad4D",
    "GenXDPreview4D",
    "GenXDSave4D",
    "GenXDSplat4DToBatch",
    "GenXDSplatAtTime",
]

NO_FILES = "(no 4D .safetensors in ComfyUI's input or output folder)"
_IN_OUTPUT = " [output]"
_ONE_FRAME = "num_frames is 1; expected 0 for no sequence, or at least 2."


class GenXDSplatAtTime(io.ComfyNode):
    """One moment of a moving splat."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_SplatAtTime",
            display_name="GenXD Splat At Time",
            category="GenXD/lifting",
            description="A moving splat as it is at one time: a splat for every node that takes "
            "one.",
            search_aliases=["freeze time", "4dgs", "frame of splat"],
            inputs=[
                Splat4DSocket.Input("splat4d", tooltip="Of GenXD Lift To 4DGS or GenXD Load 4D."),
                io.Float.Input(
                    "time",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0 = the first frame, 1 = the last one; typically 0.",
                ),
            ],
            outputs=[io.Splat.Output(display_name="splat", tooltip="The scene at that time.")],
        )

    @classmethod
    @checked
    def execute(cls, splat4d: Gaussians4D, time: float) -> io.NodeOutput:
        """Freeze it."""
        return io.NodeOutput(gaussians_to_splat(splat4d.at(time)))


class GenXDSplat4DToBatch(io.ComfyNode):
    """All of a moving splat, frame after frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_Splat4DToBatch",
            display_name="GenXD Splat4D To Batch",
            category="GenXD/lifting",
            description="A moving splat as a batch of splats at even times, which ComfyUI's own "
            "nodes take.",
            search_aliases=["splat sequence", "4dgs", "splat frames"],
            inputs=[
                Splat4DSocket.Input("splat4d", tooltip="Of GenXD Lift To 4DGS or GenXD Load 4D."),
                io.Int.Input(
                    "num_frames",
                    default=24,
                    min=2,
                    max=1024,
                    tooltip="Splats from the first to the last time; 24 is typical. Each takes as "
                    "much memory as a splat at rest.",
                ),
            ],
            outputs=[
                io.Splat.Output(display_name="splat", tooltip="A batch, one splat for each time.")
            ],
        )

    @classmethod
    @checked
    def execute(cls, splat4d: Gaussians4D, num_frames: int) -> io.NodeOutput:
        """Freeze it at every time."""
        bar = comfy.utils.ProgressBar(num_frames)
        scenes = []
        for time in torch.linspace(0, 1, num_frames).tolist():
            comfy.model_management.throw_exception_if_processing_interrupted()
            scenes.append(splat4d.at(time))
            bar.update(1)
        return io.NodeOutput(gaussians_to_splat(scenes))


class GenXDSave4D(io.ComfyNode):
    """A moving splat to files."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_Save4D",
            display_name="GenXD Save 4D",
            category="GenXD/lifting",
            description="Writes a moving splat into ComfyUI's output folder: a file that GenXD "
            "Load 4D reads, and if wanted a folder of one .ply a frame, which it plays and other "
            "programs read.",
            search_aliases=["export 4dgs", "ply sequence", "save splat"],
            is_output_node=True,
            inputs=[
                Splat4DSocket.Input("splat4d", tooltip="Of GenXD Lift To 4DGS or GenXD Load 4D."),
                io.String.Input(
                    "filename_prefix",
                    default="genxd/scene_4d",
                    tooltip="Folder and start of the name inside ComfyUI's output folder, such as "
                    "genxd/scene_4d; a number is added.",
                ),
                io.Int.Input(
                    "num_frames",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="0 (typical) = no sequence; otherwise a folder with so many .ply files "
                    "and a manifest.json is written too. 24 is typical.",
                ),
                io.Float.Input(
                    "fps",
                    default=12.0,
                    min=1.0,
                    max=240.0,
                    step=1.0,
                    tooltip="Frames a second at which the sequence is meant to be played; 12 is "
                    "typical.",
                ),
                CamerasSocket.Input(
                    "cameras",
                    optional=True,
                    tooltip="Optional: cameras in the splat's world to keep with the sequence.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="file", tooltip="The .safetensors, inside the output folder."
                )
            ],
        )

    @classmethod
    def validate_inputs(
        cls, filename_prefix: str | None = None, num_frames: int | None = None
    ) -> bool | str:
        """Refuse a name that leads out of the output folder, and a sequence of one frame."""
        if num_frames == 1:
            return _ONE_FRAME
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
        cls,
        splat4d: Gaussians4D,
        filename_prefix: str,
        num_frames: int,
        fps: float,
        cameras: Cameras | None = None,
    ) -> io.NodeOutput:
        """Write file and sequence."""
        if num_frames == 1:
            raise InvalidInputError(_ONE_FRAME)
        root = Path(folder_paths.get_output_directory()).resolve()
        prefix = inside(root, filename_prefix)
        try:
            prefix.parent.mkdir(parents=True, exist_ok=True)
            target = numbered(prefix, ".safetensors", (".safetensors", ""))
            save_gaussians_4d(splat4d, target)
            lines = [target.relative_to(root).as_posix()]
            shown: dict[str, Any] = {}
            if num_frames:
                folder = export_sequence(
                    splat4d,
                    target.with_suffix(""),
                    num_frames=num_frames,
                    fps=fps,
                    cameras=cameras,
                    progress=_progress(num_frames),
                )
                lines.append(folder.relative_to(root).as_posix() + "/")
                shown = shown_sequence(folder, root, "output")
        except OSError as error:
            raise InvalidInputError(
                f'filename_prefix is "{filename_prefix}", and nothing can be written there '
                f"({error}); choose another name."
            ) from error
        told = "\n".join(f"saved output/{line}" for line in lines)
        return io.NodeOutput(lines[0], ui={"text": (told,)} | shown)


class GenXDPreview4D(io.ComfyNode):
    """A moving splat in a player inside the node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_Preview4D",
            display_name="GenXD Preview 4D",
            category="GenXD/lifting",
            description="Plays a moving splat inside the node: scrub through time, and look at it "
            "from every side.",
            search_aliases=["play 4d", "4dgs viewer", "splat player", "show moving splat"],
            is_output_node=True,
            inputs=[
                Splat4DSocket.Input("splat4d", tooltip="Of GenXD Lift To 4DGS or GenXD Load 4D."),
                io.Int.Input(
                    "num_frames",
                    default=24,
                    min=2,
                    max=1024,
                    tooltip="Moments from the first to the last time; 24 is typical. The player "
                    "goes smoothly from one to the next.",
                ),
                io.Float.Input(
                    "fps",
                    default=12.0,
                    min=1.0,
                    max=240.0,
                    step=1.0,
                    tooltip="Moments a second at usual speed; 12 is typical.",
                ),
                CamerasSocket.Input(
                    "cameras",
                    optional=True,
                    tooltip="Optional: cameras in the splat's world; the player begins at the "
                    "first. Without them it looks along +Z, with -Y up.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    @checked
    def execute(
        cls, splat4d: Gaussians4D, num_frames: int, fps: float, cameras: Cameras | None = None
    ) -> io.NodeOutput:
        """Write a sequence for the page to fetch."""
        root = Path(folder_paths.get_temp_directory()).resolve()
        try:
            folder = export_sequence(
                splat4d,
                root / f"genxd_splat4d_{uuid.uuid4().hex[:12]}",
                num_frames=num_frames,
                fps=fps,
                cameras=cameras,
                progress=_progress(num_frames),
            )
        except OSError as error:
            raise InvalidInputError(
                f"splat4d cannot be shown: ComfyUI's temp folder {root} cannot be written "
                f"({error}); make room there, or take fewer num_frames than {num_frames}."
            ) from error
        return io.NodeOutput(ui=shown_sequence(folder, root, "temp"))


def _progress(num_frames: int) -> Any:
    bar = comfy.utils.ProgressBar(num_frames)

    def progress(step: int, total: int, preview: torch.Tensor | None = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(step, total)

    return progress


def list_files() -> dict[str, Path]:
    """4D files in ComfyUI's input and output folders by their names in the menu."""
    found: dict[str, Path] = {}
    for root, suffix in (
        (Path(folder_paths.get_input_directory()), ""),
        (Path(folder_paths.get_output_directory()), _IN_OUTPUT),
    ):
        names, _ = folder_paths.recursive_search(str(root), excluded_dir_names=[".git"])
        for name in sorted(map(Path, names)):
            if name.suffix.lower() == ".safetensors":
                found[name.as_posix() + suffix] = root / name
    return found


class GenXDLoad4D(io.ComfyNode):
    """A moving splat from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_Load4D",
            display_name="GenXD Load 4D",
            category="GenXD/lifting",
            description="Reads a moving splat that GenXD Save 4D wrote.",
            search_aliases=["import 4dgs", "load splat", "open 4d"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=list(list_files()) or [NO_FILES],
                    tooltip="A .safetensors of GenXD Save 4D inside ComfyUI's input folder, or, "
                    "marked [output], its output folder. Press R after adding one.",
                ),
            ],
            outputs=[
                Splat4DSocket.Output(
                    display_name="splat4d", tooltip="For GenXD Render Splat and the 4D nodes."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        """Run again when the file has changed."""
        path = list_files().get(file)
        return f"{file}:{0 if path is None else path.stat().st_mtime_ns}"

    @classmethod
    @checked
    def execute(cls, file: str) -> io.NodeOutput:
        """Read the file."""
        path = list_files().get(file)
        if path is None:
            raise InvalidInputError(
                f'file is "{file}", which is not in ComfyUI\'s input or output folder; put a 4D '
                ".safetensors there, press R and choose it."
            )
        return io.NodeOutput(load_gaussians_4d(path))


NODES = [GenXDSplatAtTime, GenXDSplat4DToBatch, GenXDSave4D, GenXDLoad4D, GenXDPreview4D]
