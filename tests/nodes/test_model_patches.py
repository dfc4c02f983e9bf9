"""Nodes that reach into the network: patches, replacements and wrappers of ComfyUI."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.nodes.scenes import Scene
from tests.support import assert_same_up_to_std

# The mini network: an input convolution, a level with attention, a downsampling, a level without;
# on the way up two layers a level. Numbered as ComfyUI numbers its own networks' blocks.
INPUTS = [("input", number) for number in range(4)]
OUTPUTS = [("output", number) for number in range(4)]
SPATIAL = [("input", 1), ("middle", 0), ("output", 2), ("output", 3)]
STEPS = 2


@pytest.fixture(scope="module", autouse=True)
def patch_nodes(host) -> None:
    host.load_extras("nodes_freelunch", "nodes_pag", "nodes_sag", "nodes_model_downscale")
    host.load_extras("nodes_easycache", "nodes_context_windows", "nodes_video_model")
    host.load_extras("nodes_model_advanced")


def patched(scene: Scene, change: Any) -> Any:
    """A clone of the scene's MODEL after ``change(clone)``."""
    model = scene.host.call(lambda: scene.model.clone())
    scene.host.call(lambda: change(model))
    return model


def assert_still_works(scene: Scene, out: Tensor) -> None:
    assert out.isfinite().all()
    assert torch.equal(out[list(scene.given)], scene.clean)


@pytest.mark.parametrize(
    ("kind", "blocks"),
    [
        ("input_block_patch", INPUTS),
        ("input_block_patch_after_skip", INPUTS),
        ("output_block_patch", OUTPUTS),
        ("attn1_patch", SPATIAL),
        ("attn1_output_patch", SPATIAL),
    ],
)
def test_patch_is_called_for_every_block_and_what_it_returns_is_used(scene, kind, blocks):
    seen: list[tuple[str, int]] = []

    def change(*args: Any) -> Any:
        *tensors, options = args
        seen.append(options["block"])
        assert options["cond_or_uncond"] in ([1, 0], [0, 1])
        scaled = [tensor * 1.1 for tensor in tensors]
        return scaled[0] if len(scaled) == 1 else tuple(scaled)

    out = scene.sample(model=patched(scene, lambda m: m.set_model_patch(change, kind)), steps=STEPS)
    assert seen == blocks * STEPS
    assert_still_works(scene, out)
    assert not torch.equal(out, scene.sample(steps=STEPS))


def test_patch_that_returns_what_came_changes_nothing(scene):
    def same(*args: Any) -> Any:
        return args[0] if len(args) == 2 else args[:-1]

    def change(model: Any) -> None:
        for kind in ("input_block_patch", "output_block_patch", "attn1_patch"):
            model.set_model_patch(same, kind)
        model.set_model_patch(same, "attn1_output_patch")

    assert torch.equal(scene.sample(model=patched(scene, change)), scene.sample())


@pytest.mark.parametrize("block", [("middle", 0), ("input", 1), ("output", 3)])
@pytest.mark.parametrize("index", [None, 0])
def test_attention_can_be_replaced_block_by_block(scene, block, index):
    seen: list[dict[str, Any]] = []

    def replace(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        seen.append({**options, "tokens": tuple(q.shape)})
        return v

    model = patched(scene, lambda m: m.set_model_attn1_replace(replace, *block, index))
    out = scene.sample(model=model, steps=1)
    (call,) = seen
    side = 2 if block[0] == "middle" else 4
    assert call["tokens"] == (8, side * side, 32)
    assert call["block"] == block
    assert call["n_heads"] * call["dim_head"] == 32
    assert call["original_shape"] == [8, 4, 4, 4]
    assert_still_works(scene, out)
    assert not torch.equal(out, scene.sample(steps=1))


@pytest.mark.parametrize(("mode", "branches"), [("4d", 3), ("3d", 2)])
def test_attention_override_is_called_once_for_every_attention(make_scene, mode, branches):
    scene = make_scene(mode=mode)
    tokens: list[tuple[int, ...]] = []

    def override(attention: Any, q: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        tokens.append(tuple(q.shape[:2]))
        return attention(q, *args, **kwargs)

    def change(model: Any) -> None:
        options = model.model_options["transformer_options"]
        options["optimized_attention_override"] = override

    out = scene.sample(model=patched(scene, change), steps=1)
    assert len(tokens) == len(SPATIAL) * branches
    # Two branches of four views with 16 tokens: per view, across views, and over time.
    expected = [(8, 16), (2, 64), (32, 4)][:branches]
    assert tokens[:branches] == expected
    assert torch.equal(out, scene.sample(steps=1))


def test_wrapper_of_the_diffusion_model_is_run_around_every_call(scene):
    from comfy.patcher_extension import WrappersMP

    shapes: list[tuple[int, ...]] = []

    def wrapper(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        shapes.append(tuple(x.shape))
        assert {"rays", "ctx_mask", "num_video_frames"} <= kwargs.keys()
        return executor(x, *args, **kwargs) * 0.5

    model = patched(
        scene, lambda m: m.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", wrapper)
    )
    out = scene.sample(model=model, steps=STEPS)
    assert shapes == [(8, 4, 4, 4)] * STEPS
    assert_still_works(scene, out)
    assert not torch.equal(out, scene.sample(steps=STEPS))


# ---- ComfyUI's own nodes ------------------------------------------------------------------------

NODES = {
    "FreeU": {"b1": 1.4, "b2": 1.4, "s1": 0.9, "s2": 0.2},
    "FreeU_V2": {"b1": 1.4, "b2": 1.4, "s1": 0.9, "s2": 0.2},
    "PerturbedAttentionGuidance": {"scale": 3.0},
    "SelfAttentionGuidance": {"scale": 0.5, "blur_sigma": 2.0},
    "VideoLinearCFGGuidance": {"min_cfg": 1.0},
    "RescaleCFG": {"multiplier": 0.7},
}


@pytest.mark.parametrize("name", NODES)
def test_node_that_patches_models_works(scene, host, monkeypatch, name):
    # FreeU looks for blocks two times as wide as this; here all are as wide as the first.
    monkeypatch.setitem(scene.model.model.model_config.unet_config, "model_channels", 16)
    (model,) = host.run_node(name, model=scene.model, **NODES[name])
    out = scene.sample(model=model)
    assert_still_works(scene, out)
    left_alone = name == "SelfAttentionGuidance"  # as latents of 4 x 4 are
    assert torch.equal(out, scene.sample()) == left_alone


def test_guidance_by_blurred_attention_works_on_larger_latents(host, mini):
    gx = host.module("genxd_core")
    positive, negative, latent = host.run_node(
        "GenXD_ConditionViews",
        vae=mini[1],
        images=torch.rand(1, 64, 64, 3),
        cameras=gx.sway(4),
        indices="0",
        mode="4d",
        motion_strength=1.0,
    )
    scene = Scene(host, *mini, positive, negative, latent, (0,))
    options = NODES["SelfAttentionGuidance"]
    (model,) = host.run_node("SelfAttentionGuidance", model=mini[0], **options)
    out = scene.sample(model=model)
    assert_still_works(scene, out)
    assert not torch.equal(out, scene.sample())


@pytest.mark.parametrize("after_skip", [True, False])
def test_deep_shrink_works(scene, host, after_skip):
    options = {"downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 1.0}
    methods = {"downscale_method": "bilinear", "upscale_method": "bilinear"}
    (model,) = host.run_node(
        "PatchModelAddDownscale",
        model=scene.model,
        block_number=1,
        downscale_after_skip=after_skip,
        **options,
        **methods,
    )
    out = scene.sample(model=model)
    assert_still_works(scene, out)
    assert not torch.equal(out, scene.sample())


@pytest.mark.parametrize("name", ["EasyCache", "LazyCache"])
def test_caching_node_skips_calls_of_the_network(scene, host, name):
    options = {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
    (model,) = host.run_node(name, model=scene.model, **options)
    calls: list[int] = []
    inner = model.model.diffusion_model._denoise

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return inner(*args, **kwargs)

    model.model.diffusion_model._denoise = counted
    try:
        out = scene.sample(model=model, steps=8)
    finally:
        del model.model.diffusion_model._denoise
    assert 0 < len(calls) < 8, "nothing was skipped"
    assert_still_works(scene, out)


def test_context_windows_are_refused(scene, host):
    (model,) = host.run_node(
        "ContextWindowsManual",
        model=scene.model,
        context_length=2,
        context_overlap=1,
        context_schedule="standard_static",
        context_stride=1,
        closed_loop=False,
        fuse_method="pyramid",
        dim=0,
        freenoise=False,
        latent_retain_index_list="",
        cond_retain_index_list="",
        split_conds_to_windows=False,
        causal_window_fix=False,
    )
    with pytest.raises(AssertionError, match="context windows cannot split a GenXD path"):
        scene.sample(model=model)


def test_area_of_a_conditioning_is_cropped_from_everything(exact_scene, host):
    scene = exact_scene

    def within(width: float, x: float) -> Any:
        area = {"width": width, "height": 1.0, "x": x, "y": 0.0, "strength": 1.0}
        return host.run_node("ConditioningSetAreaPercentage", conditioning=scene.positive, **area)[
            0
        ]

    whole = scene.sample(positive=within(1.0, 0.0))
    assert_same_up_to_std(whole, scene.sample(), 1e-6)
    (both,) = host.run_node(
        "ConditioningCombine", conditioning_1=scene.positive, conditioning_2=within(0.5, 0.5)
    )
    out = scene.sample(positive=both, steps=1)
    assert_still_works(scene, out)
    # One step: what lies outside the area is not touched by it.
    assert_same_up_to_std(out[..., :2], scene.sample(steps=1)[..., :2], 1e-6)
    assert not torch.equal(out[..., 2:], scene.sample(steps=1)[..., 2:])
