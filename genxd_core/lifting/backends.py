"""Which rasteriser draws: gsplat on CUDA, numba on the CPU, plain PyTorch everywhere."""

import functools
import importlib
import importlib.util
import logging
import threading
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..errors import InvalidInputError, MissingDependencyError

__all__ = [
    "Backend",
    "BackendStatus",
    "active_backend",
    "backend_status",
    "choose_backend",
    "drawing_device",
]

Backend = Literal["auto", "gsplat", "numba", "torch"]

_log = logging.getLogger(__name__)
_probing = threading.Lock()


@dataclass(frozen=True)
class BackendStatus:
    """Whether a rasteriser can be used, and why (not).

    Attributes:
        name: "gsplat", "numba" or "torch".
        usable: on the device in question.
        reason: in words.
    """

    name: str
    usable: bool
    reason: str


def backend_status(device: torch.device | str) -> list[BackendStatus]:
    """What may draw Gaussians that lie on a device, best first.

    gsplat is not even imported unless torch has a CUDA device; then one Gaussian is rendered with
    it, once in a process, which can take minutes while its kernels are compiled. numba compiles for
    some seconds when it draws for the first time on a machine.
    """
    kind = torch.device(device).type
    found = []
    if kind == "cuda":
        found.append(_probe_gsplat())
    elif not torch.cuda.is_available():
        found.append(BackendStatus("gsplat", False, "torch finds no CUDA device"))
    else:
        found.append(BackendStatus("gsplat", False, f"draws on CUDA, not on {kind}"))
    if kind == "cpu":
        found.append(_probe_numba())
    else:
        found.append(BackendStatus("numba", False, f"draws on the CPU, not on {kind}"))
    found.append(BackendStatus("torch", True, "plain PyTorch, runs on any device"))
    return found


def active_backend(device: torch.device | str = "cpu") -> BackendStatus:
    """What ``backend="auto"`` means for Gaussians on a device; the reason says what it is not."""
    refused: list[str] = []
    for status in backend_status(device):
        if status.usable:
            reason = "; ".join([status.reason, *refused])
            return BackendStatus(status.name, True, reason)
        refused.append(f"not {status.name}: {status.reason}")
    raise AssertionError("the torch backend is always usable")


def drawing_device(preferred: torch.device | str) -> torch.device:
    """Where to draw pictures without gradients, given a device that one would like to use.

    That device, if gsplat works on it; else the CPU, if numba works there; else that device with
    plain PyTorch if it is a CUDA one, on which that is known to run, and the CPU if not.
    """
    wanted = torch.device(preferred)
    if wanted.type == "cpu" or active_backend(wanted).name != "torch":
        return wanted
    cpu = torch.device("cpu")
    if active_backend(cpu).name != "torch":
        return cpu
    return wanted if wanted.type == "cuda" else cpu


def choose_backend(backend: str, device: torch.device | str) -> str:
    """The rasteriser for a request: "gsplat", "numba" or "torch".

    Args:
        backend: what was asked for; "auto" takes the best that works.
        device: where the Gaussians lie.

    Raises:
        InvalidInputError: there is no such backend, or it cannot draw on this device.
        MissingDependencyError: the package that was asked for is not installed.
    """
    if backend == "torch":
        return backend
    if backend == "auto":
        return active_backend(device).name
    if backend not in get_args(Backend):
        raise InvalidInputError(
            f"backend is {backend!r}; expected 'auto', 'gsplat', 'numba' or 'torch'."
        )
    status = next(found for found in backend_status(device) if found.name == backend)
    if status.usable:
        return backend
    message = (
        f"backend is {backend!r}, which cannot draw here: {status.reason}. Use 'auto', which takes "
        "the fastest that can, or 'torch', which runs everywhere."
    )
    if importlib.util.find_spec(backend) is None:
        raise MissingDependencyError(f"{message} Install {backend} with: pip install {backend}")
    raise InvalidInputError(message)


@functools.cache
def _probe_numba() -> BackendStatus:
    from .composite_numba import draw_one

    try:
        off = draw_one()
        version = importlib.import_module("numba").__version__
    except MissingDependencyError:
        return BackendStatus("numba", False, "numba is not installed (pip install numba)")
    except Exception as error:  # a compiler in a library can fail in many ways
        return BackendStatus("numba", False, f"numba's probe render fails ({_short(error)})")
    if not off < 0.01:
        return BackendStatus("numba", False, f"numba's probe render is off by {off:.3g}")
    return BackendStatus("numba", True, f"numba {version}, probe render right")


def _probe_gsplat() -> BackendStatus:
    with _probing:
        return _probe_gsplat_once()


@functools.cache
def _probe_gsplat_once() -> BackendStatus:
    if not torch.cuda.is_available():
        return BackendStatus("gsplat", False, "torch finds no CUDA device")
    if importlib.util.find_spec("gsplat") is None:
        return BackendStatus("gsplat", False, "gsplat is not installed (pip install gsplat)")
    from .composite_gsplat import draw_one

    _log.info("Trying gsplat; on first use it compiles its kernels, which takes minutes.")
    try:
        version = importlib.import_module("gsplat").__version__
        off = draw_one()
    except Exception as error:  # a compiler that is not there shows in many ways
        return BackendStatus("gsplat", False, f"gsplat's probe render fails ({_short(error)})")
    if not off < 0.01:
        return BackendStatus("gsplat", False, f"gsplat's probe render is off by {off:.3g}")
    return BackendStatus("gsplat", True, f"gsplat {version}, probe render right")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.120}"
