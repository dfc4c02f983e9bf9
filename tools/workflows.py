"""``python -m tools.workflows``: make the example workflows and everything that shows them."""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .comfy_client import ComfyClient, PromptError
from .comfy_server import ComfyServer, HostError
from .demo import INPUTS, UnknownWorkflow, bundled_server, file_stems, load_prompt, run
from .environment import ROOT
from .workflows_graph import Workflow
from .workflows_page import PAGE_SETTINGS, BrowserMissing, open_graph, opened_page, run_graph
from .workflows_pictures import device_name, save_thumbnail, updated_page
from .workflows_recipes import recipes
from .workflows_schema import read_schemas

__all__ = ["FOLDER", "PAGE", "file_texts", "main"]

FOLDER = ROOT / "workflows"
PAGE = FOLDER / "README.md"
PHOTOGRAPH = ROOT / "docs" / "images" / "browser_workflow.png"
PHOTOGRAPHED = "01_image_to_3d_views"

STEPS = ("inputs", "build", "run", "page")


def file_texts(flow: Workflow, object_info: dict[str, object]) -> dict[Path, str]:
    """Return what a workflow's files should hold: the graph and the API prompt."""
    schemas = read_schemas(object_info)
    contents = {
        FOLDER / f"{flow.name}.json": flow.ui(schemas),
        FOLDER / "api" / f"{flow.name}.json": flow.api(schemas),
    }
    return {path: json.dumps(value, indent=1) + "\n" for path, value in contents.items()}


def build(server: ComfyServer, flows: Sequence[Workflow]) -> None:
    """Write graphs, prompts and the table."""
    object_info = ComfyClient(server.url).object_info()
    for flow in flows:
        for path, text in file_texts(flow, object_info).items():
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"  {path.relative_to(ROOT).as_posix()}")
    update_table({})


def update_table(seconds: dict[str, float]) -> None:
    """Bring the table up to date, with the times of what was run."""
    times = {name: f"{value:.0f} s, {device_name()}" for name, value in seconds.items()}
    text = updated_page(PAGE.read_text(encoding="utf-8"), recipes(), times)
    PAGE.write_text(text, encoding="utf-8", newline="\n")


def run_all(server: ComfyServer, flows: Sequence[Workflow]) -> None:
    """Run workflows, and make thumbnails and times of what happens."""
    seconds = {}
    for flow in flows:
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            files = run(server, flow.name, Path(folder))
            seconds[flow.name] = time.monotonic() - started
            save_thumbnail(_shown(flow, files), FOLDER / f"{flow.name}.jpg")
    update_table(seconds)


def _shown(flow: Workflow, files: Sequence[Path]) -> list[tuple[str, Path]]:
    """The pictures of a thumbnail, or its video, with the titles of their nodes."""
    graph = load_prompt(flow.name)
    stems = file_stems(flow.name, graph)
    titles = {stems[node_id]: str(graph[node_id]["_meta"]["title"]) for node_id in graph}
    order = list(titles)
    kinds = (".png",) if flow.picture is None else (".png", ".mp4")
    pictures = [(titles[f.stem], f) for f in files if f.suffix in kinds and f.stem in titles]
    pictures.sort(key=lambda shown: order.index(shown[1].stem))
    return [shown for shown in pictures if flow.picture in (None, shown[0])]


def photograph(server: ComfyServer) -> None:
    """Save a picture of ComfyUI's page with a finished workflow."""
    graph = json.loads((FOLDER / f"{PHOTOGRAPHED}.json").read_text(encoding="utf-8"))
    PHOTOGRAPH.parent.mkdir(parents=True, exist_ok=True)
    with opened_page(server.url) as page:
        open_graph(page, graph, PHOTOGRAPHED)
        run_graph(page, ComfyClient(server.url, server.check_alive), picture=PHOTOGRAPH)
    print(f"  {PHOTOGRAPH.relative_to(ROOT).as_posix()}")


def main(arguments: list[str] | None = None) -> int:
    """Do the steps that were asked for and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="dev.py workflows",
        description="Make the example workflows: inputs (pictures and cameras that they load), "
        "build (graphs, API prompts, table), run (thumbnails, times), page (a picture of the "
        "browser). All steps by default.",
    )
    parser.add_argument("--comfy-root", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--only", nargs="+", metavar="WORKFLOW", help="these workflows alone")
    options = parser.parse_args(arguments)
    unknown = set(options.steps) - set(STEPS)
    if unknown:
        parser.error(f"no such step: {', '.join(sorted(unknown))}; there are: {', '.join(STEPS)}")
    # So that the server is stopped too when this process is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _do(options.steps or list(STEPS), _chosen(options.only), options.comfy_root)
    except (HostError, PromptError, TimeoutError, UnknownWorkflow, BrowserMissing) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _chosen(names: Sequence[str] | None) -> list[Workflow]:
    flows = recipes()
    known = [flow.name for flow in flows]
    wrong = sorted(set(names or ()) - set(known))
    if wrong:
        raise UnknownWorkflow(f"there is no {', '.join(wrong)}; there are: {', '.join(known)}")
    return [flow for flow in flows if not names or flow.name in names]


def _do(steps: Sequence[str], flows: Sequence[Workflow], comfy_root: Path) -> None:
    if "inputs" in steps:
        from .workflows_inputs import write_inputs

        for path in write_inputs(INPUTS):
            print(f"  {path.relative_to(ROOT).as_posix()}")
    if not set(steps) & {"build", "run", "page"}:
        return
    with bundled_server(comfy_root, PAGE_SETTINGS) as server:
        if "build" in steps:
            build(server, flows)
        if "run" in steps:
            run_all(server, flows)
        if "page" in steps:
            photograph(server)


if __name__ == "__main__":
    sys.exit(main())
