"""Finished runs as files: what they hold, what they say of themselves, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import genxd_core as gx
from genxd_core.errors import InvalidInputError, WeightsError
from genxd_core.files import read_checksums
from genxd_core.model.weights import read_unet
from tests.nodes.scenes import mini_unet
from tests.support import REFERENCE
from trainer.export import export_lora, export_model, export_single_file
from trainer.lora import add_lora
from trainer.provenance import origin_of, provenance

NAME = "diffusion_pytorch_model.safetensors"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TOLD = provenance(origin="svd", recipe="finetune", steps=30)


@pytest.fixture
def run(tmp_path):
    """The folder that a run leaves, with one training's metadata."""
    folder = tmp_path / "run" / "unet"
    gx.save_unet(mini_unet(), folder, metadata={"steps": "20"})
    return folder


@pytest.fixture
def vae(tmp_path):
    folder = tmp_path / "source" / "vae"
    folder.mkdir(parents=True)
    shutil.copy(REFERENCE / "vae_tiny.safetensors", folder / NAME)
    shutil.copy(REFERENCE / "vae_tiny_config.json", folder / "config.json")
    return folder


def metadata(file):
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


def spoil(unet, value):
    with torch.no_grad():
        unet.conv_out.bias[2] = value
    return unet


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_single_file_loads_by_itself_with_the_rounded_weights(run, tmp_path, dtype):
    file = export_single_file(run, tmp_path / "alone" / "mine.safetensors", dtype=dtype)
    assert [path.name for path in file.parent.iterdir()] == ["mine.safetensors"]
    loaded, source = gx.load_unet(file), mini_unet()
    assert loaded.config == source.config
    expected = source.to(DTYPES[dtype]).float().state_dict()
    assert {value.dtype for value in read_unet(file).state_dict.values()} == {DTYPES[dtype]}
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, expected[key])


def test_single_file_says_how_it_came_about(run, tmp_path):
    file = export_single_file(run, tmp_path / "mine.safetensors", metadata=TOLD)
    told = metadata(file)
    assert json.loads(told.pop("genxd_config")) == mini_unet().config.to_dict()
    assert told.pop("license").startswith("Derived from Stable Video Diffusion: Stability AI's")
    assert told == {"origin": "svd", "recipe": "finetune", "steps": "30"}


def test_what_a_file_says_goes_into_the_next_one(run, tmp_path):
    first = export_single_file(run, tmp_path / "a.safetensors", metadata=TOLD)
    second = export_single_file(first, tmp_path / "b.safetensors", dtype="bf16")
    assert metadata(second) == metadata(first)


@pytest.mark.parametrize("given", ["vae", "."])
def test_model_folder_has_both_networks_and_generates(run, vae, tmp_path, given):
    out = tmp_path / "model"
    sums = export_model(run, vae.parent / given, out, metadata=TOLD)
    for part in ("unet", "vae"):
        assert {v.dtype for v in load_file(out / part / NAME).values()} == {torch.float16}
    assert metadata(out / "unet" / NAME)["origin"] == "svd"
    files = {f"{part}/{name}" for part in ("unet", "vae") for name in (NAME, "config.json")}
    assert set(read_checksums(sums)) == files | {"scheduler/scheduler_config.json"}
    pipe = gx.GenXDPipeline.from_pretrained(out)
    frames = pipe(torch.rand(1, 3, 32, 32), [0], gx.sway(3), num_inference_steps=1).frames
    assert frames.shape == (3, 3, 32, 32)


def test_vae_is_never_written_in_bfloat16(run, vae, tmp_path):
    export_model(run, vae, tmp_path / "model", dtype="bf16")
    source, written = (load_file(f / NAME) for f in (vae, tmp_path / "model" / "vae"))
    assert all(torch.equal(written[key], value) for key, value in source.items())
    unet = load_file(tmp_path / "model" / "unet" / NAME)
    assert {value.dtype for value in unet.values()} == {torch.bfloat16}


def test_model_folder_without_a_vae_has_unet_and_scheduler_alone(run, tmp_path):
    out = tmp_path / "model"
    export_model(run, "none", out)
    assert {path.name for path in out.iterdir()} == {"unet", "scheduler", "SHA256SUMS"}
    assert gx.load_unet(out).config == mini_unet().config


@pytest.mark.parametrize("problem", ["missing", "cut off", "another"])
def test_unusable_vae_is_refused_before_anything_is_written(run, vae, tmp_path, problem):
    file = vae / NAME
    if problem == "missing":
        file.unlink()
    elif problem == "cut off":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        shutil.copy(run / NAME, file)
    message = {"missing": "has no diffusion_pytorch", "cut off": "is cut off", "another": "fit"}
    with pytest.raises(WeightsError, match=message[problem]):
        export_model(run, vae, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_number_beyond_half_precision_is_named_and_fits_into_bfloat16(tmp_path):
    folder = tmp_path / "unet"
    gx.save_unet(spoil(mini_unet(), -70000.0), folder)
    out = tmp_path / "mine.safetensors"
    message = r"dtype is fp16, but conv_out.bias of the UNet in .* has numbers up to 70000 and fp16"
    with pytest.raises(InvalidInputError, match=message + r" ends at 65504; choose bf16"):
        export_single_file(folder, out)
    assert not out.exists()
    export_single_file(folder, out, dtype="bf16")
    # Eight bits of mantissa: the nearest is 70144.
    assert float(gx.load_unet(out).conv_out.bias[2]) == -70144.0


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_damaged_weights_are_refused(tmp_path, dtype):
    folder = tmp_path / "unet"
    gx.save_unet(spoil(mini_unet(), float("nan")), folder)
    with pytest.raises(WeightsError, match=r"has NaN or infinity in conv_out\.bias"):
        export_single_file(folder, tmp_path / "mine.safetensors", dtype=dtype)


def test_file_of_another_suffix_is_refused(run, tmp_path):
    with pytest.raises(InvalidInputError, match=r"out_file is .*mine\.pt, expected a name that"):
        export_single_file(run, tmp_path / "mine.pt")


def test_unknown_precision_is_refused(run, tmp_path):
    with pytest.raises(InvalidInputError, match="dtype is 'fp8', expected one of 'fp32'"):
        export_single_file(run, tmp_path / "mine.safetensors", dtype="fp8")


def test_lora_file_holds_the_adapters_and_its_provenance(tmp_path):
    unet = mini_unet()
    add_lora(unet, rank=2, alpha=3.0, targets=("mid_block.attentions.0.proj_in",))
    file = export_lora(unet, tmp_path / "lora.safetensors", metadata=TOLD)
    place = "diffusion_model.mid_block.attentions.0.proj_in"
    state = load_file(file)
    assert set(state) == {
        f"{place}.{end}" for end in ("alpha", "lora_up.weight", "lora_down.weight")
    }
    assert state[f"{place}.lora_down.weight"].dtype == torch.float16
    assert float(state[f"{place}.alpha"]) == 3.0
    assert metadata(file)["recipe"] == "finetune"
    with pytest.raises(WeightsError, match="is a LoRA, not a whole model"):
        gx.load_unet(file)


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("svd", "Derived from Stable Video Diffusion"),
        ("released", "Derived from the released GenXD weights"),
        ("unknown", "does not say where they come from"),
    ],
)
def test_derived_weights_hint_at_the_terms_that_come_with_them(origin, words):
    told = provenance(origin=origin, recipe="r", steps=0)
    assert words in told["license"]
    assert origin_of(told) == origin


def test_weights_from_scratch_carry_nobodys_terms():
    told = provenance(origin="scratch", recipe="nano", steps=5)
    assert told == {"origin": "scratch", "recipe": "nano", "steps": "5"}


def test_origin_that_is_not_told_or_not_known_is_unknown():
    assert origin_of({}) == origin_of({"origin": "elsewhere"}) == "unknown"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"origin": "sd"}, "origin is 'sd', expected one of"), ({"steps": -1}, "steps is -1")],
)
def test_impossible_provenance_is_refused(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        provenance(**({"origin": "svd", "recipe": "r", "steps": 1} | changes))
