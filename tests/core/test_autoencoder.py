import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from genxd_core.autoencoder import Autoencoder
from genxd_core.errors import Cancelled, InvalidInputError, MissingDependencyError, WeightsError
from tests.support import REFERENCE, assert_same_up_to, seeded
from tests.tiny_model import make_tiny_model

pytest.importorskip("diffusers", reason="needs the extra `pipeline`")

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("vae") / "tiny")


@pytest.fixture(scope="module")
def vae(model):
    return Autoencoder.from_pretrained(model)


@pytest.fixture(scope="module")
def original():
    from diffusers import AutoencoderKLTemporalDecoder

    text = (REFERENCE / "vae_tiny_config.json").read_text(encoding="utf-8")
    network = AutoencoderKLTemporalDecoder.from_config(json.loads(text))
    network.load_state_dict(load_file(REFERENCE / "vae_tiny.safetensors"))
    return network.eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.rand(5, 3, 64, 128, generator=seeded())


@pytest.fixture
def latents():
    return torch.randn(5, 4, 8, 16, generator=seeded(1)) * 0.18215


def test_it_reports_its_factor_channels_and_scale(vae):
    assert (vae.factor, vae.latent_channels, vae.scaling_factor) == (8, 4, 0.18215)


def test_the_vae_folder_itself_can_be_given_too(model, vae, images):
    other = Autoencoder.from_pretrained(model / "vae")
    assert torch.equal(other.encode(images), vae.encode(images))


def test_encoding_gives_the_scaled_mode_of_the_posterior(vae, original, images):
    expected = original.encode(2 * images - 1).latent_dist.mode() * 0.18215
    assert_same_up_to(vae.encode(images), expected, 1e-6)


@pytest.mark.parametrize("frames_per_chunk", [1, 2, 5, 100])
def test_encoding_in_chunks_changes_nothing(vae, images, frames_per_chunk):
    whole = vae.encode(images, frames_per_chunk=5)
    assert_same_up_to(vae.encode(images, frames_per_chunk=frames_per_chunk), whole, 1e-6)


def test_encoding_never_gives_the_network_more_than_a_chunk(vae, images, monkeypatch):
    sizes = []
    encode = vae._vae.encode
    monkeypatch.setattr(vae._vae, "encode", lambda x: sizes.append(len(x)) or encode(x))
    vae.encode(images, frames_per_chunk=2)
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("frames_per_chunk", [2, 5])
def test_sampling_draws_the_noise_of_all_frames_at_once(vae, original, images, frames_per_chunk):
    posterior = original.encode(2 * images - 1).latent_dist
    noise = torch.randn(5, 4, 8, 16, generator=seeded(7))
    sampled = vae.encode(
        images, sample=True, generator=seeded(7), frames_per_chunk=frames_per_chunk
    )
    assert_same_up_to(sampled, (posterior.mean + posterior.std * noise) * 0.18215, 1e-6)


@pytest.mark.parametrize("frames_per_chunk", [1, 2, 3, 5])
def test_decoding_in_chunks_equals_the_original_on_the_same_chunks(
    vae, original, latents, frames_per_chunk
):
    expected = torch.cat(
        [
            original.decode(part / 0.18215, num_frames=len(part)).sample
            for part in latents.split(frames_per_chunk)
        ]
    )
    decoded = vae.decode(latents, frames_per_chunk=frames_per_chunk)
    assert_same_up_to(decoded, expected, 1e-5)


def test_decoding_takes_all_frames_at_once_unless_told_otherwise(vae, latents):
    assert torch.equal(vae.decode(latents), vae.decode(latents, frames_per_chunk=5))
    difference = (vae.decode(latents) - vae.decode(latents, frames_per_chunk=1)).abs().max()
    assert difference > 1e-3, "the decoder mixes the frames of a chunk"


def test_progress_counts_chunks_and_can_stop_between_them(vae, images, latents):
    seen = []

    def progress(step, total, preview=None):
        seen.append((step, total))
        return step < 2

    with pytest.raises(Cancelled):
        vae.encode(images, frames_per_chunk=2, progress=progress)
    with pytest.raises(Cancelled):
        vae.decode(latents, frames_per_chunk=1, progress=progress)
    assert seen == [(1, 3), (2, 3), (1, 5), (2, 5)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_encoder_in_float32_where_configured(model, vae, images, dtype):
    half = Autoencoder.from_pretrained(model, dtype=dtype)
    assert (half.encoder_dtype, half.decoder_dtype) == (torch.float32, dtype)
    encoded = half.encode(images)
    assert torch.equal(encoded, vae.encode(images))
    decoded = half.decode(encoded)
    assert decoded.dtype == torch.float32
    assert_same_up_to(decoded, vae.decode(encoded), 0.5 if dtype == torch.bfloat16 else 0.1)


def test_half_precision_encodes_in_half_where_the_vae_allows_it(model, images, tmp_path):
    folder = shutil.copytree(model, tmp_path / "m")
    file = folder / "vae" / "config.json"
    values = json.loads(file.read_text(encoding="utf-8")) | {"force_upcast": False}
    file.write_text(json.dumps(values), encoding="utf-8")
    half = Autoencoder.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.encoder_dtype == torch.bfloat16
    encoded = half.encode(images)
    assert encoded.dtype == torch.float32
    assert_same_up_to(encoded, Autoencoder.from_pretrained(folder).encode(images), 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"shape \(3, 64, 128\); expected \(V, 3, H, W\)"),
        (lambda x: x.permute(0, 2, 3, 1), "channels come last"),
        (lambda x: x[:0], "V at least 1"),
        (lambda x: x[:, :, :60], "60 x 128 pixels .* multiples of 8"),
        (lambda x: (x * 255).to(torch.uint8), "divide by 255"),
        (lambda x: x * 2 - 1, r"lies in \[-.*expected \[0, 1\]"),
        (lambda x: x * float("nan"), "no NaN"),
        (lambda x: x / 0, "no NaN"),
    ],
)
def test_what_is_no_set_of_pictures_is_refused(vae, images, change, message):
    with pytest.raises(InvalidInputError, match=message):
        vae.encode(change(images))


def test_chunks_of_nothing_are_refused(vae, images, latents):
    with pytest.raises(InvalidInputError, match="frames_per_chunk is 0"):
        vae.encode(images, frames_per_chunk=0)
    with pytest.raises(InvalidInputError, match="frames_per_chunk is -1"):
        vae.decode(latents, frames_per_chunk=-1)


def test_latents_with_other_channels_are_refused(vae):
    with pytest.raises(InvalidInputError, match="16 channels, expected 4"):
        vae.decode(torch.zeros(2, 16, 8, 8))


@pytest.fixture
def broken(model, tmp_path):
    return shutil.copytree(model / "vae", tmp_path / "vae")


def test_a_folder_without_a_vae_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"has no VAE in it: expected vae/config\.json"):
        Autoencoder.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="has no VAE in it"):
        Autoencoder.from_pretrained(tmp_path / "nowhere")


def test_a_missing_file_is_named_with_what_lies_there_instead(broken):
    (broken / WEIGHTS).rename(broken / "diffusion_pytorch_model.bin")
    with pytest.raises(
        WeightsError, match=rf"has no {WEIGHTS}; it has diffusion_pytorch_model\.bin"
    ):
        Autoencoder.from_pretrained(broken)
    (broken / "diffusion_pytorch_model.bin").unlink()
    with pytest.raises(WeightsError, match=rf"has no {WEIGHTS}\. Download"):
        Autoencoder.from_pretrained(broken)


def test_a_cut_off_file_is_refused(broken):
    data = (broken / WEIGHTS).read_bytes()
    (broken / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="cut off"):
        Autoencoder.from_pretrained(broken)


def test_keys_that_do_not_fit_are_counted_and_named(broken):
    state = load_file(broken / WEIGHTS)
    del state["quant_conv.bias"]
    state["encoder.conv_in.bias"] = torch.zeros(7)
    state["stray"] = torch.zeros(1)
    save_file(state, broken / WEIGHTS)
    message = (
        r"1 missing \(quant_conv\.bias\); 1 unexpected \(stray\); 1 misshaped "
        r"\(encoder\.conv_in\.bias \[7\] instead of \[32\]\).* Nothing was loaded"
    )
    with pytest.raises(WeightsError, match=message):
        Autoencoder.from_pretrained(broken)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no block_out_channels"),
        ('{"in_channels": 15}', "no block_out_channels"),
        ('{"_class_name": "AutoencoderKL", "block_out_channels": [32]}', "of a AutoencoderKL"),
        (
            '{"down_block_types": ["NoSuchBlock"], "block_out_channels": [32]}',
            "does not describe a VAE that can be built",
        ),
    ],
)
def test_a_wrong_configuration_is_refused(broken, text, message):
    (broken / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        Autoencoder.from_pretrained(broken)


def test_the_file_can_be_replaced_while_the_vae_is_in_use(broken, images):
    vae = Autoencoder.from_pretrained(broken)
    before = vae.encode(images)
    (broken / WEIGHTS).write_bytes(b"\0" * 100)
    assert torch.equal(vae.encode(images), before)


def test_without_diffusers_the_error_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        MissingDependencyError, match=r"pip install diffusers.*The nodes in ComfyUI"
    ):
        Autoencoder.from_pretrained(model)
