"""Files that nodes write into ComfyUI's folders: their names, and what the page is told of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..genxd_core.errors import InvalidInputError

__all__ = ["inside", "numbered", "shown_sequence"]


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


def shown_sequence(folder: Path, root: Path, kind: Literal["output", "temp"]) -> dict[str, Any]:
    """What a node tells the page of a sequence, for the player in ``web/``.

    Args:
        folder: of `genxd_core.lifting.files_4d.export_sequence`.
        root: ComfyUI's folder that it is in.
        kind: ComfyUI's word for that folder.
    """
    # No "filename": the page would take the entry for a picture or a 3D file of its own kinds.
    return {"genxd_splat4d": [{"folder": folder.relative_to(root).as_posix(), "type": kind}]}
