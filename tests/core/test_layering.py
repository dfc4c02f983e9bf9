"""Who may import whom: nodes -> genxd_core <- trainer, and nothing optional when a file loads."""

import ast
import json
import subprocess
import sys

import pytest

from tests.source_code import imports, modules, name_of, parse
from tests.support import ROOT

CORE = modules("genxd_core")
HOST = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "server",
}
OURS = {"genxd_core", "genxd_trainer", "nodes", "tests", "tools", "trainer"}
CORE_AT_LOAD = {"PIL", "einops", "jaxtyping", "numpy", "safetensors", "torch"}


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_knows_neither_host_nor_clients(path):
    absolute = {top(item.module) for item in imports(parse(path)) if not item.level}
    assert not absolute & HOST
    assert not absolute & OURS, "imports inside the core are relative"


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_loads_only_its_few_requirements(path):
    at_load = {top(item.module) for item in imports(parse(path)) if item.at_load and not item.level}
    assert at_load <= CORE_AT_LOAD | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", modules("genxd_core"), ids=name_of)
def test_core_never_reaches_above_itself(path):
    depth = len(path.relative_to(ROOT).parts) - 1
    assert all(item.level <= depth for item in imports(parse(path)))


@pytest.mark.parametrize("path", modules("trainer"), ids=name_of)
def test_trainer_knows_only_the_core(path):
    absolute = {top(item.module) for item in imports(parse(path)) if not item.level}
    assert not absolute & (HOST | OURS - {"genxd_core"})
    assert all(item.level <= 1 + path.parts.count("trainer") for item in imports(parse(path)))


@pytest.mark.parametrize("path", modules("nodes"), ids=name_of)
def test_nodes_import_ours_relatively_and_never_the_trainer(path):
    depth = len(path.relative_to(ROOT).parts)
    for item in imports(parse(path)):
        if item.level == 0:
            # ComfyUI has a module `nodes` of its own, and ours would be a second copy.
            assert top(item.module) not in OURS
        elif item.level == depth:
            assert top(item.module) == "genxd_core"
        assert item.level <= depth


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_protocols_of_the_core_can_be_checked_at_run_time(path):
    """Else the hook that checks annotations in the tests cannot even import the module."""
    unchecked = [
        node.name
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ClassDef)
        and "Protocol" in map(ast.unparse, node.bases)
        and "runtime_checkable" not in map(ast.unparse, node.decorator_list)
    ]
    assert not unchecked, "decorate with typing.runtime_checkable"


def run_fresh(program: str) -> list[str]:
    """Run a program in a new interpreter and return the list that it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_core_loads_nothing_heavy():
    loaded = run_fresh("import sys, json, genxd_core; print(json.dumps(sorted(sys.modules)))")
    assert not {top(module) for module in loaded} & (CORE_AT_LOAD | HOST)


def test_every_public_name_resolves_without_optional_packages():
    program = """
import sys, json, genxd_core
missing = [name for name in genxd_core.__all__ if not hasattr(genxd_core, name)]
print(json.dumps([missing, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    missing, loaded = run_fresh(program)
    assert missing == []
    optional = {"accelerate", "av", "cv2", "diffusers", "gsplat", "lpips", "matplotlib", "numba"}
    optional |= {"pycolmap", "ray", "scipy", "torchmetrics", "tqdm", "transformers", "tyro"}
    # What torch and jaxtyping themselves load when it happens to be installed is not our choice.
    by_torch = run_fresh(
        "import sys, json, torch, jaxtyping, einops, safetensors.torch, PIL.Image\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    assert not set(loaded) & ((optional | HOST) - set(by_torch))


def test_core_works_as_part_of_a_package_of_any_name(tmp_path):
    """ComfyUI loads the pack's folder under its path, with spaces and hyphens in it."""
    program = f"""
import sys, json, importlib.util
from pathlib import Path
root = Path({str(ROOT)!r})
name = "/packs/My Pack-1"
spec = importlib.util.spec_from_file_location(name, root / "__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
import importlib
core = importlib.import_module(name + ".genxd_core")
resolved = [getattr(core, public) for public in core.__all__]
print(json.dumps([core.__name__, sorted(n for n in sys.modules if n.startswith("genxd_core"))]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name, loaded_absolutely = json.loads(done.stdout.splitlines()[-1])
    assert name == "/packs/My Pack-1.genxd_core"
    assert loaded_absolutely == []
