"""The commands of the trainer one after the other, from nothing to a model that generates."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import genxd_core as gx
from genxd_core.assets import NANO
from genxd_core.errors import InvalidInputError
from genxd_core.files import read_checksums, sha256_of
from genxd_core.synthetic import HELD_OUT, make_clips
from tests.support import DATA
from trainer.__main__ import Check, Encode, Export, Recipes, Render, Train, TrainVAE, main, run
from trainer.encode import EncodeJob
from trainer.export_run import ExportJob
from trainer.latent_shards import LatentShards
from trainer.synthetic_shards import RenderJob, render_shards
from trainer.vae import VAEConfig

# The fixture makes and trains whole models.
pytestmark = pytest.mark.slow

FAMILIES = ("nano_3d", "nano_4d", "nano_video")
FEW = tuple(f"data.sources.{family}.options.scenes=2" for family in FAMILIES)
STILL = FEW[:1]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """What the commands in genxd-nano's README make, in as few steps as can be."""
    place = tmp_path_factory.mktemp("commands")
    run(Render(RenderJob(place / "img", "nano_3d", clips=1)))
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
    vae_folder = place / "vae" / "vae"
    job = EncodeJob(out=place / "data" / "latents", scenes_per_shard=1)
    run(Encode("nano", job, vae=vae_folder, device="cpu", settings=FEW))
    short = ("engine.steps=1", "engine.trackers=[]")
    run(Train("nano", place / "nano", place / "data", settings=(*FEW, *short)))
    stage = (*STILL, *short, f"model.start_from={place / 'nano'}")
    run(Train("nano_stage1", place / "stage1", place / "data", settings=stage))
    exported = ExportJob(
        run=place / "stage1",
        out=place / "model",
        vae=str(vae_folder),
        file=place / "one.safetensors",
    )
    run(Export(exported))
    return place


def test_latents_are_the_encoded_pictures_scaled(model):
    vae = gx.GenXDPipeline.from_pretrained(model / "model").vae
    shards = LatentShards(model / "data" / "latents" / "nano_4d" / "crop")
    clip = make_clips([1], "nano_4d")
    pictures = (clip.images[0] * 255).round() / 255
    latents = shards.read("00000001", "latents", range(12))
    # Twice in half precision: the weights, and the latents on disk.
    spread = float((latents - vae.encode(pictures)).std() / latents.std())
    assert latents.shape == (12, 4, 8, 8)
    assert spread < 1e-2
    assert torch.equal(shards.read("00000001", "c2w", range(12)), clip.c2w[0])


def test_encoding_again_does_nothing(model, tmp_path):
    folder = model / "data" / "latents" / "nano_3d" / "crop"
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    job = EncodeJob(out=model / "data" / "latents", scenes_per_shard=1)
    run(Encode("nano", job, vae=model / "vae" / "vae", device="cpu", settings=FEW))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps


def test_parts_of_a_job_are_the_whole(model, tmp_path):
    vae = model / "vae" / "vae"
    for part in (0, 1):
        job = EncodeJob(out=tmp_path, scenes_per_shard=1, part=part, parts=2)
        run(Encode("nano", job, vae=vae, sources=("nano_3d",), device="cpu", settings=FEW))
    parts, whole = tmp_path / "nano_3d" / "crop", model / "data" / "latents" / "nano_3d" / "crop"
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in parts.iterdir()) == names
    for name in names:
        made, expected = load_file(parts / name), load_file(whole / name)
        assert made.keys() == expected.keys()
        assert all(torch.equal(made[key].nan_to_num(), expected[key].nan_to_num()) for key in made)


def test_half_precision_encoding_differs_by_little(model, tmp_path):
    vae, job = model / "vae" / "vae", EncodeJob(out=tmp_path, scenes_per_shard=1)
    command = Encode(
        "nano", job, vae=vae, sources=("nano_3d",), device="cpu", precision="bf16", settings=FEW
    )
    run(command)
    both = (tmp_path, model / "data" / "latents")
    single, half = (LatentShards(folder / "nano_3d" / "crop") for folder in both)
    a, b = (shards.read("00000000", "latents", range(12)) for shards in (single, half))
    assert 0 < float((a - b).std() / a.std()) < 0.05


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


def test_exported_file_holds_the_weights_of_the_folder(model):
    whole = gx.load_unet(model / "model" / "unet").state_dict()
    single = gx.load_unet(model / "one.safetensors").state_dict()
    assert all(torch.equal(value, single[name]) for name, value in whole.items())


def test_recipes_are_listed_and_shown(capsys):
    run(Recipes())
    assert "nano_stage3" in capsys.readouterr().out
    run(Recipes(show="stage1"))
    assert json.loads(capsys.readouterr().out)["optim"]["lr"] == 5e-5


def test_check_tells_what_is_there(capsys):
    run(Check("nano", settings=FEW))
    lines = capsys.readouterr().out.splitlines()
    made = "00000000 has 12 pictures, a clip takes 12"
    assert lines[0] == f"nano_3d: 2 scenes (3d); {made}"
    assert lines[-1] == "network: 7.3 million parameters, from scratch"


def test_check_of_finetuning_tells_the_network_of_the_weights(capsys, tmp_path):
    (tmp_path / "captures").mkdir()
    shutil.copytree(DATA / "lund", tmp_path / "captures" / "lund")
    shutil.copytree(NANO, tmp_path / "weights")
    run(Check("finetune", tmp_path))
    run(Check("finetune", tmp_path, settings=("data.views=[16]",)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "captures: 1 scene (3d); lund has 15 pictures, a clip takes 12"
    assert lines[1] == f"network: 7.3 million parameters, from weights of {tmp_path / 'weights'}"
    assert lines[2] == "captures: 1 scene (3d); lund has 15 pictures, data.views asks for 16"
    with pytest.raises(InvalidInputError, match=r"data\.size is 40, expected a multiple of 16"):
        run(Check("finetune", tmp_path, settings=("data.size=40",)))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Train("nana", Path("x")), "recipe is 'nana', expected one of stage1"),
        (Train("stage1", Path("x"), Path("nowhere")), "data.latents has no encoded clips"),
        (Check("stage1", Path("nowhere")), r"root of objaverse is nowhere/objaverse, which does n"),
        (Check("finetune", Path("nowhere")), "root of captures is nowhere/captures, which does no"),
        (Encode("stage1", EncodeJob(out=Path("x"))), "give its folder as --vae"),
        (
            Encode("debug", EncodeJob(out=Path("x")), sources=("moon",)),
            "sources has moon, expected names of nano_3d, nano_4d",
        ),
        (Export(ExportJob(run=Path("x"), file=Path("y.safetensors"))), "holds no trained weights"),
    ],
)
def test_what_cannot_work_is_refused_plainly(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        run(command)


def test_another_precision_in_the_same_process_is_refused_plainly(model, tmp_path):
    changed = (*FEW, "engine.mixed_precision=bf16", "engine.trackers=[]")
    with pytest.raises(InvalidInputError, match=r"engine\.mixed_precision is 'bf16', which"):
        run(Train("nano", tmp_path, model / "data", settings=changed))


def test_errors_end_the_program_without_a_traceback(monkeypatch, tmp_path):
    arguments = ["trainer", "train", "--recipe", "nana", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match="error: recipe is 'nana'"):
        main()


def test_job_that_exports_nothing_is_refused():
    with pytest.raises(InvalidInputError, match="nothing to export to"):
        ExportJob(run=Path("x"))
    with pytest.raises(InvalidInputError, match="out is given without a VAE"):
        ExportJob(run=Path("x"), out=Path("y"))


@pytest.mark.parametrize(("first_seed", "clips"), [(HELD_OUT - 1, 2), (-1, 1)])
def test_held_out_seeds_are_not_rendered_for_training(tmp_path, first_seed, clips):
    with pytest.raises(InvalidInputError, match=f"first_seed is {first_seed} for {clips} clips"):
        render_shards(RenderJob(tmp_path, "nano_3d", clips=clips, first_seed=first_seed))
