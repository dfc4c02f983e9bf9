"""Sources of clips: a dataset's pictures, or its encoded latents, by one interface."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genxd_core.cameras.cameras import Cameras
from genxd_core.cameras.conventions import scale_cameras
from genxd_core.data.registry import open_dataset
from genxd_core.data.sample import Provenance, SamplePolicy, draw_sample, scene_scale
from genxd_core.data.sampling import draw_frames
from genxd_core.data.scene import BrokenSceneError, SceneDataset, SceneKind
from genxd_core.errors import InvalidInputError
from genxd_core.model.motion_strength import gamma_to_motion_strength

from .config import DataConfig, SourceConfig
from .latent_shards import LatentShards

__all__ = ["Clip", "ClipSource", "LatentSource", "PictureSource", "open_source", "split_scenes"]


@dataclass(frozen=True, eq=False)
class Clip:
    """V frames of a scene: pictures that are still to be encoded, or latents.

    Attributes:
        pixels: 8-bit pictures, or None.
        latents: scaled by the VAE's factor, or None.
        c2w: camera poses, OpenCV axes.
        Ks_norm: normalised intrinsics.
        motion_strength: what the network takes.
        provenance: where it comes from.
    """

    pixels: UInt8[Tensor, "v 3 h w"] | None
    latents: Float[Tensor, "v 4 h w"] | None
    c2w: Float[Tensor, "v 4 4"]
    Ks_norm: Float[Tensor, "v 3 3"]
    motion_strength: float
    provenance: Provenance


class ClipSource(Protocol):
    """What batches are drawn from."""

    scene_ids: Sequence[str]

    def draw(self, scene_id: str, views: int, rng: torch.Generator) -> Clip:
        """A clip of a scene.

        Raises:
            BrokenSceneError: the scene cannot be used.
        """
        ...


def split_scenes(scene_ids: Sequence[str], held_out: int) -> tuple[list[str], list[str]]:
    """Scenes to train on and scenes held out.

    Chosen by a hash of their names, so that scenes which join or leave a dataset later change
    little of it.

    Raises:
        InvalidInputError: nothing is left to train on.
    """
    if held_out and held_out >= len(scene_ids):
        raise InvalidInputError(
            f"held_out is {held_out} of {len(scene_ids)} scenes, which leaves none to train on."
        )
    ranked = sorted(scene_ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return sorted(ranked[held_out:]), sorted(ranked[:held_out])


def open_source(config: SourceConfig, data: DataConfig, *, held_out: bool = False) -> ClipSource:
    """A source of the run's training scenes, or of those it holds out.

    Raises:
        InvalidInputError: a folder is missing, empty or of another layout, or an option unknown.
    """
    if data.latents is not None:
        return LatentSource(config, data, held_out=held_out)
    return PictureSource(config, data, held_out=held_out)


def sample_policy(config: SourceConfig, data: DataConfig) -> SamplePolicy:
    """How clips of a source are drawn."""
    return SamplePolicy(size=data.size, fit=data.fit, frames=config.frames, scale=config.scale)


def open_source_dataset(config: SourceConfig) -> SceneDataset:
    """The dataset of a source, if it fits the mode and the scale.

    Raises:
        InvalidInputError: see `genxd_core.data.registry.open_dataset`; or a still dataset is to be
            run in a moving mode, or the other way round; or scaled by a depth that it lacks.
    """
    where = f"data.sources.{config.name}"
    dataset = open_dataset(config.dataset, config.root, **config.options)
    expected: SceneKind = "3d" if config.mode == "3d" else "4d"
    if dataset.kind != expected:
        raise InvalidInputError(
            f"{where}.mode is {config.mode!r}, but {config.dataset} has {dataset.kind!r} scenes; "
            f"set it to {'3d' if dataset.kind == '3d' else '4d or video'}."
        )
    if config.scale == "depth" and not dataset.has_depth:
        raise InvalidInputError(
            f"{where}.scale is 'depth', but {config.dataset} tells no depth; set it to none."
        )
    return dataset


class PictureSource:
    """Clips of pictures, as `genxd_core.data.sample.draw_sample` makes them."""

    def __init__(self, config: SourceConfig, data: DataConfig, *, held_out: bool = False) -> None:
        self.config, self.policy = config, sample_policy(config, data)
        self.dataset = open_source_dataset(config)
        self.scene_ids: Sequence[str] = _part(self.dataset.scene_ids, config, held_out)

    def draw(self, scene_id: str, views: int, rng: torch.Generator) -> Clip:
        """A clip of a scene; see `ClipSource`."""
        scene = self.dataset.scene(scene_id)
        sample = draw_sample(scene, self.config.name, views, self.policy, rng)
        return Clip(
            (sample.images * 255).round().to(torch.uint8),
            None,
            sample.cameras.c2w,
            sample.cameras.Ks_norm,
            sample.motion_strength,
            sample.provenance,
        )


class LatentSource:
    """Clips of encoded scenes, of the folder ``<latents>/<source>/<fit>``."""

    def __init__(self, config: SourceConfig, data: DataConfig, *, held_out: bool = False) -> None:
        assert data.latents is not None
        self.config = config
        fits = ("crop", "pad") if data.fit == "either" else (data.fit,)
        self.shards = [LatentShards(folder_of(data.latents, config.name, fit)) for fit in fits]
        for shards in self.shards:
            _check_size(shards, data.size)
        shared = set.intersection(*(set(shards.scenes) for shards in self.shards))
        self.scene_ids: Sequence[str] = _part(sorted(shared), config, held_out)

    def draw(self, scene_id: str, views: int, rng: torch.Generator) -> Clip:
        """A clip of a scene; see `ClipSource`."""
        place = int(torch.randint(len(self.shards), (), generator=rng))
        shards = self.shards[place]
        scene, where = shards.scenes[scene_id], f"scene {scene_id}"
        drawn = draw_frames(
            scene.count,
            views,
            scene.kind,
            self.config.frames,
            rng,
            ordered=scene.ordered,
            where=where,
        )

        def rows(name: str) -> Tensor:
            return shards.read(scene_id, name, drawn.indices)

        depth = float(rows("view_depths")[0]) if self.config.scale == "depth" else None
        cameras = scale_cameras(
            Cameras(rows("c2w"), rows("Ks_norm")), scene_scale(where, drawn.indices[0], depth)
        )
        gamma = 0.0
        if scene.kind == "4d":
            if scene.motion is None:
                raise BrokenSceneError(f"{where} moves and has no measured motion strength.")
            gamma = scene.motion.gamma_at(drawn.stride)
        return Clip(
            None,
            rows("latents"),
            cameras.c2w,
            cameras.Ks_norm,
            gamma_to_motion_strength(gamma),
            Provenance(self.config.name, scene_id, drawn.indices, tuple(map(str, drawn.indices))),
        )


def _part(scene_ids: Sequence[str], config: SourceConfig, held_out: bool) -> list[str]:
    train, kept = split_scenes(scene_ids, config.held_out)
    chosen = kept if held_out else train
    if not chosen and not held_out:
        raise InvalidInputError(f"data.sources.{config.name} has no scenes in {config.root}.")
    return chosen


def _check_size(shards: LatentShards, size: int) -> None:
    made: Any = (shards.made_by or {}).get("size")
    if made != size:
        raise InvalidInputError(
            f"data.size is {size}, but {shards.folder} holds clips encoded at {made}; set "
            f"data.size={made}, or encode again."
        )


def folder_of(latents: Path, source: str, fit: str) -> Path:
    """Where a source's encoded clips lie."""
    return latents / source / fit
