"""Building graphs and prompts from descriptions, with made-up nodes."""

import pytest

from tools.workflows_graph import NOTE, Workflow, WorkflowError
from tools.workflows_schema import read_schemas


def node_info(title: str, required: dict, optional: dict | None = None, outputs=()) -> dict:
    return {
        "display_name": title,
        "input": {"required": required, "optional": optional or {}, "hidden": {"prompt": "PROMPT"}},
        "output": [kind for _, kind in outputs],
        "output_name": [name for name, _ in outputs],
    }


SCHEMAS = read_schemas(
    {
        "Load": node_info(
            "Load it",
            {"image": [["a.png", "b.png"], {"image_upload": True}]},
            outputs=[("IMAGE", "IMAGE"), ("MASK", "MASK")],
        ),
        "Sample": node_info(
            "Sample",
            {
                "steps": ["INT", {"default": 20}],
                "image": ["IMAGE", {}],
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
                "name": [["euler", "heun"]],
            },
            {"mask": ["MASK", {}], "strength": ["FLOAT", {"default": 0.5}]},
            outputs=[("latent", "LATENT")],
        ),
        "Choose": node_info(
            "Choose",
            {
                "path": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "orbit", "inputs": {"required": {"angle": ["FLOAT", {}]}}},
                            {"key": "join", "inputs": {"required": {"second": ["IMAGE", {}]}}},
                        ]
                    },
                ],
                "views": ["INT", {"default": 12}],
                "first": ["IMAGE", {}],
            },
        ),
        "Batch": node_info(
            "Batch",
            {
                "images": [
                    "COMFY_AUTOGROW_V3",
                    {
                        "template": {
                            "input": {"required": {"image": ["IMAGE", {}]}},
                            "prefix": "image",
                            "min": 1,
                            "max": 3,
                        }
                    },
                ]
            },
            outputs=[("IMAGE", "IMAGE")],
        ),
    }
)


@pytest.fixture
def flow() -> Workflow:
    return Workflow("99_test", "A test.")


def only(graph: dict, kind: str) -> dict:
    (node,) = [node for node in graph["nodes"] if node["type"] == kind]
    return node


def test_prompt_and_graph_of_two_linked_nodes(flow):
    group = flow.group("All", 0)
    image = flow.add(group, "Load", {"image": "b.png"}, title="My picture")
    flow.add(group, "Sample", {"image": image["IMAGE"], "mask": image["MASK"], "steps": 3})
    assert flow.api(SCHEMAS) == {
        "1": {
            "inputs": {"image": "b.png"},
            "class_type": "Load",
            "_meta": {"title": "My picture"},
        },
        "2": {
            "inputs": {
                "steps": 3,
                "seed": 0,
                "name": "euler",
                "strength": 0.5,
                "image": ["1", 0],
                "mask": ["1", 1],
            },
            "class_type": "Sample",
            "_meta": {"title": "Sample"},
        },
    }
    graph = flow.ui(SCHEMAS)
    assert graph["version"] == 0.4
    assert graph["links"] == [[1, 1, 0, 2, 0, "IMAGE"], [2, 1, 1, 2, 1, "MASK"]]
    sample = only(graph, "Sample")
    assert [entry["name"] for entry in sample["inputs"]] == [
        *("image", "mask", "steps", "seed", "name", "strength"),
    ]
    assert [entry["link"] for entry in sample["inputs"]] == [1, 2, None, None, None, None]
    # The seed has a second widget behind it in the page.
    assert sample["widgets_values"] == [3, 0, "fixed", "euler", 0.5]
    load = only(graph, "Load")
    assert load["title"] == "My picture"
    assert load["widgets_values"] == ["b.png", "image"]
    assert [entry["links"] for entry in load["outputs"]] == [[1], [2]]


def test_optional_sockets_are_drawn_hollow(flow):
    group = flow.group("All", 0)
    flow.add(group, "Sample", {})
    shapes = {entry["name"]: entry.get("shape") for entry in flow.ui(SCHEMAS)["nodes"][0]["inputs"]}
    assert shapes["mask"] == 7
    assert shapes["image"] is None


def test_inputs_of_a_choice_come_with_it(flow):
    group = flow.group("All", 0)
    flow.add(group, "Choose", {"path": "orbit", "path.angle": 90.0})
    image = flow.add(group, "Load", {})["IMAGE"]
    flow.add(group, "Choose", {"path": "join", "path.second": image, "first": image})
    prompt = flow.api(SCHEMAS)
    assert prompt["1"]["inputs"] == {"path": "orbit", "path.angle": 90.0, "views": 12}
    assert prompt["3"]["inputs"] == {
        "path": "join",
        "views": 12,
        "path.second": ["2", 0],
        "first": ["2", 0],
    }
    joined = flow.ui(SCHEMAS)["nodes"][2]
    assert [entry["name"] for entry in joined["inputs"]] == [
        *("first", "path", "path.second", "views"),
    ]
    assert joined["widgets_values"] == ["join", 12]


@pytest.mark.parametrize(("linked", "expected"), [(0, 1), (1, 2), (2, 3), (3, 3)])
def test_growing_inputs_have_one_to_spare(flow, linked, expected):
    group = flow.group("All", 0)
    image = flow.add(group, "Load", {})["IMAGE"]
    flow.add(group, "Batch", {f"images.image{number}": image for number in range(linked)})
    inputs = only(flow.ui(SCHEMAS), "Batch")["inputs"]
    assert [entry["name"] for entry in inputs] == [f"images.image{n}" for n in range(expected)]
    assert [entry["label"] for entry in inputs] == [f"image{n}" for n in range(expected)]


def test_note_is_in_the_graph_alone(flow):
    flow.note("# Title", 0)
    assert flow.api(SCHEMAS) == {}
    graph = flow.ui(SCHEMAS)
    assert only(graph, NOTE)["widgets_values"] == ["# Title"]
    assert graph["groups"] == []


def test_groups_of_one_column_stand_on_each_other_and_others_beside(flow):
    for title, column in (("A", 0), ("B", 0), ("C", 5)):
        flow.add(flow.group(title, column), "Load", {})
    boxes = {group["title"]: group["bounding"] for group in flow.ui(SCHEMAS)["groups"]}
    assert boxes["A"][0] == boxes["B"][0] < boxes["C"][0]
    assert boxes["B"][1] >= boxes["A"][1] + boxes["A"][3]
    assert boxes["C"][0] == boxes["A"][0] + boxes["A"][2] + 48


def test_rows_begin_at_one_height(flow):
    group = flow.group("All", 0)
    for row in range(2):
        flow.add(group, "Load", {}, row=row, room=100 * row)
        flow.add(group, "Sample", {}, row=row, column=1)
    first, second, third, fourth = (node["pos"][1] for node in flow.ui(SCHEMAS)["nodes"])
    assert first == second < third == fourth


@pytest.mark.parametrize(
    ("kind", "inputs", "message"),
    [
        ("None", {}, "ComfyUI has no node 'None'"),
        ("Sample", {"stepps": 3}, "Sample has no input stepps"),
        ("Choose", {"path": "spiral"}, "path is 'spiral', expected one of"),
        ("Choose", {"path": "orbit", "path.second": 1}, "Choose has no input path.second"),
    ],
)
def test_description_that_does_not_fit_the_nodes_is_refused(flow, kind, inputs, message):
    flow.add(flow.group("All", 0), kind, inputs)
    with pytest.raises(WorkflowError, match=message):
        flow.api(SCHEMAS)


@pytest.mark.parametrize(
    ("output", "message"),
    [("MASK", "'MASK' of Load is MASK, but input 'image' takes IMAGE"), ("ALPHA", "no output")],
)
def test_link_that_does_not_fit_is_refused(flow, output, message):
    group = flow.group("All", 0)
    loaded = flow.add(group, "Load", {})
    flow.add(group, "Sample", {"image": loaded[output]})
    with pytest.raises(WorkflowError, match=message):
        flow.ui(SCHEMAS)
