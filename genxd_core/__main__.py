"""``python -m genxd_core``, also installed as the command ``genxd``."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, or say in one line why it cannot be run.

    Args:
        arguments: without the program's name; None for those of the process.
    """
    if importlib.util.find_spec("torch") is None:
        sys.stderr.write(f"genxd: {_without_torch()}\n")
        return 2
    try:
        # Importing takes a moment, in which users change their minds.
        from .cli import main as run

        return run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("genxd: interrupted.\n")
        return 130


def _without_torch() -> str:
    told = f"PyTorch is not installed for {sys.executable}; install it (pip install torch)"
    root = Path(__file__).parents[1]
    for place in ("bin/python", "Scripts/python.exe"):
        if (root / ".venv" / place).is_file():
            return f"{told}, or use {root / '.venv' / place}, which has everything."
    return f"{told}, or call this with the Python that runs ComfyUI."


if __name__ == "__main__":
    sys.exit(main())
