"""Tiny encoded datasets and runs."""

import torch

from genxd_core.data.scene import MeasuredMotion
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.synthetic.camera_paths import sample_path
from tests.support import seeded
from trainer.config import (
    DataConfig,
    EngineConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SourceConfig,
)
from trainer.latent_shards import EncodedScene, write_shard

TINY = GenXDUNetConfig.with_widths(
    (32, 32), (1, 1), addition_time_embed_dim=32, projection_class_embeddings_input_dim=64
)
INTRINSICS = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
SIZE = 16


def encoded_scene(name, kind="3d", frames=6, *, gamma=0.02, depth=4.0):
    """Random latents along an orbit."""
    seed = sum(map(ord, name))
    return EncodedScene(
        name,
        kind,
        MeasuredMotion(gamma) if kind == "4d" else None,
        True,
        {
            "latents": torch.randn(frames, 4, 2, 2, generator=seeded(seed)).half(),
            "c2w": sample_path(seed, {"orbit": 1.0}, frames),
            "Ks_norm": INTRINSICS.expand(frames, 3, 3),
            "times": torch.full((frames,), torch.nan),
            "view_depths": torch.full((frames,), depth),
        },
    )


def write_scenes(latents, source, kind, names, *, fit="crop", file="000000", **made):
    scenes = [encoded_scene(name, kind, **made) for name in names]
    path = latents / source / fit / f"{file}.safetensors"
    write_shard(path, scenes, {"size": SIZE, "vae": "", "fit": fit})
    return path


def tiny_sources():
    return (
        SourceConfig(name="still", dataset="synthetic", mode="3d"),
        SourceConfig(name="moving", dataset="synthetic", mode="4d"),
    )


def tiny_run(latents, out, **engine):
    """A run of four steps on scenes that `write_scenes` made."""
    return RunConfig(
        recipe="tiny",
        out=out,
        model=ModelConfig(unet=TINY),
        data=DataConfig(
            sources=tiny_sources(),
            latents=latents,
            size=SIZE,
            views=(3,),
            batch_size=2,
            micro_batch=2,
            workers=0,
        ),
        optim=OptimConfig(lr=1e-3, warmup=1, ema_half_life=500.0),
        engine=EngineConfig(
            **{"steps": 4, "log_every": 2, "save_every": 2, "trackers": (), **engine}
        ),
    )
