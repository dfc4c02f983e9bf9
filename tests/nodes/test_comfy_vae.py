"""The VAE in ComfyUI against diffusers' own, and what is said about files that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support import REFERENCE, assert_same_up_to, assert_same_up_to_std, seeded

NAME = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def module(host) -> Any:
    return host.module("nodes.comfy_vae")


@pytest.fixture(scope="module")
def weights_error(host) -> Any:
    return host.module("genxd_core.errors").WeightsError


def run(host: Any, function: Any) -> Any:
    """Call something as ComfyUI calls nodes."""
    return host.call(lambda: torch.inference_mode()(function)())


def make_vae(folder: Path, *, widths: tuple[int, ...], layers: int) -> Any:
    """A random VAE of diffusers', saved; every tensor away from its initial value."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(4)
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=widths,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        layers_per_block=layers,
        latent_channels=4,
    )
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    vae.save_pretrained(folder)
    return vae.eval()


@pytest.fixture(
    scope="module",
    params=[
        None,
        ((32, 32, 32, 32), 2),
        ((32, 64, 32, 64), 2),
        ((64, 64, 128, 128), 1),
        ((64, 64, 96, 96), 2),
    ],
    ids=["reference", "two layers", "widths", "one layer", "uneven widths"],
)
def pair(request, host, loaded, module, tmp_path_factory) -> tuple[Any, Any]:
    """A VAE in ComfyUI and the same in diffusers."""
    diffusers = pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("vae")
    if request.param is None:
        folder = host.base / "models" / "genxd" / "tiny" / "vae"
        return loaded[1], diffusers.AutoencoderKLTemporalDecoder.from_pretrained(folder).eval()
    widths, layers = request.param
    theirs = make_vae(folder, widths=widths, layers=layers)
    return host.call(lambda: module.load_genxd_vae(folder)), theirs


@torch.no_grad()
def test_encodes_as_diffusers(host, pair, module):
    ours, theirs = pair
    pictures = torch.rand(3, 64, 96, 3, generator=seeded(1))
    encoded = run(host, lambda: module.encode_pictures(ours, pictures))
    expected = theirs.encode(pictures.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    assert_same_up_to(encoded, expected, 1e-5)  # measured: up to 1.5e-6


@torch.no_grad()
@pytest.mark.parametrize("chunk", [0, 1, 2, 4])
def test_decodes_as_diffusers_with_the_same_chunks(host, pair, chunk):
    ours, theirs = pair
    latents = torch.randn(5, 4, 8, 12, generator=seeded(2)) * 0.3
    (pictures,) = host.run_node(
        "GenXD_DecodeViews", samples={"samples": latents}, vae=ours, frames_per_chunk=chunk
    )
    parts = latents.split(chunk or len(latents))
    raw = torch.cat([theirs.decode(part, num_frames=len(part)).sample for part in parts])
    expected = (raw / 2 + 0.5).clamp(0, 1).movedim(1, -1)
    assert pictures.shape == (5, 64, 96, 3)
    assert_same_up_to_std(pictures, expected, 1e-4)  # measured: up to 2e-5


def test_chunks_matter(host, loaded):
    samples = {"samples": torch.randn(4, 4, 8, 8, generator=seeded(2))}
    whole, single = (
        host.run_node("GenXD_DecodeViews", samples=samples, vae=loaded[1], frames_per_chunk=n)[0]
        for n in (0, 1)
    )
    assert float((whole - single).abs().max()) > 1e-2, "the decoder mixes no frames"


def test_clips_of_a_repeated_latent_are_decoded_apart(host, scene):
    (twice,) = host.run_node("RepeatLatentBatch", samples=scene.latent, amount=2)
    twice = {**twice, "samples": scene.sample(latent_image=twice)}
    decoded = [
        host.run_node("GenXD_DecodeViews", samples=one, vae=scene.vae, frames_per_chunk=3)[0]
        for one in (
            twice,
            {"samples": twice["samples"][:4]},
            {"samples": twice["samples"][4:]},
        )
    ]
    assert torch.equal(decoded[0], torch.cat(decoded[1:]))


def test_saved_by_comfyui_loads_again_at_any_width(host, pair, module, tmp_path):
    ours, _ = pair
    file = tmp_path / "vae.safetensors"
    save_file({key: value.contiguous() for key, value in ours.get_sd().items()}, file)
    again = host.call(lambda: module.load_genxd_vae(file))
    assert again.first_stage_model is not ours.first_stage_model
    theirs = ours.get_sd()
    for key, value in again.get_sd().items():
        assert torch.equal(value, theirs[key]), key


def test_released_keys_fill_comfyuis_own_network(host, module):
    """The whole VAE, without a single weight in memory."""
    manifest = json.loads((REFERENCE / "vae_full_manifest.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape, _ in manifest["keys"]}
    keys = host.module("nodes.comfy_vae_keys")
    layout = keys.from_diffusers(state, "the released VAE")
    assert (layout.widths, layout.layers, layout.zeroed) == ((128, 256, 512, 512), 2, ())

    def build() -> Any:
        with torch.device("meta"):
            return module._network(layout)

    wanted = {key: value.shape for key, value in host.call(build).state_dict().items()}
    got = {key: value.shape for key, value in layout.state.items()}
    assert got == wanted
    assert len(got) == len(state) - 2  # quant_conv is folded


def test_other_vae_goes_to_comfyuis_loader(host, module, weights_error, tmp_path):
    from comfy.taesd.taesd import TAESD

    for channels in (4, 16):
        network = TAESD(latent_channels=channels)
        save_file(network.state_dict(), tmp_path / f"{channels}.safetensors")
    vae = host.call(lambda: module.load_genxd_vae(tmp_path / "4.safetensors"))
    (pictures,) = host.run_node(
        "GenXD_DecodeViews",
        samples={"samples": torch.zeros(2, 4, 4, 4)},
        vae=vae,
        frames_per_chunk=1,
    )
    assert pictures.shape == (2, 32, 32, 3)
    with pytest.raises(weights_error, match=r"latents of 16 channels.*another model's"):
        host.call(lambda: module.load_genxd_vae(tmp_path / "16.safetensors"))


def test_vae_in_half_precision_stays_near(host, loaded, module):
    folder = host.base / "models" / "genxd" / "tiny" / "vae"
    half = host.call(lambda: module.load_genxd_vae(folder, dtype=torch.bfloat16))
    pictures = torch.rand(1, 64, 64, 3, generator=seeded(1))
    encoded, exact = (
        run(host, lambda vae=vae: module.encode_pictures(vae, pictures))
        for vae in (half, loaded[1])
    )
    assert encoded.dtype == torch.float32
    assert_same_up_to_std(encoded, exact, 0.1)


# ---- files that cannot be used ------------------------------------------------------------------


@pytest.fixture
def reference_state() -> dict[str, Tensor]:
    return load_file(REFERENCE / "vae_tiny.safetensors")


def without(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(prefix)}


DAMAGED = {
    "a missing tensor": (
        lambda s: without(s, "decoder.conv_in.bias"),
        "1 tensors missing .decoder.conv_in.bias",
    ),
    "a missing level": (lambda s: without(s, "encoder.down_blocks.2."), "levels of the encoder"),
    "no encoder": (lambda s: without(s, "encoder."), "levels of the encoder"),
    "no quant_conv": (lambda s: without(s, "quant_conv.bias"), "quant_conv has the shapes"),
    "a stranger": (
        lambda s: {**s, "decoder.stranger.weight": torch.zeros(1)},
        "1 tensors left over .decoder.stranger.weight",
    ),
    "another shape": (
        lambda s: {**s, "decoder.conv_in.bias": torch.zeros(7)},
        "shapes do not fit.*decoder.conv_in.bias",
    ),
    "no VAE at all": (lambda s: {"a": torch.zeros(1)}, "is not a VAE that GenXD or ComfyUI knows"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_weights_are_refused(host, module, weights_error, reference_state, tmp_path, name):
    damage, message = DAMAGED[name]
    file = tmp_path / NAME
    save_file(damage(reference_state), file)
    with pytest.raises(weights_error, match=f"(?s){message}"):
        host.call(lambda: module.load_genxd_vae(file))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"scaling_factor": 0.13}', "scaling_factor is 0.13, expected 0.18215"),
        ('{"scaling_factor": "much"}', "cannot be read"),
        ("[1]", "cannot be read"),
        ("{", "cannot be read"),
    ],
)
def test_configuration_of_another_vae_is_refused(
    host, module, weights_error, reference_state, tmp_path, config, message
):
    save_file(reference_state, tmp_path / NAME)
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(weights_error, match=message):
        host.call(lambda: module.load_genxd_vae(tmp_path))


def test_vae_with_another_factor_is_refused(host, module, weights_error, tmp_path):
    make_vae(tmp_path, widths=(32, 32, 32), layers=1)
    with pytest.raises(weights_error, match="one latent for 4 pixels, expected 8"):
        host.call(lambda: module.load_genxd_vae(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty .0 bytes."), (b"PK\x03\x04" * 9, "pickle"), (b"x" * 50, "not a safetensors")],
)
def test_file_of_another_kind_is_refused(host, module, weights_error, tmp_path, content, message):
    file = tmp_path / "vae.safetensors"
    file.write_bytes(content)
    with pytest.raises(weights_error, match=message):
        host.call(lambda: module.load_genxd_vae(file))


def test_folder_without_a_vae_is_refused(host, module, weights_error, tmp_path):
    with pytest.raises(weights_error, match="has no VAE in it"):
        host.call(lambda: module.load_genxd_vae(tmp_path))
    with pytest.raises(weights_error, match="does not exist"):
        host.call(lambda: module.load_genxd_vae(tmp_path / "nowhere.safetensors"))
