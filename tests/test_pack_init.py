"""The pack's root module, with and without a host around it."""

import importlib.util
import sys
from types import ModuleType

import pytest

from tests.support import ROOT


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Return a function that imports a copy of the root module beside a stand-in for ``nodes``."""
    folder = tmp_path / "some pack-name"
    (folder / "nodes").mkdir(parents=True)
    source = (ROOT / "__init__.py").read_text(encoding="utf-8")
    (folder / "__init__.py").write_text(source, encoding="utf-8")

    def import_pack(host_version: str | None, nodes: str = "async def comfy_entrypoint(): ..."):
        (folder / "nodes" / "__init__.py").write_text(nodes, encoding="utf-8")
        for name in ("folder_paths", "comfyui_version"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        if host_version is not None:
            for name in ("folder_paths", "comfyui_version"):
                module = ModuleType(name)
                module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
                monkeypatch.setitem(sys.modules, name, module)
            sys.modules["comfyui_version"].__version__ = host_version
        name = "/packs/some pack-name"
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.delitem(sys.modules, f"{name}.nodes", raising=False)
        spec.loader.exec_module(module)
        return module

    return import_pack


def test_without_a_host_there_are_no_nodes(load):
    module = load(None, nodes="raise RuntimeError('imported without a host')")
    assert module.WEB_DIRECTORY == "./web"
    assert not hasattr(module, "comfy_entrypoint")
    assert not hasattr(module, "NODE_CLASS_MAPPINGS")


@pytest.mark.parametrize(
    "version", ["0.30.0", "0.30.1", "0.31", "1.0.0", "0.30.0rc1", "0.30.0-dev"]
)
def test_with_a_host_the_entry_point_is_there(load, version):
    assert load(version).comfy_entrypoint


@pytest.mark.parametrize("version", ["0.29.9", "0.3.77", "0.4", "0.29.99.5"])
def test_older_host_is_refused_with_both_versions(load, version):
    with pytest.raises(ImportError, match=rf"needs ComfyUI 0\.30\.0 or newer and found {version}"):
        load(version)


def test_error_of_our_own_is_not_hidden(load):
    with pytest.raises(ImportError, match="a_module_of_ours"):
        load("0.30.0", nodes="import a_module_of_ours")
