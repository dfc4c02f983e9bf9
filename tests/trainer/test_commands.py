"""The commands of the trainer one after the other, from nothing to a model that generates."""

import json

import pytest
import torch
from safetensors.torch import load_file

import genxd_core as gx
from genxd_core.errors import InvalidInputError
from genxd_core.files import read_checksums, sha256_of
from genxd_core.synthetic import FAMILIES, HELD_OUT
from trainer.__main__ import Encode, Export, Render, Train, TrainVAE, run
from trainer.synthetic_shards import RenderJob, render_shards
from trainer.vae import VAEConfig

NANO_FAMILIES = [name for name in FAMILIES if name.startswith("nano")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """What the commands in genxd-nano's README make, in as few steps as can be."""
    place = tmp_path_factory.mktemp("commands")
    for family in NANO_FAMILIES:
        run(Render(RenderJob(place / "img", family, clips=1)))
    vae = VAEConfig(
        shards=place / "img",
        out=place / "vae",
        widths=(32, 32, 32, 32),
        layers=1,
        image_steps=1,
        clip_steps=1,
        crops=1,
        clips=1,
    )
    run(TrainVAE(vae))
    run(Encode(place / "img", place / "lat", place / "vae" / "vae"))
    run(Train("nano", place / "lat", place / "run", steps=1))
    run(Export(place / "run" / "unet", place / "vae" / "vae", place / "model"))
    return place


def test_latents_are_the_encoded_pictures_scaled(model):
    vae = gx.GenXDPipeline.from_pretrained(model / "model").vae
    for family in NANO_FAMILIES:
        name = f"{family}_000000000.safetensors"
        pictures = load_file(model / "img" / name)["images"][0].float() / 255
        latents = load_file(model / "lat" / name)["latents"][0].float()
        # Twice in half precision: the weights, and the latents on disk.
        spread = float((latents - vae.encode(pictures)).std() / latents.std())
        assert latents.shape == (12, 4, 8, 8)
        assert spread < 1e-2


def test_encoding_again_does_nothing(model):
    from diffusers import AutoencoderKLTemporalDecoder

    from trainer.synthetic_shards import encode_shards

    vae = AutoencoderKLTemporalDecoder.from_pretrained(model / "vae" / "vae")
    assert encode_shards(model / "img", model / "lat", vae) == 0


def test_exported_model_is_in_half_precision_with_checksums_and_generates(model):
    folder = model / "model"
    for part in ("unet", "vae"):
        weights = load_file(folder / part / "diffusion_pytorch_model.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.float16}
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["sigma_min"], scheduler["sigma_max"]) == (0.002, 700.0)
    sums = read_checksums(folder / "SHA256SUMS")
    assert {"unet/diffusion_pytorch_model.safetensors", "vae/config.json"} <= set(sums)
    assert all(sha256_of(folder / name) == value for name, value in sums.items())
    pipe = gx.GenXDPipeline.from_pretrained(folder)
    out = pipe(torch.rand(1, 3, 64, 64), [0], gx.sway(4), num_inference_steps=2)
    assert out.frames.shape == (4, 3, 64, 64)


def test_half_precision_encoding_differs_by_little(model):
    from diffusers import AutoencoderKLTemporalDecoder

    from trainer.synthetic_shards import encode_shards

    vae = AutoencoderKLTemporalDecoder.from_pretrained(model / "vae" / "vae")
    encode_shards(model / "img", model / "half", vae, dtype=torch.bfloat16)
    name = "nano_3d_000000000.safetensors"
    single, half = (load_file(model / part / name)["latents"].float() for part in ("lat", "half"))
    assert 0 < float((single - half).std() / single.std()) < 0.05


def test_folder_without_clips_is_refused(model, tmp_path):
    with pytest.raises(InvalidInputError, match=r"shards is .*, which has no clips of nano_3d, na"):
        run(Train("nano", tmp_path, tmp_path / "run", steps=1))


def test_another_run_in_the_same_folder_is_refused(model):
    with pytest.raises(InvalidInputError, match=r"holds a run with init_from None, not '.*unet'"):
        run(Train("nano", model / "lat", model / "run", steps=2, init_from=model / "run" / "unet"))


def test_unknown_recipe_is_refused(model, tmp_path):
    with pytest.raises(InvalidInputError, match="recipe is 'nana', expected one of nano"):
        run(Train("nana", model / "lat", tmp_path))


@pytest.mark.parametrize(("first_seed", "clips"), [(HELD_OUT - 1, 2), (-1, 1)])
def test_held_out_seeds_are_not_rendered_for_training(tmp_path, first_seed, clips):
    with pytest.raises(InvalidInputError, match=f"first_seed is {first_seed} for {clips} clips"):
        render_shards(RenderJob(tmp_path, "nano_3d", clips=clips, first_seed=first_seed))
