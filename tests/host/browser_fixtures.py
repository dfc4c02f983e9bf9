"""The real frontend in a headless Chromium."""

from collections.abc import Iterator
from typing import Any

import pytest

from tools.browser import FLAGS, NOT_FOUND, find_chromium
from tools.comfy_server import ComfyServer

READY = """() => {
  const types = window.LiteGraph?.registered_node_types ?? {};
  return window.app?.graph && Object.keys(types).some((name) => name.startsWith("GenXD_"));
}"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium (a playwright ``Browser``) for the whole session."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = find_chromium()
    if executable is None:
        pytest.skip(NOT_FOUND)
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(executable), args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def page_errors() -> list[str]:
    """Uncaught exceptions of the page's scripts, as they come."""
    return []


@pytest.fixture
def page(browser: Any, server: ComfyServer, page_errors: list[str]) -> Iterator[Any]:
    """ComfyUI's page (a playwright ``Page``), loaded, with the pack's nodes in its menu."""
    opened = browser.new_page(viewport={"width": 1600, "height": 1000})
    opened.on("pageerror", lambda error: page_errors.append(str(error)))
    # Not "networkidle": the page's websocket never rests.
    opened.goto(server.url, wait_until="domcontentloaded")
    opened.wait_for_function(READY, timeout=120_000)
    yield opened
    opened.close()
