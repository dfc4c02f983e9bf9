"""Averaged weights of a run on disk: a network in the released layout, or adapters."""

import json
from functools import partial
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from genxd_core.files import write_atomically
from genxd_core.model.unet import GenXDUNet
from genxd_core.model.weights import find_unet_file

from .camera_attention import VARIANT
from .config import ModelConfig, RunConfig
from .provenance import Origin, origin_of, provenance
from .settings import to_record

__all__ = ["LORA_FILE", "WEIGHTS_FILE", "origin_of_start", "save_weights"]

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
LORA_FILE = "adapters.safetensors"


def origin_of_start(model: ModelConfig) -> Origin:
    """What a run's training starts from, as far as its weights say."""
    if model.start != "weights":
        return model.start
    assert model.start_from is not None
    with safe_open(find_unet_file(model.start_from), framework="pt") as opened:
        return origin_of(opened.metadata() or {})


def save_weights(
    config: RunConfig, network: GenXDUNet, values: dict[str, Tensor], step: int, origin: Origin
) -> None:
    """Write ``unet/``, and now and then a copy that later ones do not replace.

    Args:
        config: of the run.
        network: what is trained.
        values: averaged values of what is trained, by name.
        step: of the run.
        origin: of `origin_of_start`.
    """
    folders = [config.out / "unet"]
    if config.engine.keep_every and step % config.engine.keep_every == 0:
        folders.append(config.out / f"unet_{step:07d}")
    for folder in folders:
        _write(config, network, values, step, origin, folder)


def _write(
    config: RunConfig,
    network: GenXDUNet,
    values: dict[str, Tensor],
    step: int,
    origin: Origin,
    folder: Path,
) -> None:
    unet = dict(network.config.to_dict())
    if config.model.camera != "rays":
        unet["variant"] = VARIANT
    meta = {"genxd_config": json.dumps(unet)}
    meta |= provenance(origin=origin, recipe=config.recipe, steps=step)
    adapters = config.model.lora is not None
    if adapters:
        meta["lora"] = json.dumps(to_record(config.model.lora))
        meta["start_from"] = str(config.model.start_from)
    name = LORA_FILE if adapters else WEIGHTS_FILE
    # peft names the set of adapters, of which there is one.
    tensors = {key.replace(".default.", "."): v.contiguous() for key, v in values.items()}
    write_atomically(folder / name, partial(save_file, tensors, metadata=meta))
    text = json.dumps(unet, indent=2) + "\n"
    write_atomically(folder / "config.json", lambda p: p.write_text(text, encoding="utf-8"))
