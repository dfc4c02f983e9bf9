"""The small VAE: its start, its temporal decoder, the scale of its latents, a whole tiny run."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from safetensors.torch import load_file, save_file

from genxd_core.autoencoder import Autoencoder
from tests.support import seeded
from trainer.vae import VAEConfig, image_vae, normalise_latents_, temporal_vae, train_vae, vae_loss

WIDTHS = (32, 32, 32, 32)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two clips of soft colours."""
    folder = tmp_path_factory.mktemp("pictures")
    coarse = torch.rand(24, 3, 2, 2, generator=seeded())
    pictures = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")
    images = (pictures * 255).to(torch.uint8).unflatten(0, (2, 12))
    save_file({"images": images.contiguous()}, folder / "nano_3d_000000000.safetensors")
    return folder


@pytest.fixture
def config(shards, tmp_path):
    return VAEConfig(
        shards=shards,
        out=tmp_path / "vae",
        widths=WIDTHS,
        layers=1,
        image_steps=4,
        clip_steps=2,
        crops=2,
        crop_size=16,
        clips=1,
        frames=3,
        save_every=2,
    )


def pictures(folder):
    return load_file(next(folder.glob("*.safetensors")))["images"]


@torch.no_grad()
def test_temporal_decoder_starts_as_the_image_decoder_on_every_frame():
    torch.manual_seed(0)
    first = image_vae(WIDTHS, layers=2)
    latents = torch.randn(3, 4, 2, 2, generator=seeded())
    together = temporal_vae(first).decode(latents, num_frames=3).sample
    torch.testing.assert_close(together, first.decode(latents).sample, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_normalising_gives_unit_latents_and_changes_no_picture(shards):
    torch.manual_seed(0)
    vae, images = image_vae(WIDTHS, layers=1), pictures(shards)
    x = images[0].float() / 127.5 - 1
    before = vae.decode(vae.encode(x).latent_dist.mode()).sample
    noise_before = vae.encode(x).latent_dist.std
    normalise_latents_(vae, images, samples=24)
    posterior = vae.encode(images.flatten(0, 1).float() / 127.5 - 1).latent_dist
    spread = (posterior.mode() * vae.config.scaling_factor).std(dim=(0, 2, 3))
    torch.testing.assert_close(spread, torch.ones(4), atol=1e-3, rtol=0)
    posterior = vae.encode(x).latent_dist
    torch.testing.assert_close(vae.decode(posterior.mode()).sample, before, atol=1e-4, rtol=1e-4)
    ratio = posterior.std / noise_before  # the posterior's noise is scaled with its mean
    torch.testing.assert_close(ratio, ratio[:1, :, :1, :1].expand_as(ratio))


def test_loss_of_a_perfect_reconstruction_is_its_divergence_alone(config):
    class Perfect(torch.nn.Module):
        """Keeps pictures as its latents."""

        def encode(self, images):
            self.images = images
            mean, logvar = torch.zeros(2, 4, 2, 2), torch.full((2, 4, 2, 2), 1.0)
            self.latent_dist = type("D", (), {"mean": mean, "logvar": logvar, "std": logvar})
            return self

        def decode(self, latents):
            self.sample = self.images
            return self

    vae_loss_untyped = vae_loss.__wrapped__ if hasattr(vae_loss, "__wrapped__") else vae_loss
    loss, figures = vae_loss_untyped(Perfect(), torch.rand(2, 3, 16, 16), config, seeded())
    expected = 0.5 * (torch.e - 1 - 1)  # of N(0, e) from N(0, 1)
    assert float(figures["pixel"]) == 0.0
    assert float(loss) == pytest.approx(config.kl_weight * expected, rel=1e-4)


@pytest.mark.slow
def test_run_writes_a_vae_in_the_released_layout_and_a_log(config):
    folder = train_vae(config)
    vae = Autoencoder.from_pretrained(folder.parent)
    assert (vae.factor, vae.latent_channels) == (8, 4)
    rows = (config.out / "vae_run.json").read_text(encoding="utf-8")
    assert json.loads(rows)["layers"] == 1


@pytest.mark.slow
def test_stopped_run_goes_on_bit_exactly(config, tmp_path):
    expected = load_file(train_vae(config) / "diffusion_pytorch_model.safetensors")
    parts = replace(config, out=tmp_path / "parts")
    train_vae(replace(parts, image_steps=2, clip_steps=0))  # its schedule is another one
    (parts.out / "vae_image_state.pt").unlink()
    whole = replace(config, out=parts.out)
    train_vae(whole)
    state = parts.out / "vae_clip_state.pt"
    assert torch.load(state, weights_only=True)["step"] == 2
    again = load_file(train_vae(whole) / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(again[key], value) for key, value in expected.items())


@pytest.mark.slow
def test_encoder_stays_as_it_is_while_the_decoder_learns_time(config):
    first = AutoencoderKLTemporalDecoder.from_pretrained(train_vae(replace(config, clip_steps=0)))
    tuned = AutoencoderKLTemporalDecoder.from_pretrained(train_vae(replace(config, clip_steps=2)))
    before, after = first.state_dict(), tuned.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(key.startswith("decoder.") for key in changed)
