"""Recipes of small networks on procedural scenes: the embedded model, ablations, a quick try."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from genxd_core.assets import NANO
from genxd_core.data.sampling import FrameSampling
from genxd_core.model.config import GenXDUNetConfig

from .config import (
    DataConfig,
    EngineConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SourceConfig,
    ValidationConfig,
)

__all__ = ["NANO_UNET", "SMALL_RECIPES", "ablation_full", "debug", "nano", "nano_stage1"]

NANO_UNET = GenXDUNetConfig.with_widths(
    (96, 96),
    (3, 3),
    addition_time_embed_dim=64,
    projection_class_embeddings_input_dim=128,
    num_frames=12,
    sample_size=8,
)

# A hop happens once in a clip and begins with it; still scenes may be entered anywhere.
_STILL = FrameSampling(strides=(1, 2))
_HOP = FrameSampling(strides=(1, 2), start="first")


def nano(data: Path, out: Path) -> RunConfig:
    """The embedded model's beginning: 64 px, 3D and 4D together, from scratch, in SVD's place."""
    return RunConfig(
        recipe="nano",
        out=out,
        model=ModelConfig(unet=NANO_UNET, plain_attention=True),
        data=DataConfig(
            sources=_still(0.5) + _moving(0.42, 0.08),
            latents=data / "latents",
            size=64,
            views=(6, 12),
            batch_size=6,
            micro_batch=6,
            workers=0,
        ),
        loss=LossConfig(log_sigma_mean=0.5, log_sigma_std=1.6, multi_view_share=0.4),
        optim=OptimConfig(
            name="muon",
            lr=1e-3,
            muon_lr=0.01,
            schedule="cosine",
            final_share=0.02,
            warmup=200,
            ema_half_life=300.0,
        ),
        engine=EngineConfig(steps=6500, log_every=25, save_every=250),
    )


def nano_stage1(data: Path, out: Path) -> RunConfig:
    """The first stage in small: still scenes alone, one view given, from `nano`."""
    run = nano(data, out)
    return replace(
        run,
        recipe="nano_stage1",
        model=replace(run.model, start="weights", start_from=out.parent / "nano" / "unet"),
        data=replace(run.data, sources=_still(1.0)),
        loss=replace(run.loss, multi_view_share=0.0),
        optim=replace(run.optim, final_share=0.5),
        engine=replace(run.engine, steps=6000, seed=1),
    )


def nano_stage2(data: Path, out: Path) -> RunConfig:
    """The second stage in small: still and moving scenes, one view given."""
    run = nano_stage1(data, out)
    return replace(
        run,
        recipe="nano_stage2",
        model=replace(run.model, start_from=out.parent / "nano_stage1" / "unet"),
        data=replace(run.data, sources=_still(0.5) + _moving(0.42, 0.08)),
        optim=replace(run.optim, lr=5e-4, muon_lr=0.005, final_share=0.8, warmup=100),
        engine=replace(run.engine, steps=2500, seed=2),
    )


def nano_stage3(data: Path, out: Path) -> RunConfig:
    """The third stage in small: still and moving scenes, one or several views given."""
    run = nano_stage2(data, out)
    return replace(
        run,
        recipe="nano_stage3",
        model=replace(run.model, start_from=out.parent / "nano_stage2" / "unet"),
        loss=replace(run.loss, multi_view_share=0.5),
        optim=replace(run.optim, lr=4e-4, muon_lr=0.004, final_share=0.01),
        engine=replace(run.engine, steps=5000, seed=3),
    )


def debug(data: Path, out: Path) -> RunConfig:
    """A minute on a CPU, with nothing to prepare: a tiny network, pictures made while training."""
    del data
    run = nano(Path(), out)
    tiny = GenXDUNetConfig.with_widths(
        (32, 32), (1, 1), addition_time_embed_dim=32, projection_class_embeddings_input_dim=64
    )
    sources = (
        _scenes("nano_3d", "3d", 1.0, scenes=64, held_out=2, size=32, num_frames=6),
        _scenes("nano_4d", "4d", 1.0, scenes=64, held_out=2, size=32, num_frames=6),
    )
    return replace(
        run,
        recipe="debug",
        model=replace(run.model, unet=tiny, vae=NANO),
        data=replace(
            run.data,
            sources=sources,
            latents=None,
            size=32,
            views=(6,),
            batch_size=4,
            micro_batch=2,
        ),
        engine=replace(run.engine, steps=100, log_every=10, save_every=50),
        validation=ValidationConfig(every=50, scenes=1, steps=4),
    )


# ---- the paper's ablations in small -------------------------------------------------------------


def ablation_full(data: Path, out: Path) -> RunConfig:
    """The full method, as the ablations are held against it (Tables 5 and 10)."""
    run = nano(data, out)
    unet = GenXDUNetConfig.with_widths(
        (64, 64), (2, 2), addition_time_embed_dim=64, projection_class_embeddings_input_dim=128
    )
    return replace(
        run,
        recipe="ablation_full",
        model=replace(run.model, unet=unet),
        data=replace(run.data, sources=_still(0.5) + _moving(0.5, 0.0)),
        engine=replace(run.engine, steps=2000),
    )


def ablation_no_disentangling(data: Path, out: Path) -> RunConfig:
    """Without motion disentangling (Table 5): still scenes pass through the temporal layers too."""
    run = ablation_full(data, out)
    return replace(
        run,
        recipe="ablation_no_disentangling",
        loss=replace(run.loss, disentangle_motion=False),
    )


def ablation_camera_attention(data: Path, out: Path) -> RunConfig:
    """Cameras by cross-attention on an embedding instead of rays (Table 10, "Camera CA")."""
    run = ablation_full(data, out)
    return replace(
        run,
        recipe="ablation_camera_attention",
        model=replace(run.model, camera="cross_attention"),
    )


def ablation_without_3d(data: Path, out: Path) -> RunConfig:
    """Without 3D data (Table 10)."""
    run = ablation_full(data, out)
    return replace(run, recipe="ablation_without_3d", data=replace(run.data, modes=("video", "4d")))


def ablation_without_4d(data: Path, out: Path) -> RunConfig:
    """Without 4D data (Table 10)."""
    run = ablation_full(data, out)
    return replace(run, recipe="ablation_without_4d", data=replace(run.data, modes=("3d",)))


def _scenes(
    family: str, mode: str, weight: float, *, scenes: int, held_out: int = 0, **options: int
) -> SourceConfig:
    return SourceConfig(
        name=family,
        dataset="synthetic",
        options={"family": family, "scenes": scenes, **options},
        weight=weight,
        mode=mode,  # type: ignore[arg-type]
        frames=_STILL if mode == "3d" else _HOP,
        held_out=held_out,
    )


def _still(weight: float) -> tuple[SourceConfig, ...]:
    return (_scenes("nano_3d", "3d", weight, scenes=5184),)


def _moving(weight: float, video: float) -> tuple[SourceConfig, ...]:
    return (
        _scenes("nano_4d", "4d", weight, scenes=2560),
        _scenes("nano_video", "video", video, scenes=256),
    )


SMALL_RECIPES: dict[str, Callable[[Path, Path], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        nano,
        nano_stage1,
        nano_stage2,
        nano_stage3,
        debug,
        ablation_full,
        ablation_no_disentangling,
        ablation_camera_attention,
        ablation_without_3d,
        ablation_without_4d,
    )
}
