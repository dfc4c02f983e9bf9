"""LoRA on the network: nothing at the start, adapters alone are trained, and merging is exact."""

import re

import pytest
import torch

from genxd_core.errors import InvalidInputError, WeightsError
from genxd_core.model.unet import GenXDUNet
from tests.nodes.scenes import mini_unet
from tests.support import assert_same_up_to, seeded
from trainer.lora import (
    add_lora,
    comfy_lora_state,
    load_lora_state,
    lora_state,
    merged_state,
)


def predicted(unet, mode=2):
    """The output for a fixed clip of three frames."""
    return unet(
        torch.randn(1, 3, 15, 4, 4, generator=seeded(1)).to(unet.conv_in.weight.dtype),
        torch.tensor([0.3]),
        added_time_ids=torch.tensor([[0.0, 1.0]]),
        indicator=(mode,),
        motion_ids=torch.tensor([1.5]),
    )


def with_lora(seed=0, **changes):
    """A network with adapters that do something."""
    unet = mini_unet()
    add_lora(unet, **({"rank": 3, "alpha": 6.0} | changes))
    fill(unet, seed)
    return unet


def fill(unet, seed=0):
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in unet.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_new_adapters_change_no_bit_of_the_output(mode):
    # Frozen, as the base of adapters is: PyTorch computes some layers differently for weights that
    # require gradients.
    unet = mini_unet().requires_grad_(False)
    before = predicted(unet, mode)
    add_lora(unet, rank=4, alpha=4.0, dropout=0.5)
    assert torch.equal(predicted(unet, mode), before)


def test_only_adapters_get_gradients():
    unet = mini_unet()
    names = add_lora(unet, rank=2, alpha=2.0)
    fill(unet)
    predicted(unet).square().sum().backward()
    with_gradient = [n for n, p in unet.named_parameters() if p.grad is not None]
    assert with_gradient == names
    assert all(float(unet.get_parameter(name).grad.abs().max()) > 0 for name in names)


def test_adapters_are_on_every_attention_projection_and_feed_forward():
    unet = mini_unet()
    names = add_lora(unet, rank=2, alpha=2.0)
    # A transformer has three blocks with an attention of four projections, and five feed-forwards
    # of two layers; the mini network has four transformers; an adapter has two factors.
    assert len(names) == 4 * (3 * 4 + 5 * 2) * 2
    modules = {name.split(".lora_")[0] for name in names}
    assert all(re.search(r"\.(attn1\.to_(q|k|v|out\.0)|net\.(0\.proj|2))$", n) for n in modules)


def test_adapters_of_a_bfloat16_network_are_float32():
    unet = mini_unet().bfloat16()
    names = add_lora(unet, rank=2, alpha=2.0)
    dtypes = {name: value.dtype for name, value in unet.named_parameters()}
    assert {dtypes.pop(name) for name in names} == {torch.float32}
    assert set(dtypes.values()) == {torch.bfloat16}
    assert predicted(unet).dtype == torch.bfloat16


def test_merged_network_equals_the_adapted_one():
    unet = with_lora()
    plain = GenXDUNet(unet.config)
    plain.load_state_dict(merged_state(unet))
    with torch.no_grad():
        base, adapted, merged = (predicted(n) for n in (mini_unet(), unet, plain))
    assert float((adapted - base).abs().max()) > 0.1
    assert_same_up_to(merged, adapted, 1e-5)


def test_merged_weight_is_the_formula():
    unet = with_lora(targets=("mid_block.attentions.0.proj_in",))
    name = "mid_block.attentions.0.proj_in"
    a, b = (lora_state(unet)[f"{name}.lora_{factor}.weight"].double() for factor in "AB")
    base = mini_unet().state_dict()
    merged = merged_state(unet)
    expected = base[f"{name}.weight"].double() + 6.0 / 3 * b @ a
    assert_same_up_to(merged[f"{name}.weight"], expected, 1e-6)
    rest = [key for key in base if key != f"{name}.weight"]
    assert all(torch.equal(merged[key], base[key]) for key in rest)


def test_merged_keys_are_those_of_the_plain_network_in_order():
    plain = mini_unet()
    assert list(merged_state(with_lora())) == list(plain.state_dict())
    assert list(merged_state(plain)) == list(plain.state_dict())


def test_merging_leaves_the_adapters_alone_and_can_widen():
    unet = with_lora()
    before = predicted(unet)
    merged = merged_state(unet, dtype=torch.float64)
    assert {value.dtype for value in merged.values()} == {torch.float64}
    assert torch.equal(predicted(unet), before)


def test_state_goes_from_one_network_to_another():
    source, target = with_lora(seed=1), with_lora(seed=2)
    load_lora_state(target, lora_state(source))
    with torch.no_grad():
        assert torch.equal(predicted(target), predicted(source))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 2}, "176 misshaped"),
        ({"targets": ("to_q",)}, "152 missing|152 unexpected"),
    ],
)
def test_state_of_other_adapters_is_refused(changes, message):
    unet = with_lora()
    before = {key: value.clone() for key, value in lora_state(unet).items()}
    with pytest.raises(WeightsError, match=message):
        load_lora_state(unet, lora_state(with_lora(**changes)))
    assert all(torch.equal(value, before[key]) for key, value in lora_state(unet).items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank is 0, expected at least 1"),
        ({"alpha": 0.0}, "alpha is 0.0, expected a number above 0"),
        ({"dropout": 1.0}, "dropout is 1.0, expected a chance"),
        ({"targets": ()}, "targets is empty"),
        ({"targets": ("to_q", "to_x")}, "targets has 'to_x', which names no module"),
        ({"targets": ("conv_in",)}, "targets has 'conv_in', which names a Conv2d"),
        ({"targets": ("attn1",)}, "targets has 'attn1', which names a SelfAttention"),
    ],
)
def test_impossible_adapters_are_refused(changes, message):
    unet = mini_unet()
    with pytest.raises(InvalidInputError, match=message):
        add_lora(unet, **({"rank": 2, "alpha": 2.0} | changes))
    assert all(parameter.requires_grad for parameter in unet.parameters())


def test_second_set_of_adapters_is_refused():
    with pytest.raises(InvalidInputError, match="has LoRA adapters already"):
        add_lora(with_lora(), rank=2, alpha=2.0)


def test_network_without_adapters_has_no_lora_state():
    for state in (lora_state, comfy_lora_state):
        with pytest.raises(InvalidInputError, match="has no LoRA adapters; call add_lora"):
            state(mini_unet())


def test_file_for_comfyui_names_modules_as_a_model_does():
    unet = with_lora(targets=("mid_block.attentions.0.proj_in",))
    state = comfy_lora_state(unet, dtype=torch.float16)
    place = "diffusion_model.mid_block.attentions.0.proj_in"
    assert {key: list(value.shape) for key, value in state.items()} == {
        f"{place}.lora_up.weight": [32, 3],
        f"{place}.lora_down.weight": [3, 32],
        f"{place}.alpha": [],
    }
    assert state[f"{place}.lora_up.weight"].dtype == torch.float16
    assert float(state[f"{place}.alpha"]) == 6.0
