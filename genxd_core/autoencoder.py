"""The VAE between pictures and latents: SVD's, an image encoder and a decoder that mixes frames.

The network itself is diffusers' ``AutoencoderKLTemporalDecoder``; here are strict loading, chunks
of frames and precision. Latents are multiplied by the VAE's scaling factor on this side.

Dimension letters: v frames, h w latent pixels.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from .errors import InvalidInputError, WeightsError
from .model.weights import read_safetensors
from .optional import require
from .pictures import check_pictures
from .progress import Progress, report

__all__ = ["ENCODED_AT_ONCE", "Autoencoder", "draw_noise"]

_CLASS_NAME = "AutoencoderKLTemporalDecoder"
_FILE_NAME = "diffusion_pytorch_model.safetensors"
ENCODED_AT_ONCE = 8


def draw_noise(
    shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device
) -> Float[Tensor, "..."]:
    """Unit noise in float32, drawn where the generator lives, so that seeds mean the same anywhere.

    Args:
        shape: of the noise.
        generator: None for PyTorch's global one on the CPU.
        device: where to put it.
    """
    source = torch.device("cpu") if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=source).to(device)


class Autoencoder:
    """Pictures to latents and back, in chunks of frames.

    Encoding treats every picture by itself. Decoding mixes neighbouring frames *of a chunk*, so the
    number of frames in a chunk changes the result; the released model decodes all at once.

    Args:
        vae: diffusers' `AutoencoderKLTemporalDecoder`.
        dtype: precision. Where the VAE's configuration says ``force_upcast`` the encoder stays in
            float32 all the same, as in the released pipeline.
        device: where it runs.
    """

    def __init__(
        self,
        vae: Any,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self._vae = vae.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)
        self.encoder_dtype = torch.float32 if self._vae.config.force_upcast else dtype
        self.decoder_dtype = dtype
        for part in (self._vae.encoder, self._vae.quant_conv):
            part.to(self.encoder_dtype)
        self._vae.decoder.to(self.decoder_dtype)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> "Autoencoder":
        """Load a VAE in the released layout.

        Args:
            path: the folder that holds ``vae/``, or that folder itself.
            dtype: float32, float16 or bfloat16; see the class.
            device: where it runs.

        Raises:
            WeightsError: a file is missing or damaged, holds another kind of VAE, or its tensors do
                not fit the configuration; nothing is loaded then.
            MissingDependencyError: diffusers is not installed.
        """
        folder = _vae_folder(Path(path))
        config = _read_config(folder / "config.json")
        state, _ = read_safetensors(_weights_file(folder))
        vae = _empty_vae(config, folder)
        _check_fit(state, vae.state_dict(), folder)
        # A file is memory-mapped: a copy keeps working when the file is replaced.
        state = {key: value.to(device, torch.float32, copy=True) for key, value in state.items()}
        vae.load_state_dict(state, strict=True, assign=True)
        return cls(vae, dtype=dtype, device=device)

    @property
    def factor(self) -> int:
        """Pixels per latent pixel, in height and in width (8 for the released VAE)."""
        return int(2 ** (len(self._vae.config.block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        """Channels of a latent (4 for the released VAE)."""
        return int(self._vae.config.latent_channels)

    @property
    def scaling_factor(self) -> float:
        """What latents are multiplied by on this side of the VAE (0.18215)."""
        return float(self._vae.config.scaling_factor)

    @torch.no_grad()
    def encode(
        self,
        images: Shaped[Tensor, "..."],
        *,
        sample: bool = False,
        generator: torch.Generator | None = None,
        frames_per_chunk: int = ENCODED_AT_ONCE,
        progress: Progress | None = None,
    ) -> Float[Tensor, "v c h w"]:
        """Scaled latents of pictures.

        Args:
            images: (V, 3, H, W) in [0, 1]; H and W multiples of `factor`.
            sample: draw from the posterior instead of taking its mode. The noise of all pictures
                is one draw, whatever the chunks.
            generator: for that draw; None for PyTorch's global one.
            frames_per_chunk: pictures encoded at a time, which bounds the memory. Has no influence
                on the result beyond rounding.
            progress: called after each chunk; may stop the work.

        Returns:
            float32 on the VAE's device, times `scaling_factor`.

        Raises:
            InvalidInputError: a shape or range that does not fit.
            Cancelled: ``progress`` asked to stop.
        """
        check_pictures(images, "images")
        self._check_size(images)
        chunks = _chunked(images, frames_per_chunk)
        noise: list[Tensor | None] = [None] * len(chunks)
        if sample:
            height, width = (side // self.factor for side in images.shape[2:])
            shape = (len(images), self.latent_channels, height, width)
            noise = list(draw_noise(shape, generator, self.device).split(frames_per_chunk))
        latents = []
        for number, (chunk, eps) in enumerate(zip(chunks, noise, strict=True), start=1):
            pixels = (2.0 * chunk.to(self.device, torch.float32) - 1.0).to(self.encoder_dtype)
            posterior = self._vae.encode(pixels).latent_dist
            clean = posterior.mean.float()
            latents.append(clean if eps is None else clean + posterior.std.float() * eps)
            report(progress, number, len(chunks))
        return torch.cat(latents) * self.scaling_factor

    @torch.no_grad()
    def decode(
        self,
        latents: Float[Tensor, "v c h w"],
        *,
        frames_per_chunk: int | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "v 3 H W"]:
        """Pictures of scaled latents, as the decoder gives them: about [-1, 1], not clamped.

        Args:
            latents: neighbouring frames in order, times `scaling_factor`.
            frames_per_chunk: frames decoded at a time; None for all at once, as the released
                pipeline does. Fewer need less memory, and change the result where chunks meet.
            progress: called after each chunk; may stop the work.

        Returns:
            float32 on the VAE's device.

        Raises:
            InvalidInputError: a shape that does not fit.
            Cancelled: ``progress`` asked to stop.
        """
        if latents.shape[1] != self.latent_channels:
            raise InvalidInputError(
                f"latents have {latents.shape[1]} channels, expected {self.latent_channels}."
            )
        size = len(latents) if frames_per_chunk is None else frames_per_chunk
        frames = []
        chunks = _chunked(latents, size)
        for number, chunk in enumerate(chunks, start=1):
            unscaled = chunk.to(self.device, torch.float32) / self.scaling_factor
            decoded = self._vae.decode(unscaled.to(self.decoder_dtype), num_frames=len(chunk))
            frames.append(decoded.sample.float())
            report(progress, number, len(chunks))
        return torch.cat(frames)

    def _check_size(self, images: Tensor) -> None:
        height, width = images.shape[2:]
        if height % self.factor or width % self.factor:
            raise InvalidInputError(
                f"images are {height} x {width} pixels (height x width); the VAE takes multiples "
                f"of {self.factor}."
            )


def _chunked(frames: Tensor, size: int) -> list[Tensor]:
    if size < 1:
        raise InvalidInputError(f"frames_per_chunk is {size}; expected at least 1.")
    return list(frames.split(size))


def _vae_folder(path: Path) -> Path:
    for folder in (path / "vae", path):
        if (folder / "config.json").is_file():
            return folder
    raise WeightsError(
        f"{path} has no VAE in it: expected vae/config.json and vae/{_FILE_NAME}. Give the folder "
        "that holds unet/ and vae/."
    )


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} cannot be read as JSON ({error}).") from error
    if not isinstance(config, dict) or "block_out_channels" not in config:
        raise WeightsError(f"{file} is not a VAE's configuration: it has no block_out_channels.")
    kind = config.get("_class_name", _CLASS_NAME)
    if kind != _CLASS_NAME:
        raise WeightsError(
            f"{file} is the configuration of a {kind}; GenXD needs {_CLASS_NAME}, the VAE of "
            "Stable Video Diffusion."
        )
    return config


def _weights_file(folder: Path) -> Path:
    file = folder / _FILE_NAME
    if file.is_file():
        return file
    suffixes = (".bin", ".safetensors")
    others = sorted(path.name for path in folder.iterdir() if path.suffix in suffixes)
    found = f"; it has {', '.join(others)}" if others else ""
    raise WeightsError(
        f"{folder} has no {_FILE_NAME}{found}. Download that file; pickles (.bin) are not read."
    )


def _empty_vae(config: Mapping[str, Any], folder: Path) -> Any:
    diffusers: ModuleType = require(
        "diffusers",
        extra="pipeline",
        purpose="encode and decode pictures outside ComfyUI",
        instead="The nodes in ComfyUI do without it.",
    )
    try:
        with torch.device("meta"):
            return diffusers.AutoencoderKLTemporalDecoder.from_config(dict(config))
    except (TypeError, ValueError, IndexError) as error:
        raise WeightsError(
            f"{folder / 'config.json'} does not describe a VAE that can be built: {error}"
        ) from error


def _check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> None:
    problems = {
        "missing": [key for key in wanted if key not in state],
        "unexpected": [key for key in state if key not in wanted],
        "misshaped": [
            f"{key} {list(state[key].shape)} instead of {list(value.shape)}"
            for key, value in wanted.items()
            if key in state and state[key].shape != value.shape
        ],
    }
    if any(problems.values()):
        told = "; ".join(
            f"{len(keys)} {kind} ({', '.join(keys[:10])}{', ...' if len(keys) > 10 else ''})"
            for kind, keys in problems.items()
            if keys
        )
        raise WeightsError(
            f"{folder / _FILE_NAME} does not fit the VAE of its config.json: {told}. Nothing was "
            "loaded. Do both files come from the same download?"
        )
