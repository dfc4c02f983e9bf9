"""How long importing takes: the library beside torch, and the pack beside ComfyUI.

Every run is a fresh interpreter; the shortest of some is reported, since anything else on the
machine only makes it longer. The exit status is 1 where a limit is passed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.comfy_server import prepare_base, remove_link
from tools.environment import ROOT
from tools.host_source import find_host

__all__ = ["LIMITS_S", "library_s", "pack_s"]

LIMITS_S = {"import genxd_core": 0.3, "every public name": 0.5, "the pack in ComfyUI": 1.0}

_LIBRARY = """
import json, sys, time
import torch
sys.path.insert(0, sys.argv[1])
start = time.perf_counter()
import genxd_core
bare = time.perf_counter()
for name in genxd_core.__all__:
    getattr(genxd_core, name)
print(json.dumps([bare - start, time.perf_counter() - start]))
"""

_PACK = """
import asyncio, importlib, json, sys, time
comfy_root, base, pack = sys.argv[1:]
sys.argv = sys.argv[:1]
sys.path.insert(0, comfy_root)
from comfy.cli_args import args
args.cpu, args.base_directory = True, base
nodes, _, server = map(importlib.import_module, ("nodes", "execution", "server"))

async def load():
    server.PromptServer(asyncio.get_running_loop())
    await nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
    start = time.perf_counter()
    assert await nodes.load_custom_node(pack)
    return time.perf_counter() - start

seconds = asyncio.run(load())
assert "GenXD_LoadModel" in nodes.NODE_CLASS_MAPPINGS
print(json.dumps(seconds))
"""


def library_s(runs: int = 3) -> tuple[float, float]:
    """Seconds for ``import genxd_core``, and with every public name, with torch imported before."""
    found = [_run(_LIBRARY, str(ROOT)) for _ in range(runs)]
    return min(bare for bare, _ in found), min(whole for _, whole in found)


def pack_s(comfy_root: Path, runs: int = 3) -> float:
    """Seconds that the pack adds to a start of ComfyUI that has loaded its own nodes."""
    with tempfile.TemporaryDirectory() as folder:
        pack = prepare_base(Path(folder))
        try:
            return min(float(_run(_PACK, str(comfy_root), folder, str(pack))) for _ in range(runs))
        finally:
            remove_link(pack)


def _run(script: str, *arguments: str) -> list[float] | float:
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    found: list[float] | float = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measure, print a table, and say whether the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="interpreters to start for each")
    runs = parser.parse_args().runs
    comfy_root = find_host()
    if comfy_root is None:
        print("no ComfyUI: set COMFYUI_PATH, or run `python dev.py setup`", file=sys.stderr)
        return 2
    found = dict(zip(LIMITS_S, (*library_s(runs), pack_s(comfy_root, runs)), strict=True))
    for name, seconds in found.items():
        print(f"{name:<24} {seconds:7.3f} s   (limit {LIMITS_S[name]:.1f} s)")
    return int(any(seconds > LIMITS_S[name] for name, seconds in found.items()))


if __name__ == "__main__":
    sys.exit(main())
