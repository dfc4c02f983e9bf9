"""A folder of results that appears whole or not at all."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidInputError

__all__ = ["check_output_file", "check_output_folder", "output_folder"]


def check_output_folder(out: Path, *, record: str, force: bool) -> None:
    """Refuse, before any work, a folder that `output_folder` would not write.

    Args:
        out: the folder wanted.
        record: name of the file by which a run of the command is known.
        force: whether it may replace an earlier run.

    Raises:
        InvalidInputError: it exists and is not empty; or, with ``force``, it is none that an
            earlier run made; or nothing can be written there.
    """
    if os.path.isdir(out):
        if not any(out.iterdir()):
            return _check_writable(out, "out")
        if not (out / record).is_file():
            raise InvalidInputError(
                f"out {out} is a folder with other files in it (no {record} of an earlier run), "
                "which is never overwritten; choose another --out."
            )
        if not force:
            raise InvalidInputError(
                f"out {out} holds an earlier run; choose another --out, or give --force to replace "
                "it."
            )
    elif os.path.lexists(out):
        raise InvalidInputError(f"out {out} is a file; choose another --out.")
    return _check_writable(out, "out")


def check_output_file(path: Path, *, name: str, force: bool) -> None:
    """Refuse, before any work, a file that is there already or cannot be written.

    Args:
        path: the file wanted.
        name: of the option, for messages.
        force: whether it may replace a file.

    Raises:
        InvalidInputError: as said.
    """
    if os.path.isdir(path):
        raise InvalidInputError(f"{name} {path} is a folder; expected the name of a file.")
    if os.path.lexists(path) and not force:
        raise InvalidInputError(
            f"{name} {path} exists already; choose another name, or give --force to replace it."
        )
    _check_writable(path, name)


@contextmanager
def output_folder(out: Path, *, record: str, force: bool) -> Iterator[Path]:
    """A hidden folder to fill, which takes the name ``out`` when all went well.

    With ``force`` an earlier run is replaced. Files in its folder that it did not make are kept.

    Args:
        out: the folder wanted.
        record: name of the JSON file in it that lists what was made; what the caller has written
            there stays.
        force: whether it may replace an earlier run.

    Raises:
        InvalidInputError: as `check_output_folder`.
    """
    check_output_folder(out, record=record, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    tag = uuid.uuid4().hex[:8]
    unfinished = out.with_name(f".{out.name}.{tag}.part")
    unfinished.mkdir()
    try:
        yield unfinished
        file = unfinished / record
        files = [path.relative_to(unfinished).as_posix() for path in _files(unfinished)]
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        text = json.dumps({**settings, "files": sorted({*files, record})}, indent=2)
        file.write_text(text + "\n", encoding="utf-8")
        _take_place(unfinished, out, out.with_name(f".{out.name}.{tag}.old"), record)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_writable(path: Path, name: str) -> None:
    """The nearest folder above it that exists must take new files."""
    above = next(place for place in path.absolute().parents if os.path.lexists(place))
    if not os.path.isdir(above):
        raise InvalidInputError(
            f"{name} {path} lies in {above}, which is a file; choose another --{name}."
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise InvalidInputError(
            f"{name} {path} cannot be written: {above} takes no new files; choose another --{name}."
        )


def _take_place(new: Path, out: Path, old: Path, record: str) -> None:
    if not out.exists():
        os.replace(new, out)
        return
    os.replace(out, old)
    try:
        os.replace(new, out)
    except BaseException:
        os.replace(old, out)
        raise
    _keep_foreign_files(old, out, record)
    shutil.rmtree(old)


def _keep_foreign_files(old: Path, out: Path, record: str) -> None:
    file = old / record
    ours = set()
    if file.is_file():
        ours = set(json.loads(file.read_text(encoding="utf-8")).get("files", []))
    for path in _files(old):
        relative = path.relative_to(old)
        target = out / relative
        if relative.as_posix() not in ours and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]
