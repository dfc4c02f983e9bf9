"""A folder of results that appears whole or not at all."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidInputError

__all__ = ["RECORD", "check_output_folder", "output_folder"]

RECORD = "generation.json"


def check_output_folder(out: Path, *, force: bool) -> None:
    """Refuse, before any work, a folder that `output_folder` would not write.

    Raises:
        InvalidInputError: it exists and is not empty; or, with ``force``, it is none that an
            earlier run made.
    """
    if out.is_dir():
        if not any(out.iterdir()):
            return
        if not (out / RECORD).is_file():
            raise InvalidInputError(
                f"out {out} is a folder with other files in it (no {RECORD} of an earlier run), "
                "which is never overwritten; choose another --out."
            )
        if not force:
            raise InvalidInputError(
                f"out {out} holds an earlier run; choose another --out, or give --force to replace "
                "it."
            )
    elif out.exists():
        raise InvalidInputError(f"out {out} is a file; choose another --out.")


@contextmanager
def output_folder(out: Path, *, force: bool) -> Iterator[Path]:
    """A hidden folder to fill, which takes the name ``out`` when all went well.

    With ``force`` an earlier run is replaced. Files in its folder that it did not make are kept.

    Args:
        out: the folder wanted.
        force: whether it may replace an earlier run.

    Raises:
        InvalidInputError: as `check_output_folder`.
    """
    check_output_folder(out, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    tag = uuid.uuid4().hex[:8]
    unfinished = out.with_name(f".{out.name}.{tag}.part")
    unfinished.mkdir()
    try:
        yield unfinished
        record = unfinished / RECORD
        files = [path.relative_to(unfinished).as_posix() for path in _files(unfinished)]
        settings = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        text = json.dumps({**settings, "files": sorted({*files, RECORD})}, indent=2)
        record.write_text(text + "\n", encoding="utf-8")
        _take_place(unfinished, out, out.with_name(f".{out.name}.{tag}.old"))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _take_place(new: Path, out: Path, old: Path) -> None:
    if not out.exists():
        os.replace(new, out)
        return
    os.replace(out, old)
    try:
        os.replace(new, out)
    except BaseException:
        os.replace(old, out)
        raise
    _keep_foreign_files(old, out)
    shutil.rmtree(old)


def _keep_foreign_files(old: Path, out: Path) -> None:
    record = old / RECORD
    ours = set()
    if record.is_file():
        ours = set(json.loads(record.read_text(encoding="utf-8")).get("files", []))
    for path in _files(old):
        relative = path.relative_to(old)
        target = out / relative
        if relative.as_posix() not in ours and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]
