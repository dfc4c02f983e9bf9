"""Which optimiser steps which weight, and the learning rate over a run."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from genxd_core.optional import require

from .config import RunConfig
from .muon import Muon

__all__ = ["build_optimizers", "cosine", "muon_and_adam", "set_rates", "share_of_peak"]


def build_optimizers(network: nn.Module, config: RunConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of a run, with their peak learning rates, of all that is trained.

    Raises:
        MissingDependencyError: 8-bit AdamW without bitsandbytes.
    """
    optim = config.optim
    named = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    if optim.name == "muon":
        return muon_and_adam(
            named,
            ends=("conv_in", "conv_out"),
            muon_lr=optim.muon_lr,
            adam_lr=optim.lr,
            weight_decay=optim.weight_decay,
            muon_dtype=torch.bfloat16 if config.engine.mixed_precision == "bf16" else None,
        )
    kind: Any = torch.optim.AdamW
    if optim.name == "adamw8bit":
        kind = require(
            "bitsandbytes",
            extra="adamw8bit",
            purpose="keep AdamW's state in 8 bits",
            instead="Or set optim.name=adamw.",
        ).optim.AdamW8bit
    adam: torch.optim.Optimizer = kind(
        [value for _, value in named], lr=optim.lr, weight_decay=optim.weight_decay
    )
    adam.param_groups[0]["peak_lr"] = optim.lr
    return [adam]


def share_of_peak(step: int, config: RunConfig) -> float:
    """The learning rate of a step as a share of its peak."""
    optim = config.optim
    last = 1.0 if optim.schedule == "constant" else optim.final_share
    return cosine(step, config.engine.steps, warmup=optim.warmup, last=last)


def muon_and_adam(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    ends: Sequence[str],
    muon_lr: float,
    adam_lr: float,
    weight_decay: float = 0.0,
    muon_dtype: torch.dtype | None = None,
) -> list[torch.optim.Optimizer]:
    """Muon for the inner layers' matrices; AdamW for norms, biases and the layers at both ends.

    Args:
        named: parameters with their names.
        ends: parts of names of first and last layers.
        muon_lr: peak learning rate of Muon.
        adam_lr: peak learning rate of AdamW.
        weight_decay: of the matrices.
        muon_dtype: of Muon's iterations; None for that of the weights.
    """
    named = list(named)
    inner = [p for n, p in named if p.dim() >= 2 and not any(end in n for end in ends)]
    chosen = {id(p) for p in inner}
    others = [p for _, p in named if id(p) not in chosen]
    muon = Muon(inner, lr=muon_lr, weight_decay=weight_decay, dtype=muon_dtype)
    adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.99), weight_decay=0.0)
    for optimizer, peak in ((muon, muon_lr), (adam, adam_lr)):
        for group in optimizer.param_groups:
            group["peak_lr"] = peak
    return [muon, adam]


def set_rates(optimizers: Iterable[torch.optim.Optimizer], share: float) -> None:
    """Set every learning rate to a share of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share


def cosine(step: int, steps: int, *, warmup: int, last: float) -> float:
    """Linear warm-up, then a cosine down to ``last``; a share of the peak."""
    ramp = min(1.0, (step + 1) / max(1, warmup))
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return ramp * (last + (1 - last) * fall)
