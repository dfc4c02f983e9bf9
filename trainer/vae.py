"""Training of a small VAE in the released layout (SVD's: an SD encoder, a temporal decoder)."""

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from genxd_core.errors import InvalidInputError

from .checkpoint import load_checkpoint, save_checkpoint
from .optim import cosine, muon_and_adam, set_rates

__all__ = ["VAEConfig", "draw_clips", "load_images", "train_vae", "vae_loss"]

_log = logging.getLogger(__name__)

# Brightness, red against green, blue against yellow.
_OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (1.5, -1.5, 0.0), (-0.75, -0.75, 1.5))


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """One VAE training run, in two phases.

    First an image VAE on random crops, which is cheap; then its decoder becomes the temporal one
    (temporal layers start as the identity) and is tuned on whole neighbouring frames.

    Attributes:
        shards: folder of rendered shards (`trainer.synthetic_shards`).
        out: folder of the run: its checkpoint, its log, and the finished ``vae/``.
        widths: of the four levels; the factor is 8. Group norms have 32 groups: 32 channels would
            lose every mean, which is where colours are.
        layers: residual blocks of a level on the way down; one more on the way up.
        image_steps: optimiser steps of the first phase.
        clip_steps: optimiser steps of the second phase.
        crops: pictures in a step of the first phase.
        crop_size: side of the crops, a multiple of 8.
        clips: clips in a step of the second phase.
        frames: neighbouring frames of each.
        muon_lr: of the weights of the inner layers, after the warm-up; falls along a cosine. The
            second phase has a fifth of it.
        adam_lr: likewise, of everything else.
        kl_weight: of the mean divergence of a latent value, beside the mean error of a pixel.
        coarse_weight: of the error of means over 8x8 pixels.
        edge_weight: of the error of neighbouring pixels' differences.
        mixed_precision: "no", or "bf16" where the processor multiplies it fast (Intel's AMX).
        device: where to train.
        threads: CPU threads; 0 leaves PyTorch's choice.
        seed: of everything.
        save_every: steps between checkpoints.
    """

    shards: Path
    out: Path
    widths: tuple[int, int, int, int] = (64, 64, 96, 128)
    layers: int = 2
    image_steps: int = 4000
    clip_steps: int = 200
    crops: int = 4
    crop_size: int = 64
    clips: int = 4
    frames: int = 3
    muon_lr: float = 0.02
    adam_lr: float = 1e-3
    kl_weight: float = 2e-3
    coarse_weight: float = 1.0
    edge_weight: float = 0.1
    mixed_precision: Literal["no", "bf16"] = "no"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_every: int = 250


def image_vae(widths: tuple[int, ...], layers: int) -> AutoencoderKL:
    """A fresh image VAE: SVD's encoder and the spatial part of its decoder."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        latent_channels=4,
        sample_size=64,
        scaling_factor=0.18215,
        use_post_quant_conv=False,
    )
    _start_nearly_linear_(vae)
    return vae


@torch.no_grad()
def _start_nearly_linear_(vae: AutoencoderKL) -> None:
    """Initial weights that learn faster: small residual branches, little noise, opposite pairs.

    A pair (s, -s) keeps its mean through a group norm, and silu(s) - silu(-s) = s.
    """
    for name, weight in vae.named_parameters():
        stream = "conv_in" in name or "samplers" in name
        if name.endswith("conv2.weight") or "to_out.0.weight" in name:
            weight.mul_(0.1)
        elif stream and name.endswith("bias"):
            weight.zero_()
        elif stream:
            if "samplers" in name:
                weight[:, 1::2] = -weight[:, 0::2]
                weight.mul_(1.5)
            weight[1::2] = -weight[0::2]
        elif name.endswith("conv_out.weight"):
            weight[:, 1::2] = -weight[:, 0::2]
            weight.mul_(2.0)
    vae.quant_conv.bias[4:] = -4.0


@torch.no_grad()
def temporal_vae(image: AutoencoderKL) -> AutoencoderKLTemporalDecoder:
    """The same VAE with SVD's temporal decoder; its temporal layers start as the identity."""
    config = image.config
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=config.down_block_types,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        sample_size=config.sample_size,
        scaling_factor=config.scaling_factor,
        force_upcast=False,
    )
    source = image.state_dict()
    state = vae.state_dict()
    for key, value in state.items():
        if "temporal_res_block.conv2" in key:
            value.zero_()
        elif "time_conv_out" in key:
            value.zero_()
            if key.endswith("weight"):
                for channel in range(value.shape[0]):
                    value[channel, channel, 1] = 1.0
        elif "temporal_res_block" not in key and "time_mixer" not in key:
            value.copy_(source[key.replace("spatial_res_block.", "")])
    vae.load_state_dict(state)
    return vae


def vae_loss(
    vae: AutoencoderKL | AutoencoderKLTemporalDecoder,
    images: Float[Tensor, "n 3 h w"],
    config: VAEConfig,
    rng: torch.Generator,
    *,
    kl: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a batch of pictures (clips laid end to end for a temporal VAE), and figures to log.

    Args:
        vae: the model.
        images: in [-1, 1].
        config: weights of the terms; frames of a clip.
        rng: draws from the posterior.
        kl: whether the posterior's divergence counts.
    """
    temporal = isinstance(vae, AutoencoderKLTemporalDecoder)
    half = config.mixed_precision == "bf16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        posterior = vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=rng).to(images.device)
        latents = posterior.mean + posterior.std * noise
        decoded = vae.decode(latents, **({"num_frames": config.frames} if temporal else {})).sample
    error = decoded.float() - images
    # Colours vary a third as much as brightness: weighted up, else they are learned last or never.
    seen = torch.einsum("ij,njhw->nihw", error.new_tensor(_OPPONENT), error)
    pixel = seen.abs().mean()
    coarse = F.avg_pool2d(seen, 8).abs().mean()
    edge = seen.diff(dim=-1).abs().mean() + seen.diff(dim=-2).abs().mean()
    logvar = posterior.logvar.float()
    divergence = 0.5 * (posterior.mean.float() ** 2 + logvar.exp() - 1 - logvar).mean()
    loss = pixel + config.coarse_weight * coarse + config.edge_weight * edge
    loss = loss + config.kl_weight * divergence if kl else loss
    psnr = -10 * (error.detach() / 2).square().mean().log10()
    return loss, {"pixel": pixel, "kl": divergence, "psnr": psnr}


def train_vae(config: VAEConfig) -> Path:
    """Train, or go on with a run that was stopped, and write ``out/vae``; returns that folder."""
    set_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    images = load_images(config.shards)
    config.out.mkdir(parents=True, exist_ok=True)
    first = image_vae(config.widths, config.layers).to(config.device)
    if config.mixed_precision == "no":
        # Float32 convolutions of few channels are half again as fast this way round on a CPU.
        first = first.to(memory_format=torch.channels_last)
    _run_phase("image", first, config.image_steps, 1.0, images, config)
    normalise_latents_(first, images)
    vae = temporal_vae(first).to(config.device)
    # Latents are final from here on; only the decoder learns to use neighbouring frames.
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    _run_phase("clip", vae, config.clip_steps, 0.2, images, config)
    vae.eval().save_pretrained(config.out / "vae")
    record = json.dumps(asdict(config), default=str, indent=2)
    (config.out / "vae_run.json").write_text(record, encoding="utf-8")
    return config.out / "vae"


def _run_phase(
    name: str,
    vae: AutoencoderKL | AutoencoderKLTemporalDecoder,
    steps: int,
    scale: float,
    images: Tensor,
    config: VAEConfig,
) -> None:
    """Train ``vae`` in place, from this phase's checkpoint where there is one."""
    optimizers = muon_and_adam(
        [(n, p) for n, p in vae.named_parameters() if p.requires_grad],
        ends=("encoder.conv_in", "decoder.conv_out", "quant_conv", "time_conv_out"),
        muon_lr=config.muon_lr,
        adam_lr=config.adam_lr,
    )
    rng = torch.Generator().manual_seed(config.seed)
    state_file = config.out / f"vae_{name}_state.pt"
    start = 0
    if state_file.exists():
        state = load_checkpoint(state_file)
        vae.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        rng.set_state(state["rng"])
        start = int(state["step"])
        _log.info("%s phase: going on from step %d", name, start)
    began = time.perf_counter()
    for step in range(start, steps):
        set_rates(optimizers, scale * cosine(step, steps, warmup=100, last=0.01))
        batch = (
            _draw_crops(images, config, rng) if name == "image" else draw_clips(images, config, rng)
        )
        batch = batch.to(config.device)
        if config.mixed_precision == "no":
            batch = batch.to(memory_format=torch.channels_last)
        loss, figures = vae_loss(vae, batch, config, rng)
        vae.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if (step + 1) % 25 == 0:
            _record(config.out, name, step + 1, figures, time.perf_counter() - began)
        if (step + 1) % config.save_every == 0 or step + 1 == steps:
            states = [optimizer.state_dict() for optimizer in optimizers]
            state = {"model": vae.state_dict(), "optimizers": states}
            save_checkpoint(state_file, {**state, "rng": rng.get_state(), "step": step + 1})


@torch.no_grad()
def normalise_latents_(
    vae: AutoencoderKL | AutoencoderKLTemporalDecoder, images: Tensor, samples: int = 1024
) -> None:
    """Rescale the latent channels so that, times the scaling factor, each has unit deviation.

    The change is exact: it is folded into the last layer of the encoder and the first one of the
    decoder, so that pictures come back as before.
    """
    pick = torch.linspace(0, len(images) * images.shape[1] - 1, samples).long()
    flat = images.flatten(0, 1)
    means = [
        vae.encode(flat[part].to(vae.device).float() / 127.5 - 1).latent_dist.mode()
        for part in pick.split(64)
    ]
    scale = 1 / (vae.config.scaling_factor * torch.cat(means).std(dim=(0, 2, 3)))
    channels = len(scale)
    vae.quant_conv.weight[:channels] *= scale[:, None, None, None]
    vae.quant_conv.bias[:channels] *= scale
    vae.quant_conv.bias[channels:] += 2 * scale.log()
    vae.decoder.conv_in.weight /= scale[None, :, None, None]


def load_images(folder: Path) -> Tensor:
    """All pictures of a folder of rendered shards, (n, v, 3, h, w) uint8."""
    shards = [load_file(path)["images"] for path in sorted(folder.glob("*.safetensors"))]
    if not shards:
        raise InvalidInputError(
            f"shards is {folder}, which has none; render some with python -m trainer render."
        )
    return torch.cat(shards)


def _draw_crops(images: Tensor, config: VAEConfig, rng: torch.Generator) -> Tensor:
    """Random crops, random flips."""
    n, v, _, height, width = images.shape
    side = config.crop_size
    clip = torch.randint(n, (config.crops,), generator=rng).tolist()
    frame = torch.randint(v, (config.crops,), generator=rng).tolist()
    top = torch.randint(height - side + 1, (config.crops,), generator=rng).tolist()
    left = torch.randint(width - side + 1, (config.crops,), generator=rng).tolist()
    crops = torch.stack(
        [
            images[c, f, :, y : y + side, x : x + side]
            for c, f, y, x in zip(clip, frame, top, left, strict=True)
        ]
    )
    flip = torch.rand(config.crops, generator=rng) < 0.5
    crops[flip] = crops[flip].flip(-1)
    return crops.float() / 127.5 - 1


def draw_clips(images: Tensor, config: VAEConfig, rng: torch.Generator) -> Tensor:
    """Whole neighbouring frames of some clips, laid end to end."""
    clip = torch.randint(len(images), (config.clips, 1), generator=rng)
    last = images.shape[1] - config.frames
    first = torch.randint(last + 1, (config.clips, 1), generator=rng)
    frames = first + torch.arange(config.frames)
    return images[clip, frames].flatten(0, 1).float() / 127.5 - 1


def _record(out: Path, phase: str, step: int, figures: dict[str, Tensor], seconds: float) -> None:
    row: dict[str, Any] = {"phase": phase, "step": step, "seconds": round(seconds, 1)}
    row |= {name: round(float(value), 5) for name, value in figures.items()}
    with (out / "vae_log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")
    _log.info("%s", row)
