"""Where a Chromium for the browser tests is found. Standard library only."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FLAGS", "NOT_FOUND", "find_chromium"]

# Headless on any machine: no sandbox in containers, no graphics card, WebGL in software for the
# 3D previews, and no traffic of the browser's own.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

NOT_FOUND = (
    "no Chromium was found: install one (Debian: apt install chromium) "
    "or set GENXD_CHROMIUM to its executable"
)

_COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
_MAC = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
_WINDOWS = (
    "Google/Chrome/Application/chrome.exe",
    "Chromium/Application/chrome.exe",
    "Microsoft/Edge/Application/msedge.exe",
)


def find_chromium() -> Path | None:
    """Return the executable named by ``GENXD_CHROMIUM``, else one in a usual place, or None."""
    named = os.environ.get("GENXD_CHROMIUM")
    candidates = [Path(named)] if named else _usual_places()
    return next((path for path in candidates if path.is_file()), None)


def _usual_places() -> Iterator[Path]:
    for command in _COMMANDS:
        found = shutil.which(command)
        if found:
            yield Path(found)
    yield from map(Path, _MAC)
    for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        folder = os.environ.get(variable)
        if folder:
            yield from (Path(folder) / place for place in _WINDOWS)
