"""Micro-batches of encoded clips: mixed by weight, one mode each, in an order fixed by the seed."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from genxd_core.errors import InvalidInputError
from genxd_core.model.motion_strength import gamma_to_motion_strength

from .config import MixEntry, RunConfig
from .step import Batch

__all__ = ["ClipStore", "draw_batch"]


class ClipStore:
    """All encoded clips of a folder, in memory; picks up shards that appear later."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: set[str] = set()
        self._clips: dict[str, list[dict[str, Tensor]]] = {}
        self.refresh()

    def refresh(self) -> int:
        """Load shards that are new in the folder; returns how many."""
        new = [p for p in sorted(self.folder.glob("*.safetensors")) if p.name not in self._seen]
        for path in new:
            family = path.stem.rsplit("_", 1)[0]
            self._clips.setdefault(family, []).append(load_file(path))
            self._seen.add(path.name)
        return len(new)

    def expect(self, families: list[str]) -> None:
        """Refuse a folder that lacks clips.

        Raises:
            InvalidInputError: there are none of a family.
        """
        missing = [family for family in families if not self.count(family)]
        if missing:
            raise InvalidInputError(
                f"shards is {self.folder}, which has no clips of {', '.join(missing)}; encode some "
                "there first (python -m trainer render, then encode)."
            )

    def count(self, family: str) -> int:
        """How many clips of a family there are."""
        return sum(len(shard["gamma"]) for shard in self._clips.get(family, []))

    def take(self, family: str, indices: list[int]) -> dict[str, Tensor]:
        """Some clips of a family, stacked."""
        rows: list[dict[str, Tensor]] = []
        for index in indices:
            for shard in self._clips[family]:
                if index < len(shard["gamma"]):
                    rows.append({key: value[index] for key, value in shard.items()})
                    break
                index -= len(shard["gamma"])
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def draw_batch(store: ClipStore, config: RunConfig, rng: torch.Generator) -> Batch:
    """Draw one micro-batch.

    A shorter clip is every second frame of a stored one, or a run of neighbouring ones; 3D clips
    may also be reversed. The motion strength goes with the stride.

    Args:
        store: where clips come from.
        config: mix, lengths, size of the batch.
        rng: CPU generator of every random choice.
    """
    entry = _draw_entry(list(config.mix), rng)
    length = config.clip_lengths[int(torch.randint(len(config.clip_lengths), (), generator=rng))]
    size = max(1, config.frames_per_step // length)
    indices = torch.randint(store.count(entry.family), (size,), generator=rng).tolist()
    clips = store.take(entry.family, indices)
    stored = clips["latents"].shape[1]
    stride = 2 if 2 * length <= stored and float(torch.rand((), generator=rng)) < 0.5 else 1
    # A moving object's flight starts at frame 0; a still scene may be entered anywhere.
    latest = stored - stride * (length - 1) - 1 if entry.mode == "3d" else 0
    start = int(torch.randint(latest + 1, (), generator=rng))
    frames = start + stride * torch.arange(length)
    if entry.mode == "3d" and float(torch.rand((), generator=rng)) < 0.5:
        frames = frames.flip(0)
    gammas = clips["gamma"][:, stride - 1].tolist()
    return Batch(
        latents=clips["latents"][:, frames].float(),
        c2w=clips["c2w"][:, frames],
        Ks_norm=clips["Ks_norm"][:, frames],
        motion_strength=torch.tensor([gamma_to_motion_strength(g) for g in gammas]),
        mode=entry.mode,
    )


def _draw_entry(entries: list[MixEntry], rng: torch.Generator) -> MixEntry:
    pick = float(torch.rand((), generator=rng)) * sum(entry.weight for entry in entries)
    for entry in entries:
        pick -= entry.weight
        if pick < 0:
            return entry
    return entries[-1]
