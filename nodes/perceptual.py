"""The perceptual model that fits compare pictures with."""

import os
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..genxd_core.files import TENSOR_SUFFIXES
from ..genxd_core.lifting.perceptual import GRADIENT, load_perceptual
from ..genxd_core.model_folders import PERCEPTUAL, PERCEPTUAL_FILES
from ._checks import checked
from ._types import PerceptualSocket

__all__ = ["NODES", "GenXDLoadPerceptualModel"]

NO_WEIGHTS = "gradient (no weights needed)"
_FOLDER = "genxd_perceptual"

folder_paths.add_model_folder_path(
    _FOLDER, str(Path(folder_paths.models_dir) / "genxd" / PERCEPTUAL), is_default=True
)
if os.environ.get("GENXD_MODELS"):
    folder_paths.add_model_folder_path(_FOLDER, str(Path(os.environ["GENXD_MODELS"]) / PERCEPTUAL))


def _entries() -> dict[str, Path]:
    """Files that can be chosen: name, with "/" on every platform, to path."""
    found: dict[str, Path] = {}
    for name in folder_paths.get_filename_list(_FOLDER):
        path = folder_paths.get_full_path(_FOLDER, name)
        if path and Path(name).suffix.lower() in TENSOR_SUFFIXES:
            found[Path(name).as_posix()] = Path(path)
    return found


class GenXDLoadPerceptualModel(io.ComfyNode):
    """A file, or the choice of none, to a perceptual model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_LoadPerceptualModel",
            display_name="GenXD Load Perceptual Model",
            category="GenXD/lifting",
            description="Loads the network by which fits to 3D and 4D tell how alike pictures "
            "look (LPIPS), or chooses the loss that needs no weights. Nothing is downloaded.",
            search_aliases=["lpips", "perceptual loss", "vgg", "alexnet", "squeezenet"],
            inputs=[
                io.Combo.Input(
                    "perceptual_model",
                    options=[NO_WEIGHTS, *_entries()],
                    default=NO_WEIGHTS,
                    tooltip="gradient compares edges at several scales and needs no file. For "
                    "LPIPS put one of torchvision's files into models/genxd/perceptual and press "
                    f"R: {PERCEPTUAL_FILES['alex']} (typical, quick enough on a CPU), "
                    f"{PERCEPTUAL_FILES['vgg']} (for a GPU) or {PERCEPTUAL_FILES['squeeze']} "
                    "(small).",
                ),
            ],
            outputs=[
                PerceptualSocket.Output(
                    display_name="perceptual",
                    tooltip="For the nodes that fit 3D and 4D scenes to pictures.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, perceptual_model: str) -> str:
        """Run again when the file has changed."""
        stamp = 0
        try:
            stamp = _entries()[perceptual_model].stat().st_mtime_ns
        except (KeyError, OSError):
            pass  # running tells what is wrong
        return f"{perceptual_model}:{stamp}"

    @classmethod
    @checked
    def execute(cls, perceptual_model: str) -> io.NodeOutput:
        """Load it."""
        if perceptual_model == NO_WEIGHTS:
            return io.NodeOutput(GRADIENT)
        return io.NodeOutput(load_perceptual(_entries()[perceptual_model]))


NODES = [GenXDLoadPerceptualModel]
