"""Given views come back bit by bit, whatever samples them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.nodes.scenes import Scene
from tests.support import assert_same_up_to_std

# Those of ComfyUI 0.30. One that a newer ComfyUI adds is tested as soon as it is there, below.
SAMPLERS = """
    euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 exp_heun_2_x0
    exp_heun_2_x0_sde dpm_2 dpm_2_ancestral lms dpm_fast dpm_adaptive dpmpp_2s_ancestral
    dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu dpmpp_2m dpmpp_2m_cfg_pp dpmpp_2m_sde
    dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde dpmpp_3m_sde_gpu ddpm lcm
    ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral
    res_multistep_ancestral_cfg_pp gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2
    seeds_3 sa_solver sa_solver_pece ddim uni_pc uni_pc_bh2
""".split()
# Of a network in float64, whose results ComfyUI keeps in float32.
ROUNDING = 1e-6


@pytest.fixture(scope="module", autouse=True)
def sampler_nodes(host) -> None:
    host.load_extras("nodes_custom_sampler")


def assert_given_views_are_exact(out: Tensor, scene: Scene) -> None:
    assert torch.equal(out[list(scene.given)], scene.clean)
    assert out.isfinite().all()
    others = [view for view in range(len(out)) if view not in scene.given]
    assert out[others].std() > 0.05, "nothing was generated"


@pytest.mark.parametrize("name", SAMPLERS)
def test_given_views_are_exact_with_every_sampler(scene, name):
    assert_given_views_are_exact(scene.sample(sampler_name=name), scene)


def test_every_sampler_of_the_host_is_tested(host, scene):
    import comfy.samplers

    for name in set(comfy.samplers.KSampler.SAMPLERS) - set(SAMPLERS):
        assert_given_views_are_exact(scene.sample(sampler_name=name), scene)


@pytest.mark.parametrize("name", ["simple", "sgm_uniform", "exponential", "beta", "kl_optimal"])
@pytest.mark.parametrize("sampler", ["euler", "uni_pc"])
def test_given_views_are_exact_with_other_schedules(scene, sampler, name):
    assert_given_views_are_exact(scene.sample(sampler_name=sampler, scheduler=name), scene)


@pytest.mark.parametrize("denoise", [0.3, 0.9])
def test_given_views_are_exact_with_partial_denoising(scene, denoise):
    assert_given_views_are_exact(scene.sample(denoise=denoise, steps=3), scene)


@pytest.mark.parametrize("given", [(0,), (3, 1), (-1, 0, 1)])
def test_given_views_are_exact_wherever_they_stand(make_scene, given):
    scene = make_scene(given=given)
    assert_given_views_are_exact(scene.sample(), Scene(**vars(scene) | {"given": given}))


def test_sampling_changes_neither_the_latent_nor_the_conditioning(scene):
    before = scene.latent["samples"].clone()
    clean = scene.positive[0][1]["genxd_context_latent"].clone()
    scene.sample()
    assert torch.equal(scene.latent["samples"], before)
    assert torch.equal(scene.positive[0][1]["genxd_context_latent"], clean)


def test_noise_of_given_views_does_not_matter(scene):
    def sample(noise: Tensor) -> Tensor:
        conds = {"positive": scene.positive, "negative": scene.negative}
        return custom(scene, noise=GivenNoise(noise), **conds, cfg=3.0)

    noise = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(5))
    other = noise.clone()
    other[list(scene.given)] *= -3
    assert torch.equal(sample(noise), sample(other))


def test_mask_of_the_latent_does_not_matter(scene):
    bare = {"samples": scene.latent["samples"]}
    assert torch.equal(scene.sample(latent_image=bare), scene.sample())


# ---- other ways to sample -----------------------------------------------------------------------


class GivenNoise:
    """A NOISE for ComfyUI's custom sampling."""

    seed = 0

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def generate_noise(self, latent: dict[str, Any]) -> Tensor:
        return self.values.clone()


def custom(scene: Scene, *, guider: str = "CFGGuider", noise: Any = None, **inputs: Any) -> Tensor:
    """Sample with SamplerCustomAdvanced as `Scene.sample` does with KSampler."""
    host = scene.host
    graph = {
        "model": host.value(scene.model),
        "latent": host.value(scene.latent),
        "noise": {"class_type": "RandomNoise", "inputs": {"noise_seed": 1}},
        "sampler": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "sigmas": {
            "class_type": "BasicScheduler",
            "inputs": {"model": ["model", 0], "scheduler": "karras", "steps": 2, "denoise": 1.0},
        },
        "guider": {"class_type": guider, "inputs": {"model": ["model", 0]}},
        "run": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": ["noise", 0],
                "guider": ["guider", 0],
                "sampler": ["sampler", 0],
                "sigmas": ["sigmas", 0],
                "latent_image": ["latent", 0],
            },
        },
        "out": host.capture(["run", 0]),
    }
    if noise is not None:
        graph["noise"] = host.value(noise)
    for name, value in inputs.items():
        if isinstance(value, list):
            graph[name] = host.value(value)
            value = [name, 0]
        graph["guider"]["inputs"][name] = value
    return host.run(graph).captured["out"]["samples"]


def test_custom_sampling_equals_ksampler(scene):
    out = custom(scene, positive=scene.positive, negative=scene.negative, cfg=3.0)
    assert torch.equal(out, scene.sample())


def test_guider_without_negative_equals_guidance_of_one(scene):
    out = custom(scene, guider="BasicGuider", conditioning=scene.positive)
    assert torch.equal(out, scene.sample(cfg=1.0))


@pytest.mark.parametrize("style", ["regular", "nested"])
def test_dual_guidance_pins(scene, style):
    conds = {"cond1": scene.positive, "cond2": scene.negative, "negative": scene.negative}
    scales = {"cfg_conds": 3.0, "cfg_cond2_negative": 1.0, "style": style}
    out = custom(scene, guider="DualCFGGuider", **conds, **scales)
    assert_given_views_are_exact(out, scene)


def test_dual_guidance_of_the_negative_alone_is_ordinary_guidance(exact_scene):
    scene = exact_scene
    conds = {"cond1": scene.positive, "cond2": scene.negative, "negative": scene.negative}
    scales = {"cfg_conds": 3.0, "cfg_cond2_negative": 1.0, "style": "regular"}
    out = custom(scene, guider="DualCFGGuider", **conds, **scales)
    assert_same_up_to_std(out, scene.sample(), ROUNDING)


def test_perpendicular_negative_pins(scene, host):
    host.load_extras("nodes_perpneg")
    conds = {
        "positive": scene.positive,
        "negative": scene.negative,
        "empty_conditioning": scene.negative,
    }
    out = custom(scene, guider="PerpNegGuider", **conds, cfg=3.0, neg_scale=1.0)
    assert_given_views_are_exact(out, scene)


def test_two_stages_equal_one_and_stay_exact_after_each(exact_scene):
    scene = exact_scene

    def stage(latent: dict[str, Any], start: int, end: int) -> Tensor:
        last = end >= 4
        return scene.sample(
            "KSamplerAdvanced",
            latent_image=latent,
            add_noise="enable" if start == 0 else "disable",
            noise_seed=1,
            steps=4,
            start_at_step=start,
            end_at_step=end,
            return_with_leftover_noise="disable" if last else "enable",
        )

    first = stage(scene.latent, 0, 2)
    assert torch.equal(first[list(scene.given)], scene.clean)
    second = stage({**scene.latent, "samples": first}, 2, 4)
    assert_given_views_are_exact(second, scene)
    # Scaling to the network's units and back between the stages rounds noisy latents up to 2000.
    assert_same_up_to_std(second, scene.sample(steps=4), 1e-4)


def test_repeated_latent_makes_two_videos_and_the_first_is_the_single_one(exact_scene, host):
    scene = exact_scene
    (twice,) = host.run_node("RepeatLatentBatch", samples=scene.latent, amount=2)
    out = scene.sample(latent_image=twice)
    assert out.shape[0] == 8
    assert_same_up_to_std(out[:4], scene.sample(), ROUNDING)
    assert_given_views_are_exact(out[4:], scene)
    assert not torch.equal(out[4:], out[:4])


def test_guidance_of_one_skips_the_negative(scene, watched):
    with watched(scene.model) as calls:
        scene.sample(cfg=1.0)
    assert {call["cond_or_uncond"] for call in calls} == {(0,)}
    assert {call["frames"] for call in calls} == {4}


def test_both_branches_run_in_one_call(scene, watched):
    with watched(scene.model) as calls:
        scene.sample()
    assert {call["frames"] for call in calls} == {8}


def test_branches_in_calls_of_their_own_give_the_same(exact_scene, watched, monkeypatch):
    scene = exact_scene
    joined = scene.sample()
    monkeypatch.setattr(type(scene.model), "get_free_memory", lambda self, device: 1.0)
    with watched(scene.model) as calls:
        split = scene.sample()
    assert {call["frames"] for call in calls} == {4}
    assert_same_up_to_std(split, joined, ROUNDING)


def test_zeroed_conditioning_can_be_sampled(scene, host):
    (zeroed,) = host.run_node("ConditioningZeroOut", conditioning=scene.negative)
    assert torch.equal(scene.sample(negative=zeroed), scene.sample())


def test_combined_conditioning_can_be_sampled(exact_scene, host):
    scene = exact_scene
    (both,) = host.run_node(
        "ConditioningCombine", conditioning_1=scene.positive, conditioning_2=scene.positive
    )
    assert_same_up_to_std(scene.sample(positive=both), scene.sample(), ROUNDING)


def test_motion_strength_can_be_changed_on_a_conditioning(scene, host):
    def with_strength(value: float, unit: str = "network") -> Tensor:
        (changed,) = host.run_node(
            "GenXD_SetMotionStrength", positive=scene.positive, motion_strength=value, unit=unit
        )
        return scene.sample(positive=changed)

    assert torch.equal(with_strength(2.0), scene.sample())
    assert not torch.equal(with_strength(0.5), scene.sample())
    # The paper's gamma of 0.05, printed there as 5: 100 (sigmoid(0.05) - 0.5) = 1.249740.
    assert_same_up_to_std(with_strength(5.0, "gamma x100"), with_strength(1.2497396), 1e-4)


def test_motion_strength_has_no_effect_in_3d(make_scene, host):
    scene = make_scene(mode="3d")
    (changed,) = host.run_node(
        "GenXD_SetMotionStrength", positive=scene.positive, motion_strength=9.0, unit="network"
    )
    assert torch.equal(scene.sample(positive=changed), scene.sample())


def test_in_3d_the_temporal_branch_is_never_entered(make_scene):
    entered: list[str] = []
    scene = make_scene(mode="3d")
    network = scene.model.model.diffusion_model
    hooks = [
        module.register_forward_hook(lambda *_, name=name: entered.append(name))
        for name, module in network.named_modules()
        if "temporal" in name or "time_pos_embed" in name or name.startswith("motion_embedding")
    ]
    assert len(hooks) > 20
    try:
        scene.sample()
        assert entered == []
        make_scene(mode="4d").sample(steps=1)
        assert entered
    finally:
        for hook in hooks:
            hook.remove()


def test_video_mode_ignores_the_path(make_scene, host):
    scene = make_scene(mode="video")
    values = scene.positive[0][1]
    gx = host.module("genxd_core")
    elsewhere = [[scene.positive[0][0], {**values, "genxd_cameras": gx.pan(4)}]]
    assert torch.equal(scene.sample(positive=elsewhere), scene.sample())
    moving = make_scene(mode="4d")
    turned = [[moving.positive[0][0], {**moving.positive[0][1], "genxd_cameras": gx.pan(4)}]]
    assert not torch.equal(moving.sample(positive=turned), moving.sample())
