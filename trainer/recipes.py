"""Named runs: functions that return full configurations. A variant calls another and replaces."""

from pathlib import Path

from genxd_core.model.config import GenXDUNetConfig

from .config import LossConfig, MixEntry, RunConfig

__all__ = ["NANO_UNET", "RECIPES", "nano"]

NANO_UNET = GenXDUNetConfig.with_widths(
    (96, 96),
    (3, 3),
    addition_time_embed_dim=64,
    projection_class_embeddings_input_dim=128,
    num_frames=12,
    sample_size=8,
)


def nano(shards: Path, out: Path) -> RunConfig:
    """The embedded model: 64 px, 3D and 4D together, from scratch, hours on two CPU cores."""
    return RunConfig(
        shards=shards,
        out=out,
        unet=NANO_UNET,
        loss=LossConfig(log_sigma_mean=0.5, log_sigma_std=1.6),
        mix=(
            MixEntry(family="nano_3d", mode="3d", weight=0.5),
            MixEntry(family="nano_4d", mode="4d", weight=0.42),
            MixEntry(family="nano_video", mode="video", weight=0.08),
        ),
        steps=20_000,
        frames_per_step=72,
        clip_lengths=(6, 12),
        optimizer="muon",
        peak_lr=1e-3,
        muon_lr=0.01,
        final_lr_share=0.02,
        warmup=200,
        weight_decay=1e-2,
        ema_half_life=300.0,
        plain_attention=True,
    )


RECIPES = {"nano": nano}
