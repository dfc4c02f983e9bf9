"""``python -m tools.demo``: run the demo workflow in a real ComfyUI and collect what it makes."""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

from .comfy_client import ComfyClient, Graph, PromptError, output_files, referenced_inputs
from .comfy_server import ComfyServer, HostError, device_flags
from .environment import CACHE, ROOT

__all__ = ["ProgressPrinter", "collect", "main"]

PROMPT = ROOT / "workflows" / "api" / "demo.json"
INPUTS = ROOT / "workflows" / "inputs"
OUTPUT = ROOT / "demo_output"

_BAR_WIDTH = 30


class ProgressPrinter:
    """Turns ComfyUI's messages into a progress bar, or into plain lines where there is no terminal.

    Args:
        graph: the prompt, for the titles of its nodes.
        out: where to print.
    """

    def __init__(self, graph: Graph, out: TextIO) -> None:
        self._graph = graph
        self._out = out
        self._title = ""
        self._open = False
        self._tenth = 0

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        """Take one message."""
        if name == "executing" and data.get("node"):
            self._start(str(data["node"]))
        elif name == "progress":
            self._advance(int(data["value"]), max(1, int(data["max"])))
        elif name.startswith("execution_") and name != "execution_start":
            self._close()

    def _start(self, node_id: str) -> None:
        self._close()
        node = self._graph.get(node_id, {})
        title = node.get("_meta", {}).get("title") or node.get("class_type") or f"node {node_id}"
        self._title = str(title)
        self._tenth = 0
        self._write(f"  {self._title}")
        self._open = True

    def _advance(self, value: int, total: int) -> None:
        if self._out.isatty():
            done = _BAR_WIDTH * value // total
            bar = "#" * done + "." * (_BAR_WIDTH - done)
            self._write(f"\r  {self._title} [{bar}] {value}/{total}")
        elif 10 * value // total > self._tenth:
            self._tenth = 10 * value // total
            self._write(f" {10 * self._tenth}%")
        self._open = True

    def _close(self) -> None:
        if self._open:
            self._write("\n")
        self._open = False

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def collect(client: ComfyClient, entry: dict[str, Any], folder: Path) -> list[Path]:
    """Save every file that a finished prompt reports, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for file in output_files(entry):
        if file["type"] == "input":
            continue
        # The name comes from a server: only its last part is a name.
        path = folder / Path(file["filename"]).name
        path.write_bytes(client.view(file))
        saved.append(path)
    return saved


def run(comfy_root: Path, prompt: Path, folder: Path) -> list[Path]:
    """Run one API prompt in a fresh server and return the files that it left in ``folder``.

    Raises:
        HostError: ComfyUI or the pack did not start.
        PromptError: the prompt failed.
    """
    graph: Graph = json.loads(prompt.read_text(encoding="utf-8"))
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="demo-") as base:
        log = Path(base) / "comfyui.log"
        server = ComfyServer(comfy_root, Path(base), flags=device_flags(), log=log)
        print("Starting ComfyUI; this takes about half a minute", flush=True)
        with server:
            client = ComfyClient(server.url, server.check_alive)
            for path in referenced_inputs(graph, INPUTS):
                client.upload(path)
            print(f"Running {prompt.relative_to(ROOT).as_posix()}", flush=True)
            entry = client.run(graph, on_event=ProgressPrinter(graph, sys.stdout), timeout=3600)
            return collect(client, entry, folder)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(prog="dev.py demo", description=__doc__)
    parser.add_argument("--comfy-root", type=Path, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    # So that the server is stopped too when this process is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    try:
        files = run(options.comfy_root, PROMPT, OUTPUT)
    except (HostError, PromptError, TimeoutError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\nDone in {time.monotonic() - started:.0f} seconds. The results are in {OUTPUT}:")
    for path in files:
        print(f"  {path.name}  ({path.stat().st_size / 1024:.0f} KiB)")
    print("\nTo see and change the graph in a browser: python dev.py serve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
