"""Fetching model files from the Hugging Face Hub: listing, resuming, verifying.

Only the standard library is used. Nothing here runs unless it is called.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import InvalidInputError
from .files import sha256_of
from .progress import Progress, report

__all__ = [
    "RELEASED_REPOSITORY",
    "DownloadError",
    "RemoteFile",
    "fetch",
    "list_files",
    "pick_model",
]

RELEASED_REPOSITORY = "Yuyang-z/genxd"  # named by the README of the authors' code
DEFAULT_ENDPOINT = "https://huggingface.co"

_NEEDED = (
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
)
_WELCOME = ("model_index.json", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt")
_BLOCK = 1 << 20
_TIMEOUT_S = 30.0
_TRIES = 5


class DownloadError(RuntimeError):
    """A file could not be fetched, or is not what was announced."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository.

    Attributes:
        path: within the repository, with ``/``.
        url: where to get it.
        size: in bytes.
        sha256: of large files; None where the Hub keeps only git's hash.
        git_sha1: git's hash of the content, of small files.
    """

    path: str
    url: str
    size: int
    sha256: str | None
    git_sha1: str | None = None

    @property
    def checksum(self) -> str:
        """The checksum in words."""
        return f"SHA-256 {self.sha256}" if self.sha256 else f"git SHA-1 {self.git_sha1}"


def list_files(
    repository: str = RELEASED_REPOSITORY,
    *,
    revision: str = "main",
    endpoint: str | None = None,
) -> list[RemoteFile]:
    """All files of a model repository, with the checksums that the Hub announces.

    Args:
        repository: ``owner/name``.
        revision: a branch, tag or commit.
        endpoint: address of the Hub; None for HF_ENDPOINT, or huggingface.co.

    Raises:
        InvalidInputError: the repository's name is none.
        DownloadError: there is no such repository or revision, or the Hub cannot be reached.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository):
        raise InvalidInputError(
            f"repository is {repository!r}; expected owner/name, such as {RELEASED_REPOSITORY}."
        )
    base = (endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    version = urllib.parse.quote(revision, safe="")
    url = f"{base}/api/models/{repository}/tree/{version}?recursive=true"
    try:
        with _open(url, {}) as response:
            entries = json.load(response)
        files = [entry for entry in entries if entry.get("type") == "file"]
        return [_remote_file(entry, f"{base}/{repository}/resolve/{version}") for entry in files]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{url} did not answer with a list of files ({error!r}).") from error
    except OSError as error:
        raise _told(error, url) from error


def pick_model(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Of a repository in the released layout, the files that a model consists of.

    Raises:
        DownloadError: a necessary one is not there; the message lists what is.
    """
    by_path = {file.path: file for file in files}
    missing = [path for path in _NEEDED if path not in by_path]
    if missing:
        raise DownloadError(
            f"the repository lacks {', '.join(missing)}; it has "
            f"{', '.join(by_path) or 'no files'}. Name the files to fetch instead."
        )
    return [by_path[path] for path in (*_NEEDED, *_WELCOME) if path in by_path]


def fetch(
    file: RemoteFile,
    folder: Path,
    *,
    replace: bool = False,
    progress: Progress | None = None,
    pause_s: float = 1.0,
) -> Path:
    """Fetch a file into a folder, under its own path, and verify it.

    What was fetched before an interruption is kept beside it as a hidden ``.part`` file and gone on
    with next time. The file itself appears only when its checksum is right.

    Args:
        file: from `list_files`.
        folder: the model's folder.
        replace: overwrite a file that is there with other content.
        progress: told bytes as steps; may stop the download, which can be resumed.
        pause_s: between tries after the connection broke; doubled each time.

    Returns:
        The file's path.

    Raises:
        InvalidInputError: another file is there already, or the path would lead out of the folder.
        DownloadError: the server refuses, the connection keeps breaking, there is no space, or the
            content does not have the announced checksum.
        Cancelled: ``progress`` asked to stop.
    """
    target = folder / _safe(file.path)
    if target.is_file():
        if _has_checksum(target, file):
            report(progress, file.size, file.size)
            return target
        if not replace:
            raise InvalidInputError(
                f"{target} exists and is not the announced file ({file.checksum}); move it away, "
                "or allow it to be replaced."
            )
    _require_checksum(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Named after the content, so that a part of another version is never gone on with.
    part = target.with_name(f".{target.name}.{(file.sha256 or file.git_sha1 or '')[:12]}.part")
    _require_space(file, part)
    _receive(file, part, progress, pause_s)
    if not _has_checksum(part, file):
        found = sha256_of(part)
        part.unlink()
        raise DownloadError(
            f"{file.url} is not what was announced: expected {file.checksum}, received SHA-256 "
            f"{found}. It was deleted; try again, and if that happens twice, do not use the file."
        )
    os.replace(part, target)
    return target


def _receive(file: RemoteFile, part: Path, progress: Progress | None, pause_s: float) -> None:
    """Append to ``part`` until it has the announced size."""
    part.touch()
    broke: Exception | None = None
    for attempt in range(_TRIES):
        have = part.stat().st_size
        if have == file.size:
            return
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            _receive_once(file, part, have if have < file.size else 0, progress)
            broke = None
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                raise _told(error, file.url) from error
            broke = error
        except (OSError, http.client.HTTPException) as error:
            broke = error
    have = part.stat().st_size
    if have != file.size:
        raise DownloadError(
            f"{file.url}: the connection broke {_TRIES} times "
            f"({broke or 'it ended early'}); {have} of {file.size} bytes are kept. Run the same "
            "command again to go on from there."
        ) from broke


def _receive_once(file: RemoteFile, part: Path, have: int, progress: Progress | None) -> None:
    with _open(file.url, {"Range": f"bytes={have}-"} if have else {}) as response:
        goes_on = have > 0 and response.status == 206
        if goes_on and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise DownloadError(f"{file.url}: the server resumed at another place than asked for.")
        done = have if goes_on else 0
        with part.open("ab" if goes_on else "wb") as stream:
            while block := response.read(_BLOCK):
                stream.write(block)
                done += len(block)
                report(progress, min(done, file.size), file.size)
                if done > file.size:
                    return


def _open(url: str, headers: dict[str, str]) -> Any:
    if urllib.parse.urlsplit(url).scheme not in ("https", "http"):
        raise InvalidInputError(f"address {url} is no http or https address.")
    request = urllib.request.Request(url, headers={"User-Agent": "genxd", **headers})
    return urllib.request.urlopen(request, timeout=_TIMEOUT_S)


def _remote_file(entry: dict[str, Any], base: str) -> RemoteFile:
    path, lfs = str(entry["path"]), entry.get("lfs")
    return RemoteFile(
        path=path,
        url=f"{base}/{urllib.parse.quote(path)}",
        size=int(lfs["size"] if lfs else entry["size"]),
        sha256=str(lfs["oid"]) if lfs else None,
        git_sha1=None if lfs else str(entry["oid"]),
    )


def _safe(path: str) -> Path:
    parts = PurePosixPath(path).parts
    bad = any(part in ("..", "/") or set(part) & set('\\:*?"<>|') for part in parts)
    if not parts or bad:
        raise InvalidInputError(f"file {path!r} would lead out of the model's folder; refused.")
    return Path(*parts)


def _has_checksum(path: Path, file: RemoteFile) -> bool:
    if path.stat().st_size != file.size:
        return False
    if file.sha256:
        return sha256_of(path) == file.sha256.lower()
    content = path.read_bytes()
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False)
    return blob.hexdigest() == file.git_sha1


def _require_checksum(file: RemoteFile) -> None:
    announced: Iterable[str] = filter(None, (file.sha256, file.git_sha1))
    if not any(re.fullmatch(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}", value) for value in announced):
        raise DownloadError(
            f"{file.url} was announced without a checksum, so it could not be verified; give the "
            "SHA-256 that you expect."
        )


def _require_space(file: RemoteFile, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if file.size - have > free:
        raise DownloadError(
            f"{file.path} needs {(file.size - have) / 1e9:.1f} GB more, and {part.parent} has "
            f"{free / 1e9:.1f} GB free; make room or choose another folder."
        )


def _told(error: OSError, url: str) -> DownloadError:
    if isinstance(error, urllib.error.HTTPError):
        reason = {
            401: "there is no such repository or file, or it is not public",
            403: "access was refused; its terms may have to be accepted in a browser first",
            404: "there is no such repository, revision or file",
        }.get(error.code, "the server refused")
        return DownloadError(f"{url}: {reason} (HTTP {error.code}).")
    why = getattr(error, "reason", None) or error
    return DownloadError(f"{url} cannot be reached ({why}); is this machine online?")
