"""Camera attention: what cameras are to the network, how it starts, what it learns, its files."""

import json
import math

import pytest
import torch

from genxd_core.errors import InvalidInputError, WeightsError
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.unet import GenXDUNet
from genxd_core.model.weights import load_unet, save_unet
from genxd_core.synthetic.camera_paths import sample_path
from tests.support import assert_same_up_to, seeded
from trainer.attention import plain_attention
from trainer.camera_attention import CameraAttentionUNet, camera_vector, load_network, write_weights

TINY = GenXDUNetConfig.with_widths(
    (32, 32), (2, 1), addition_time_embed_dim=32, projection_class_embeddings_input_dim=64
)
VIEWS = 3
INTRINSICS = torch.tensor([[1.2, 0.0, 0.5], [0.0, 1.2, 0.5], [0.0, 0.0, 1.0]])


def inputs(mode=2, batch=2, rays=1.0):
    sample = torch.randn(batch, VIEWS, 15, 4, 4, generator=seeded(1))
    sample[:, :, 8:14] *= rays
    return (sample, torch.tensor([0.1] * batch)), {
        "added_time_ids": torch.zeros(batch, 2),
        "indicator": [mode] * batch,
        "motion_ids": torch.full((batch,), 0.5),
    }


def cameras(batch=2, seed=0):
    c2w = torch.stack([sample_path(seed + i, {"orbit": 1.0}, VIEWS) for i in range(batch)])
    return camera_vector(c2w, INTRINSICS.expand(batch, VIEWS, 3, 3), torch.zeros(batch).long())


def network(seed=0, awake=True, **options):
    """With ``awake``, the new layers' output is no longer zero."""
    torch.manual_seed(seed)
    out = CameraAttentionUNet(TINY, **options)
    if awake:
        for name, weight in out.named_parameters():
            if ".attn2.to_out.0" in name:
                torch.nn.init.normal_(weight, std=0.5)
    return out


def test_camera_vector_is_the_pose_seen_from_the_reference_and_the_focal_length():
    c2w = torch.eye(4).repeat(1, 2, 1, 1)
    c2w[0, 0, :3, 3] = torch.tensor([1.0, 2.0, 3.0])
    # View 1: a quarter turn about z, and elsewhere.
    c2w[0, 1, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    c2w[0, 1, :3, 3] = torch.tensor([5.0, 2.0, 2.0])
    Ks_norm = torch.tensor([[0.6, 0.0, 0.5], [0.0, 1.2, 0.5], [0.0, 0.0, 1.0]]).expand(1, 2, 3, 3)
    out = camera_vector(c2w, Ks_norm, torch.tensor([1]))
    # From view 1, the turn goes back, and view 0 lies (-4, 0, 1) away along turned axes.
    expected = torch.tensor([0.0, 1, 0, 0, -1, 0, 0, 4, 0, 0, 1, 1, 1.2])
    assert_same_up_to(out[0, 0], expected, 1e-6)
    identity = torch.tensor([1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1.2])
    assert_same_up_to(out[0, 1], identity, 1e-6)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_network_starts_as_the_plain_one_without_rays(mode):
    ours = network(awake=False)
    torch.manual_seed(0)
    plain = GenXDUNet(TINY)
    args, options = inputs(mode)
    expected_args, _ = inputs(mode, rays=0.0)
    with torch.no_grad():
        out = ours(*args, **options, cameras=cameras())
        expected = plain(*expected_args, **options)
    assert_same_up_to(out, expected, 1e-5)


def test_rays_tell_nothing_but_cameras_do():
    ours = network()
    (sample, time), options = inputs()
    turned = sample.clone()
    turned[:, :, 8:14] *= -2
    with torch.no_grad():
        out = ours(sample, time, **options, cameras=cameras())
        assert torch.equal(ours(turned, time, **options, cameras=cameras()), out)
        other = ours(sample, time, **options, cameras=cameras(seed=7))
    assert float((other - out).abs().max()) > 1e-3


def test_camera_without_rays_is_not_told():
    ours = network()
    args, options = inputs(rays=0.0)
    with torch.no_grad():
        out = ours(*args, **options, cameras=cameras())
        assert torch.equal(ours(*args, **options, cameras=cameras(seed=7)), out)


@torch.no_grad()
def test_every_frame_sees_which_camera_is_its_own():
    tokens = network().camera_tokens(cameras(batch=1))
    assert tokens.shape == (VIEWS, VIEWS, 128)
    own = network().own_camera
    for frame in range(VIEWS):
        for other in range(VIEWS):
            difference = tokens[frame, other] - tokens[(other + 1) % VIEWS, other]
            assert_same_up_to(difference, own if frame == other else 0 * own, 1e-5)


@torch.no_grad()
def test_cross_attention_is_softmax_over_the_cameras():
    layer = network().mid_block.attentions[0].transformer_blocks[0].attn2
    x, seen = torch.randn(2, 5, 32, generator=seeded()), torch.randn(2, 3, 128, generator=seeded(1))
    (q, k, v) = (f(t) for f, t in ((layer.to_q, x), (layer.to_k, seen), (layer.to_v, seen)))
    weights = (torch.einsum("nld,nsd->nls", q, k) / math.sqrt(32)).softmax(-1)
    assert_same_up_to(layer(x, seen), layer.to_out[0](weights @ v), 1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_reaches_the_new_layers(checkpointing):
    ours = network(attention=plain_attention)
    ours.enable_gradient_checkpointing(checkpointing)
    args, options = inputs()
    ours(*args, **options, cameras=cameras()).square().mean().backward()
    new = [
        (name, weight)
        for name, weight in ours.named_parameters()
        if ".attn2." in name or "camera" in name or name.endswith("blocks.0.norm2.weight")
    ]
    layers = sum(name.endswith("attn2.to_q.weight") for name, _ in new)
    assert layers == 1 + 2 + 1  # down, up, middle
    for name, weight in new:
        assert weight.grad is not None, name
        assert float(weight.grad.abs().max()) > 0, name


def test_first_step_moves_the_new_output_away_from_zero():
    ours = network(awake=False)
    args, options = inputs()
    ours(*args, **options, cameras=cameras()).square().mean().backward()
    out = ours.mid_block.attentions[0].transformer_blocks[0].attn2.to_out[0]
    assert not out.weight.any()
    assert float(out.weight.grad.abs().max()) > 0


@pytest.mark.parametrize(("mode", "expected"), [(0, 0), (2, 4)])
def test_temporal_branch_runs_only_where_something_moves(mode, expected):
    ours, calls = network(), []
    for name, module in ours.named_modules():
        if name.endswith("temporal_transformer_blocks.0"):
            module.register_forward_hook(lambda *_: calls.append(1))
    args, options = inputs(mode)
    with torch.no_grad():
        ours(*args, **options, cameras=cameras())
    assert len(calls) == expected


def test_saved_network_loads_as_it_was(tmp_path):
    ours = network(seed=3)
    ours.save(tmp_path / "unet")
    found = json.loads((tmp_path / "unet" / "config.json").read_text(encoding="utf-8"))
    assert found["variant"] == "camera_attention"
    loaded = load_network(tmp_path / "unet")
    assert isinstance(loaded, CameraAttentionUNet)
    args, options = inputs()
    with torch.no_grad():
        expected = ours(*args, **options, cameras=cameras())
        # Where weights lie in memory decides how products are rounded.
        assert_same_up_to(loaded(*args, **options, cameras=cameras()), expected, 1e-5)
    kept = loaded.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in ours.state_dict().items())


def test_averaged_weights_load_too(tmp_path):
    ours = network()
    averaged = {name: value + 1 for name, value in ours.state_dict().items()}
    write_weights(tmp_path, TINY, averaged, metadata={"steps": "7"})
    loaded = CameraAttentionUNet.load(tmp_path).state_dict()
    assert loaded.keys() == averaged.keys()
    assert all(torch.equal(loaded[key], averaged[key]) for key in averaged)


def test_plain_network_loads_as_a_plain_one(tmp_path):
    torch.manual_seed(0)
    save_unet(GenXDUNet(TINY), tmp_path)
    assert type(load_network(tmp_path)) is GenXDUNet


def test_wrong_files_and_missing_cameras_are_refused(tmp_path):
    args, options = inputs()
    with pytest.raises(InvalidInputError, match="cameras is missing"):
        network()(*args, **options)
    with pytest.raises(InvalidInputError, match=r"cameras is of shape \(1, 3, 13\)"):
        network()(*args, **options, cameras=cameras(batch=1))
    torch.manual_seed(0)
    save_unet(GenXDUNet(TINY), tmp_path / "plain")
    with pytest.raises(WeightsError, match="has no variant 'camera_attention'"):
        CameraAttentionUNet.load(tmp_path / "plain")
    network().save(tmp_path / "ours")
    with pytest.raises(WeightsError, match="does not fit"):
        load_unet(tmp_path / "ours")
    (tmp_path / "ours" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match="has no diffusion_pytorch_model"):
        load_network(tmp_path / "ours")
