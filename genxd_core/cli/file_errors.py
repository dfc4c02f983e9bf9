"""Errors of files, told by the option that named the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidInputError

__all__ = ["errors_of"]

_PATH = "path "  # what readers call the file that they were given


@contextmanager
def errors_of(option: str, path: Path) -> Iterator[None]:
    """Name an option in the errors of what reads its file, which begin with its path.

    Args:
        option: such as ``--points``.
        path: that it gives.
    """
    try:
        yield
    except InvalidInputError as error:
        text = str(error).removeprefix(_PATH)
        if not text.startswith(str(path)):
            raise
        raise InvalidInputError(f"{option} {text}") from error
