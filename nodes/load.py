"""Loading weights."""

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..genxd_core.assets import NANO
from ..genxd_core.errors import WeightsError
from ..genxd_core.model.weights import find_unet_file
from ._checks import named_errors
from .comfy_model import load_genxd_model
from .comfy_vae import load_genxd_vae

__all__ = ["NODES", "GenXDLoadModel"]

NANO_NAME = "genxd-nano (built in)"
BESIDE_MODEL = "beside the model"
_FOLDER = "genxd"
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


def _entries() -> dict[str, Path]:
    """What can be chosen: name, with "/" on every platform, to file or folder."""
    found: dict[str, Path] = {NANO_NAME: NANO}
    for root in map(Path, folder_paths.get_folder_paths(_FOLDER)):
        if not root.is_dir():
            continue
        folders = sorted({file.parent.parent for file in root.rglob("unet/*.safetensors")})
        for folder in folders:
            found[folder.relative_to(root).as_posix() or root.name] = folder
        for file in sorted(root.rglob("*.safetensors")):
            if not any(folder in file.parents for folder in folders):
                found[file.relative_to(root).as_posix()] = file
    for name in folder_paths.get_filename_list("diffusion_models"):
        path = folder_paths.get_full_path("diffusion_models", name)
        if path and name.endswith(".safetensors"):
            found.setdefault(Path(name).as_posix(), Path(path))
    return found


def _vae_entries() -> dict[str, Path]:
    names = folder_paths.get_filename_list("vae")
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
            outputs=[io.Model.Output(display_name="MODEL"), io.Vae.Output(display_name="VAE")],
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, weight_dtype: str, vae: str) -> str:
        """Run again when the file has changed."""
        path = _entries().get(model)
        try:
            stamp = find_unet_file(path).stat().st_mtime_ns if path else 0
        except WeightsError:
            stamp = 0
        return f"{model}:{weight_dtype}:{vae}:{stamp}"

    @classmethod
    @named_errors
    def execute(cls, model: str, weight_dtype: str, vae: str) -> io.NodeOutput:
        """Load both."""
        path = _entries().get(model)
        if path is None:
            raise WeightsError(f'model "{model}" is no longer there; refresh and choose another.')
        patcher = load_genxd_model(path, {"dtype": _DTYPES[weight_dtype]})
        return io.NodeOutput(patcher, load_genxd_vae(_vae_path(path, model, vae)))


def _vae_path(model_path: Path, model: str, vae: str) -> Path:
    if vae != BESIDE_MODEL:
        chosen = _vae_entries().get(vae)
        if chosen is None:
            raise WeightsError(f'vae "{vae}" is no longer there; refresh and choose another.')
        return chosen
    unet = find_unet_file(model_path)
    for folder in (unet.parent / "vae", unet.parent.parent / "vae"):
        if folder.is_dir():
            return folder
    raise WeightsError(
        f'vae is "{BESIDE_MODEL}", but "{model}" has no vae folder beside it; choose a file in '
        "models/vae (Stable Video Diffusion's VAE)."
    )


NODES = [GenXDLoadModel]
