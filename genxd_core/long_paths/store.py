"""What finished groups left, so that a stopped run can go on; in memory, bounded."""

import hashlib
import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras

__all__ = ["PathStore", "StorePart", "fingerprint", "identity"]

Latents = Float[Tensor, "c h w"]


class PathStore:
    """Latents of finished cameras, by what made them. Safe to share between threads.

    Args:
        max_runs: how many runs are kept; the one not used for longest goes first.
        max_bytes: of all latents together. A camera of 256 x 256 pixels takes 16 KiB. A run that
            is larger by itself is not kept.
    """

    def __init__(self, *, max_runs: int = 8, max_bytes: int = 512 * 2**20) -> None:
        self.max_runs, self.max_bytes = max_runs, max_bytes
        self._runs: OrderedDict[str, dict[int, Tensor]] = OrderedDict()
        self._lock = threading.Lock()

    def finished(self, key: str) -> dict[int, Latents]:
        """Latents by camera of a run, as far as it came; empty for an unknown one."""
        with self._lock:
            if key in self._runs:
                self._runs.move_to_end(key)
            return dict(self._runs.get(key, {}))

    def add(self, key: str, latents: Mapping[int, Latents]) -> None:
        """Keep what a group left, and let go of old runs that there is no room for."""
        with self._lock:
            run = self._runs.setdefault(key, {})
            run.update(
                {camera: latent.detach().cpu().clone() for camera, latent in latents.items()}
            )
            self._runs.move_to_end(key)
            while self._runs and (
                len(self._runs) > self.max_runs or self._num_bytes() > self.max_bytes
            ):
                self._runs.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._runs.clear()

    @property
    def num_bytes(self) -> int:
        """Memory in use, bytes."""
        with self._lock:
            return self._num_bytes()

    def _num_bytes(self) -> int:
        return sum(latent.nbytes for run in self._runs.values() for latent in run.values())


class StorePart(PathStore):
    """A part of a run that is kept with the run's other parts, under one key.

    Args:
        whole: where it is kept.
        number: of the part, from 0.
    """

    _ROOM = 2**32

    def __init__(self, whole: PathStore, number: int) -> None:
        super().__init__(max_runs=0)
        self._whole, self._first = whole, number * self._ROOM

    def finished(self, key: str) -> dict[int, Latents]:
        """Latents of this part, by number from 0."""
        every = self._whole.finished(key).items()
        places = range(self._first, self._first + self._ROOM)
        return {place - self._first: latent for place, latent in every if place in places}

    def add(self, key: str, latents: Mapping[int, Latents]) -> None:
        """Keep latents of this part."""
        self._whole.add(key, {self._first + place: one for place, one in latents.items()})


_numbers = itertools.count()
_known: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()


def identity(thing: object) -> int:
    """A number for an object that no other one ever gets, unlike ``id``, which is used again.

    It says nothing of what is inside: a network whose weights are changed in place keeps it.
    """
    if thing not in _known:
        _known[thing] = next(_numbers)
    return _known[thing]


def fingerprint(**settings: Any) -> str:
    """A key of everything that changes a result.

    Args:
        settings: tensors, cameras, and what has a ``repr`` of its own: numbers, texts, tuples,
            dataclasses of these.
    """
    digest = hashlib.sha256()
    for name, value in sorted(settings.items()):
        digest.update(f"\n{name}=".encode())
        if isinstance(value, Cameras):
            value = torch.cat([value.c2w.flatten(1), value.Ks_norm.flatten(1)], dim=1)
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
