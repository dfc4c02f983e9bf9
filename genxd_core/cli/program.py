"""Choosing a command, and what becomes of errors: one line, and an exit status.

A command is a dataclass of its options with a method ``run`` that returns the exit status. Its
module is imported for its options alone, so heavy imports belong into ``run``.
"""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from ..errors import Cancelled, InvalidInputError, MissingDependencyError, WeightsError
from ..hub import DownloadError
from ..optional import require
from .doctor import Doctor
from .download import Download
from .generate import Generate
from .lift import Lift
from .lift_4d import Lift4D
from .render import Render

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, type["Command"]] = {
    "generate": Generate,
    "lift": Lift,
    "lift4d": Lift4D,
    "render": Render,
    "doctor": Doctor,
    "download": Download,
}
_MISTAKE, _FAILED, _INTERRUPTED, _TERMINATED = 2, 1, 130, 143


@runtime_checkable
class Command(Protocol):
    """Options of a command, and running it."""

    def run(self) -> int:
        """Do the work and return the exit status."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    0 is success, 1 a failure (a connection, a check of `doctor`), 2 a mistake in the options or
    their files, 130 an interruption.

    Args:
        arguments: without the program's name; None for those of the process.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        with _ended_by_signal():
            return _parse(arguments)()
    except (InvalidInputError, WeightsError, MissingDependencyError) as error:
        return _say(error, _MISTAKE)
    except DownloadError as error:
        return _say(error, _FAILED)
    except (KeyboardInterrupt, Cancelled):
        print("\ngenxd: interrupted; nothing half-written was left.", file=sys.stderr)
        return _INTERRUPTED
    except SystemExit as stop:  # how tyro ends after --help or an option it does not know
        return stop.code if isinstance(stop.code, int) else _FAILED


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Let clean-up run when the process is asked to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(arguments: Sequence[str] | None) -> Callable[[], int]:
    tyro = require("tyro", extra="cli", purpose="read the command line")
    command: Command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="genxd",
        description="Pictures and a camera path to new views (3D) or camera-controlled video (4D), "
        "and views to Gaussian splats, still or moving.",
        args=None if arguments is None else list(arguments),
        config=(tyro.conf.PositionalRequiredArgs, tyro.conf.OmitArgPrefixes),
    )
    return command.run


def _say(error: Exception, status: int) -> int:
    line = " ".join(str(error).split())
    print(f"genxd: error: {line}", file=sys.stderr)
    return status
