"""A real ComfyUI server as a child process, with this pack in it. Standard library only."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from .comfy_client import ComfyClient
from .environment import ROOT

__all__ = ["PACK_NAME", "ComfyServer", "HostError", "device_flags", "free_port", "prepare_base"]

PACK_NAME = "ComfyUI-GenXD"
LOOPBACK = "127.0.0.1"


class HostError(RuntimeError):
    """ComfyUI did not start, did not load the pack, or went away."""


def free_port() -> int:
    """Return a loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def device_flags() -> list[str]:
    """Return ``["--cpu"]`` where torch sees no accelerator, else nothing."""
    import torch

    usable = torch.cuda.is_available() or torch.backends.mps.is_available()
    return [] if usable else ["--cpu"]


def prepare_base(base: Path, pack: Path = ROOT) -> Path:
    """Make a base directory for ComfyUI with the pack linked in, and return the link.

    Args:
        base: what ``--base-directory`` will name: models, input, output and user files.
        pack: the pack's folder.

    Raises:
        HostError: the file system allows no link.
    """
    for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / PACK_NAME
    if link.exists() and link.samefile(pack):
        return link
    remove_link(link)
    try:
        link.symlink_to(pack, target_is_directory=True)
    except OSError as error:
        # Windows keeps symbolic links for developers and allows junctions to everyone.
        command = ["cmd", "/c", "mklink", "/J", str(link), str(pack)]
        if os.name != "nt" or subprocess.run(command, check=False).returncode:
            raise HostError(f"cannot link {pack} to {link}: {error}") from error
    return link


def remove_link(link: Path) -> None:
    """Remove what :func:`prepare_base` linked, and never what it leads to."""
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        # A junction; on anything that is a real folder with files in it this fails, as it should.
        link.rmdir()


def copy_inputs(folder: Path, base: Path) -> None:
    """Put the files that the bundled workflows load where ComfyUI's menus list them."""
    for source in sorted(folder.rglob("*")) if folder.is_dir() else []:
        target = base / "input" / source.relative_to(folder)
        if source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


class ComfyServer:
    """ComfyUI in a process of its own; a context manager.

    Args:
        comfy_root: ComfyUI's folder.
        base: its base directory; see :func:`prepare_base`.
        pack: the pack's folder.
        port: the port; a free one by default.
        listen: the address to listen on.
        flags: further options of ComfyUI's ``main.py``.
        log: where its output goes; None lets it through to ours.
    """

    def __init__(
        self,
        comfy_root: Path,
        base: Path,
        *,
        pack: Path = ROOT,
        port: int | None = None,
        listen: str = LOOPBACK,
        flags: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self.comfy_root = comfy_root
        self.base = base
        self.pack = pack
        self.port = free_port() if port is None else port
        self.listen = listen
        self.flags = list(flags)
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address to reach it at from this machine."""
        return f"http://{LOOPBACK}:{self.port}"

    def command(self) -> list[str]:
        """Return the command line."""
        database = (self.base / "user" / "comfyui.db").as_posix()
        return [
            *(sys.executable, str(self.comfy_root / "main.py")),
            *("--listen", self.listen, "--port", str(self.port)),
            *("--base-directory", str(self.base), "--database-url", f"sqlite:///{database}"),
            *("--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_NAME),
            *("--disable-api-nodes", "--disable-auto-launch"),
            *self.flags,
        ]

    def start(self, timeout: float = 300.0) -> None:
        """Start it and wait until it answers and has loaded the pack.

        Raises:
            HostError: it ended, did not answer within ``timeout`` seconds, or could not load the
                pack. The end of its log is in the message, and it is stopped.
        """
        prepare_base(self.base, self.pack)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
        environment.pop("PYTHONPATH", None)
        out: IO[bytes] | None = self.log.open("wb") if self.log else None
        try:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.comfy_root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT if out else None,
            )
        finally:
            if out:
                out.close()
        try:
            self._wait_until_ready(time.monotonic() + timeout)
            self._check_pack()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                ComfyClient(self.url).get("/system_stats")
                return
            except OSError:  # refused or reset: not listening yet
                time.sleep(0.2)
        raise HostError(f"ComfyUI did not answer at {self.url} in time.{self.log_tail()}")

    def pack_nodes(self) -> list[str]:
        """Return the ids of the nodes that ComfyUI has from the pack."""
        nodes = ComfyClient(self.url).object_info()
        home = f"custom_nodes.{PACK_NAME}"
        return sorted(name for name, node in nodes.items() if node["python_module"] == home)

    def _check_pack(self) -> None:
        if not self.pack_nodes():
            raise HostError(
                f"ComfyUI runs, but has no node of {PACK_NAME}.{self._import_failure()}"
            )

    def _import_failure(self) -> str:
        """Return the part of the log about the pack's import, or its end where there is none."""
        lines = self._log_lines()
        for number, line in enumerate(lines):
            if PACK_NAME in line and ("Cannot import" in line or "Error while" in line):
                begin = number
                while begin > 0 and "Traceback" not in lines[begin]:
                    begin -= 1
                return "\n" + "\n".join(lines[begin : number + 1])
        return self.log_tail()

    def check_alive(self) -> None:
        """Raise HostError if the process has ended."""
        if self._process is None or self._process.poll() is not None:
            status = self._process.returncode if self._process else "none: it was never started"
            raise HostError(f"ComfyUI has ended, exit status {status}.{self.log_tail()}")

    def _log_lines(self) -> list[str]:
        if self.log is None or not self.log.is_file():
            return []
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def log_tail(self, count: int = 40) -> str:
        """Return the end of the log, ready to be appended to a message."""
        lines = self._log_lines()[-count:]
        return "\n" + "\n".join(["The end of its log:", *lines]) if lines else ""

    def wait(self) -> int:
        """Wait for the process to end by itself and return its exit status."""
        return self._process.wait() if self._process else 0

    def stop(self) -> None:
        """End the process and remove the link to the pack."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        remove_link(self.base / "custom_nodes" / PACK_NAME)

    def __enter__(self) -> "ComfyServer":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
