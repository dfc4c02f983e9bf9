"""Loading weights."""

import os
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..genxd_core.assets import NANO
from ..genxd_core.errors import WeightsError
from ..genxd_core.model.weights import find_unet_file
from ..genxd_core.model_folders import PERCEPTUAL
from ._checks import checked
from .comfy_model import load_genxd_model
from .comfy_vae import find_vae_file, load_genxd_vae

__all__ = ["NODES", "GenXDLoadModel"]

NANO_NAME = "genxd-nano (built in)"
BESIDE_MODEL = "beside the model"
_FOLDER = "genxd"
_SUFFIX = ".safetensors"
_DTYPES = {
    "default": None,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}

folder_paths.add_model_folder_path(
    _FOLDER, str(Path(folder_paths.models_dir) / _FOLDER), is_default=True
)
if os.environ.get("GENXD_MODELS"):
    folder_paths.add_model_folder_path(_FOLDER, os.environ["GENXD_MODELS"])


def _entries() -> dict[str, Path]:
    """What can be chosen: name, with "/" on every platform, to file or folder."""
    found: dict[str, Path] = {NANO_NAME: NANO}
    for name in folder_paths.get_filename_list(_FOLDER):
        path = folder_paths.get_full_path(_FOLDER, name)
        if path is None or not name.endswith(_SUFFIX):
            continue
        file, relative = Path(path), Path(name)
        if relative.parent.name == "unet":
            # A folder in the released layout; right in models/genxd it has no name of its own.
            folder = relative.parent.parent
            found[folder.as_posix() if folder.name else _FOLDER] = file.parent.parent
        elif relative.parent.name != "vae" and relative.parts[0] != PERCEPTUAL:
            found[relative.as_posix()] = file
    for name in folder_paths.get_filename_list("diffusion_models"):
        path = folder_paths.get_full_path("diffusion_models", name)
        if path and name.endswith(_SUFFIX):
            found.setdefault(Path(name).as_posix(), Path(path))
    return found


def _vae_entries() -> dict[str, Path]:
    names = [n for n in folder_paths.get_filename_list("vae") if n.endswith(_SUFFIX)]
    paths = {Path(n).as_posix(): folder_paths.get_full_path("vae", n) for n in names}
    return {name: Path(path) for name, path in paths.items() if path}


class GenXDLoadModel(io.ComfyNode):
    """Weights to MODEL and VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="GenXD_LoadModel",
            display_name="GenXD Load Model",
            category="GenXD/load",
            description="Loads GenXD: one diffusion model that turns images and a camera path "
            "into new views (3D) or camera-controlled video (4D).",
            search_aliases=["genxd loader", "genxd checkpoint", "novel view", "image to 3d", "4d"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=list(_entries()),
                    tooltip="Files and folders in models/genxd and models/diffusion_models. "
                    "genxd-nano is a small model for 64-pixel synthetic scenes that comes with "
                    "the pack: it shows how everything works. The released weights go into "
                    "models/genxd/<name>/unet and .../vae.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(_DTYPES),
                    default="default",
                    tooltip="Precision of the weights. default lets ComfyUI choose for your card; "
                    "fp16 or bf16 halve the memory of fp32, fp8 halves it again at some loss.",
                ),
                io.Combo.Input(
                    "vae",
                    options=[BESIDE_MODEL, *_vae_entries()],
                    default=BESIDE_MODEL,
                    tooltip="The VAE in the model's own folder (typical), or a file in models/vae. "
                    "GenXD's VAE is Stable Video Diffusion's; it is converted on loading.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL", tooltip="For the sampler, LoRA loaders and model patches."
                ),
                io.Vae.Output(
                    display_name="VAE", tooltip="For GenXD Condition Views and GenXD Decode Views."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, weight_dtype: str, vae: str) -> str:
        """Run again when the file has changed."""
        stamps = []
        try:
            path = _entries()[model]
            for file in (find_unet_file(path), find_vae_file(_vae_path(path, model, vae))):
                stamps.append(file.stat().st_mtime_ns)
        except (KeyError, OSError, WeightsError):
            pass  # running tells what is wrong
        return f"{model}:{weight_dtype}:{vae}:{stamps}"

    @classmethod
    @checked
    def execute(cls, model: str, weight_dtype: str, vae: str) -> io.NodeOutput:
        """Load both."""
        path = _entries()[model]
        vae_path = _vae_path(path, model, vae)
        patcher = load_genxd_model(path, {"dtype": _DTYPES[weight_dtype]})
        return io.NodeOutput(patcher, load_genxd_vae(vae_path))


def _vae_path(model_path: Path, model: str, vae: str) -> Path:
    if vae != BESIDE_MODEL:
        return _vae_entries()[vae]
    unet = find_unet_file(model_path)
    home = unet.parent.parent if unet.parent.name == "unet" else unet.parent
    if (home / "vae").is_dir():
        return home / "vae"
    raise WeightsError(
        f'vae is "{BESIDE_MODEL}", but "{model}" has no vae folder beside it; choose a file in '
        "models/vae (Stable Video Diffusion's VAE), or put the model's vae folder there."
    )


NODES = [GenXDLoadModel]
