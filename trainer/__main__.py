"""Command line of the trainer: ``python -m trainer`` with a command, from data to weights."""

import json
import logging
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from tyro.conf import OmitArgPrefixes, UseAppendAction, arg

from genxd_core.autoencoder import Autoencoder
from genxd_core.data.scene import BrokenSceneError
from genxd_core.errors import InvalidInputError, MissingDependencyError, WeightsError
from genxd_core.model.unet import GenXDUNet

from .config import DataConfig, RunConfig, SourceConfig
from .data import seeded_rng
from .encode import EncodeJob, encode_source
from .export_run import ExportJob, export_run
from .loop import NonFiniteLossError, train
from .narrow_vae import NarrowVAEConfig, narrow_vae
from .network import with_known_unet
from .recipes import RECIPES
from .settings import apply_settings, to_record
from .sources import open_source, open_source_dataset
from .synthetic_shards import RenderJob, render_shards
from .vae import VAEConfig, train_vae

__all__ = ["main"]

_Settings = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="NAME=VALUE")]


@dataclass
class Recipes:
    """List the recipes, or print one in full.

    Attributes:
        show: name of the recipe to print as JSON.
    """

    show: str | None = None


@dataclass
class Train:
    """Train by a recipe; on several devices through ``accelerate launch`` or ``torchrun``.

    Attributes:
        recipe: name of the recipe (``python -m trainer recipes``).
        out: folder of the run.
        data: folder of the datasets, of encoded clips and of weights to start from, as the recipe
            names them.
        settings: instead of the recipe's, such as ``--set optim.lr=1e-4``; can be repeated.
        resume: go on where the run in the folder was stopped.
    """

    recipe: str
    out: Path
    data: Path = Path("data")
    settings: _Settings = ()
    resume: bool = False


@dataclass
class Check:
    """Say what is there of a recipe's datasets and weights, and draw a clip, without training.

    Attributes:
        recipe: name of the recipe.
        data: as for train.
        settings: as for train.
    """

    recipe: str
    data: Path = Path("data")
    settings: _Settings = ()


@dataclass
class Encode:
    """Encode a recipe's datasets with its VAE, once, instead of while training.

    Attributes:
        recipe: name of the recipe.
        job: where to, and which part.
        vae: folder of the VAE; the recipe's if not given.
        data: folder of the datasets.
        sources: names of the sources to encode; all if not given.
        device: where to encode.
        precision: of the encoder; latents are stored in half precision.
        threads: CPU threads; 0 leaves PyTorch's choice.
        settings: as for train.
    """

    recipe: str
    job: OmitArgPrefixes[EncodeJob]
    vae: Path | None = None
    data: Path = Path("data")
    sources: tuple[str, ...] = ()
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 0
    settings: _Settings = ()


@dataclass
class Export:
    """Write the averaged weights of a run as a model folder, and as one file.

    Attributes:
        job: what of, and where to.
    """

    job: OmitArgPrefixes[ExportJob]


@dataclass
class Render:
    """Render procedural clips to shards, for the VAE."""

    job: OmitArgPrefixes[RenderJob] = field(default_factory=lambda: RenderJob(Path("."), "", 0))


@dataclass
class TrainVAE:
    """Train a small VAE on rendered shards."""

    config: OmitArgPrefixes[VAEConfig]


@dataclass
class NarrowVAE:
    """Make a VAE narrower, with the same latents."""

    config: OmitArgPrefixes[NarrowVAEConfig]


_Command = Recipes | Check | Encode | Train | Export | Render | TrainVAE | NarrowVAE


def main() -> None:
    """Parse the command line and run one command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # A line for each camera file is one for each clip that is drawn.
    logging.getLogger("genxd_core.cameras").setLevel(logging.WARNING)
    command: _Command = tyro.cli(_Command, prog=f"python -m {__package__}")
    try:
        run(command)
    except (InvalidInputError, MissingDependencyError, NonFiniteLossError, WeightsError) as error:
        raise SystemExit(f"error: {error}") from error


def run(command: _Command) -> None:
    """Run one command."""
    if isinstance(command, Train):
        train(
            configured(command.recipe, command.data, command.out, command.settings),
            resume=command.resume,
        )
    elif isinstance(command, Recipes):
        _print_recipes(command)
    elif isinstance(command, Check):
        _check(command)
    elif isinstance(command, Encode):
        _encode(command)
    elif isinstance(command, Export):
        export_run(command.job)
    elif isinstance(command, Render):
        render_shards(command.job)
    elif isinstance(command, TrainVAE):
        train_vae(command.config)
    else:
        narrow_vae(command.config)


def configured(recipe: str, data: Path, out: Path, settings: tuple[str, ...] = ()) -> RunConfig:
    """A recipe's configuration with settings of its user's.

    Raises:
        InvalidInputError: there is no such recipe or field, or the whole does not fit together.
    """
    if recipe not in RECIPES:
        raise InvalidInputError(f"recipe is {recipe!r}, expected one of {', '.join(RECIPES)}.")
    return apply_settings(RECIPES[recipe](data, out), settings)


def _print_recipes(command: Recipes) -> None:
    if command.show is not None:
        config = configured(command.show, Path("data"), Path("runs") / command.show)
        sys.stdout.write(json.dumps(to_record(config), indent=2) + "\n")
        return
    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        first_line = (recipe.__doc__ or "").splitlines()[0]
        sys.stdout.write(f"{name:<{width}}  {first_line}\n")


def _check(command: Check) -> None:
    config = configured(command.recipe, command.data, Path("."), command.settings)
    for source in config.data.active_sources:
        sys.stdout.write(f"{source.name}: {_told_of_source(source, config.data)}\n")
    model = with_known_unet(config.model)
    assert model.unet is not None
    replace(config, model=model)  # refuses pictures of a size that the network does not take
    with torch.device("meta"):
        millions = sum(p.numel() for p in GenXDUNet(model.unet).parameters()) / 1e6
    beginning = model.start if model.start_from is None else f"{model.start} of {model.start_from}"
    sys.stdout.write(f"network: {millions:.1f} million parameters, from {beginning}\n")


def _told_of_source(source: SourceConfig, data: DataConfig) -> str:
    """What is there, and of the first scene whether a clip can be drawn."""
    scenes = open_source(source, replace(data, latents=None))
    count, views = len(scenes.scene_ids), max(data.views)
    kept = f", {source.held_out} more held out" if source.held_out else ""
    told = f"{count} scene{'' if count == 1 else 's'} ({source.mode}){kept}"
    first = scenes.scene_ids[0]
    try:
        pictures = len(open_source_dataset(source).scene(first).cameras)
        if pictures < views:
            return f"{told}; {first} has {pictures} pictures, data.views asks for {views}"
        scenes.draw(first, views, seeded_rng(0, "check", 0))
    except BrokenSceneError as error:
        return f"{told}; the first cannot be used: {error}"
    return f"{told}; {first} has {pictures} pictures, a clip takes {views}"


def _encode(command: Encode) -> None:
    config = configured(command.recipe, command.data, Path("."), command.settings)
    folder = command.vae or config.model.vae
    if folder is None:
        raise InvalidInputError("the recipe has no VAE of its own; give its folder as --vae.")
    unknown = set(command.sources) - {source.name for source in config.data.sources}
    if unknown:
        raise InvalidInputError(
            f"sources has {', '.join(sorted(unknown))}, expected names of "
            f"{', '.join(source.name for source in config.data.sources)}."
        )
    if command.threads:
        torch.set_num_threads(command.threads)
    dtype = torch.bfloat16 if command.precision == "bf16" else torch.float32
    vae = Autoencoder.from_pretrained(folder, dtype=dtype, device=command.device)
    for source in config.data.active_sources:
        if not command.sources or source.name in command.sources:
            encode_source(source, config.data, vae, folder, command.job)


if __name__ == "__main__":
    main()
