"""Encoding of whole datasets: every scene's frames through the VAE, into shards of latents."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from genxd_core.autoencoder import ENCODED_AT_ONCE, Autoencoder
from genxd_core.data.clip_file import RejectedClipError
from genxd_core.data.sample import SamplePolicy, take_frames
from genxd_core.data.sampling import DrawnFrames
from genxd_core.data.scene import BrokenSceneError, Scene, SceneDataset
from genxd_core.errors import InvalidInputError
from genxd_core.files import sha256_of, write_atomically
from genxd_core.fitting import FitMode

from .config import DataConfig, SourceConfig
from .latent_shards import EncodedScene, write_shard
from .sources import folder_of, open_source_dataset, sample_policy

__all__ = ["EncodeJob", "Encoded", "encode_source"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EncodeJob:
    """What is encoded, and by whom.

    Attributes:
        out: folder of all sources' shards (``data.latents`` of the run).
        scenes_per_shard: scenes in a file.
        part: of the shards, for several processes or machines: this one makes the shards whose
            number is ``part`` modulo ``parts``.
        parts: see above.
        max_broken: share of broken scenes above which encoding stops.
    """

    out: Path
    scenes_per_shard: int = 64
    part: int = 0
    parts: int = 1
    max_broken: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.parts:
            raise InvalidInputError(
                f"part is {self.part} of {self.parts} parts, expected 0 to {self.parts - 1}."
            )
        if self.scenes_per_shard < 1:
            raise InvalidInputError(
                f"scenes_per_shard is {self.scenes_per_shard}, expected at least 1."
            )


@dataclass(frozen=True)
class Encoded:
    """What was done: shards written, shards that were there, scenes in them, broken scenes."""

    written: int
    kept: int
    scenes: int
    broken: tuple[tuple[str, str], ...]


def encode_source(
    source: SourceConfig, data: DataConfig, vae: Autoencoder, vae_folder: Path, job: EncodeJob
) -> Encoded:
    """Encode all scenes of a source that are not encoded yet; a killed job goes on.

    Args:
        source: what to encode.
        data: size and fit; with "either" both are made.
        vae: of the model.
        vae_folder: its files; their checksum is kept with the latents.
        job: where to, and which part.

    Raises:
        InvalidInputError: the dataset cannot be opened, or too many scenes are broken.
    """
    dataset = open_source_dataset(source)
    ids = list(dataset.scene_ids)
    chunks = [ids[i : i + job.scenes_per_shard] for i in range(0, len(ids), job.scenes_per_shard)]
    fits: tuple[FitMode, ...] = ("crop", "pad") if data.fit == "either" else (data.fit,)
    made_by = {"size": data.size, "vae": _vae_checksum(vae_folder), "dataset": source.dataset}
    total = Encoded(0, 0, 0, ())
    for fit in fits:
        folder = folder_of(job.out, source.name, fit)
        work = _Work(dataset, sample_policy(source, data), fit, vae, {**made_by, "fit": fit})
        numbers = range(job.part, len(chunks), job.parts)
        for number in tqdm(numbers, desc=f"{source.name} ({fit})", unit="shard"):
            path = folder / f"{number:06d}.safetensors"
            if path.exists():
                total = replace(total, kept=total.kept + 1)
                continue
            written, broken = work.shard(path, chunks[number])
            total = Encoded(
                total.written + bool(written),
                total.kept,
                total.scenes + written,
                (*total.broken, *broken),
            )
            _check_broken(total, source.name, job)
    _report_broken(job.out / source.name / f"broken_{job.part}.json", total.broken)
    return total


@dataclass(frozen=True)
class _Work:
    dataset: SceneDataset
    policy: SamplePolicy
    fit: FitMode
    vae: Autoencoder
    made_by: dict[str, Any]

    def shard(self, path: Path, ids: Sequence[str]) -> tuple[int, list[tuple[str, str]]]:
        """Encode some scenes into a file; how many there are in it, and which are broken."""
        done: list[EncodedScene] = []
        broken: list[tuple[str, str]] = []
        for scene_id in ids:
            try:
                done.append(self._scene(self.dataset.scene(scene_id)))
            except RejectedClipError as error:
                _log.info("not encoded: %s", error)
            except BrokenSceneError as error:
                broken.append((scene_id, str(error)))
        if done:
            write_shard(path, done, self.made_by)
        return len(done), broken

    def _scene(self, scene: Scene) -> EncodedScene:
        # Some frames at a time: a long scene at full size would not fit.
        rows: dict[str, list[Tensor]] = {}
        policy = replace(self.policy, scale="none")
        still = replace(scene, kind="3d", motion=None)
        for chunk in torch.arange(len(scene.cameras)).split(ENCODED_AT_ONCE):
            drawn = DrawnFrames(tuple(chunk.tolist()), 1)
            sample = take_frames(still, "", drawn, policy, self.fit)
            latents = self.vae.encode(sample.images)
            rows.setdefault("latents", []).append(latents.half().cpu())
            rows.setdefault("c2w", []).append(sample.cameras.c2w)
            rows.setdefault("Ks_norm", []).append(sample.cameras.Ks_norm)
        count = len(scene.cameras)
        unknown = torch.full((count,), torch.nan)
        times, depths = scene.cameras.times, scene.view_depths
        rows["times"] = [unknown if times is None else times.float()]
        rows["view_depths"] = [unknown if depths is None else depths.float()]
        tensors = {name: torch.cat(parts) for name, parts in rows.items()}
        return EncodedScene(scene.scene_id, scene.kind, scene.motion, scene.ordered, tensors)


def _vae_checksum(folder: Path) -> str:
    files = sorted(folder.rglob("*.safetensors"))
    return sha256_of(files[0])[:16] if files else ""


def _check_broken(total: Encoded, name: str, job: EncodeJob) -> None:
    tried = total.scenes + len(total.broken)
    if tried >= 20 and len(total.broken) > job.max_broken * tried:
        told = "; ".join(f"{scene}: {reason}" for scene, reason in total.broken[:3])
        raise InvalidInputError(
            f"source {name}: {len(total.broken)} of {tried} scenes are broken, more than "
            f"max_broken {job.max_broken:g} ({told}); mend the data, or raise max_broken."
        )


def _report_broken(path: Path, broken: Sequence[tuple[str, str]]) -> None:
    for scene, reason in broken:
        _log.warning("left out %s: %s", scene, reason)
    if broken:
        listed = [{"scene": scene, "reason": reason} for scene, reason in broken]
        text = json.dumps(listed, indent=2)
        write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
