"""Training state on disk: written atomically, read without unpickling code."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from genxd_core.errors import InvalidInputError
from genxd_core.files import write_atomically

from .config import RunConfig
from .settings import differences, to_record

__all__ = ["check_same_run", "load_checkpoint", "remove_unfinished", "save_checkpoint"]

# What may change when a run goes on: how long it takes, and how it is watched and computed.
_MAY_CHANGE = (
    "out",
    "engine.steps",
    "engine.log_every",
    "engine.save_every",
    "engine.keep_every",
    "engine.trackers",
    "engine.threads",
    "engine.sharding",
    "validation.",
    "data.workers",
    "data.max_broken",
    "data.latents",
    "model.gradient_checkpointing",
    "model.vae",
    "model.start_from",
)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values to ``path``; a kill leaves the old file or the new one."""
    write_atomically(path, lambda p: torch.save(state, p))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        InvalidInputError: the file is damaged, or of another program.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise InvalidInputError(
            f"{path} cannot be read as a checkpoint ({str(error).splitlines()[0]}); restore it, or "
            "train in another folder."
        ) from error
    return state


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill in the middle of writing left in a run's folder."""
    for unfinished in folder.rglob(".*.part.*"):
        unfinished.unlink(missing_ok=True)


def check_same_run(config: RunConfig) -> None:
    """Write ``run.json``, unless the folder holds a run of another configuration.

    Raises:
        InvalidInputError: naming the fields that differ.
    """
    file = config.out / "run.json"
    record = json.loads(json.dumps(to_record(config)))
    if (config.out / "state.pt").exists() and file.exists():
        earlier = json.loads(file.read_text(encoding="utf-8"))
        wrong = {
            name: values
            for name, values in differences(earlier, record).items()
            if not _may_change(name)
        }
        if wrong:
            told = "; ".join(f"{n} was {a!r} and is {b!r}" for n, (a, b) in wrong.items())
            raise InvalidInputError(
                f"out is {config.out}, which holds a run of another configuration: {told}. Go on "
                "with the earlier values, or choose another folder."
            )
    text = json.dumps(record, indent=2) + "\n"
    write_atomically(file, lambda p: p.write_text(text, encoding="utf-8"))


def _may_change(name: str) -> bool:
    if name.startswith("data.sources.") and name.endswith(".root"):
        return True
    return any(
        name == free or (free.endswith(".") and name.startswith(free)) for free in _MAY_CHANGE
    )
