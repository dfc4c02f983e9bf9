"""GenXD's VAE (SVD's, in the diffusers layout) as a native ComfyUI VAE, of any width.

ComfyUI takes the released file without a word and leaves its VAE uninitialised: it does not know
the temporal diffusers layout. Here the keys are converted, and every one of them must arrive.
"""

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.ldm.models.autoencoder
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from ..genxd_core.errors import WeightsError
from ..genxd_core.model.weights import read_safetensors

__all__ = ["convert_vae_keys", "decode_frames", "load_genxd_vae"]

_FILE_NAME = "diffusion_pytorch_model.safetensors"
_NAMES = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_TIME = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
}


def load_genxd_vae(path: str | Path, *, dtype: torch.dtype | None = None) -> comfy.sd.VAE:
    """Load a VAE from a ``vae/`` folder, a folder with ``vae/`` in it, or a file.

    Args:
        path: diffusers' temporal layout is converted; anything else goes to ComfyUI's own loader.
        dtype: of the weights; None lets ComfyUI choose.

    Raises:
        WeightsError: there is no such file, it cannot be read, or keys are missing or left over.
    """
    file = _find_vae_file(Path(path))
    state, _ = read_safetensors(file)
    if "decoder.time_conv_out.weight" not in state:
        vae = comfy.sd.VAE(sd=state, dtype=dtype)
        if vae.first_stage_model is None:
            raise WeightsError(f"{file} is not a VAE that GenXD or ComfyUI knows.")
        return vae
    config = _read_config(file, state)
    vae = _build_vae(config, convert_vae_keys(state, config["levels"]), file, dtype)
    vae.patcher.cached_patcher_init = (_reload_patcher, (str(file), dtype))
    return vae


def _reload_patcher(
    path: str, dtype: torch.dtype | None, disable_dynamic: bool = False, **_: Any
) -> comfy.model_patcher.ModelPatcher:
    return load_genxd_vae(path, dtype=dtype).patcher


def _find_vae_file(path: Path) -> Path:
    if path.is_dir():
        for candidate in (path / "vae" / _FILE_NAME, path / _FILE_NAME):
            if candidate.is_file():
                return candidate
        raise WeightsError(f"{path} has no VAE in it: expected vae/{_FILE_NAME}.")
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; choose another VAE.")
    return path


def _read_config(file: Path, state: dict[str, Tensor]) -> dict[str, Any]:
    """Widths and depths, from the shapes themselves; a config.json may only confirm them."""
    levels = 1 + max(int(k.split(".")[2]) for k in state if k.startswith("encoder.down_blocks."))
    widths = [
        state[f"encoder.down_blocks.{level}.resnets.0.conv2.weight"].shape[0]
        for level in range(levels)
    ]
    layers = 1 + max(
        int(k.split(".")[4]) for k in state if k.startswith("encoder.down_blocks.0.resnets.")
    )
    beside = file.with_name("config.json")
    if beside.is_file():
        stated = json.loads(beside.read_text(encoding="utf-8"))
        factor = float(stated.get("scaling_factor", 0.18215))
        if abs(factor - 0.18215) > 1e-6:
            raise WeightsError(
                f"{beside}: scaling_factor is {factor}, expected 0.18215: GenXD's latents are "
                "SVD's. Is this another model's VAE?"
            )
    base = widths[0]
    if any(width % base for width in widths):
        raise WeightsError(
            f"{file}: the widths {widths} are not multiples of the first one, which ComfyUI's "
            "VAE cannot express."
        )
    return {"levels": levels, "widths": widths, "layers": layers}


def convert_vae_keys(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """From diffusers' ``AutoencoderKLTemporalDecoder`` to the layout of SVD and ComfyUI.

    The 1x1 ``quant_conv`` is folded into the encoder's last layer (in float64; exact).
    """
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("quant_conv."):
            continue
        new = _convert_key(key, levels)
        if ".mid.attn_1." in new and new.endswith("weight") and value.dim() == 2:
            value = value[:, :, None, None]
        out[new] = value
    if "quant_conv.weight" in state:
        q_weight = state["quant_conv.weight"].double().flatten(1)
        weight, bias = out["encoder.conv_out.weight"], out["encoder.conv_out.bias"]
        folded = torch.einsum("oi,ichw->ochw", q_weight, weight.double())
        out["encoder.conv_out.weight"] = folded.to(weight.dtype)
        out["encoder.conv_out.bias"] = (
            q_weight @ bias.double() + state["quant_conv.bias"].double()
        ).to(bias.dtype)
    return out


def _convert_key(key: str, levels: int) -> str:
    key = re.sub(r"mid_block\.resnets\.(\d+)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", key)
    key = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)\.", r"down.\1.block.\2.", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", key)
    key = re.sub(
        r"up_blocks\.(\d+)\.resnets\.(\d+)\.",
        lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}.",
        key,
    )
    key = re.sub(
        r"up_blocks\.(\d+)\.upsamplers\.0\.",
        lambda m: f"up.{levels - 1 - int(m[1])}.upsample.",
        key,
    )
    if "mid_block.attentions.0." in key:
        head, tail = key.split("mid_block.attentions.0.")
        name, leaf = tail.rsplit(".", 1)
        return f"{head}mid.attn_1.{_NAMES[name]}.{leaf}"
    if ".temporal_res_block." in key:
        head, tail = key.split("temporal_res_block.")
        name, leaf = tail.rsplit(".", 1)
        return f"{head}time_stack.{_TIME[name]}.{leaf}"
    for old, new in (
        ("spatial_res_block.", ""),
        ("time_mixer.mix_factor", "mix_factor"),
        ("decoder.time_conv_out.", "decoder.conv_out.time_mix_conv."),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
    ):
        key = key.replace(old, new)
    return key


def _build_vae(
    config: dict[str, Any], state: dict[str, Tensor], file: Path, dtype: torch.dtype | None
) -> comfy.sd.VAE:
    management = comfy.model_management
    with _without_warnings():
        vae = comfy.sd.VAE(sd={})  # sets every default and returns before it builds a network
    widths = config["widths"]
    shared = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": config["layers"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    network = comfy.ldm.models.autoencoder.AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={
            "target": "comfy.ldm.modules.diffusionmodules.model.Encoder",
            "params": shared,
        },
        decoder_config={
            "target": "comfy.ldm.modules.temporal_ae.VideoDecoder",
            "params": {**shared, "video_kernel_size": [3, 1, 1], "alpha": 0.0},
        },
    ).eval()
    vae.device = management.vae_device()
    vae.vae_dtype = dtype or management.vae_dtype(vae.device, vae.working_dtypes)
    network.to(vae.vae_dtype)
    if config["layers"] == 1:
        state = {**state, **_identity_middle(network, state)}
    _load_strictly(network, state, file)
    vae.first_stage_model = network
    management.archive_model_dtypes(network)
    vae.output_device = management.intermediate_device()
    vae.patcher = comfy.model_patcher.CoreModelPatcher(
        network, load_device=vae.device, offload_device=management.vae_offload_device()
    )
    vae.model_size()
    return vae


def _identity_middle(network: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With one layer a block, diffusers' decoder has one middle block and skips its attention;
    ComfyUI's has two and applies it: zero outputs make both of these the identity."""
    own = network.state_dict()
    prefixes = ("decoder.mid.block_2.", "decoder.mid.attn_1.proj_out.")
    return {k: torch.zeros_like(v) for k, v in own.items() if k.startswith(prefixes)}


def _load_strictly(network: torch.nn.Module, state: dict[str, Tensor], file: Path) -> None:
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{file}: the VAE's shapes do not fit: {error}") from error
    if missing or unexpected:
        raise WeightsError(
            f"{file} does not hold a whole GenXD VAE: {len(missing)} tensors missing "
            f"({', '.join(missing[:10])}), {len(unexpected)} left over "
            f"({', '.join(unexpected[:10])})."
        )


@contextmanager
def _without_warnings() -> Any:
    import logging

    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


def decode_frames(vae: comfy.sd.VAE, samples: Tensor, frames_per_chunk: int) -> Tensor:
    """Decode latents a fixed number of frames at a time.

    ComfyUI's own decode chooses that number by free memory, and its tiled one takes frames one by
    one; the temporal decoder mixes what it sees together, so that the result would depend on it.

    Args:
        vae: any 2-D or temporal VAE.
        samples: (F, 4, h, w) latents in VAE units.
        frames_per_chunk: frames decoded together; 0 for all.

    Returns:
        (F, H, W, 3) pictures in [0, 1] on ComfyUI's intermediate device.
    """
    management = comfy.model_management
    chunk = frames_per_chunk or len(samples)
    needed = vae.memory_used_decode(samples.shape, vae.vae_dtype) * chunk
    management.load_models_gpu([vae.patcher], memory_required=needed)
    bar = comfy.utils.ProgressBar(len(samples))
    pictures: list[Tensor] = []
    for part in samples.split(chunk):
        management.throw_exception_if_processing_interrupted()
        decoded = vae.first_stage_model.decode(part.to(vae.device, vae.vae_dtype))
        picture = vae.process_output(decoded.float()).to(management.intermediate_device())
        pictures.append(picture.movedim(1, -1))
        bar.update(len(part))
    return torch.cat(pictures)
