"""A smaller VAE with the latents of a larger one, so that networks trained on those stay right."""

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor

from .optim import cosine, muon_and_adam, set_rates
from .vae import VAEConfig, draw_clips, load_images, vae_loss

__all__ = ["NarrowVAEConfig", "narrow_vae", "narrowed"]

_log = logging.getLogger(__name__)
_GROUPS = 32  # of every group norm


@dataclass(frozen=True, kw_only=True)
class NarrowVAEConfig:
    """One run that makes a VAE narrower.

    Attributes:
        training: pictures, folder of the run, widths, batches, learning rates, losses. Its
            ``clip_steps`` are run; each sees ``clips`` of ``frames``.
        teacher: folder of the larger VAE.
        latent_weight: of the squared error of the latents' mean, in units of their deviation.
    """

    training: VAEConfig
    teacher: Path
    latent_weight: float = 2.0


@torch.no_grad()
def narrowed(
    teacher: AutoencoderKLTemporalDecoder, widths: tuple[int, ...]
) -> AutoencoderKLTemporalDecoder:
    """The same VAE with fewer channels: of every group of a norm, the first ones are kept.

    Args:
        teacher: the larger VAE.
        widths: of the levels, multiples of 32 and nowhere larger than the teacher's.
    """
    config = {k: v for k, v in teacher.config.items() if not k.startswith("_")}
    vae = AutoencoderKLTemporalDecoder(**{**config, "block_out_channels": widths})
    source, state = teacher.state_dict(), vae.state_dict()
    for name, value in state.items():
        kept: Tensor = source[name]
        for axis, size in enumerate(value.shape):
            if size != kept.shape[axis]:
                kept = kept.index_select(axis, _kept(size, kept.shape[axis]))
        value.copy_(kept)
    vae.load_state_dict(state)
    return vae


def _kept(size: int, of: int) -> Tensor:
    """Indices of the channels that stay."""
    return torch.arange(of).view(_GROUPS, -1)[:, : size // _GROUPS].flatten()


def narrow_vae(config: NarrowVAEConfig) -> Path:
    """Train a narrower VAE to give the teacher's latents and pictures; returns its folder."""
    training = config.training
    set_seed(training.seed)
    if training.threads:
        torch.set_num_threads(training.threads)
    images = load_images(training.shards)
    training.out.mkdir(parents=True, exist_ok=True)
    teacher = AutoencoderKLTemporalDecoder.from_pretrained(config.teacher).to(training.device)
    teacher.requires_grad_(False)
    vae = narrowed(teacher, training.widths).to(training.device)
    optimizers = muon_and_adam(
        vae.named_parameters(),
        ends=("encoder.conv_in", "decoder.conv_out", "quant_conv", "time_conv_out"),
        muon_lr=training.muon_lr,
        adam_lr=training.adam_lr,
    )
    rng = torch.Generator().manual_seed(training.seed)
    steps, began = training.clip_steps, time.perf_counter()
    for step in range(steps):
        set_rates(optimizers, cosine(step, steps, warmup=20, last=0.01))
        batch = draw_clips(images, training, rng).to(training.device)
        loss, figures = vae_loss(vae, batch, training, rng, kl=False)
        distance = _latent_distance(vae, teacher, batch, half=training.mixed_precision == "bf16")
        total = loss + config.latent_weight * distance
        vae.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if (step + 1) % 25 == 0:
            row: dict[str, Any] = {"step": step + 1, "seconds": time.perf_counter() - began}
            row |= {name: float(value.detach()) for name, value in figures.items()}
            row["latent_error"] = float(distance.detach()) ** 0.5
            _log.info("%s", {k: round(v, 4) for k, v in row.items()})
    vae.eval().save_pretrained(training.out / "vae")
    record = json.dumps(asdict(config), default=str, indent=2)
    (training.out / "vae_run.json").write_text(record, encoding="utf-8")
    return training.out / "vae"


def _latent_distance(
    vae: AutoencoderKLTemporalDecoder,
    teacher: AutoencoderKLTemporalDecoder,
    images: Tensor,
    *,
    half: bool,
) -> Tensor:
    """Mean squared difference of the posteriors, in units of the latents' deviation."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        ours = vae.encode(images).latent_dist
        with torch.no_grad():
            theirs = teacher.encode(images).latent_dist
    scale: float = vae.config.scaling_factor
    means = (ours.mean.float() - theirs.mean.float()) * scale
    noise = 0.1 * (ours.logvar.float() - theirs.logvar.float())
    distance: Tensor = means.square().mean() + noise.square().mean()
    return distance
