"""A finished run as a model folder in the released layout, as a single file, or as a LoRA."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from genxd_core.autoencoder import Autoencoder
from genxd_core.errors import InvalidInputError, WeightsError
from genxd_core.files import write_atomically, write_checksums
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.unet import GenXDUNet
from genxd_core.model.weights import read_safetensors, read_unet

from .lora import comfy_lora_state

__all__ = ["SCHEDULER", "Precision", "export_lora", "export_model", "export_single_file"]

Precision = Literal["fp32", "fp16", "bf16"]

_FILE_NAME = "diffusion_pytorch_model.safetensors"
_CONFIG = "genxd_config"  # the key that genxd_core and the nodes look for
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# SVD's scheduler, as the released model has it.
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "interpolation_type": "linear",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "steps_offset": 1,
}


def export_model(
    unet: str | Path,
    vae: str | Path,
    out: str | Path,
    *,
    dtype: Precision = "fp16",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write ``unet/ vae/ scheduler/`` and a file of checksums.

    Args:
        unet: folder with the averaged weights of a run, or a file that `genxd_core.load_unet`
            reads.
        vae: folder of the VAE in the diffusers layout, or of a model with ``vae/`` in it; "none"
            for a model folder without, for a user who has the VAE already.
        out: the model folder.
        dtype: precision of the UNet. The VAE is halved with "fp16" and else keeps its own, as its
            pictures would suffer from bf16.
        metadata: strings to store with the UNet (see `trainer.provenance`) besides those that its
            file has already.

    Returns:
        The list of checksums, ``SHA256SUMS``.

    Raises:
        InvalidInputError: a number does not fit into ``dtype``.
        WeightsError: there is no such UNet or VAE, or it is damaged.
    """
    out = Path(out)
    # Both are checked before anything is written.
    tensors, config, told = _read_unet(unet, dtype, metadata)
    vae_parts = None if str(vae) == "none" else _read_vae(Path(vae), dtype)
    _save(tensors, out / "unet" / _FILE_NAME, told)
    write_atomically(out / "unet" / "config.json", config.to_json)
    if vae_parts is not None:
        vae_tensors, vae_told, vae_config = vae_parts
        _save(vae_tensors, out / "vae" / _FILE_NAME, vae_told)
        _write_text(out / "vae" / "config.json", vae_config)
    scheduler = json.dumps(SCHEDULER, indent=2) + "\n"
    _write_text(out / "scheduler" / "scheduler_config.json", scheduler)
    return write_checksums(out)


def export_single_file(
    unet_folder: str | Path,
    out_file: str | Path,
    *,
    dtype: Precision = "fp16",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write the UNet as one file that is loaded by itself, here and by GenXD Load Model.

    Args:
        unet_folder: as for `export_model`.
        out_file: ends in ``.safetensors``.
        dtype: precision of the weights.
        metadata: as for `export_model`.

    Returns:
        The file; it appears whole or not at all.

    Raises:
        InvalidInputError: another suffix, or a number that does not fit into ``dtype``.
        WeightsError: there is no such UNet, or it is damaged.
    """
    file = _file_name(out_file)
    tensors, _, told = _read_unet(unet_folder, dtype, metadata)
    _save(tensors, file, told)
    return file


def export_lora(
    unet: GenXDUNet,
    out_file: str | Path,
    *,
    dtype: Precision = "fp16",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write the adapters of a network as a LoRA file for ComfyUI's loaders.

    Args:
        unet: with adapters (`trainer.lora.add_lora`).
        out_file: ends in ``.safetensors``.
        dtype: precision of the adapters.
        metadata: strings to store, such as those of `trainer.provenance`.

    Returns:
        The file; it appears whole or not at all.

    Raises:
        InvalidInputError: another suffix, a network without adapters, or a number that does not
            fit into ``dtype``.
        WeightsError: the adapters hold NaN or infinity.
    """
    file = _file_name(out_file)
    state = comfy_lora_state(unet)
    alphas = {key: value for key, value in state.items() if key.endswith(".alpha")}
    factors = {key: value.cpu() for key, value in state.items() if key not in alphas}
    config = json.dumps(unet.config.to_dict())
    _save(
        {**_converted(factors, dtype, "the LoRA"), **alphas},
        file,
        {**(metadata or {}), _CONFIG: config},
    )
    return file


def _read_unet(
    path: str | Path, dtype: Precision, metadata: Mapping[str, str] | None
) -> tuple[dict[str, Tensor], GenXDUNetConfig, dict[str, str]]:
    weights = read_unet(path)
    tensors = _converted(weights.state_dict, dtype, f"the UNet in {weights.path}")
    config = json.dumps(weights.config.to_dict())
    return tensors, weights.config, {**weights.metadata, **(metadata or {}), _CONFIG: config}


def _read_vae(path: Path, dtype: Precision) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Tensors, metadata and configuration of a VAE that can be loaded."""
    Autoencoder.from_pretrained(path)  # refuses what is missing, damaged or does not fit
    folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
    tensors, told = read_safetensors(folder / _FILE_NAME)
    if dtype == "fp16":
        tensors = _converted(tensors, dtype, f"the VAE in {folder}")
    return tensors, told, (folder / "config.json").read_text(encoding="utf-8")


def _converted(tensors: Mapping[str, Tensor], dtype: Precision, source: str) -> dict[str, Tensor]:
    """The tensors in a precision, unless a number is none or becomes none in it."""
    if dtype not in _DTYPES:
        raise InvalidInputError(
            f"dtype is {dtype!r}, expected one of {', '.join(map(repr, _DTYPES))}."
        )
    converted: dict[str, Tensor] = {}
    for key, value in tensors.items():
        converted[key] = value.to(_DTYPES[dtype]).contiguous()
        if bool(converted[key].isfinite().all()):
            continue
        if not bool(value.isfinite().all()):
            raise WeightsError(
                f"{source} has NaN or infinity in {key}; the weights are damaged, or the training "
                "that made them went wrong."
            )
        raise InvalidInputError(
            f"dtype is {dtype}, but {key} of {source} has numbers up to "
            f"{float(value.abs().max()):.6g} and {dtype} ends at "
            f"{torch.finfo(_DTYPES[dtype]).max:.6g}; choose bf16, which is as small, or fp32."
        )
    return converted


def _file_name(path: str | Path) -> Path:
    file = Path(path)
    if file.suffix != ".safetensors":
        raise InvalidInputError(
            f"out_file is {file}, expected a name that ends in .safetensors; a model folder is "
            "written by export_model."
        )
    return file


def _save(tensors: dict[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    write_atomically(file, partial(save_file, tensors, metadata=dict(metadata)))


def _write_text(file: Path, text: str) -> None:
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))
