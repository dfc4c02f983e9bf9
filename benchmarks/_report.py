"""What every benchmark shares: the machine in words, timing, peak memory, and the results' file."""

import ctypes
import json
import platform
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from tools.environment import ROOT

__all__ = ["RESULTS", "PeakMemory", "Timing", "machine", "save", "synchronize", "timed"]

RESULTS = ROOT / "benchmarks" / "results"


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The processor or card, and the versions of what runs on it."""
    kind = torch.device(device).type
    name = torch.cuda.get_device_name() if kind == "cuda" else _processor()
    facts: dict[str, Any] = {
        "device": name,
        "system": f"{platform.system()} {platform.machine()}",
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "threads": torch.get_num_threads(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
    }
    for package in ("torch", "diffusers"):
        facts[package] = metadata.version(package)
    return facts


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device | str) -> None:
    """Wait until the device has done all it was asked to."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Timing:
    """How long something took, at best of some runs.

    Attributes:
        seconds: on the wall.
        cpu_seconds: of the processor, all threads together, in the same run.
    """

    seconds: float
    cpu_seconds: float


def timed(function: Callable[[], Any], *, runs: int, device: torch.device | str) -> Timing:
    """The quickest of some runs, after one to warm up."""
    found: list[Timing] = []
    for _ in range(runs + 1):
        synchronize(device)
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        synchronize(device)
        found.append(Timing(time.perf_counter() - wall, time.process_time() - cpu))
    return min(found[1:], key=lambda timing: timing.seconds)


class PeakMemory:
    """The most memory in use within a ``with`` block, above what was in use before it.

    On a GPU what PyTorch allocated; on a CPU the process's resident memory, looked at every two
    milliseconds.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._cuda = torch.device(device).type == "cuda"
        self._process = psutil.Process()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.mib = 0.0

    def __enter__(self) -> "PeakMemory":
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            _give_back_free_memory()
            self._before = self._most = self._process.memory_info().rss
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            self._most = torch.cuda.max_memory_allocated()
        else:
            self._done.set()
            self._thread.join()
        self.mib = (self._most - self._before) / 2**20

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self._most = max(self._most, self._process.memory_info().rss)


def _give_back_free_memory() -> None:
    """Make the C library return what it keeps, else it would hide what is allocated anew."""
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def save(theme: str, variant: str, device: torch.device | str, results: dict[str, Any]) -> Path:
    """Write ``results/[theme]_[variant]_[device]_[date].json``: command, machine and results."""
    kind = torch.device(device).type
    record = {
        "command": " ".join(["python dev.py bench", theme, *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": machine(device),
        **results,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{theme}_{variant}_{kind}_{record['date']}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record["machine"]))
    print(f"written to {path.relative_to(ROOT)}")
    return path
