"""Fixtures and marks for all tests.

The fixtures of the host are imported here, not in ``tests/host``, so that the tests of nodes and
workflows share one ComfyUI with them.
"""

import os

import pytest
import torch

import tests.typechecker  # the import hook looks it up as an attribute of `tests`
from tests.host.browser_fixtures import browser, page, page_errors
from tests.host.comfy_fixtures import comfy_root, host, server

__all__ = ["browser", "comfy_root", "host", "page", "page_errors", "server", "tests"]

# The host warns about matters of its own; a warning from our own code still fails.
HOST_WARNINGS = ("default", "error:::.*ComfyUI-GenXD.*")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if "comfy_root" in used:
            item.add_marker("comfy")
            for rule in HOST_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(rule))
        if "browser" in used:
            item.add_marker("browser")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("weights") and not os.environ.get("GENXD_WEIGHTS"):
            item.add_marker(pytest.mark.skip(reason="GENXD_WEIGHTS names no folder of weights"))
