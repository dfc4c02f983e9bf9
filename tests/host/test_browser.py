"""The pack in the real frontend."""

from tools.comfy_server import PACK_NAME


def test_page_loads_with_every_node_and_no_script_error(page, page_errors, server):
    registered = page.evaluate("() => Object.keys(window.LiteGraph.registered_node_types)")
    assert set(server.pack_nodes()) <= set(registered)
    assert page_errors == []


def test_node_help_page_can_be_fetched_by_the_page(page, server):
    for name in server.pack_nodes():
        status = page.evaluate(
            "async (url) => (await fetch(url)).status", f"/extensions/{PACK_NAME}/docs/{name}.md"
        )
        assert status == 200, name


def test_webgl_is_there_for_the_3d_previews(page):
    assert page.evaluate("() => !!document.createElement('canvas').getContext('webgl2')")


def test_graph_with_any_node_of_the_pack_keeps_its_inputs(page, server):
    for name in server.pack_nodes():
        prompt = page.evaluate(
            """async (name) => {
              app.graph.clear();
              app.graph.add(LiteGraph.createNode(name));
              return (await app.graphToPrompt()).output;
            }""",
            name,
        )
        (node,) = prompt.values()
        assert node["class_type"] == name
        assert not [key for key in node["inputs"] if key.startswith("UNKNOWN")]
