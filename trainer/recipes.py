"""Named runs: functions that return full configurations. A variant calls another and replaces."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from genxd_core.data.sampling import FrameSampling

from .config import (
    DataConfig,
    EngineConfig,
    LoraConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SourceConfig,
    ValidationConfig,
)
from .small_recipes import SMALL_RECIPES

__all__ = ["RECIPES", "Recipe", "finetune", "finetune_full", "stage1", "stage2", "stage3"]

Recipe = Callable[[Path, Path], RunConfig]
"""``recipe(data, out)``: the folder of the datasets, and the run's."""

_NEIGHBOURS = FrameSampling(strides=(1, 2, 3))
_FAR = FrameSampling(strides=(2, 4, 6, 8))  # slow films of 30 frames a second


def stage1(data: Path, out: Path) -> RunConfig:
    """The paper's first stage (Sec. 5.1): 3D data alone, one view given, from SVD."""
    return RunConfig(
        recipe="stage1",
        out=out,
        model=ModelConfig(start="svd", start_from=data / "svd", gradient_checkpointing=True),
        data=DataConfig(
            sources=_still_sources(data),
            latents=data / "latents",
            batch_size=128,
            micro_batch=4,
            mode_block=32,
        ),
        loss=LossConfig(multi_view_share=0.0),
        optim=OptimConfig(lr=5e-5),
        engine=EngineConfig(steps=500_000, mixed_precision="bf16", keep_every=50_000),
        validation=ValidationConfig(every=5000),
    )


def stage2(data: Path, out: Path) -> RunConfig:
    """The second stage: 3D and 4D data, one view given, from the first stage."""
    first = stage1(data, out)
    return replace(
        first,
        recipe="stage2",
        model=replace(first.model, start="weights", start_from=out.parent / "stage1" / "unet"),
        data=replace(first.data, sources=_still_sources(data) + _moving_sources(data)),
    )


def stage3(data: Path, out: Path) -> RunConfig:
    """The third stage: all data, one or several views given, cropped or padded."""
    second = stage2(data, out)
    return replace(
        second,
        recipe="stage3",
        model=replace(second.model, start_from=out.parent / "stage2" / "unet"),
        data=replace(second.data, fit="either"),
        loss=replace(second.loss, multi_view_share=0.5),
    )


def _released(recipe: RunConfig) -> RunConfig:
    """A stage with the numbers of the released configuration, which are not the paper's."""
    return replace(
        recipe,
        recipe=f"released_{recipe.recipe}",
        optim=replace(recipe.optim, name="adamw8bit", lr=2e-5, warmup=2000),
        engine=replace(recipe.engine, steps=300_000, mixed_precision="fp16", seed=3407),
    )


def released_stage1(data: Path, out: Path) -> RunConfig:
    """The first stage as the released configuration has it: 8-bit AdamW 2e-5, fp16, 300K steps."""
    return _released(stage1(data, out))


def released_stage2(data: Path, out: Path) -> RunConfig:
    """The second stage as the released configuration has it."""
    run = _released(stage2(data, out))
    start = out.parent / "released_stage1" / "unet"
    return replace(run, model=replace(run.model, start_from=start))


def released_stage3(data: Path, out: Path) -> RunConfig:
    """The third stage as the released configuration has it: one view given in half the batches."""
    run = _released(stage3(data, out))
    start = out.parent / "released_stage2" / "unet"
    return replace(run, model=replace(run.model, start_from=start))


def finetune(data: Path, out: Path) -> RunConfig:
    """Adapters (LoRA) on trained weights, from your own captures: one GPU of 24 GB."""
    return RunConfig(
        recipe="finetune",
        out=out,
        model=ModelConfig(
            unet=None,
            start="weights",
            start_from=data / "weights",
            lora=LoraConfig(rank=16),
            frozen_dtype="bf16",
            vae=data / "weights",
            gradient_checkpointing=True,
        ),
        data=DataConfig(
            sources=(
                SourceConfig(
                    name="captures",
                    dataset="captures",
                    root=data / "captures",
                    frames=_NEIGHBOURS,
                    scale="none",
                ),
            ),
            batch_size=4,
            micro_batch=1,
            fit="either",
        ),
        loss=LossConfig(multi_view_share=0.5),
        optim=OptimConfig(lr=1e-4, warmup=50, schedule="cosine", ema_half_life=100.0),
        engine=EngineConfig(steps=2000, mixed_precision="bf16", log_every=10, save_every=250),
    )


def finetune_full(data: Path, out: Path) -> RunConfig:
    """All weights trained further on your own captures: a GPU of 80 GB, or several."""
    adapters = finetune(data, out)
    return replace(
        adapters,
        recipe="finetune_full",
        model=replace(adapters.model, lora=None, frozen_dtype="fp32"),
        optim=replace(adapters.optim, lr=1e-5),
    )


def _still_sources(data: Path) -> tuple[SourceConfig, ...]:
    """The 3D data of Sec. 5.1. The paper does not say how they are weighted; these are a guess."""
    return (
        SourceConfig(name="objaverse", dataset="objaverse", root=data / "objaverse", held_out=8),
        SourceConfig(
            name="mvimgnet",
            dataset="mvimgnet",
            root=data / "mvimgnet",
            frames=_NEIGHBOURS,
            held_out=8,
        ),
        SourceConfig(name="co3d", dataset="co3d", root=data / "co3d", frames=_FAR, held_out=8),
        SourceConfig(
            name="re10k",
            dataset="realestate10k",
            root=data / "realestate10k",
            frames=_FAR,
            held_out=8,
        ),
        SourceConfig(
            name="acid", dataset="acid", root=data / "acid", frames=_FAR, weight=0.5, held_out=8
        ),
    )


def _moving_sources(data: Path) -> tuple[SourceConfig, ...]:
    """The 4D data of Sec. 5.1."""
    return (
        SourceConfig(
            name="objaverse_animation",
            dataset="objaverse_animation",
            root=data / "objaverse_animation",
            mode="4d",
            weight=2.0,
            held_out=8,
        ),
        SourceConfig(
            name="camvid",
            dataset="camvid",
            root=data / "camvid",
            mode="4d",
            frames=_NEIGHBOURS,
            weight=2.5,
            held_out=8,
        ),
    )


RECIPES: dict[str, Recipe] = {
    recipe.__name__: recipe
    for recipe in (
        stage1,
        stage2,
        stage3,
        released_stage1,
        released_stage2,
        released_stage3,
        finetune,
        finetune_full,
    )
} | SMALL_RECIPES
