"""Training state on disk: written atomically, read without unpickling code."""

from pathlib import Path
from typing import Any

import torch

from genxd_core.files import write_atomically

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values to ``path``; a kill leaves the old file or the new one."""
    write_atomically(path, lambda p: torch.save(state, p))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
