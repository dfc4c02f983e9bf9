"""Names of files that nodes write into ComfyUI's output folder."""

from collections.abc import Sequence
from pathlib import Path

from ..genxd_core.errors import InvalidInputError

__all__ = ["inside", "numbered"]


def inside(root: Path, prefix: str) -> Path:
    """A file name prefix that stays inside a folder.

    Raises:
        InvalidInputError: it is empty, cannot be printed, or leads out of the folder.
    """
    problem = InvalidInputError(
        f"filename_prefix is {prefix!r}; expected a name inside the output folder, such as "
        '"genxd/cameras".'
    )
    clean = prefix.strip().replace("\\", "/").strip("/")
    if not clean or not clean.isprintable():
        raise problem
    path = (root / clean).resolve()
    if path == root.resolve() or not path.is_relative_to(root.resolve()):
        raise problem
    return path


def numbered(prefix: Path, suffix: str, taken_by: Sequence[str]) -> Path:
    """The first name with a number behind it that nothing has yet, whatever it ends in.

    Args:
        prefix: folder, which exists, and start of the name.
        suffix: that is to be written.
        taken_by: endings under which the number may be taken.
    """
    taken = {path.name for path in prefix.parent.iterdir()}
    number = 1
    while any(f"{prefix.name}_{number:05d}{end}" in taken for end in taken_by):
        number += 1
    return prefix.with_name(f"{prefix.name}_{number:05d}{suffix}")
