"""Files that the trainer exports, in ComfyUI: single files, and LoRAs in its own LoRA loader."""

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor

import genxd_core as gx
from tests.host.in_process import Host
from tests.nodes.scenes import Scene, mini_unet
from tests.support import REFERENCE, assert_same_up_to_std, seeded
from trainer.export import export_lora, export_single_file
from trainer.lora import add_lora, merged_state

VAE = "for_single_files.safetensors"


@pytest.fixture(scope="module")
def adapted() -> gx.GenXDUNet:
    """The mini model's network with adapters that change a lot."""
    unet = mini_unet()
    names = add_lora(unet, rank=4, alpha=6.0)
    generator = seeded(5)
    with torch.no_grad():
        for name in names:
            parameter = unet.get_parameter(name)
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return unet


@pytest.fixture(scope="module")
def files(host: Host, adapted: gx.GenXDUNet, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A merged single file in fp32 and fp16, the LoRA, and a VAE file, where ComfyUI looks."""
    models = host.base / "models"
    merged = gx.GenXDUNet(adapted.config)
    merged.load_state_dict(merged_state(adapted))
    folder = tmp_path_factory.mktemp("run") / "unet"
    gx.save_unet(merged, folder)
    for dtype in ("fp32", "fp16"):
        export_single_file(folder, models / "genxd" / f"merged-{dtype}.safetensors", dtype=dtype)
    export_lora(adapted, models / "loras" / "genxd" / "mine.safetensors", dtype="fp32")
    (models / "vae").mkdir(exist_ok=True)
    shutil.copy(REFERENCE / "vae_tiny.safetensors", models / "vae" / VAE)


def loaded(host: Host, model: str, weight_dtype: str = "fp32") -> tuple[Any, Any]:
    return host.run_node("GenXD_LoadModel", model=model, weight_dtype=weight_dtype, vae=VAE)


def with_lora(scene: Scene, strength: float) -> Any:
    (model,) = scene.host.run_node(
        "LoraLoaderModelOnly",
        model=scene.model,
        lora_name="genxd/mine.safetensors",
        strength_model=strength,
    )
    return model


def decoded(host: Host, vae: Any, samples: Tensor) -> Tensor:
    (frames,) = host.run_node(
        "GenXD_DecodeViews", samples={"samples": samples}, vae=vae, frames_per_chunk=0
    )
    return frames


def test_single_file_samples_and_decodes_with_a_vae_of_its_own_choice(scene, files):
    host = scene.host
    model, vae = loaded(host, "merged-fp32.safetensors")
    out = scene.sample(model=model)
    assert torch.equal(out[list(scene.given)], scene.clean)
    frames = decoded(host, vae, out)
    # The mini model's own VAE is the same file.
    assert torch.equal(frames, decoded(host, scene.vae, out))
    assert float(frames.std()) > 0


def test_half_precision_file_differs_by_rounding_alone(scene, files):
    single, half = (
        scene.sample(model=loaded(scene.host, f"merged-{dtype}.safetensors")[0])
        for dtype in ("fp32", "fp16")
    )
    assert not torch.equal(single, half)
    assert_same_up_to_std(half, single, 0.05)


def test_lora_loaded_by_comfyui_does_exactly_what_the_merged_weights_do(scene, files, caplog):
    merged, _ = loaded(scene.host, "merged-fp32.safetensors")
    with_adapters = scene.sample(model=with_lora(scene, 1.0))
    assert "lora key not loaded" not in caplog.text
    assert torch.equal(with_adapters, scene.sample(model=merged))
    base = scene.sample()
    assert float((with_adapters - base).std()) > 0.05 * float(base.std())


def test_lora_at_no_strength_and_after_its_removal_leaves_the_model_alone(scene, files):
    before = scene.sample()
    assert torch.equal(scene.sample(model=with_lora(scene, 0.0)), before)
    scene.sample(model=with_lora(scene, 1.0))
    assert torch.equal(scene.sample(), before)
