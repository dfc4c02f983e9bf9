"""The virtual environment of a checkout: what it must hold, and a stamp that says what it holds.

Standard library only, because this runs before anything is installed.
"""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CACHE", "ROOT", "Environment", "SetupError", "read_dependencies", "requirements"]

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"

TORCH = ("torch==2.14.1", "torchvision==0.29.1", "torchaudio==2.11.0")
# The example graphs of ComfyUI itself: hundreds of megabytes that only fill its template browser.
LEFT_OUT = frozenset({"comfyui-workflow-templates"})
# Progress of a running prompt comes through a websocket; this client needs no event loop.
HOST_CLIENT = ("websocket-client>=1.7",)

RUN_EXTRAS = ("pipeline", "cli", "lift")
DEVELOPMENT_EXTRAS = ("pipeline", "cli", "lift", "train", "eval", "dev")

_STAMP = "genxd-requirements.json"


class SetupError(RuntimeError):
    """Something that the commands need cannot be prepared; the message says what to do."""


def package_name(requirement: str) -> str:
    """Return the normalised name that a requirement such as ``"Pillow>=10"`` is about."""
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    if match is None:
        raise SetupError(f"{requirement!r} is no requirement: expected a package's name first")
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def read_dependencies(pyproject: str, extra: str | None = None) -> list[str]:
    """Return the dependencies, or those of one extra, from the text of a ``pyproject.toml``.

    Python 3.10 has no TOML reader. A TOML array of strings is also a Python list, comments
    included, so the array is found by its name and read as one.

    Args:
        pyproject: the file's text.
        extra: a name under ``[project.optional-dependencies]``; None for ``dependencies``.

    Raises:
        SetupError: there is no such array.
    """
    table, key = ("project.optional-dependencies", extra) if extra else ("project", "dependencies")
    section = re.search(rf"^\[{re.escape(table)}\]\n(.*?)(?=^\[|\Z)", pyproject, re.M | re.S)
    array = section and re.search(rf"^{re.escape(str(key))} = (\[.*?^\])", section[1], re.M | re.S)
    if not array:
        raise SetupError(f"pyproject.toml has no array {key!r} in [{table}]")
    return [str(line) for line in ast.literal_eval(array[1])]


def host_requirements(text: str) -> list[str]:
    """Return the lines of ComfyUI's ``requirements.txt`` with torch pinned and extras left out."""
    pinned = {package_name(line) for line in TORCH}
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    kept = [line for line in lines if line and package_name(line) not in pinned | LEFT_OUT]
    return [*TORCH, *kept]


def requirements(comfy_root: Path, *, development: bool) -> list[str]:
    """Return everything to install for running the pack in ComfyUI.

    Args:
        comfy_root: ComfyUI's folder.
        development: also what the tests, the checks and the trainer need.
    """
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = host_requirements((comfy_root / "requirements.txt").read_text(encoding="utf-8"))
    lines += [*HOST_CLIENT, *read_dependencies(pyproject)]
    for extra in DEVELOPMENT_EXTRAS if development else RUN_EXTRAS:
        lines += read_dependencies(pyproject, extra)
    return sorted(set(lines), key=str.lower)


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the stamp in it.

    Attributes:
        path: its folder; made on first use.
    """

    path: Path

    @classmethod
    def of_checkout(cls) -> "Environment":
        """Return the one named by ``GENXD_VENV``, else ``.venv`` in the checkout."""
        named = os.environ.get("GENXD_VENV")
        if not named:
            return cls(ROOT / ".venv")
        environment = cls(Path(named).expanduser().resolve())
        if not environment.python.is_file():
            raise SetupError(
                f"GENXD_VENV={named} holds no virtual environment: {environment.python} is "
                f"missing. Make one with: {sys.executable} -m venv {named}"
            )
        return environment

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        if os.name == "nt":
            return self.path / "Scripts" / "python.exe"
        return self.path / "bin" / "python"

    def create(self) -> None:
        """Make the environment if it is not there.

        Raises:
            SetupError: it cannot be made.
        """
        if self.python.is_file():
            return
        print(f"Making a virtual environment in {self.path}", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(self.path)], check=True)
        except subprocess.CalledProcessError as error:
            raise SetupError(
                f"{sys.executable} -m venv {self.path} failed with status {error.returncode}. On "
                "Debian and Ubuntu the module is a package of its own: apt install python3-venv"
            ) from error

    def installed(self) -> dict[str, list[str]]:
        """Return the requirements that were installed here, by package; empty when unknown."""
        try:
            stamp = json.loads((self.path / _STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(stamp, dict):
            return {}
        return {str(name): [str(line) for line in lines] for name, lines in stamp.items()}

    def missing(self, lines: Iterable[str]) -> list[str]:
        """Return those of ``lines`` that the stamp does not vouch for."""
        installed = self.installed()
        return [line for line in lines if line not in installed.get(package_name(line), [])]

    def ensure(self, lines: list[str]) -> None:
        """Install ``lines`` unless the stamp says they are there.

        Raises:
            SetupError: pip fails.
        """
        missing = self.missing(lines)
        if not missing:
            return
        names = sorted({package_name(line) for line in missing})
        print(f"Installing {len(names)} packages into {self.path}: {', '.join(names)}", flush=True)
        if "torch" in names:
            print("With torch among them this takes several minutes and gigabytes, once.")
        self._install(lines)
        self._stamp(lines)

    def _install(self, lines: list[str]) -> None:
        command = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check"]
        if not sys.stdout.isatty():
            command += ["--quiet", "--progress-bar", "off"]
        # A file, because the whole list is longer than a Windows command line may be.
        with tempfile.TemporaryDirectory() as folder:
            listing = Path(folder) / "requirements.txt"
            listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
            status = subprocess.run([*command, "-r", str(listing)], check=False).returncode
        if status:
            raise SetupError(
                f"pip could not install the packages (status {status}); its messages are above. "
                "Nothing was recorded, so the next run tries again."
            )

    def _stamp(self, lines: list[str]) -> None:
        stamp = self.installed()
        named: dict[str, list[str]] = {}
        for line in lines:
            named.setdefault(package_name(line), []).append(line)
        stamp.update(named)
        partial = self.path / f"{_STAMP}.{os.getpid()}"
        partial.write_text(json.dumps(stamp, indent=1, sort_keys=True), encoding="utf-8")
        partial.replace(self.path / _STAMP)
