"""A narrower VAE starts from the larger one's channels and learns its latents."""

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from safetensors.torch import save_file

from tests.support import seeded
from trainer.narrow_vae import NarrowVAEConfig, narrow_vae, narrowed
from trainer.vae import VAEConfig, image_vae, temporal_vae

WIDE, NARROW = (32, 32, 32, 64), (32, 32, 32, 32)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    temporal_vae(image_vae(WIDE, layers=1)).save_pretrained(folder)
    return folder


def test_equal_widths_keep_everything(teacher):
    vae = AutoencoderKLTemporalDecoder.from_pretrained(teacher)
    same = narrowed(vae, WIDE).state_dict()
    assert all(torch.equal(same[key], value) for key, value in vae.state_dict().items())


def test_first_channels_of_every_group_are_kept(teacher):
    vae = AutoencoderKLTemporalDecoder.from_pretrained(teacher)
    less = narrowed(vae, NARROW)
    assert less.config.block_out_channels == NARROW
    key = "encoder.mid_block.resnets.0.conv1.weight"
    assert torch.equal(less.state_dict()[key], vae.state_dict()[key][::2, ::2])


@pytest.mark.slow
def test_training_brings_the_latents_nearer(teacher, tmp_path):
    coarse = torch.rand(24, 3, 2, 2, generator=seeded())
    images = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")
    shards = tmp_path / "img"
    shards.mkdir()
    clips = (images * 255).to(torch.uint8).unflatten(0, (2, 12)).contiguous()
    save_file({"images": clips}, shards / "nano_3d_000000000.safetensors")

    def error(vae):
        with torch.no_grad():
            x = images * 2 - 1
            theirs = AutoencoderKLTemporalDecoder.from_pretrained(teacher).encode(x).latent_dist
            return float((vae.encode(x).latent_dist.mean - theirs.mean).std())

    training = VAEConfig(
        shards=shards,
        out=tmp_path / "out",
        widths=NARROW,
        clip_steps=40,
        clips=2,
        frames=2,
        muon_lr=0.005,
        adam_lr=3e-4,
    )
    before = error(narrowed(AutoencoderKLTemporalDecoder.from_pretrained(teacher), NARROW))
    # A teacher of random weights has small latents, so that they have to count for more.
    config = NarrowVAEConfig(training=training, teacher=teacher, latent_weight=100.0)
    after = error(AutoencoderKLTemporalDecoder.from_pretrained(narrow_vae(config)))
    assert after < 0.6 * before
