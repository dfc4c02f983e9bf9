"""The loader of perceptual models in ComfyUI."""

import pytest
import torch

from genxd_core.lifting.perceptual import load_perceptual
from tests.backbones import save_random_backbone
from tests.support import assert_same_up_to, seeded

NODE = "GenXD_LoadPerceptualModel"
GRADIENT = "gradient (no weights needed)"


@pytest.fixture(scope="module")
def folder(host):
    """The folder of the host, with a network in a sub-folder, and things that are none."""
    place = host.base / "models" / "genxd" / "perceptual"
    save_random_backbone(place / "sub" / "squeeze.safetensors")
    save_random_backbone(place / "squeeze.pth")
    torch.save({"a": torch.zeros(2)}, place / "other.pth")
    whole = (place / "squeeze.pth").read_bytes()
    (place / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (place / "notes.md").write_text("nothing of use", encoding="utf-8")
    return place


def choices(host, name, item):
    schema = host.call(host.nodes.NODE_CLASS_MAPPINGS[name].define_schema)
    return next(one.options for one in schema.inputs if one.id == item)


def graph_of(host, choice):
    """The loader alone, and what keeps its output."""
    node = {"class_type": NODE, "inputs": {"perceptual_model": choice}}
    return {"node": node, "out": host.capture(["node", 0])}


def test_choice_needs_no_weights_and_lists_the_files(host, folder):
    listed = choices(host, NODE, "perceptual_model")
    assert listed[0] == GRADIENT
    assert set(listed[1:]) == {"squeeze.pth", "sub/squeeze.safetensors", "other.pth", "cut.pth"}


def test_perceptual_models_are_not_listed_as_diffusion_models(host, folder):
    assert not [name for name in choices(host, "GenXD_LoadModel", "model") if "perceptual" in name]


def test_choice_of_no_weights_is_passed_on_as_such(host):
    assert host.run_node(NODE, perceptual_model=GRADIENT) == ("gradient",)


def test_loaded_model_passes_gradients(host, folder):
    """ComfyUI loads it in inference mode, and a fit needs gradients of it."""
    (model,) = host.run_node(NODE, perceptual_model="sub/squeeze.safetensors")
    assert isinstance(model, host.module("genxd_core").PerceptualModel)
    image, target = torch.rand(2, 1, 3, 32, 32, generator=seeded()).unbind()
    distance = model.distance(image.requires_grad_(), model.prepare(target))
    distance.sum().backward()
    assert float(image.grad.abs().max()) > 0
    own = load_perceptual(folder / "squeeze.pth")
    assert_same_up_to(distance.detach(), own(image.detach(), target), 1e-6)


def test_file_that_changed_is_loaded_again(host, folder):
    changing = folder / "changing.safetensors"
    save_random_backbone(changing, "squeeze", seed=1)
    before = host.run(graph_of(host, "changing.safetensors")).captured["out"]
    again = host.run(graph_of(host, "changing.safetensors")).captured["out"]
    assert again is before
    save_random_backbone(changing, "alex", seed=2)
    after = host.run(graph_of(host, "changing.safetensors")).captured["out"]
    changing.unlink()
    assert (before.name, after.name) == ("squeeze", "alex")


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("other.pth", "GenXD Load Perceptual Model: "),
        ("other.pth", "other.pth is no perceptual model that is known: it holds 1 tensors"),
        ("cut.pth", "cut.pth is cut off or damaged, or no file of tensors by torch"),
        ("gone.pth", "perceptual_model: 'gone.pth' not in"),
    ],
)
def test_mistakes_are_told(host, folder, choice, told):
    assert told in host.run(graph_of(host, choice), check=False).error


def test_another_output_is_refused_by_the_input_of_a_fit(host):
    checks, types = host.module("nodes._checks"), host.module("nodes._types")
    gx = host.module("genxd_core")
    inputs = [types.PerceptualSocket.Input("perceptual")]
    checks.check_values(inputs, {"perceptual": "gradient"})
    with pytest.raises(
        gx.InvalidInputError, match="is a Tensor; expected the perceptual output of"
    ):
        checks.check_values(inputs, {"perceptual": torch.zeros(1)})
