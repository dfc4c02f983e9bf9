"""A whole GenXD graph in API form, and what a real server says about a changed one."""

import copy
from dataclasses import dataclass
from typing import Any

from tools.comfy_client import ComfyClient, PromptError

__all__ = ["Answer", "ask", "changed", "graph"]

Graph = dict[str, dict[str, Any]]

_SWING = {"azimuth_from": -20.0, "azimuth_to": 20.0, "elevation": 0.0, "radius": 2.0}


def graph(model: str = "mini") -> Graph:
    """Pictures to views: every node of the pack that a run needs."""
    return copy.deepcopy(
        {
            "load": {
                "class_type": "GenXD_LoadModel",
                "inputs": {"model": model, "weight_dtype": "fp32", "vae": "beside the model"},
            },
            "picture": {
                "class_type": "EmptyImage",
                "inputs": {"width": 80, "height": 48, "batch_size": 1, "color": 0x4080C0},
            },
            "path": {
                "class_type": "GenXD_MakeCameraPath",
                "inputs": {
                    "path": "forward-facing",
                    **{f"path.{key}": value for key, value in _SWING.items()},
                    "num_views": 4,
                    "easing": "linear",
                    "focal": 1.0938,
                    "width": 80,
                    "height": 48,
                },
            },
            "fit": {
                "class_type": "GenXD_FitViews",
                "inputs": {
                    "images": ["picture", 0],
                    "cameras": ["path", 0],
                    "width": 32,
                    "height": 32,
                    "mode": "crop",
                    "mask_is": "transparency",
                    "multiple": 16,
                    "background": 1.0,
                },
            },
            "condition": {
                "class_type": "GenXD_ConditionViews",
                "inputs": {
                    "vae": ["load", 1],
                    "images": ["fit", 0],
                    "cameras": ["fit", 1],
                    "fit": ["fit", 2],
                    "indices": "0",
                    "mode": "4d",
                    "motion_strength": 0.5,
                },
            },
            "sample": {
                "class_type": "KSampler",
                "inputs": {
                    "model": ["load", 0],
                    "positive": ["condition", 0],
                    "negative": ["condition", 1],
                    "latent_image": ["condition", 2],
                    "seed": 1,
                    "steps": 2,
                    "cfg": 3.0,
                    "sampler_name": "euler",
                    "scheduler": "karras",
                    "denoise": 1.0,
                },
            },
            "decode": {
                "class_type": "GenXD_DecodeViews",
                "inputs": {"samples": ["sample", 0], "vae": ["load", 1], "frames_per_chunk": 0},
            },
            "save": {
                "class_type": "SaveImage",
                "inputs": {"images": ["decode", 0], "filename_prefix": "views"},
            },
        }
    )


def changed(changes: dict[str, Any], base: Graph | None = None) -> Graph:
    """The graph with ``{"node.input": value}`` changes; None takes an input away, a dict with a
    ``class_type`` adds a node."""
    new = base or graph()
    for name, value in changes.items():
        if isinstance(value, dict) and "class_type" in value:
            new[name] = value
            continue
        node, _, key = name.partition(".")
        if value is None:
            del new[node]["inputs"][key]
        else:
            new[node]["inputs"][key] = value
    return new


@dataclass(frozen=True)
class Answer:
    """Why a server did not run a graph to its end.

    Attributes:
        when: "refused" at queue time, or "failed" while running.
        node: the id of the node it names first.
        class_type: of that node.
        message: what it says.
    """

    when: str
    node: str
    class_type: str
    message: str


def ask(client: ComfyClient, prompt: Graph) -> Answer:
    """Queue a graph that cannot work."""
    try:
        client.run(prompt, timeout=120)
    except PromptError as error:
        return _answer(error.details)
    raise AssertionError("the graph ran to its end")


def _answer(details: dict[str, Any]) -> Answer:
    if "exception_message" in details:
        return Answer(
            "failed", details["node_id"], details["node_type"], details["exception_message"]
        )
    for node, found in details.get("node_errors", {}).items():
        reasons = [f"{reason['message']}: {reason['details']}" for reason in found["errors"]]
        return Answer("refused", node, found["class_type"], "\n".join(reasons))
    error = details["error"]
    return Answer("refused", "", "", f"{error['message']} {error['details']}")
