"""Native work in a child process: its crash ends the child alone, and the host never loads it.

The child is `child_main`, which runs one worker file. Both talk through files in a folder and
through lines on the child's standard output.
"""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .progress import Progress, report

__all__ = ["ChildEnd", "run_worker"]

_MAIN = Path(__file__).resolve().with_name("child_main.py")
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class ChildEnd:
    """How a child process ended.

    Attributes:
        last: the last event that it told; ``"error"`` in it if it failed by itself, ``"missing"``
            too if pycolmap could not be imported.
        status: of the process; negative where a signal ended it.
        done: steps.
        steps: that there were to do.
        timed_out: the limit of time was reached, and the child was ended.
        said: the first line of what it, or native code in it, wrote for people.
    """

    last: Mapping[str, Any]
    status: int
    done: int
    steps: int
    timed_out: bool
    said: str

    @property
    def failed(self) -> bool:
        """Whether it did not come to the end of its work; how it ended after that is no matter."""
        return "error" in self.last or self.done < self.steps

    @property
    def told(self) -> str:
        """Why it ended, in its own words."""
        return str(self.last.get("error") or self.said)


def run_worker(
    worker: Path, folder: Path, steps: int, *, progress: Progress | None, time_limit: float
) -> ChildEnd:
    """Run a worker file in a child process and wait for its end; it never outlives this call.

    Args:
        worker: a file with a function ``run(colmap, folder, job, tell)``; see `child_main`.
        folder: with ``job.json``; the child works in it.
        steps: that it will tell of.
        progress: called several times a second, also between two steps, so that it can stop the
            work; without pictures.
        time_limit: in seconds.

    Raises:
        Cancelled: the callback asked to stop; the child has ended.
    """
    log_file = folder / "log.txt"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(_MAIN), str(worker), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows' only
        )
        try:
            last, done, timed_out = _follow(process, steps, progress, time_limit)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
    return ChildEnd(last, process.returncode, done, steps, timed_out, _last_words(log_file))


def _follow(
    process: "subprocess.Popen[bytes]", steps: int, progress: Progress | None, time_limit: float
) -> tuple[dict[str, Any], int, bool]:
    """Pass the child's steps on until its end; the last that it said, its steps, if it was late."""
    lines: queue.Queue[bytes | None] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True).start()
    end = time.monotonic() + time_limit
    done, last = 0, dict[str, Any]()
    while True:
        # Every time, also without news: this is how the callback can stop the work.
        report(progress, done + 1, steps + 1)
        if time.monotonic() > end:
            return last, done, True
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            process.wait()
            return last, done, False
        for event in _events(line):
            last = event
            done = min(int(event.get("done", done)), steps)


def _read_lines(stream: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    try:
        for line in stream:
            lines.put(line)
    except ValueError:
        pass  # closed by the other thread, which no longer listens
    lines.put(None)


def _events(line: bytes) -> Iterator[dict[str, Any]]:
    try:
        event = json.loads(line)
    except ValueError:
        return
    if isinstance(event, dict):
        yield event


def _last_words(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else "it said nothing"
