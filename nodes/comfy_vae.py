"""GenXD's VAE (SVD's) as a native ComfyUI VAE, of any width.

ComfyUI takes the released file without a word and leaves its VAE uninitialised: it does not know
the temporal diffusers layout. Here the keys are converted, and every one of them must arrive.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.ldm.models.autoencoder
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from torch import Tensor, nn

from ..genxd_core.errors import InvalidInputError, WeightsError
from ..genxd_core.model.weights import read_safetensors
from .comfy_vae_keys import VAELayout, from_diffusers, from_svd

__all__ = ["check_vae", "decode_frames", "encode_pictures", "find_vae_file", "load_genxd_vae"]

_FILE_NAME = "diffusion_pytorch_model.safetensors"
_SCALING_FACTOR = 0.18215
_LATENT_CHANNELS = 4
_PIXELS_PER_LATENT = 8


def load_genxd_vae(
    path: str | Path, *, dtype: torch.dtype | None = None, disable_dynamic: bool = False
) -> comfy.sd.VAE:
    """Load a VAE from a ``vae/`` folder, a folder with ``vae/`` in it, or a file.

    Args:
        path: diffusers' temporal layout is converted, SVD's is taken as it is, both of any width;
            anything else goes to ComfyUI's own loader.
        dtype: of the weights; None lets ComfyUI choose.
        disable_dynamic: ask for the plain patcher; the backend calls for it so.

    Raises:
        WeightsError: there is no such file, it cannot be read, keys are missing or left over, or
            it is a VAE of other latents.
    """
    file = find_vae_file(Path(path))
    state, _ = read_safetensors(file)
    if "decoder.time_conv_out.weight" in state:
        _check_config(file.with_name("config.json"))
        layout = from_diffusers(state, str(file))
    elif "decoder.mid.block_1.mix_factor" in state:
        layout = from_svd(state, str(file))
    else:
        layout = None
    if layout is None:
        vae = _load_other(state, file, dtype)
    else:
        vae = _build(layout, file, dtype, disable_dynamic)
        vae.patcher.cached_patcher_init = (_reload_patcher, (str(file), dtype))
    try:
        check_vae(vae)
    except InvalidInputError as error:
        raise WeightsError(f"{file}: {error}") from error
    return vae


def _reload_patcher(
    path: str, dtype: torch.dtype | None, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    return load_genxd_vae(path, dtype=dtype, disable_dynamic=disable_dynamic).patcher


def find_vae_file(path: Path) -> Path:
    """The VAE file that a path stands for.

    Raises:
        WeightsError: nothing is there, or a folder has no VAE file in it.
    """
    if path.is_dir():
        for candidate in (path / "vae" / _FILE_NAME, path / _FILE_NAME):
            if candidate.is_file():
                return candidate
        raise WeightsError(f"{path} has no VAE in it: expected vae/{_FILE_NAME}.")
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; choose another VAE.")
    return path


def _check_config(file: Path) -> None:
    """Shapes come from the weights themselves; the factor of the latents is in no weight."""
    if not file.is_file():
        return
    try:
        factor = json.loads(file.read_text(encoding="utf-8")).get("scaling_factor", _SCALING_FACTOR)
        agrees = abs(float(factor) - _SCALING_FACTOR) < 1e-6
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise WeightsError(f"{file} cannot be read ({error}); copy it again.") from error
    if not agrees:
        raise WeightsError(
            f"{file}: scaling_factor is {factor}, expected {_SCALING_FACTOR}: GenXD's latents are "
            "SVD's. Is this another model's VAE?"
        )


def _load_other(state: dict[str, Tensor], file: Path, dtype: torch.dtype | None) -> comfy.sd.VAE:
    try:
        with _without_message("No VAE weights detected"):
            vae = comfy.sd.VAE(sd=state, dtype=dtype)
    except (RuntimeError, KeyError, IndexError) as error:
        raise WeightsError(f"{file} cannot be loaded as a VAE: {error}") from error
    if vae.first_stage_model is None:
        raise WeightsError(
            f"{file} is not a VAE that GenXD or ComfyUI knows; choose the vae/ file of GenXD or of "
            "Stable Video Diffusion."
        )
    return vae


def check_vae(vae: Any) -> None:
    """Refuse a VAE whose latents the network cannot take.

    Raises:
        InvalidInputError: it has other channels, or makes video or other latents.
    """
    channels, dims = getattr(vae, "latent_channels", None), getattr(vae, "latent_dim", None)
    if getattr(vae, "first_stage_model", None) is None:
        raise InvalidInputError("vae is empty; connect the VAE output of GenXD Load Model.")
    if (channels, dims) != (_LATENT_CHANNELS, 2):
        raise InvalidInputError(
            f"vae makes latents of {channels} channels and {dims} dimensions, which is another "
            f"model's; expected {_LATENT_CHANNELS} and 2. Use GenXD's own or Stable Video "
            "Diffusion's (GenXD Load Model)."
        )
    factor = vae.spacial_compression_encode()
    if factor != _PIXELS_PER_LATENT:
        raise InvalidInputError(
            f"vae has one latent for {factor} pixels, expected {_PIXELS_PER_LATENT}; use GenXD's "
            "own or Stable Video Diffusion's (GenXD Load Model)."
        )


def _build(
    layout: VAELayout, file: Path, dtype: torch.dtype | None, disable_dynamic: bool
) -> comfy.sd.VAE:
    management = comfy.model_management
    with _without_message("No VAE weights detected"):
        vae = comfy.sd.VAE(sd={})  # sets every default and returns before it builds a network
    network = _network(layout)
    vae.downscale_ratio = vae.upscale_ratio = 2 ** (len(layout.widths) - 1)
    vae.device = management.vae_device()
    vae.vae_dtype = dtype or management.vae_dtype(vae.device, vae.working_dtypes)
    network.to(vae.vae_dtype)
    _load_strictly(network, layout, file)
    vae.first_stage_model = network
    management.archive_model_dtypes(network)
    vae.output_device = management.intermediate_device()
    patchers = comfy.model_patcher
    kind = patchers.ModelPatcher if disable_dynamic else patchers.CoreModelPatcher
    vae.patcher = kind(
        network, load_device=vae.device, offload_device=management.vae_offload_device()
    )
    vae.model_size()
    return vae


class _WidthOver(int):
    """What ComfyUI multiplies a base width with to get another one, also where it is not whole."""

    def __new__(cls, base: int, width: int) -> "_WidthOver":
        multiple = super().__new__(cls, max(1, width // base))
        multiple.base, multiple.width = base, width
        return multiple

    base: int
    width: int

    def __rmul__(self, other: int) -> int:
        # Python asks a derived class first. Only the base is ever multiplied.
        return other * self.width // self.base


def _network(layout: VAELayout) -> nn.Module:
    base = layout.widths[0]
    shared = {
        "double_z": True,
        "z_channels": _LATENT_CHANNELS,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": base,
        "ch_mult": [_WidthOver(base, width) for width in layout.widths],
        "num_res_blocks": layout.layers,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    network: nn.Module = comfy.ldm.models.autoencoder.AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={
            "target": "comfy.ldm.modules.diffusionmodules.model.Encoder",
            "params": shared,
        },
        decoder_config={
            "target": "comfy.ldm.modules.temporal_ae.VideoDecoder",
            "params": {**shared, "video_kernel_size": [3, 1, 1], "alpha": 0.0},
        },
    )
    return network.eval()


def _load_strictly(network: nn.Module, layout: VAELayout, file: Path) -> None:
    zeros = {
        key: torch.zeros_like(value)
        for key, value in network.state_dict().items()
        if key.startswith(layout.zeroed)
    }
    try:
        missing, unexpected = network.load_state_dict({**layout.state, **zeros}, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{file}: the VAE's shapes do not fit: {error}") from error
    if missing or unexpected:
        told = (
            f"{len(keys)} tensors {what} ({', '.join(keys[:10])}{', ...' if keys[10:] else ''})"
            for what, keys in (("missing", missing), ("left over", unexpected))
            if keys
        )
        raise WeightsError(
            f"{file} does not hold a whole GenXD VAE: {'; '.join(told)}. Download or copy it again."
        )


@contextmanager
def _without_message(text: str) -> Iterator[None]:
    """Keep one expected message of ComfyUI's out of the log."""

    def other(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    logger = logging.getLogger()  # ComfyUI logs on the root
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def encode_pictures(vae: comfy.sd.VAE, pictures: Tensor, *, bar: Any = None) -> Tensor:
    """Encode pictures to latents in VAE units (the posterior's mode).

    One by one: ComfyUI splits a batch by free memory, which must not change the result.

    Args:
        vae: see `check_vae`.
        pictures: (K, H, W, 3) in [0, 1].
        bar: a ProgressBar to move by one for each picture; None for one of its own.

    Returns:
        (K, 4, h, w) float32 on the CPU.

    Raises:
        InvalidInputError: the latents are not finite.
    """
    encoded = []
    bar = comfy.utils.ProgressBar(len(pictures)) if bar is None else bar
    for picture in pictures:
        comfy.model_management.throw_exception_if_processing_interrupted()
        encoded.append(vae.encode(picture[None]).float().cpu())
        bar.update(1)
    latents = torch.cat(encoded)
    if not bool(latents.isfinite().all()):
        raise InvalidInputError(
            f"vae gave values that are not finite (NaN or infinity) in {vae.vae_dtype}; start "
            "ComfyUI with --fp32-vae or --bf16-vae."
        )
    return latents


def decode_frames(
    vae: comfy.sd.VAE,
    samples: Tensor,
    *,
    frames_per_chunk: int = 0,
    frames_per_clip: int = 0,
    bar: Any = None,
) -> Tensor:
    """Decode latents a fixed number of frames at a time.

    ComfyUI's own decode chooses that number by free memory, and its tiled one takes frames one by
    one; the temporal decoder mixes what it sees together, so that the result would depend on it.

    Args:
        vae: see `check_vae`.
        samples: (F, 4, h, w) latents in VAE units.
        frames_per_chunk: frames decoded together; 0 for all of a clip.
        frames_per_clip: where one clip of the batch ends and the next begins; 0 for one clip.
        bar: a ProgressBar to move by one for each frame; None for one of its own.

    Returns:
        (F, H, W, 3) pictures in [0, 1] on ComfyUI's intermediate device.
    """
    management = comfy.model_management
    clips = samples.split(frames_per_clip or len(samples))
    chunks = [chunk for clip in clips for chunk in clip.split(frames_per_chunk or len(clip))]
    longest = max(len(chunk) for chunk in chunks)
    needed = vae.memory_used_decode(samples.shape, vae.vae_dtype) * longest
    management.load_models_gpu([vae.patcher], memory_required=needed)
    bar = comfy.utils.ProgressBar(len(samples)) if bar is None else bar
    pictures: list[Tensor] = []
    for chunk in chunks:
        management.throw_exception_if_processing_interrupted()
        with management.cuda_device_context(vae.device):
            decoded = vae.first_stage_model.decode(chunk.to(vae.device, vae.vae_dtype))
        picture = vae.process_output(decoded.float()).to(management.intermediate_device())
        pictures.append(picture.movedim(1, -1))
        bar.update(len(chunk))
    return torch.cat(pictures)
