"""A workflow in ComfyUI's page, in a headless Chromium: opened, run, photographed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .browser import FLAGS, NOT_FOUND, find_chromium
from .comfy_client import ComfyClient, raise_for_failure

__all__ = ["PAGE_SETTINGS", "BrowserMissing", "open_graph", "opened_page", "run_graph"]

# Else the page greets its first visitor with the template browser over the graph.
PAGE_SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}
VIEWPORT = {"width": 1920, "height": 1080}

_READY = """() => {
  const types = window.LiteGraph?.registered_node_types ?? {};
  return window.app?.graph && Object.keys(types).some((name) => name.startsWith("GenXD_"));
}"""
_OPEN = "async ([graph, name]) => { await app.loadGraphData(graph, true, true, name); }"
_QUEUE = "async () => await app.queuePrompt(0, 1)"
_SETTLING = 2000
"""Milliseconds in which the page draws what it was told."""


class BrowserMissing(RuntimeError):
    """There is no Chromium on this machine."""


@contextmanager
def opened_page(url: str) -> Iterator[Any]:
    """Open ComfyUI's page (a playwright ``Page``) in a browser of its own.

    Raises:
        BrowserMissing: no Chromium was found.
    """
    from playwright import sync_api

    executable = find_chromium()
    if executable is None:
        raise BrowserMissing(NOT_FOUND)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(executable), args=list(FLAGS))
        page = browser.new_page(viewport=VIEWPORT)  # type: ignore[arg-type]
        # Not "networkidle": the page's websocket never rests.
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_function(_READY, timeout=120_000)
        page.wait_for_timeout(_SETTLING)
        yield page
        browser.close()


def open_graph(page: Any, graph: dict[str, Any], name: str) -> None:
    """Open a graph in the page."""
    page.evaluate(_OPEN, [graph, name])
    page.wait_for_timeout(_SETTLING)


def run_graph(
    page: Any, client: ComfyClient, *, timeout: float = 600.0, picture: Path | None = None
) -> dict[str, Any]:
    """Press the page's button, wait for the end, and return the record.

    Args:
        page: with the graph opened.
        client: of the page's server.
        timeout: the most seconds to wait.
        picture: where to save a photograph of the page with the results, if anywhere.

    Raises:
        PromptError: the prompt failed.
        TimeoutError: it did not end in time, or was not accepted.
    """
    before = set(client.get("/history"))
    page.evaluate(_QUEUE)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        finished = {k: v for k, v in client.get("/history").items() if k not in before}
        if finished:
            entry: dict[str, Any] = next(iter(finished.values()))
            raise_for_failure(entry)
            page.wait_for_timeout(_SETTLING)
            if picture is not None:
                page.screenshot(path=str(picture))
            return entry
        page.wait_for_timeout(200)
    raise TimeoutError(f"the page's prompt did not end within {timeout:g} seconds")
