"""Encoded scenes on disk: shards of latents and cameras, whose frames are read one clip at a time.

A shard is a safetensors file of some scenes, one behind the other:

    latents      (n, 4, h, w)  float16, scaled by the VAE's factor
    c2w          (n, 4, 4)     float32, in the dataset's units
    Ks_norm      (n, 3, 3)     float32, of the fitted pictures
    times        (n,)          float32, NaN where no time passes
    view_depths  (n,)          float32, NaN where unknown

Its metadata tells the scenes (where each begins, its kind and strength) and what made the latents.
They lie in ``<latents>/<source>/<fit>/``.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genxd_core.data.scene import MeasuredMotion, SceneKind
from genxd_core.errors import InvalidInputError
from genxd_core.files import write_atomically

__all__ = ["EncodedScene", "LatentShards", "ShardedScene", "write_shard"]

_FORMAT = "genxd-latents-1"


@dataclass(frozen=True, eq=False)
class EncodedScene:
    """A scene's latents and cameras, to be written.

    Attributes:
        scene_id: of the scene.
        kind: "3d" or "4d".
        motion: measured strength, or None.
        ordered: as `genxd_core.data.scene.Scene` has it.
        tensors: by the names above, one row a frame.
    """

    scene_id: str
    kind: SceneKind
    motion: MeasuredMotion | None
    ordered: bool
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class ShardedScene:
    """Where an encoded scene lies, and what is known of it."""

    scene_id: str
    kind: SceneKind
    motion: MeasuredMotion | None
    ordered: bool
    file: Path
    start: int
    count: int


def write_shard(path: Path, scenes: Sequence[EncodedScene], made_by: dict[str, Any]) -> None:
    """Write scenes to a file, whole or not at all.

    Args:
        path: of the file.
        scenes: at least one.
        made_by: what the latents depend on (VAE, size, fit); must agree within a folder.
    """
    listed, start = [], 0
    for scene in scenes:
        count = len(scene.tensors["latents"])
        motion = None if scene.motion is None else asdict(scene.motion)
        entry = {"id": scene.scene_id, "kind": scene.kind, "motion": motion}
        listed.append({**entry, "ordered": scene.ordered, "start": start, "count": count})
        start += count
    names = scenes[0].tensors
    tensors = {n: torch.cat([s.tensors[n] for s in scenes]).contiguous() for n in names}
    meta = {
        "format": _FORMAT,
        "scenes": json.dumps(listed),
        "made_by": json.dumps(made_by, sort_keys=True),
    }
    write_atomically(path, partial(save_file, tensors, metadata=meta))


class LatentShards:
    """All encoded scenes of a folder. Only headers are read until frames are asked for.

    Args:
        folder: of the shards.

    Raises:
        InvalidInputError: there are none, one is damaged, or they were made differently.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not files:
            raise InvalidInputError(
                f"data.latents has no encoded clips in {folder}; make them with "
                "python -m trainer encode, or set data.latents=null to encode while training."
            )
        self.scenes: dict[str, ShardedScene] = {}
        self.made_by: dict[str, Any] | None = None
        for file in files:
            self._add(file)
        self._open: dict[Path, Any] = {}

    def _add(self, file: Path) -> None:
        try:
            with safe_open(file, framework="pt") as opened:
                meta = opened.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise InvalidInputError(
                f"{file} is damaged ({error}); delete it and encode again."
            ) from error
        if meta.get("format") != _FORMAT:
            raise InvalidInputError(
                f"{file} is no shard of encoded clips (format {meta.get('format')!r}, expected "
                f"{_FORMAT!r}); delete it and encode again."
            )
        made_by = json.loads(meta["made_by"])
        if self.made_by not in (None, made_by):
            raise InvalidInputError(
                f"{file} was made with {made_by}, its neighbours with {self.made_by}; encode them "
                "all in the same way."
            )
        self.made_by = made_by
        for entry in json.loads(meta["scenes"]):
            motion = entry["motion"]
            if motion is not None:
                others = {int(stride): gamma for stride, gamma in motion["measured"].items()}
                motion = MeasuredMotion(motion["gamma"], motion["stride"], others)
            where = (entry["ordered"], file, entry["start"], entry["count"])
            self.scenes[entry["id"]] = ShardedScene(entry["id"], entry["kind"], motion, *where)

    def read(self, scene_id: str, name: str, indices: Sequence[int]) -> Float[Tensor, "v ..."]:
        """Some frames' rows of a tensor, as float32."""
        scene = self.scenes[scene_id]
        if scene.file not in self._open:
            # Files stay open (memory-mapped), each process its own.
            self._open[scene.file] = safe_open(scene.file, framework="pt")
        first, last = min(indices), max(indices)
        rows = self._open[scene.file].get_slice(name)[scene.start + first : scene.start + last + 1]
        picked: Tensor = rows[torch.tensor(indices) - first].float()
        return picked

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: each process opens its own."""
        return {**self.__dict__, "_open": {}}
