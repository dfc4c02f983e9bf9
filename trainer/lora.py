"""Low-rank adapters (LoRA, Hu et al. 2022) on the linear layers of a GenXD network, through peft.

A layer y = W x becomes y = W x + (alpha / rank) B A x, with W frozen, A (rank, in) random and
B (out, rank) zero at the start.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genxd_core.errors import InvalidInputError, WeightsError
from genxd_core.model.unet import GenXDUNet
from genxd_core.optional import require

__all__ = [
    "ATTENTION_AND_FEED_FORWARD",
    "add_lora",
    "comfy_lora_state",
    "load_lora_state",
    "lora_state",
    "merged_state",
]

# Ends of module names: projections of every attention, both layers of every feed-forward.
ATTENTION_AND_FEED_FORWARD = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")
_ADAPTER = "default"  # peft's name for the one that there is
_FACTORS = ("lora_A", "lora_B")
_COMFY_PREFIX = "diffusion_model"  # where a ComfyUI MODEL keeps its network


def add_lora(
    unet: GenXDUNet,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: tuple[str, ...] = ATTENTION_AND_FEED_FORWARD,
) -> list[str]:
    """Freeze a network and put trainable adapters into it; its output stays what it was.

    Adapters are in float32 whatever the precision of the network, and lie where its weights lie.
    The first factor is drawn from PyTorch's global generator. Do this before parameters are sharded
    or the network is wrapped.

    Args:
        unet: changed in place.
        rank: of the adapters, at least 1.
        alpha: adapters are scaled by alpha / rank.
        dropout: chance of dropping an adapter's input in training, in [0, 1).
        targets: names of modules, or ends of names (whole parts between dots), that get one.

    Returns:
        The names of the trainable parameters.

    Raises:
        InvalidInputError: a number out of range, a target that names no linear layer, or a network
            that has adapters already.
        MissingDependencyError: peft is not installed.
    """
    _check(rank, alpha, dropout)
    if _adapted(unet):
        raise InvalidInputError(
            "the network has LoRA adapters already; build it anew, or load the merged weights."
        )
    chosen = _target_modules(unet, targets)
    peft = require("peft", extra="train", purpose="train LoRA adapters")
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen, bias="none"
    )
    unet.requires_grad_(False)
    peft.inject_adapter_in_model(config, unet, adapter_name=_ADAPTER)
    trained = []
    for name, parameter in unet.named_parameters():
        is_adapter = f".{_ADAPTER}." in name
        parameter.requires_grad_(is_adapter)
        if is_adapter:
            parameter.data = parameter.data.float()
            trained.append(name)
    return trained


def lora_state(unet: GenXDUNet) -> dict[str, Tensor]:
    """The adapters' weights under ``<module>.lora_A.weight`` and ``<module>.lora_B.weight``.

    Raises:
        InvalidInputError: the network has no adapters.
    """
    return {key: value.detach() for key, value in _factors(unet).items()}


@torch.no_grad()
def load_lora_state(unet: GenXDUNet, state: Mapping[str, Tensor]) -> None:
    """Put weights that `lora_state` gave into the adapters of a network, made by `add_lora`.

    Raises:
        InvalidInputError: the network has no adapters.
        WeightsError: they are of other modules or another rank; nothing is loaded then.
    """
    own = _factors(unet)
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    misshaped = [
        f"{key} {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    if any(problems.values()):
        told = "; ".join(
            f"{len(keys)} {kind} ({', '.join(keys[:5])}{', ...' if keys[5:] else ''})"
            for kind, keys in problems.items()
            if keys
        )
        raise WeightsError(
            f"the LoRA does not fit the network's adapters: {told}. Nothing was loaded; use the "
            "rank and the targets that it was trained with."
        )
    for key, value in own.items():
        value.copy_(state[key])


@torch.no_grad()
def merged_state(unet: GenXDUNet, *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The weights of a plain network that does what the adapted one does.

    Args:
        unet: a network with or without adapters, of whole parameters; not changed.
        dtype: of the result; None for that of each weight. Merging itself is in float32.

    Returns:
        Every key of the plain network's state dict, in its order.
    """
    adapted = _adapted(unet)
    raw = {
        key.replace(".base_layer.", "."): value.detach()
        for key, value in unet.state_dict().items()
        if not any(f".{factor}." in key for factor in _FACTORS)
    }
    for name, layer in adapted.items():
        change = layer.scaling[_ADAPTER] * torch.mm(_weight(layer, "lora_B"), _weight(layer))
        weight = raw[f"{name}.weight"]
        raw[f"{name}.weight"] = (weight.float() + change).to(
            weight.dtype if dtype is None else dtype
        )
    if dtype is not None:
        raw = {key: value.to(dtype) for key, value in raw.items()}
    return raw


def comfy_lora_state(unet: GenXDUNet, *, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The adapters as ComfyUI's LoRA loaders read them, for the MODEL of GenXD Load Model.

    The generic names: where the module lies in a MODEL, and ``lora_up.weight`` (B),
    ``lora_down.weight`` (A) and ``alpha`` (a number; the loader divides it by the rank).

    Args:
        unet: a network with adapters.
        dtype: of the factors.

    Raises:
        InvalidInputError: the network has no adapters.
    """
    _factors(unet)
    state: dict[str, Tensor] = {}
    for name, layer in _adapted(unet).items():
        place = f"{_COMFY_PREFIX}.{name}"
        down, up = _weight(layer), _weight(layer, "lora_B")
        state[f"{place}.lora_up.weight"] = up.detach().to(dtype).contiguous()
        state[f"{place}.lora_down.weight"] = down.detach().to(dtype).contiguous()
        state[f"{place}.alpha"] = torch.tensor(layer.scaling[_ADAPTER] * len(down))
    return state


def _check(rank: int, alpha: float, dropout: float) -> None:
    if rank < 1:
        raise InvalidInputError(f"rank is {rank}, expected at least 1; 16 is usual.")
    if not 0.0 < alpha < float("inf"):
        raise InvalidInputError(f"alpha is {alpha}, expected a number above 0; the rank is usual.")
    if not 0.0 <= dropout < 1.0:
        raise InvalidInputError(f"dropout is {dropout}, expected a chance from 0 to below 1.")


def _target_modules(unet: GenXDUNet, targets: Sequence[str]) -> list[str]:
    """Whole names of the targets, so that peft has nothing to guess."""
    if not targets:
        raise InvalidInputError("targets is empty, expected names of linear layers such as 'to_q'.")
    modules = dict(unet.named_modules())
    chosen: dict[str, None] = {}
    for target in targets:
        found = [n for n in modules if n and (n == target or n.endswith(f".{target}"))]
        others = {type(modules[name]).__name__ for name in found} - {"Linear"}
        if not found or others:
            what = f"names a {min(others)}" if others else "names no module of the network"
            raise InvalidInputError(
                f"targets has {target!r}, which {what}; expected names of linear layers, such as "
                f"{', '.join(map(repr, ATTENTION_AND_FEED_FORWARD[:4]))} or 'proj_in'."
            )
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _adapted(unet: nn.Module) -> dict[str, Any]:
    """The layers with an adapter by their names in the plain network."""
    return {
        name: module
        for name, module in unet.named_modules()
        if hasattr(module, "base_layer") and hasattr(module, "lora_A")
    }


def _factors(unet: GenXDUNet) -> dict[str, Tensor]:
    found = {
        f"{name}.{factor}.weight": getattr(layer, factor)[_ADAPTER].weight
        for name, layer in _adapted(unet).items()
        for factor in _FACTORS
    }
    if not found:
        raise InvalidInputError("the network has no LoRA adapters; call add_lora on it first.")
    return found


def _weight(layer: Any, factor: str = "lora_A") -> Tensor:
    weight: Tensor = getattr(layer, factor)[_ADAPTER].weight
    return weight
