"""The state of a run, whole or sharded, as plain tensors by name: for checkpoints and weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = [
    "full",
    "load_optimizers",
    "load_parameters",
    "optimizer_states",
    "parameters",
    "shared_as",
]


def full(value: Tensor) -> Tensor:
    """A tensor as a whole on the CPU; all processes must call it on one that is sharded."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().cpu()


def parameters(network: nn.Module) -> dict[str, Tensor]:
    """What is trained, by name."""
    return {n: full(p) for n, p in network.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_parameters(network: nn.Module, values: dict[str, Tensor]) -> None:
    """Put back what `parameters` gave."""
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(shared_as(values[name], parameter))


def optimizer_states(
    network: nn.Module, optimizers: Iterable[torch.optim.Optimizer]
) -> list[dict[str, dict[str, Any]]]:
    """Each optimiser's state by the names of its parameters; those never stepped have none."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    states = []
    for optimizer in optimizers:
        found: dict[str, dict[str, Any]] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                found[names[id(parameter)]] = {
                    key: full(value) if isinstance(value, Tensor) else value
                    for key, value in state.items()
                }
        states.append({name: state for name, state in found.items() if state})
    return states


def load_optimizers(
    network: nn.Module,
    optimizers: Iterable[torch.optim.Optimizer],
    states: list[dict[str, dict[str, Any]]],
) -> None:
    """Put back what `optimizer_states` gave."""
    by_name = dict(network.named_parameters())
    for optimizer, saved in zip(optimizers, states, strict=True):
        for name, state in saved.items():
            parameter = by_name[name]
            optimizer.state[parameter] = {
                key: _state_value(key, value, parameter) for key, value in state.items()
            }


def _state_value(key: str, value: Any, parameter: Tensor) -> Any:
    # PyTorch keeps the number of steps on the CPU.
    if not isinstance(value, Tensor) or key == "step":
        return value
    return (
        shared_as(value, parameter)
        if value.shape == parameter.shape
        else value.to(parameter.device)
    )


def shared_as(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor on the parameter's device, divided as the parameter is."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
