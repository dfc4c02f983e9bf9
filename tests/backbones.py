"""Files of the networks of perceptual models, with random weights."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from genxd_core.lifting.backbones import BACKBONES
from tests.support import seeded

__all__ = ["random_backbone", "save_random_backbone"]


def random_backbone(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Weights by torchvision's keys, of a size that keeps the features' one."""
    generator, state = seeded(seed), {}
    for key, shape in BACKBONES[name].shapes.items():
        values = torch.randn(shape, generator=generator)
        fan_in = values[0].numel()
        state[key] = values * ((2 / fan_in) ** 0.5 if values.ndim == 4 else 0.1)
    return state


def save_random_backbone(path: Path, name: str = "squeeze", seed: int = 0) -> Path:
    """Write such a network with a classifier behind it, as torchvision does; returns the path."""
    state = random_backbone(name, seed) | {"classifier.1.bias": torch.zeros(10)}
    write: Callable[[dict[str, Tensor], Path], None] = (
        save_file if path.suffix == ".safetensors" else torch.save
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write(state, path)
    return path
