"""Weights files: every layout that is read, every mistake that is told."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from genxd_core.errors import WeightsError
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.svd_init import init_unet_from_svd
from genxd_core.model.unet import GenXDUNet
from genxd_core.model.weights import CONFIG_TENSOR, load_unet, save_unet
from tests.support import REFERENCE

CONFIG = GenXDUNetConfig.with_widths((32, 32), (1, 2))
NAME = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return GenXDUNet(CONFIG)


def assert_same(found, expected):
    assert found.config == expected.config
    for (key, a), (other, b) in zip(
        found.state_dict().items(), expected.state_dict().items(), strict=True
    ):
        assert key == other
        assert torch.equal(a, b)


def plain(unet):
    return {key: value.clone() for key, value in unet.state_dict().items()}


def test_released_folder_layout_loads(unet, tmp_path):
    save_file(plain(unet), tmp_path / NAME)
    (tmp_path / "unet").mkdir()
    shutil.move(tmp_path / NAME, tmp_path / "unet" / NAME)
    CONFIG.to_json(tmp_path / "unet" / "config.json")
    assert_same(load_unet(tmp_path), unet)
    assert_same(load_unet(tmp_path / "unet"), unet)
    assert_same(load_unet(tmp_path / "unet" / NAME), unet)


def test_single_file_with_a_configuration_of_its_stem_loads(unet, tmp_path):
    save_file(plain(unet), tmp_path / "mine.safetensors")
    CONFIG.to_json(tmp_path / "mine.json")
    assert_same(load_unet(tmp_path / "mine.safetensors"), unet)


@pytest.mark.parametrize("target", ["mine.safetensors", "folder"])
def test_own_checkpoint_loads_by_itself(unet, tmp_path, target):
    file = save_unet(unet, tmp_path / target, metadata={"license": "x"})
    assert_same(load_unet(file), unet)
    assert sorted(p.suffix for p in file.parent.iterdir()) in (
        [".safetensors"],
        [".json", ".safetensors"],
    )


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "unet."])
def test_prefixed_checkpoint_loads_without_what_else_is_in_it(unet, tmp_path, prefix):
    state = {prefix + key: value for key, value in plain(unet).items()}
    state["first_stage_model.decoder.x"] = torch.zeros(1)
    text = json.dumps(CONFIG.to_dict()).encode()
    state[CONFIG_TENSOR] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    save_file(state, tmp_path / "a.safetensors")
    assert_same(load_unet(tmp_path / "a.safetensors"), unet)


def test_precision_is_the_one_asked_for(unet, tmp_path):
    file = save_unet(unet, tmp_path)
    assert {p.dtype for p in load_unet(file, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


def test_loaded_network_does_not_depend_on_the_file(unet, tmp_path):
    file = save_unet(unet, tmp_path)
    loaded = load_unet(file)
    file.write_bytes(b"\0" * file.stat().st_size)
    assert_same(loaded, unet)


def test_saving_over_a_file_leaves_no_other(unet, tmp_path):
    save_unet(unet, tmp_path / "a.safetensors")
    save_unet(unet, tmp_path / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def write_missing(state):
    return {k: v for k, v in state.items() if not k.startswith("conv_out")}


def write_unexpected(state):
    return {**state, "extra.weight": torch.zeros(1)}


def write_misshaped(state):
    return {**state, "conv_in.bias": torch.zeros(31)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (write_missing, r"2 missing \(conv_out.weight, conv_out.bias\)"),
        (write_unexpected, r"1 unexpected \(extra.weight\)"),
        (write_misshaped, r"1 misshaped \(conv_in.bias \[31\] instead of \[32\]\)"),
    ],
)
def test_keys_that_do_not_fit_are_told(unet, tmp_path, change, message):
    save_file(change(plain(unet)), tmp_path / "a.safetensors")
    CONFIG.to_json(tmp_path / "a.json")
    with pytest.raises(WeightsError, match=message):
        load_unet(tmp_path / "a.safetensors")


def other_model(keys):
    return {key: torch.zeros(2, 2) for key in keys}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            [
                "down_blocks.0.resnets.0.time_mixer.mix_factor",
                "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.weight",
            ],
            "is an SVD UNet.*init_unet_from_svd",
        ),
        (["model.diffusion_model.input_blocks.0.0.weight"], "is a Stable Diffusion model"),
        (
            ["model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight"],
            "is an SVD checkpoint in its original layout",
        ),
        (
            ["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.weight"],
            "is a Stable Diffusion model",
        ),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "is a VAE"),
        (["lora_unet_conv_in.lora_up.weight"], "is a LoRA"),
        (["something.weight"], r"is not a GenXD UNet \(1 tensors, such as something.weight\)"),
    ],
)
def test_another_model_is_named_and_not_loaded(tmp_path, keys, message):
    save_file(other_model(keys), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_unet(tmp_path / "a.safetensors")


def test_empty_file_is_told(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"is empty \(0 bytes\)"):
        load_unet(tmp_path / "a.safetensors")


@pytest.mark.parametrize("keep", [4, 1000, 200_000])
def test_truncated_file_is_told(unet, tmp_path, keep):
    file = save_unet(unet, tmp_path / "a.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"cut off|not a safetensors file"):
        load_unet(file)


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.bin"])
def test_pickle_is_refused_without_being_opened(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError, match=r"is a pickle.*Convert it to safetensors"):
        load_unet(tmp_path / name)


def test_pickle_named_safetensors_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"is a pickle|not a safetensors file"):
        load_unet(tmp_path / "a.safetensors")


def test_file_without_a_configuration_says_what_to_do(unet, tmp_path):
    save_file(plain(unet), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"has no configuration.*config\.json"):
        load_unet(tmp_path / "a.safetensors")


def test_configuration_of_another_model_is_told(unet, tmp_path):
    save_file(plain(unet), tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text('{"cross_attention_dim": 768}', encoding="utf-8")
    with pytest.raises(WeightsError, match=r"configuration of .* cannot be used"):
        load_unet(tmp_path / "a.safetensors")


@pytest.mark.parametrize(("name", "message"), [("nothing", "does not exist"), (".", "has no UNet")])
def test_wrong_path_is_told(tmp_path, name, message):
    with pytest.raises(WeightsError, match=message):
        load_unet(tmp_path / name)


def test_svd_start_refuses_other_weights(unet):
    with pytest.raises(WeightsError, match="are not an SVD UNet"):
        init_unet_from_svd(plain(unet), CONFIG)


def test_svd_start_refuses_other_widths():
    tensors = load_file(REFERENCE / "svd_init_tiny_cases.safetensors")
    svd = {k[4:]: v.float() for k, v in tensors.items() if k.startswith("svd.")}
    config = GenXDUNetConfig.with_widths((64, 64), (2, 4))
    with pytest.raises(WeightsError, match="do not have the configuration's shapes"):
        init_unet_from_svd(svd, config)
