"""Command line of the trainer: ``python -m trainer`` with a command, from rendering to export."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from diffusers import AutoencoderKLTemporalDecoder

from genxd_core.errors import InvalidInputError

from .export import export_model
from .loop import train
from .narrow_vae import NarrowVAEConfig, narrow_vae
from .recipes import RECIPES
from .synthetic_shards import RenderJob, encode_shards, render_shards
from .vae import VAEConfig, train_vae

__all__ = ["main"]


@dataclass
class Render:
    """Render procedural clips to shards."""

    job: tyro.conf.OmitArgPrefixes[RenderJob]


@dataclass
class TrainVAE:
    """Train a small VAE on rendered shards."""

    config: tyro.conf.OmitArgPrefixes[VAEConfig]


@dataclass
class NarrowVAE:
    """Make a VAE narrower, with the same latents."""

    config: tyro.conf.OmitArgPrefixes[NarrowVAEConfig]


@dataclass
class Encode:
    """Encode rendered shards with a VAE.

    Attributes:
        rendered: folder of rendered shards.
        out: folder of encoded ones.
        vae: folder of the VAE.
        device: where to encode.
        mixed_precision: "bf16" where the processor multiplies it fast.
    """

    rendered: Path
    out: Path
    vae: Path
    device: str = "cpu"
    mixed_precision: Literal["no", "bf16"] = "no"


@dataclass
class Train:
    """Train the UNet by a recipe; a stopped run goes on where it was.

    Attributes:
        recipe: name of the recipe.
        shards: folder of encoded shards.
        out: folder of the run.
        steps: instead of the recipe's.
        mixed_precision: instead of the recipe's; "bf16" doubles the speed of processors that
            multiply it fast (Intel's AMX) and slows down others.
        init_from: weights to start from instead of the recipe's start: a file or folder.
        threads: CPU threads; 0 leaves PyTorch's choice.
    """

    recipe: str
    shards: Path
    out: Path
    steps: int | None = None
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    init_from: Path | None = None
    threads: int = 0


@dataclass
class Export:
    """Write a model folder of a run's averaged weights.

    Attributes:
        unet: the run's ``unet`` folder.
        vae: folder of the VAE.
        out: the model folder.
    """

    unet: Path
    vae: Path
    out: Path


def main() -> None:
    """Parse the command line and run one command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    command = tyro.cli(Render | TrainVAE | NarrowVAE | Encode | Train | Export)
    try:
        run(command)
    except InvalidInputError as error:
        raise SystemExit(f"error: {error}") from error


def run(command: Render | TrainVAE | NarrowVAE | Encode | Train | Export) -> None:
    """Run one command."""
    if isinstance(command, Render):
        render_shards(command.job)
    elif isinstance(command, TrainVAE):
        train_vae(command.config)
    elif isinstance(command, NarrowVAE):
        narrow_vae(command.config)
    elif isinstance(command, Encode):
        vae = AutoencoderKLTemporalDecoder.from_pretrained(command.vae).to(command.device)
        dtype = torch.bfloat16 if command.mixed_precision == "bf16" else torch.float32
        encode_shards(command.rendered, command.out, vae, device=command.device, dtype=dtype)
    elif isinstance(command, Export):
        export_model(command.unet, command.vae, command.out)
    else:
        _train(command)


def _train(command: Train) -> None:
    if command.recipe not in RECIPES:
        raise InvalidInputError(
            f"recipe is {command.recipe!r}, expected one of {', '.join(RECIPES)}."
        )
    if command.threads:
        torch.set_num_threads(command.threads)
    config = RECIPES[command.recipe](command.shards, command.out)
    for name in ("steps", "mixed_precision", "init_from"):
        if getattr(command, name) is not None:
            config = replace(config, **{name: getattr(command, name)})
    train(config)


if __name__ == "__main__":
    main()
