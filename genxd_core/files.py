"""Files that are either whole or not there, and their checksums."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from .errors import WeightsError

__all__ = [
    "TENSOR_SUFFIXES",
    "read_checksums",
    "sha256_of",
    "write_atomically",
    "write_checksums",
]

# What `genxd_core.tensor_files` reads.
TENSOR_SUFFIXES = (".safetensors", ".pth", ".pt")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    Args:
        path: what to write; its folder is made.
        write: called with the temporary file's path, which has the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        write(unfinished)
        _as_others_are(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _as_others_are(path: Path) -> None:
    """The rights of a new file: some writers leave theirs to their owner alone."""
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        path.chmod(0o666 & ~mask)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_checksums(path: Path) -> dict[str, str]:
    """The files and SHA-256 values of a list as ``sha256sum`` writes it; paths are relative to it.

    Raises:
        WeightsError: a line is none of such a list.
    """
    sums = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        value, _, name = line.partition(" ")
        if len(value) != 64 or not name.strip(" *"):
            raise WeightsError(f"{path} is no list of SHA-256 values: {line!r:.80} stands in it.")
        sums[name.lstrip(" *")] = value.lower()
    return sums


def write_checksums(folder: Path) -> Path:
    """Write ``SHA256SUMS`` for a folder's files, as ``sha256sum`` would; returns its path.

    Pages of text (``.md``) are left out: they may be mended later.
    """
    path = folder / "SHA256SUMS"
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and file != path and file.suffix != ".md"
    )
    lines = [f"{sha256_of(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    write_atomically(path, lambda unfinished: unfinished.write_bytes("".join(lines).encode()))
    return path
