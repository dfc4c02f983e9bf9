"""Figures of a run: summed on the device, written every so many steps to a file and to trackers."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from genxd_core.files import write_atomically

__all__ = ["RunLog", "memory_gib"]

_MODES = ("3d", "video", "4d")


class RunLog:
    """Sums losses per mode between two lines, and writes the lines of ``log.jsonl``.

    Args:
        folder: of the run.
        accelerator: sums over processes; its trackers get the same figures.
        start: step that the run goes on from; later lines, of steps that are repeated, are dropped.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, start: int) -> None:
        self.file, self.accelerator = folder / "log.jsonl", accelerator
        self._sums = torch.zeros(len(_MODES), 2, device=accelerator.device)
        self._began, self._waited, self._clips = time.perf_counter(), 0.0, 0.0
        if accelerator.is_main_process:
            self._drop_lines_after(start)

    def _drop_lines_after(self, step: int) -> None:
        if not self.file.exists():
            return
        lines = self.file.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        if len(kept) < len(lines):
            text = "".join(line + "\n" for line in kept)
            write_atomically(self.file, lambda p: p.write_text(text, encoding="utf-8"))

    def add(self, mode: str, loss: Tensor, clips: float, waited: float) -> None:
        """Count one micro-batch; nothing waits for the device.

        Args:
            mode: of its clips.
            loss: still on the device.
            clips: in it, counted at the longest length.
            waited: seconds for its data.
        """
        row = self._sums[_MODES.index(mode)]
        row += torch.stack([loss.detach().float(), loss.new_ones((), dtype=torch.float32)])
        self._clips += clips
        self._waited += waited

    def write(self, step: int, steps: int, figures: dict[str, float | Tensor]) -> dict[str, Any]:
        """Write a line for the steps since the last one; returns it.

        Args:
            step: of the run.
            steps: since the last line.
            figures: more of them.
        """
        sums = self.accelerator.reduce(self._sums, "sum").cpu()
        seconds = time.perf_counter() - self._began
        clips = self._clips * self.accelerator.num_processes
        row: dict[str, Any] = {"step": step, "seconds_per_step": round(seconds / steps, 4)}
        row["clips_per_second"] = round(clips / seconds, 3)
        row["waiting_for_data"] = round(self._waited / seconds, 4)
        row["memory_gib"] = round(memory_gib(self.accelerator.device), 2)
        row |= {name: _rounded(float(value)) for name, value in figures.items()}
        for mode, (total, count) in zip(_MODES, sums.tolist(), strict=True):
            if count:
                row[f"loss_{mode}"] = _rounded(total / count)
        self.note(row)
        self._sums.zero_()
        self._began, self._waited, self._clips = time.perf_counter(), 0.0, 0.0
        return row

    def note(self, row: dict[str, Any]) -> None:
        """Write one line as it is, to the file and the trackers."""
        if self.accelerator.is_main_process:
            with self.file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
        values = {name: value for name, value in row.items() if name != "step"}
        self.accelerator.log(values, step=row["step"])


def memory_gib(device: torch.device) -> float:
    """The most memory used so far: the GPU's, or of this process (0 where it cannot be told)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows has none
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _rounded(value: float) -> float:
    if not math.isfinite(value) or value == 0:
        return value
    return round(value, 4 - math.floor(math.log10(abs(value))))


def _step_of(line: str) -> int:
    """The step of a line; one that a kill cut off counts as beyond all."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return sys.maxsize
