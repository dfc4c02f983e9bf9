"""``python -m tools.demo``: run example workflows in a real ComfyUI and collect what they make."""

import argparse
import json
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from .comfy_client import ComfyClient, Graph, PromptError, output_files
from .comfy_server import ComfyServer, HostError, copy_inputs, device_flags, prepare_base
from .environment import CACHE, ROOT

__all__ = [
    "DEMO",
    "INPUTS",
    "OUTPUT",
    "PROMPTS",
    "ProgressPrinter",
    "UnknownWorkflow",
    "bundled_server",
    "collect",
    "file_stems",
    "load_prompt",
    "main",
    "run",
]

DEMO = ("01_image_to_3d_views", "02_image_to_4d_video", "06_image_to_splat")
PROMPTS = ROOT / "workflows" / "api"
INPUTS = ROOT / "workflows" / "inputs"
OUTPUT = ROOT / "demo_output"

_BAR_WIDTH = 30
# Results that people are told to look for, by the names that they would have otherwise.
_WELL_KNOWN = {"06_image_to_splat_scene": "scene", "06_image_to_splat_spin": "spin"}


class UnknownWorkflow(ValueError):
    """There is no example workflow of this name."""


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
            self.close()

    def _start(self, node_id: str) -> None:
        self.close()
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

    def close(self) -> None:
        """End the line that is open, if any."""
        if self._open:
            self._write("\n")
        self._open = False

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def collect(
    client: ComfyClient, entry: dict[str, Any], folder: Path, stems: Mapping[str, str] | None = None
) -> list[Path]:
    """Save every file that a finished prompt reports, and return the paths.

    Args:
        client: of the server that ran it.
        entry: the record of the prompt.
        folder: where to; made if needed, and files of the same names are replaced.
        stems: names without suffix, by node; nodes that are not in it keep the server's names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for node_id, output in entry.get("outputs", {}).items():
        files = [file for file in output_files({"outputs": output}) if file["type"] != "input"]
        for number, file in enumerate(files):
            # The name comes from a server: only its last part is a name.
            path = folder / Path(file["filename"]).name
            if stems and node_id in stems:
                several = f"_{number:02d}" if len(files) > 1 else ""
                path = folder / f"{stems[node_id]}{several}{path.suffix}"
            path.write_bytes(client.view(file))
            saved.append(path)
    return saved


def file_stems(name: str, graph: Graph) -> dict[str, str]:
    """Name the results of a workflow after it and after the titles of its nodes.

    The scene and the spin of 06 are just ``scene`` and ``spin``.
    """
    slugs = {
        node_id: re.sub(r"[^a-z0-9]+", "_", node["_meta"]["title"].lower()).strip("_")
        for node_id, node in graph.items()
    }
    taken = Counter(slugs.values())
    stems = {
        node_id: f"{name}_{slug}" + (f"_{node_id}" if taken[slug] > 1 else "")
        for node_id, slug in slugs.items()
    }
    return {node_id: _WELL_KNOWN.get(stem, stem) for node_id, stem in stems.items()}


def load_prompt(name: str) -> Graph:
    """Return the API prompt of an example workflow.

    Raises:
        UnknownWorkflow: there is none of this name.
    """
    path = PROMPTS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PROMPTS.glob("*.json")))
        raise UnknownWorkflow(f"there is no workflow {name!r}; there are: {known}")
    return cast(Graph, json.loads(path.read_text(encoding="utf-8")))


@contextmanager
def bundled_server(
    comfy_root: Path, settings: Mapping[str, Any] | None = None
) -> Iterator[ComfyServer]:
    """Run a server of its own, with the inputs of the example workflows in place.

    Args:
        comfy_root: ComfyUI's folder.
        settings: of ComfyUI's page.

    Raises:
        HostError: ComfyUI or the pack did not start.
    """
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="demo-") as base:
        prepare_base(Path(base))
        copy_inputs(INPUTS, Path(base))
        if settings:
            file = Path(base) / "user" / "default" / "comfy.settings.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(dict(settings)), encoding="utf-8")
        log = Path(base) / "comfyui.log"
        print("Starting ComfyUI; this takes about half a minute", flush=True)
        with ComfyServer(comfy_root, Path(base), flags=device_flags(), log=log) as server:
            yield server


def run(server: ComfyServer, name: str, folder: Path) -> list[Path]:
    """Run a workflow and return the files that it left in ``folder``.

    Raises:
        PromptError: the prompt failed.
    """
    graph = load_prompt(name)
    client = ComfyClient(server.url, server.check_alive)
    print(f"Running workflows/api/{name}.json", flush=True)
    printer = ProgressPrinter(graph, sys.stdout)
    entry = client.run(graph, on_event=printer, timeout=3600)
    printer.close()
    return collect(client, entry, folder, file_stems(name, graph))


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="dev.py demo",
        description="Run example workflows in a real ComfyUI and collect what they make.",
    )
    parser.add_argument("--comfy-root", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument(
        "workflows", nargs="*", default=DEMO, metavar="WORKFLOW", help="default: " + " ".join(DEMO)
    )
    options = parser.parse_args(arguments)
    # So that the server is stopped too when this process is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    files: list[Path] = []
    try:
        for name in options.workflows:
            load_prompt(name)  # a wrong name is told before the server starts
        with bundled_server(options.comfy_root) as server:
            for name in options.workflows:
                files += run(server, name, OUTPUT)
    except (HostError, PromptError, TimeoutError, UnknownWorkflow) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\nDone in {time.monotonic() - started:.0f} seconds. The results are in {OUTPUT}:")
    for path in files:
        print(f"  {path.name}  ({path.stat().st_size / 1024:.0f} KiB)")
    print("\nTo see and change the graphs in a browser: python dev.py serve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
