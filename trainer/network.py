"""The network of a run, at its start: from scratch, from SVD, or from trained weights."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from genxd_core.errors import InvalidInputError
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.svd_init import init_unet_from_svd
from genxd_core.model.unet import GenXDUNet
from genxd_core.model.weights import load_unet, read_unet

from .attention import plain_attention
from .camera_attention import CameraAttentionUNet
from .config import ModelConfig
from .lora import add_lora

__all__ = ["build_network", "soften_start_", "svd_weights", "with_known_unet"]


def build_network(config: ModelConfig) -> GenXDUNet:
    """The network with its starting weights, on the CPU.

    Args:
        config: of the network and its start.

    Raises:
        InvalidInputError: the weights are those of another configuration, or not to be found.
        WeightsError: a file is damaged or of another model.
    """
    network = _started(with_known_unet(config))
    if config.lora is not None:
        if config.frozen_dtype == "bf16":
            network = network.to(torch.bfloat16)
        lora = config.lora
        add_lora(network, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout)
    network.enable_gradient_checkpointing(config.gradient_checkpointing)
    return network


def with_known_unet(config: ModelConfig, run: Path | None = None) -> ModelConfig:
    """The configuration with its network told: where that is None, it is the weights' own.

    Args:
        config: of the network and its start.
        run: ``unet`` of a run that goes on; what it started from may be gone by now.

    Raises:
        InvalidInputError: the weights are not to be found.
        WeightsError: a file is damaged or of another model.
    """
    if config.unet is not None:
        return config
    if run is not None and (run / "config.json").is_file():
        return replace(config, unet=GenXDUNetConfig.from_json(run / "config.json"))
    assert config.start_from is not None
    return replace(config, unet=read_unet(_existing(config.start_from)).config)


def _started(config: ModelConfig) -> GenXDUNet:
    if config.start == "svd":
        assert config.start_from is not None
        assert config.unet is not None
        return _loaded_into(
            config, init_unet_from_svd(load_file(svd_weights(config.start_from)), config.unet)
        )
    if config.start == "weights":
        assert config.start_from is not None
        return _loaded_into(config, _trained(config, config.start_from))
    network = _empty(config)
    soften_start_(network)
    return network


def _empty(config: ModelConfig) -> GenXDUNet:
    attention = plain_attention if config.plain_attention else None
    assert config.unet is not None
    kind = GenXDUNet if config.camera == "rays" else CameraAttentionUNet
    return kind(config.unet, attention=attention)


def _loaded_into(config: ModelConfig, source: GenXDUNet) -> GenXDUNet:
    """A network of the run's kind with given weights; what they lack keeps its start."""
    network = _empty(config)
    missing = network.load_state_dict(source.state_dict(), strict=False)
    assert not missing.unexpected_keys
    return network


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InvalidInputError(
            f"model.start_from is {path}, which does not exist; give a file or folder of weights."
        )
    return path


def _trained(config: ModelConfig, path: Path) -> GenXDUNet:
    source = load_unet(_existing(path))
    if source.config != config.unet:
        fields = (
            f"{name} {value!r} instead of {getattr(config.unet, name)!r}"
            for name, value in vars(source.config).items()
            if value != getattr(config.unet, name)
        )
        raise InvalidInputError(
            f"model.start_from is {path}, a network of another configuration than model.unet: "
            f"{', '.join(fields)}. With model.unet=null it is that of the weights."
        )
    return source


def svd_weights(path: Path) -> Path:
    """The file of SVD's UNet in its folder, in ``unet/`` of it, or the file itself.

    Raises:
        InvalidInputError: there is none.
    """
    if path.is_file():
        return path
    names = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
    for folder in (path / "unet", path):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise InvalidInputError(
        f"model.start_from is {path}, which holds none of {', '.join(names)}; give the folder of "
        "SVD in the diffusers layout, or its unet."
    )


@torch.no_grad()
def soften_start_(unet: torch.nn.Module) -> None:
    """Start every residual branch at zero, and the fusion half way: training from scratch.

    SVD's start (fusion at sigmoid(5)) presumes temporal layers that already work.
    """
    for name, parameter in unet.named_parameters():
        if (
            name.endswith(("res_block.conv2.weight", "proj_out.weight"))
            or name == "conv_out.weight"
        ):
            parameter.zero_()
        if name.endswith("time_mixer.gamma"):
            parameter.zero_()
