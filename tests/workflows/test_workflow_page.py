"""The graphs in the real page: what it makes of them is the API prompt, and they run from it."""

import json

import pytest

from tools.comfy_server import PACK_NAME
from tools.demo import PROMPTS
from tools.workflows import FOLDER
from tools.workflows_page import open_graph, run_graph

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
SETTLING = 2000  # milliseconds


def graph_of(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def settled(client, page):
    """The page, opened after the inputs were there (``client``), so that its menus have them."""
    page.wait_for_timeout(SETTLING)
    return page


def differences(stored: dict, shown: dict) -> list[str]:
    """What the page changed in a graph by opening it."""
    found = []
    shown_nodes = {node["id"]: node for node in shown["nodes"]}
    for node in stored["nodes"]:
        other = shown_nodes[node["id"]]
        pairs = {
            "type": (node["type"], other["type"]),
            "widgets": (node["widgets_values"], other.get("widgets_values") or []),
            "inputs": tuple([i["name"] for i in n["inputs"]] for n in (node, other)),
            "outputs": tuple([o["name"] for o in n["outputs"]] for n in (node, other)),
            "position": (node["pos"], other["pos"]),
            "width": (node["size"][0], other["size"][0]),
        }
        if node["type"] != "SaveVideo":  # the page makes it small until there is a video
            pairs["height"] = (node["size"][1], other["size"][1])
        found += [
            f"{node['type']} {node['id']}: {what}: {ours} became {theirs}"
            for what, (ours, theirs) in pairs.items()
            if ours != theirs
        ]
    links = [sorted(map(tuple, graph["links"])) for graph in (stored, shown)]
    if links[0] != links[1]:
        found.append(f"links: {set(links[0]) ^ set(links[1])}")
    groups = [[(g["title"], g["bounding"]) for g in graph["groups"]] for graph in (stored, shown)]
    if groups[0] != groups[1]:
        found.append(f"groups: {groups}")
    return found


@pytest.mark.slow
def test_page_opens_every_graph_as_it_is_and_makes_its_api_prompt(settled, page_errors):
    for name in NAMES:
        open_graph(settled, graph_of(name), name)
        prompt = settled.evaluate("async () => (await app.graphToPrompt()).output")
        for node in prompt.values():
            assert node.get("class_type"), f"{name}: the page lacks a node"
            assert not [key for key in node["inputs"] if key.startswith("UNKNOWN")]
            if "viewport_state" in node["inputs"]:  # the camera of a viewer, which only a page has
                assert node["inputs"]["viewport_state"].keys() >= {"camera_info", "model_3d_info"}
                node["inputs"]["viewport_state"] = ""
            if node["class_type"] == "LoadVideo":  # nor has anything else a player
                assert node["inputs"].pop("video-preview") == ""
        expected = json.loads((PROMPTS / f"{name}.json").read_text(encoding="utf-8"))
        assert prompt == expected, name
        shown = settled.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
        assert differences(graph_of(name), shown) == [], name
    assert page_errors == []


@pytest.mark.slow
def test_page_runs_a_workflow_and_shows_the_results(settled, client, page_errors, tmp_path):
    graph = graph_of("01_image_to_3d_views")
    (sampler,) = [node for node in graph["nodes"] if node["type"] == "KSampler"]
    sampler["widgets_values"][2] = 2
    open_graph(settled, graph, "01_image_to_3d_views")
    picture = tmp_path / "page.png"
    entry = run_graph(settled, client, picture=picture)
    assert entry["status"]["status_str"] == "success"
    shown = settled.evaluate(
        """() => Object.fromEntries(app.graph.nodes.filter((n) => n.imgs?.length)
             .map((n) => [n.title, [n.imgs[0].naturalWidth, n.imgs[0].naturalHeight]]))"""
    )
    assert shown["Picture"] == [256, 256]
    assert shown["Camera path"] == [1024, 512]
    assert shown["Contact sheet"] == [1036, 776]
    assert settled.locator("video").count() == 1
    assert picture.stat().st_size > 50_000
    assert page_errors == []


@pytest.mark.slow
def test_template_browser_shows_and_opens_the_workflows(settled):
    settled.get_by_text("Templates", exact=True).first.click()
    settled.get_by_text(PACK_NAME).first.click()
    for name in NAMES:
        settled.get_by_text(name, exact=True).first.wait_for(timeout=20_000)
    settled.get_by_text("01_image_to_3d_views", exact=True).first.click()
    settled.wait_for_function(
        "() => app.graph.nodes.some((node) => node.type === 'GenXD_ConditionViews')",
        timeout=20_000,
    )
    count = settled.evaluate("() => app.graph.nodes.length")
    assert count == len(graph_of("01_image_to_3d_views")["nodes"])
