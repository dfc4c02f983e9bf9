"""The child process of `child_process`: loads pycolmap and lets one worker file do its job.

Run as a file: ``python child_main.py WORKER FOLDER``. The folder holds ``job.json``; the worker has
a function ``run(colmap, folder, job, tell)``. Each line of standard output is a JSON object:
``{"done": 3}`` of the job's steps, or ``{"error": "..."}`` as the last. The process ends when its
standard input does: then its parent is gone.
"""

import importlib.util
import json
import os
import sys
import threading
import zlib  # noqa: F401  before pycolmap, whose own copy would else break Python's
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tell = Callable[[dict[str, Any]], None]


def main(worker: Path, folder: Path) -> int:
    """Do the job that lies in a folder; returns the exit status."""
    tell = _take_standard_output()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        import pycolmap
    except ImportError as error:
        tell({"error": str(error), "missing": True})
        return 1
    try:
        _load(worker).run(pycolmap, folder, job, tell)
    except Exception as error:
        tell({"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _load(worker: Path) -> Any:
    spec = importlib.util.spec_from_file_location(worker.stem, worker)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _take_standard_output() -> Tell:
    """A function that writes lines to standard output, which native code can no longer reach."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)

    def tell(event: dict[str, Any]) -> None:
        lines.write(json.dumps(event) + "\n")
        lines.flush()

    return tell


def _end_with_parent() -> None:
    # Unbuffered: the lock of a buffer, held here, would abort the interpreter at its end.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    # The folder of this file would put its neighbours' short names before installed packages.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
