"""``genxd download``: fetch the released weights from the Hugging Face Hub."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InvalidInputError
from ..files import sha256_of
from ..hub import RELEASED_REPOSITORY, RemoteFile, fetch, list_files, pick_model
from ..model_folders import model_folders
from .progress_bar import progress_bar

__all__ = ["Download"]


@dataclass(frozen=True, kw_only=True)
class Download:
    """Fetch the released weights (several GB), verify them and put them into models/genxd.

    The repository is the one that the README of the authors' code names. Which files it holds, and
    their checksums, are asked from the Hub when this runs; addresses and checksums are shown first.
    An interrupted download goes on where it stopped when the command is run again. The weights come
    under the terms on the repository's page, https://huggingface.co/Yuyang-z/genxd, and were made
    from Stable Video Diffusion, whose licence applies too: read both before using them.

    Attributes:
        repository: owner/name on the Hub.
        revision: branch, tag or commit.
        name: of the model's folder in models/genxd; by default the repository's name.
        to: folder for the model itself, instead of one in models/genxd.
        files: fetch just these files of the repository, in place of those a model consists of.
        sha256: checksums that you have from elsewhere, as FILE=SHA256; a file that the Hub
            announces with another one is not fetched.
        list_only: show what would be fetched, and stop.
        force: replace files that are there with other content.
    """

    repository: str = RELEASED_REPOSITORY
    revision: str = "main"
    name: str | None = None
    to: Path | None = None
    files: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    list_only: bool = False
    force: bool = False

    def run(self) -> int:
        """Show, fetch, verify; returns the exit status."""
        wanted = self._pinned(self._chosen(list_files(self.repository, revision=self.revision)))
        folder = self._folder()
        print(f"From {self.repository}, revision {self.revision}, into {folder}:")
        for file in wanted:
            print(f"  {file.path}  {_megabytes(file.size)}\n    {file.url}\n    {file.checksum}")
        if self.list_only:
            return 0
        for file in wanted:
            with progress_bar(file.path, unit="B", is_bytes=True) as progress:
                path = fetch(file, folder, replace=self.force, progress=progress)
            print(f"  verified {file.path}, SHA-256 {sha256_of(path)}")
        print(f"All {len(wanted)} files are in {folder}. Use it with: --weights {folder.name}")
        return 0

    def _chosen(self, there: list[RemoteFile]) -> list[RemoteFile]:
        if not self.files:
            return pick_model(there)
        by_path = {file.path: file for file in there}
        unknown = [path for path in self.files if path not in by_path]
        if unknown:
            raise InvalidInputError(
                f"files: {', '.join(unknown)} is not in {self.repository}; it has "
                f"{', '.join(by_path)}."
            )
        return [by_path[path] for path in dict.fromkeys(self.files)]

    def _pinned(self, wanted: list[RemoteFile]) -> list[RemoteFile]:
        pins = {}
        for pin in self.sha256:
            path, _, value = pin.rpartition("=")
            if path not in {file.path for file in wanted} or len(value) != 64:
                raise InvalidInputError(
                    f"sha256 is {pin!r}; expected FILE=SHA256 with 64 hexadecimal digits and one "
                    f"of the files {', '.join(file.path for file in wanted)}."
                )
            pins[path] = value.lower()
        for file in wanted:
            expected = pins.get(file.path)
            if expected and file.sha256 and file.sha256.lower() != expected:
                raise InvalidInputError(
                    f"sha256 of {file.path} should be {expected}, but the Hub announces "
                    f"{file.sha256}; the file has changed since that checksum was taken. Nothing "
                    "was fetched."
                )
        return [replace(file, sha256=pins.get(file.path, file.sha256)) for file in wanted]

    def _folder(self) -> Path:
        if self.to is not None:
            return self.to.absolute()
        name = self.name or self.repository.rpartition("/")[2]
        if Path(name).name != name or name in ("", ".", ".."):
            raise InvalidInputError(f"name is {name!r}; expected a plain folder name. Or use --to.")
        return model_folders()[0] / name


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"
