"""The network's behaviour: which branches run, what has influence, how it is built."""

import pytest
import torch

from genxd_core.errors import InvalidInputError
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.embeddings import sinusoid
from genxd_core.model.fusion import FusionBlender, FusionPlan
from genxd_core.model.residual import FrameResBlock
from genxd_core.model.unet import GenXDUNet
from tests.support import assert_same_up_to, assert_same_up_to_std, seeded


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    config = GenXDUNetConfig.with_widths(
        (32, 64), (2, 4), addition_time_embed_dim=32, projection_class_embeddings_input_dim=64
    )
    network = GenXDUNet(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.3)
    return network.eval()


def call(unet, indicator, *, views=3, size=4, seed=0, motion=0.4, **changes):
    batch = len(indicator)
    given = {
        "sample": torch.randn(batch, views, 15, size, size, generator=seeded(seed)),
        "timestep": torch.linspace(-0.5, 0.8, batch),
        "added_time_ids": torch.tensor([[0.0, 1.0]]).repeat(batch, 1),
        "indicator": torch.tensor(indicator),
        "motion_ids": torch.full((batch,), motion),
        **changes,
    }
    with torch.no_grad():
        return unet(given.pop("sample"), given.pop("timestep"), **given)


def temporal_calls(unet, indicator):
    entered = []
    parts = [m for n, m in unet.named_modules() if n.split(".")[-1] == "temporal_res_block"]
    parts += [
        m for n, m in unet.named_modules() if n.split(".")[-2:-1] == ["temporal_transformer_blocks"]
    ]
    parts += [unet.motion_embedding]
    hooks = [m.register_forward_pre_hook(lambda module, args: entered.append(args)) for m in parts]
    call(unet, indicator)
    for hook in hooks:
        hook.remove()
    return len(entered), len(parts)


def test_temporal_branch_is_never_entered_when_all_samples_are_3d(unet):
    assert temporal_calls(unet, [0, 0])[0] == 0


@pytest.mark.parametrize("indicator", [[1], [2], [0, 2]])
def test_temporal_branch_is_entered_when_a_sample_is_not_3d(unet, indicator):
    entered, parts = temporal_calls(unet, indicator)
    assert entered >= parts


def test_mixed_batch_equals_its_samples_run_alone(unet):
    modes = [0, 1, 2, 2, 0]
    samples = torch.randn(5, 3, 15, 4, 4, generator=seeded(1))
    times = torch.linspace(-0.5, 0.8, 5)
    together = call(unet, modes, sample=samples)
    for row, mode in enumerate(modes):
        alone = call(unet, [mode], sample=samples[row : row + 1], timestep=times[row : row + 1])
        assert_same_up_to_std(together[row : row + 1], alone, 1e-4)


def test_motion_strength_has_no_influence_in_3d_mode(unet):
    assert torch.equal(call(unet, [0], motion=0.0), call(unet, [0], motion=5.0))


@pytest.mark.parametrize("mode", [1, 2])
def test_motion_strength_has_influence_in_other_modes(unet, mode):
    assert not torch.allclose(call(unet, [mode], motion=0.0), call(unet, [mode], motion=5.0))


def test_blend_factors_have_no_influence_in_video_mode():
    torch.manual_seed(0)
    blender = FusionBlender()
    plan = FusionPlan((1,), 2)
    x_s, x_mv = torch.randn(2, 1, 4)
    out = blender(x_s, x_mv, lambda rows, _: 2 * rows, plan)
    assert torch.equal(out, 2 * x_mv)


def test_blender_weighs_branches_as_the_paper_says():
    blender = FusionBlender()
    x_s, x_mv, x_t = (torch.tensor([[v]]) for v in (1.0, 2.0, 4.0))
    s, g = torch.sigmoid(torch.tensor(0.5)), torch.sigmoid(torch.tensor(5.0))
    middle = s * 1.0 + (1 - s) * 2.0
    for mode, expected in ((0, middle), (1, torch.tensor(4.0)), (2, g * middle + (1 - g) * 4.0)):
        out = blender(x_s, x_mv, lambda rows, _: x_t, FusionPlan((mode,), 1))
        assert_same_up_to(out.detach().reshape(()), expected, 1e-6)


def test_temporal_weights_get_no_gradient_from_3d_samples(unet):
    unet.requires_grad_(True)
    sample = torch.randn(1, 2, 15, 4, 4, generator=seeded())
    out = unet(
        sample,
        0.1,
        added_time_ids=torch.tensor([[0.0, 1.0]]),
        indicator=[0],
        motion_ids=torch.tensor([0.5]),
    )
    out.square().mean().backward()
    temporal = {n: p for n, p in unet.named_parameters() if "temporal" in n or "gamma" in n}
    assert temporal
    assert all(p.grad is None for p in temporal.values())
    assert unet.conv_in.weight.grad is not None
    unet.zero_grad(set_to_none=True)
    unet.requires_grad_(False)


def test_gradient_checkpointing_gives_the_same_gradients(unet):
    grads = []
    unet.requires_grad_(True)
    for enabled in (False, True):
        unet.enable_gradient_checkpointing(enabled)
        out = unet(
            torch.randn(1, 2, 15, 4, 4, generator=seeded()),
            0.1,
            added_time_ids=torch.tensor([[0.0, 1.0]]),
            indicator=[2],
            motion_ids=torch.tensor([0.5]),
        )
        out.square().mean().backward()
        grads.append({n: p.grad.clone() for n, p in unet.named_parameters()})
        unet.zero_grad(set_to_none=True)
    unet.enable_gradient_checkpointing(False)
    unet.requires_grad_(False)
    for name, value in grads[0].items():
        assert_same_up_to(grads[1][name], value, 1e-6 + 1e-5 * float(value.abs().max()))


@pytest.mark.parametrize("size", [(4, 3), (1, 3)], ids=["many pixels", "few pixels"])
def test_frame_convolution_equals_a_3d_convolution(size):
    torch.manual_seed(0)
    block = FrameResBlock(32, 16, 1e-5, operations=torch.nn)
    x = torch.randn(2, 32, 5, *size)
    plain = torch.nn.Conv3d(32, 32, (3, 1, 1), padding=(1, 0, 0))
    plain.load_state_dict(block.conv1.state_dict())
    assert block.conv1.weight.shape == (32, 32, 3, 1, 1)
    with torch.no_grad():
        expected = plain(x)
        assert_same_up_to(block.conv1(x.flatten(3)).unflatten(3, size), expected, 1e-5)
        assert_same_up_to(block.conv1(x), expected, 1e-5)


def test_network_can_be_built_on_meta_and_filled():
    config = GenXDUNetConfig.with_widths((32, 32), (1, 1))
    with torch.device("meta"):
        network = GenXDUNet(config)
    filled = network.to_empty(device="cpu")
    filled.load_state_dict(GenXDUNet(config).state_dict())
    assert not list(network.buffers())


def test_injected_operations_and_attention_are_used():
    made, attended = [], []

    class Operations:
        def __getattr__(self, name):
            made.append(name)
            return getattr(torch.nn, name)

    def attention(q, k, v, heads, **options):
        attended.append((options["block"], options["branch"], options["mark"]))
        return v

    config = GenXDUNetConfig.with_widths((32, 32), (1, 1))
    network = GenXDUNet(config, operations=Operations(), attention=attention)
    assert set(made) == {"Linear", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm"}
    with torch.no_grad():
        network(
            torch.zeros(1, 2, 15, 4, 4),
            0.0,
            added_time_ids=torch.zeros(1, 2),
            indicator=[2],
            motion_ids=torch.zeros(1),
            mark=7,
        )
    blocks = {("input", 1), ("middle", 0), ("output", 2), ("output", 3)}
    assert set(attended) == {
        (block, branch, 7) for block in blocks for branch in ("spatial", "multiview", "temporal")
    }


def test_attention_hooks_change_inputs_and_outputs(unet):
    class Hooks:
        def before(self, x, **options):
            return x, x, x

        def after(self, x, **options):
            return 2 * x

    assert not torch.allclose(call(unet, [0]), call(unet, [0], hooks=Hooks()))


@pytest.mark.parametrize("size", [(5, 4), (4, 7)])
def test_size_that_cannot_be_halved_is_refused(unet, size):
    with pytest.raises(InvalidInputError, match=r"multiples of 2.*multiples of 16"):
        call(unet, [0], sample=torch.zeros(1, 2, 15, *size))


def test_wrong_channels_are_refused(unet):
    with pytest.raises(InvalidInputError, match="sample has 14 channels, expected 15"):
        call(unet, [0], sample=torch.zeros(1, 2, 14, 4, 4))


@pytest.mark.parametrize("indicator", [[3], [-1], [0, 0]])
def test_wrong_indicator_is_refused(unet, indicator):
    with pytest.raises(InvalidInputError, match="indicator is"):
        unet(
            torch.zeros(1, 2, 15, 4, 4),
            0.0,
            added_time_ids=torch.zeros(1, 2),
            indicator=indicator,
            motion_ids=torch.zeros(1),
        )


def test_motion_for_a_network_without_it_is_refused():
    config = GenXDUNetConfig.with_widths((32, 32), (1, 1), motion_condition=False)
    network = GenXDUNet(config)
    assert not hasattr(network, "motion_embedding")
    with pytest.raises(InvalidInputError, match="no motion embedding"):
        network(
            torch.zeros(1, 2, 15, 4, 4),
            0.0,
            added_time_ids=torch.zeros(1, 2),
            indicator=[2],
            motion_ids=torch.zeros(1),
        )


def test_sinusoid_has_cosines_first():
    out = sinusoid(torch.tensor([0.0, 1.0]), 4)
    expected = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert_same_up_to(out[:1], expected, 0.0)
    angles = torch.tensor([1.0, 0.01])
    assert_same_up_to(out[1], torch.cat([angles.cos(), angles.sin()]), 1e-6)
