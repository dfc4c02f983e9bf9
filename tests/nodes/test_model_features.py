"""What ComfyUI does to any MODEL it can do to GenXD's: LoRA, merging, saving, precision."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import genxd_core as gx
from tests.nodes.scenes import make_mini_model, mini_unet
from tests.support import assert_same_up_to_std, seeded

BESIDE = "beside the model"
# Other kernels, and LoRA's own arithmetic, round otherwise.
ROUNDING = 1e-3


def load(host: Any, model: str, dtype: str = "fp32", vae: str = BESIDE) -> Any:
    return host.run_node("GenXD_LoadModel", model=model, weight_dtype=dtype, vae=vae)[0]


@pytest.fixture(scope="module")
def other_model(host, models: Path) -> Any:
    """The mini network with other weights."""
    make_mini_model(models / "other", mini_unet(seed=1))
    return load(host, "other")


# ---- LoRA ---------------------------------------------------------------------------------------

ADAPTED = {
    "conv_in": (32, 15 * 9),
    "down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q": (32, 32),
    "down_blocks.0.resnets.0.mv_res_block.conv1": (32, 32 * 3),
    "mid_block.resnets.0.temporal_res_block.time_emb_proj": (32, 128),
}


def make_lora(path: Path, name_of: Any) -> dict[str, Tensor]:
    """Write a LoRA of rank 2, and return what it adds to each weight."""
    weights = mini_unet().state_dict()
    generator, file, added = seeded(9), {}, {}
    for module, (rows, columns) in ADAPTED.items():
        down = torch.randn(2, columns, generator=generator) * 0.2
        up = torch.randn(rows, 2, generator=generator) * 0.2
        shape = weights[f"{module}.weight"].shape
        file[f"{name_of(module)}.lora_A.weight"] = down.reshape(2, *shape[1:]).contiguous()
        file[f"{name_of(module)}.lora_B.weight"] = up.reshape(rows, 2, *[1] * (len(shape) - 2))
        added[f"{module}.weight"] = (up @ down).reshape(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(file, path)
    return added


@pytest.mark.parametrize(
    "name_of",
    [
        lambda module: f"diffusion_model.{module}",
        lambda module: f"lora_unet_{module.replace('.', '_')}",
    ],
    ids=["generic", "lora_unet"],
)
def test_lora_equals_weights_with_it_baked_in(host, scene, models, request, name_of):
    name = request.node.callspec.id
    added = make_lora(host.base / "models" / "loras" / f"{name}.safetensors", name_of)
    baked = mini_unet()
    with torch.no_grad():
        for key, value in added.items():
            baked.get_parameter(key).add_(0.5 * value)
    make_mini_model(models / f"baked-{name}", baked)

    (adapted,) = host.run_node(
        "LoraLoaderModelOnly",
        model=scene.model,
        lora_name=f"{name}.safetensors",
        strength_model=0.5,
    )
    out = scene.sample(model=adapted)
    assert_same_up_to_std(out, scene.sample(model=load(host, f"baked-{name}")), ROUNDING)
    plain = scene.sample()
    assert float((out - plain).std()) > 1e-2, "the LoRA changed nothing"
    assert torch.equal(scene.sample(), plain), "the LoRA stayed in the weights"


# ---- merging and saving -------------------------------------------------------------------------


def test_merge_is_the_mean_of_the_weights(host, scene, other_model, models):
    host.load_extras("nodes_model_merging")
    (merged,) = host.run_node(
        "ModelMergeSimple", model1=scene.model, model2=other_model, ratio=0.25
    )
    mean = mini_unet()
    with torch.no_grad():
        for first, second in zip(mean.parameters(), mini_unet(1).parameters(), strict=True):
            first.lerp_(second, 0.75)
    make_mini_model(models / "mean", mean)
    expected = scene.sample(model=load(host, "mean"))
    assert_same_up_to_std(scene.sample(model=merged), expected, ROUNDING)


@pytest.fixture(scope="module")
def saved(host, scene, other_model) -> Any:
    """A merged model and its VAE, saved by ComfyUI's own nodes, under their names in the menus."""
    host.load_extras("nodes_model_merging")
    graph = {
        "model": host.value(scene.model),
        "other": host.value(other_model),
        "vae": host.value(scene.vae),
        "merge": {
            "class_type": "ModelMergeSimple",
            "inputs": {"model1": ["model", 0], "model2": ["other", 0], "ratio": 0.5},
        },
        "save": {
            "class_type": "ModelSave",
            "inputs": {"model": ["merge", 0], "filename_prefix": "merged"},
        },
        "save vae": {
            "class_type": "VAESave",
            "inputs": {"vae": ["vae", 0], "filename_prefix": "vae"},
        },
        "out": host.capture(["merge", 0]),
    }
    merged = host.run(graph).captured["out"]
    names = {"merged": "diffusion_models", "vae": "vae"}
    for name, folder in names.items():
        target = host.base / "models" / folder / f"{name}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(host.base / "output" / f"{name}_00001_.safetensors", target)
    return merged


def test_saved_model_loads_again_without_any_other_file(host, scene, saved):
    again, vae = host.run_node(
        "GenXD_LoadModel", model="merged.safetensors", weight_dtype="fp32", vae="vae.safetensors"
    )
    out = scene.sample(model=again)
    assert_same_up_to_std(out, scene.sample(model=saved), ROUNDING)
    samples = {"samples": out}
    pictures = [
        host.run_node("GenXD_DecodeViews", samples=samples, vae=one, frames_per_chunk=0)[0]
        for one in (vae, scene.vae)
    ]
    assert torch.equal(*pictures)


def test_saved_model_has_its_configuration_in_it(host, saved):
    file = host.base / "models" / "diffusion_models" / "merged.safetensors"
    with safe_open(file, framework="pt") as opened:
        keys = list(opened.keys())
    assert "genxd_config" in keys
    assert sum(key.startswith("model.diffusion_model.") for key in keys) == len(
        mini_unet().state_dict()
    )
    unet = gx.load_unet(file)
    assert unet.config == mini_unet().config


# ---- precision ----------------------------------------------------------------------------------

PRECISIONS = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_weights_in_less_precision_equal_rounded_ones_computed_in_float32(
    host, scene, models, watched, name
):
    dtype = PRECISIONS[name]
    rounded = mini_unet()
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.to(dtype).float())
    make_mini_model(models / f"rounded-{name}", rounded)
    model = load(host, "mini", name)
    network = model.model.diffusion_model
    assert network.conv_in.weight.dtype == dtype
    # These are bare parameters, which no layer of ComfyUI's casts.
    assert network.mid_block.attentions[0].time_mixer.gamma.dtype == dtype
    with watched(model) as calls:
        out = scene.sample(model=model)
    assert {call["dtype"] for call in calls} == {torch.float32}
    assert torch.equal(out[list(scene.given)], scene.clean)
    assert_same_up_to_std(out, scene.sample(model=load(host, f"rounded-{name}")), ROUNDING)
    assert not torch.equal(out, scene.sample())


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_computing_in_half_precision_stays_near(host, scene, watched, name):
    model = load(host, "mini", name)
    model.model.manual_cast_dtype = PRECISIONS[name]
    with watched(model) as calls:
        out = scene.sample(model=model)
    assert {call["dtype"] for call in calls} == {PRECISIONS[name]}
    assert torch.equal(out[list(scene.given)], scene.clean)
    exact = scene.sample()
    # Measured: 1e-2 and 6e-2; such a small random network amplifies.
    assert float((out - exact).std() / exact.std()) < 0.2


def test_default_precision_is_what_the_file_has_on_a_cpu(host, models):
    assert load(host, "mini", "default").model.diffusion_model.conv_in.weight.dtype == torch.float32


# ---- copies that ComfyUI asks for ---------------------------------------------------------------


def test_patcher_can_be_made_again_without_dynamic_memory(host, scene, mini):
    """ComfyUI calls for this where dynamic memory is on; a CPU never does."""
    for one in (scene.model, scene.vae.patcher):
        make, arguments = one.cached_patcher_init
        again = host.call(lambda make=make, given=arguments: make(*given, disable_dynamic=True))
        assert type(again).__name__ == "ModelPatcher"
        assert again.model is not one.model
        ours, theirs = one.model.state_dict(), again.model.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_clone_without_dynamic_memory_samples_the_same(host, scene, monkeypatch):
    (patched,) = host.run_node(
        "ModelMergeSimple", model1=scene.model, model2=scene.model, ratio=1.0
    )
    monkeypatch.setattr(patched, "is_dynamic", lambda: True)
    clone = host.call(lambda: patched.clone(disable_dynamic=True))
    assert clone.model is not scene.model.model
    out = scene.sample(model=clone)
    assert torch.equal(out[list(scene.given)], scene.clean), "the clone lost its wrapper"
    assert_same_up_to_std(out, scene.sample(), ROUNDING)


def test_loading_twice_gives_models_of_their_own(host, scene):
    first, second = load(host, "mini"), load(host, "mini", "bf16")
    assert first.model is not second.model
    assert torch.equal(scene.sample(model=first), scene.sample())


@pytest.mark.slow
def test_network_compiles_as_one_graph_and_samples_the_same(host, scene, models):
    from comfy.ldm.modules.attention import attention_pytorch
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    def one_graph(_: Any, *args: Any, **kwargs: Any) -> Tensor:
        return attention_pytorch(*args, **kwargs)  # the one for CPUs asks for free memory

    def unguarded(entries: list[Any]) -> list[bool]:  # as the node TorchCompileModel has it
        return ["transformer_options" not in entry.name for entry in entries]

    make_mini_model(models / "micro", mini_unet(levels=1))
    model = load(host, "micro")
    model.model_options["transformer_options"]["optimized_attention_override"] = one_graph
    compiled = host.call(lambda: model.clone(disable_dynamic=True))
    options = {"guard_filter_fn": unguarded}
    host.call(lambda: set_torch_compile_wrapper(compiled, "eager", options=options, fullgraph=True))
    assert_same_up_to_std(scene.sample(model=compiled), scene.sample(model=model), ROUNDING)


def test_other_noise_range_changes_the_schedule(host, scene):
    host.load_extras("nodes_model_advanced", "nodes_custom_sampler")
    options = {"sampling": "v_prediction", "sigma_max": 80.0, "sigma_min": 0.002}
    (narrow,) = host.run_node("ModelSamplingContinuousEDM", model=scene.model, **options)
    schedule = {"scheduler": "karras", "steps": 5, "denoise": 1.0}
    for model, largest in ((scene.model, 700.0), (narrow, 80.0)):
        (sigmas,) = host.run_node("BasicScheduler", model=model, **schedule)
        assert float(sigmas[0]) == pytest.approx(largest, rel=1e-6)
        assert float(sigmas[-1]) == 0.0
    out = replace(scene, model=narrow).sample()
    assert torch.equal(out[list(scene.given)], scene.clean)
    assert not torch.equal(out, scene.sample())


# ---- networks of another kind -------------------------------------------------------------------


def test_network_without_motion_embedding_is_told_the_strength_with_its_added_ids(
    host, scene, models
):
    config = gx.GenXDUNetConfig.with_widths((32,), (2,), motion_condition=False)
    make_mini_model(models / "no motion", gx.GenXDUNet(config))
    model = load(host, "no motion")
    seen: list[dict[str, Any]] = []
    original = model.model.diffusion_model.forward_embedded

    def keep(sample: Tensor, **options: Any) -> Tensor:
        seen.append(options)
        return original(sample, **options)

    model.model.diffusion_model.forward_embedded = keep
    scene.sample(model=model, steps=1)
    sinusoid = host.module("genxd_core.model.embeddings").sinusoid
    (call,) = seen
    assert call["motion_sinusoid"] is None
    order = call["transformer_options"]["cond_or_uncond"]
    # The scene's strength is 2; the unconditional branch has none of it.
    for branch, ids in ((0, [2.0, 1.0]), (1, [0.0, 0.0])):
        expected = sinusoid(torch.tensor(ids), 256).flatten().expand(4, -1)
        torch.testing.assert_close(call["added_sinusoids"][order.index(branch)], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 14}, "has 14 for in_channels, expected 15"),
        ({"out_channels": 8}, "has 8 for out_channels, expected 4"),
        ({"projection_class_embeddings_input_dim": 768}, "has 3 for added ids, expected 2"),
    ],
)
def test_network_for_other_inputs_is_refused(host, models, changes, message):
    config = gx.GenXDUNetConfig.with_widths((32,), (2,), **changes)
    name = next(iter(changes))
    make_mini_model(models / name, gx.GenXDUNet(config))
    with pytest.raises(AssertionError, match=message):
        load(host, name)
