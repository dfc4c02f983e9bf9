"""A real ComfyUI for tests: as a server process, and as an executor in this process."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.in_process import Host
from tools.comfy_server import ComfyServer, prepare_base
from tools.environment import SetupError
from tools.host_source import find_host


@pytest.fixture(scope="session")
def comfy_root() -> Path:
    """ComfyUI's folder. Every test that uses it, directly or not, is one of the host."""
    try:
        found = find_host()
    except SetupError as error:
        pytest.fail(str(error))
    if found is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH, or run `python dev.py setup`")
    return found


@pytest.fixture(scope="session")
def server(comfy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """One server on the CPU, with the pack, for the whole session."""
    base = tmp_path_factory.mktemp("server")
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    # Else the page greets its first visitor with the template browser over the graph.
    settings.write_text(json.dumps({"Comfy.TutorialCompleted": True}), encoding="utf-8")
    with ComfyServer(comfy_root, base, flags=["--cpu"], log=base / "comfyui.log") as running:
        yield running


@pytest.fixture(scope="session")
def host(comfy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """ComfyUI in this process, with the pack: graphs run in milliseconds, tensors can be seen."""
    base = tmp_path_factory.mktemp("host")
    pack = prepare_base(base)
    running = Host(comfy_root, base, pack)
    yield running
    running.close()
