"""Micro-batches: mixed by weight, one mode each; a function of the run's seed and their number.

No state is kept: whichever process or worker makes number n makes the same one, so a run that goes
on, or goes on more devices, sees what it would have seen.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from genxd_core.data.clip_file import RejectedClipError
from genxd_core.data.sample import Provenance
from genxd_core.data.scene import BrokenSceneError

from .config import DataConfig, SourceConfig
from .sources import Clip, ClipSource, open_source

__all__ = ["BrokenScene", "MicroBatch", "MicroBatches", "load_micro_batches", "seeded_rng"]

_ATTEMPTS = 50  # at finding a whole scene, for one clip


@dataclass(frozen=True)
class BrokenScene:
    """A scene that could not be used, and why; rejected ones are whole, but not to be used."""

    source: str
    scene_id: str
    reason: str
    rejected: bool = False


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Clips of one mode and length.

    Attributes:
        number: counted over the whole run and all processes.
        mode: "3d", "video" or "4d".
        pixels: 8-bit pictures that are still to be encoded, or None.
        latents: scaled by the VAE's factor, or None.
        c2w: camera poses.
        Ks_norm: normalised intrinsics.
        motion_strength: what the network takes.
        provenance: of each clip.
        broken: scenes that were tried and could not be used.
        drawn: scenes that were tried, without rejected ones.
    """

    number: int
    mode: str
    pixels: UInt8[Tensor, "b v 3 h w"] | None
    latents: Float[Tensor, "b v 4 h w"] | None
    c2w: Float[Tensor, "b v 4 4"]
    Ks_norm: Float[Tensor, "b v 3 3"]
    motion_strength: Float[Tensor, "b"]
    provenance: tuple[Provenance, ...]
    broken: tuple[BrokenScene, ...]
    drawn: int


class MicroBatches(Dataset[MicroBatch]):
    """Micro-batches by number.

    Args:
        config: sources and batches.
        seed: of every choice.
        sources: by name; opened as the configuration says if not given.
    """

    def __init__(
        self, config: DataConfig, seed: int, sources: dict[str, ClipSource] | None = None
    ) -> None:
        self.config, self.seed = config, seed
        active = config.active_sources
        self.sources = sources or {s.name: open_source(s, config) for s in active}

    def __getitem__(self, number: int) -> MicroBatch:
        mode, views = self._block(number // self.config.mode_block)
        rng = seeded_rng(self.seed, "batch", number)
        source = _draw([s for s in self.config.active_sources if s.mode == mode], rng)
        clips: list[Clip] = []
        broken: list[BrokenScene] = []
        wanted = max(1, self.config.micro_batch * max(self.config.views) // views)
        while len(clips) < wanted:
            drawn = self._clip(source, views, rng)
            if isinstance(drawn, BrokenScene):
                broken.append(drawn)
                if len(broken) >= _ATTEMPTS:
                    raise BrokenSceneError(_too_many(source.name, broken))
            else:
                clips.append(drawn)
        return _stacked(number, mode, clips, broken)

    def _block(self, block: int) -> tuple[str, int]:
        """Mode and length of a block of micro-batches."""
        rng = seeded_rng(self.seed, "block", block)
        mode = _draw(self.config.active_sources, rng).mode
        lengths = self.config.views
        return mode, lengths[int(torch.randint(len(lengths), (), generator=rng))]

    def _clip(self, config: SourceConfig, views: int, rng: torch.Generator) -> Clip | BrokenScene:
        source = self.sources[config.name]
        place = int(torch.randint(len(source.scene_ids), (), generator=rng))
        scene_id = source.scene_ids[place]
        try:
            return source.draw(scene_id, views, rng)
        except BrokenSceneError as error:
            rejected = isinstance(error, RejectedClipError)
            return BrokenScene(config.name, scene_id, str(error), rejected)


class _Told(Dataset[MicroBatch | str]):
    """Micro-batches, or what is wrong with them: a worker's error would come with its traceback."""

    def __init__(self, batches: MicroBatches) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> MicroBatch | str:
        try:
            return self.batches[number]
        except BrokenSceneError as error:
            return str(error)


class _Numbers(Sampler[int]):
    """The numbers of one process: of every step its share, in order."""

    def __init__(self, first: int, last: int, rank: int, processes: int) -> None:
        self.numbers = range(first + rank, last, processes)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def load_micro_batches(
    batches: MicroBatches,
    *,
    first: int,
    last: int,
    rank: int = 0,
    processes: int = 1,
    pin_memory: bool = False,
) -> Iterator[MicroBatch]:
    """The micro-batches of one process, read ahead by workers, in order.

    Args:
        batches: what they are read from.
        first: number of the first micro-batch of all processes.
        last: one behind the last.
        rank: of this process.
        processes: how many share them; process r takes every ``processes``-th number from r on.
        pin_memory: for copies to a GPU that do not wait.

    Raises:
        BrokenSceneError: no usable scene was found in many attempts.
    """
    workers = batches.config.workers
    loader = DataLoader(
        _Told(batches),
        batch_size=None,
        sampler=_Numbers(first, last, rank, processes),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory,
    )
    for read in loader:
        if isinstance(read, str):
            raise BrokenSceneError(read)
        yield read


def seeded_rng(seed: int, purpose: str, number: int) -> torch.Generator:
    """A CPU generator for one purpose; streams of different purposes are independent."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _draw(sources: Sequence[SourceConfig], rng: torch.Generator) -> SourceConfig:
    pick = float(torch.rand((), generator=rng)) * sum(source.weight for source in sources)
    for source in sources:
        pick -= source.weight
        if pick < 0:
            return source
    return sources[-1]


def _too_many(name: str, broken: list[BrokenScene]) -> str:
    reasons = list(dict.fromkeys(scene.reason for scene in broken))
    told = " ".join(reasons[:3])
    return (
        f"source {name}: {len(broken)} scenes in a row cannot be used ({told}); mend its data, or "
        "change what is asked of it (trainer check tells)."
    )


def _stacked(number: int, mode: str, clips: list[Clip], broken: list[BrokenScene]) -> MicroBatch:
    pixels = [clip.pixels for clip in clips if clip.pixels is not None]
    latents = [clip.latents for clip in clips if clip.latents is not None]
    return MicroBatch(
        number,
        mode,
        torch.stack(pixels) if pixels else None,
        torch.stack(latents) if latents else None,
        torch.stack([clip.c2w for clip in clips]),
        torch.stack([clip.Ks_norm for clip in clips]),
        torch.tensor([clip.motion_strength for clip in clips]),
        tuple(clip.provenance for clip in clips),
        tuple(broken),
        len(clips) + sum(not scene.rejected for scene in broken),
    )
