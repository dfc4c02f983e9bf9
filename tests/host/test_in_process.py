"""The in-process host: objects go in and out of a graph unchanged, and failures are told."""

import pytest
import torch

COUNTING_NODE = """
import time
import comfy.utils

class Count:
    RETURN_TYPES = ("INT",)
    FUNCTION = "count"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"total": ("INT", {"default": 1})}}

    def count(self, total):
        bar = comfy.utils.ProgressBar(total)
        for _ in range(total):
            time.sleep(0.11)  # ComfyUI reports no more often than every 0.1 s
            bar.update(1)
        return (total,)

NODE_CLASS_MAPPINGS = {"GenXDTest_Count": Count}
"""


def test_value_reaches_capture_unchanged(host):
    tensor = torch.rand(2, 8, 8, 3)
    graph = {"1": host.value(tensor), "2": host.capture(["1", 0])}
    assert host.run(graph).captured["out"] is tensor


def test_run_node_returns_every_output(host):
    picture = torch.zeros(1, 4, 4, 3)
    (inverted,) = host.run_node("ImageInvert", image=picture)
    assert torch.equal(inverted, torch.ones(1, 4, 4, 3))


def test_second_run_captures_again(host):
    graph = {"1": host.value(7), "2": host.capture(["1", 0])}
    assert host.run(graph).captured == host.run(graph).captured == {"out": 7}


def test_refused_graph_names_node_and_input(host):
    graph = {
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": -5, "height": 64}},
        "2": host.capture(["1", 0]),
    }
    run = host.run(graph, check=False)
    assert "EmptyLatentImage 1" in run.error
    assert "width" in run.error
    assert "batch_size" in run.error
    with pytest.raises(AssertionError, match="EmptyLatentImage 1"):
        host.run(graph)


def test_failing_node_is_told_with_its_traceback(host):
    graph = {
        "1": host.value("no tensor"),
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": host.capture(["2", 0]),
    }
    run = host.run(graph, check=False)
    assert "ImageInvert" in run.error
    assert "nodes.py" in run.error
    assert not run.captured


def test_extras_are_loaded_on_demand(host):
    host.load_extras("nodes_mask")
    (mask,) = host.run_node("SolidMask", value=0.5, width=8, height=4)
    assert torch.equal(mask, torch.full((1, 4, 8), 0.5))


def test_pack_is_one_package_with_its_own_core(host):
    assert host.module("nodes").__name__.startswith(host.pack.__name__)
    assert host.module("genxd_core").__name__ == f"{host.pack.__name__}.genxd_core"


def test_node_ids_and_categories_follow_the_rule(host):
    ours = {
        name: node.GET_SCHEMA()
        for name, node in host.nodes.NODE_CLASS_MAPPINGS.items()
        if node.__module__.startswith(host.pack.__name__)
    }
    assert ours
    for name, schema in ours.items():
        assert name.startswith("GenXD_"), name
        assert schema.category.startswith("GenXD/"), name
        assert schema.description, f"{name} has no description"
        untold = [item.id for item in schema.inputs if not item.tooltip]
        assert not untold, f"inputs of {name} without a tooltip: {untold}"


def test_interrupt_in_a_progress_event_stops_the_graph(host, tmp_path):
    counter = tmp_path / "counter.py"
    counter.write_text(COUNTING_NODE, encoding="utf-8")
    host.load(counter)
    graph = {
        "1": {"class_type": "GenXDTest_Count", "inputs": {"total": 100}},
        "2": host.capture(["1", 0]),
    }
    seen = []

    def stop_at_second(name, data):
        if name == "progress":
            seen.append(data["value"])
            if len(seen) == 2:
                host.interrupt()

    run = host.run(graph, check=False, on_event=stop_at_second)
    assert run.error == "interrupted at GenXDTest_Count"
    assert len(seen) == 2
    assert not run.captured
    graph["1"]["inputs"]["total"] = 3
    assert host.run(graph).captured == {"out": 3}
