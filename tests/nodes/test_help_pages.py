"""The help pages say what the nodes do: every input, its range, and messages that exist."""

import re
from typing import Any

import pytest

from tests.nodes.test_registration import NODES, all_inputs
from tests.source_code import modules
from tests.support import ROOT

DOCS = ROOT / "web" / "docs"
SECTIONS = ["Inputs", "Outputs", "Example", "Common errors"]
# Where the paper's limits (appendix J) bear on what the node is used for.
COMFYUIS_OWN = ("sampler_name", "scheduler")  # lists that grow with ComfyUI
WITH_LIMITS = {
    "LoadModel",
    "MakeCameraPath",
    "LoadCameras",
    "ConditionViews",
    "SetMotionStrength",
} | {"SamplePath", "RefineVideo", "SampleMultiviewVideos"}


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def spoken(text: str) -> str:
    """Source without the seams of long strings, and without the difference between quotes."""
    text = re.sub(r"[\"']\s*\n\s*(?:rf|fr|f|r)?[\"']", "", text)
    return re.sub(r"[\"'`\\]", "", text)


@pytest.fixture(scope="module")
def sources() -> str:
    paths = modules("nodes", "genxd_core")
    return "\n".join(spoken(path.read_text(encoding="utf-8")) for path in paths)


@pytest.fixture(scope="module")
def schemas(host) -> dict[str, Any]:
    return {name: host.nodes.NODE_CLASS_MAPPINGS[name].GET_SCHEMA() for name in NODES}


@pytest.mark.parametrize("name", NODES)
def test_page_has_its_sections(name):
    text = page(name)
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    assert name.removeprefix("GenXD_") not in WITH_LIMITS or "App. J" in text


@pytest.mark.parametrize("name", NODES)
def test_page_is_titled_as_the_node(name, schemas):
    assert page(name).startswith(f"# {schemas[name].display_name}\n")


@pytest.mark.parametrize("name", NODES)
def test_page_names_every_input_choice_and_output(name, schemas):
    text = page(name)
    for path, item in all_inputs(schemas[name]):
        assert re.search(rf"\b{re.escape(item.id)}\b", text), path
        for option in getattr(item, "options", None) or []:
            key = getattr(option, "key", option)
            if item.id not in ("model", "vae", "file", "perceptual_model", *COMFYUIS_OWN):
                assert key in text, f"{path}: {key}"
    for output in schemas[name].outputs:
        assert f"| {output.display_name} |" in text


@pytest.mark.parametrize("name", NODES)
def test_page_names_the_range_of_every_number(name, schemas):
    text = page(name)
    for path, item in all_inputs(schemas[name]):
        if item.get_io_type() in ("INT", "FLOAT"):
            low, high = f"{item.min:g}", f"{item.max:g}"
            # Degrees and scene units are said once for inputs that share them.
            assert re.search(rf"(?<![\d.]){re.escape(low)}\b", text), f"{path}: {low}"
            assert re.search(rf"(?<![\d.]){re.escape(high)}\b", text), f"{path}: {high}"


def is_said(piece: str, sources: str) -> bool:
    """Whether most of some words stands in the source; names and numbers are filled in later."""
    words = piece.split()
    least = max(2, len(words) // 2) if len(words) > 1 else 1
    return any(
        " ".join(words[start : start + count]) in sources
        for count in range(len(words), least - 1, -1)
        for start in range(len(words) - count + 1)
    )


@pytest.mark.parametrize("name", NODES)
def test_messages_that_the_page_explains_exist(name, sources):
    rows = page(name).partition("## Common errors")[2].partition("\n## ")[0]
    messages = [
        quoted
        for row in re.findall(r"^\| (.+?) \|", rows, re.M)
        for quoted in re.findall(r"\*([^*]+)\*", row)
    ]
    assert messages
    for message in messages:
        pieces = [piece.strip(" ;,.") for piece in spoken(message).split("...")]
        said = [is_said(piece, sources) for piece in pieces if len(piece.split()) > 2]
        assert any(said) or not said, f"nothing says {message!r}"


def test_there_is_no_page_without_a_node(host):
    known = set(host.nodes.NODE_CLASS_MAPPINGS)
    assert [path.stem for path in DOCS.glob("*.md") if path.stem not in known] == []


def test_page_is_served(client):
    """Where ComfyUI's frontend looks for it."""
    text = client.get_bytes("/extensions/ComfyUI-GenXD/docs/GenXD_ConditionViews.md").decode()
    assert text == page("GenXD_ConditionViews")
