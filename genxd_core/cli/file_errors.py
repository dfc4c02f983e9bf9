"""Errors of files, told by the option that named the file."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InvalidInputError

__all__ = ["errors_of"]

_PATH = "path "  # what readers call the file that they were given


@contextmanager
def errors_of(option: str) -> Iterator[None]:
    """Name an option in place of "path" in the errors of what reads its file.

    Args:
        option: such as ``--points``.
    """
    try:
        yield
    except InvalidInputError as error:
        text = str(error)
        if not text.startswith(_PATH):
            raise
        raise InvalidInputError(f"{option} {text.removeprefix(_PATH)}") from error
