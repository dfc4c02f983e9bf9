"""Validation inside a run: its held-out clips, and where figures and sheets go."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from genxd_core.autoencoder import Autoencoder
from genxd_core.cameras.cameras import Cameras
from genxd_core.media import save_image
from genxd_core.model.unet import GenXDUNet
from genxd_core.pictures import to_pil

from .config import RunConfig, SourceConfig
from .data import seeded_rng
from .sources import Clip, open_source
from .validate import HeldOutClip, ValidationSet, validate

__all__ = ["Validation"]

_DTYPES = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class Validation:
    """The held-out clips of a run, drawn once, and what is done with them.

    Args:
        config: of the run.
        vae: for pictures and their comparison; None compares latents alone.
    """

    def __init__(self, config: RunConfig, vae: Autoencoder | None) -> None:
        self.config, self.vae = config, vae
        self.clips = ValidationSet(())
        if config.validation.every:
            sources = [s for s in config.data.active_sources if s.held_out]
            clips = (clip for source in sources for clip in self._clips_of(source))
            self.clips = ValidationSet(tuple(clips))

    def run(self, unet: GenXDUNet, step: int, accelerator: Accelerator) -> dict[str, float]:
        """Measure and draw; the sheet goes to ``sheets/`` and to the trackers."""
        settings = self.config.validation
        result = validate(
            unet,
            self.clips,
            vae=self.vae,
            conditioned=("single", "three") if max(self.config.data.views) > 3 else ("single",),
            steps=settings.steps,
            guidance=settings.guidance,
            seed=self.config.engine.seed,
            autocast=_DTYPES[self.config.engine.mixed_precision],
        )
        if result.sheet is not None and accelerator.is_main_process:
            save_image(result.sheet, self.config.out / "sheets" / f"step_{step:07d}.png")
            picture = to_pil(result.sheet)
            for tracker in accelerator.trackers:
                _log_picture(tracker, picture, step)
        return {f"validation/{name}": value for name, value in result.figures.items()}

    def _clips_of(self, source: SourceConfig) -> list[HeldOutClip]:
        held_out = open_source(source, self.config.data, held_out=True)
        views = max(self.config.data.views)
        names = held_out.scene_ids[: self.config.validation.scenes]
        clips = []
        for number, name in enumerate(names):
            rng = seeded_rng(self.config.engine.seed, f"validation/{source.name}", number)
            clips.append(self._held_out(held_out.draw(name, views, rng), source))
        return clips

    def _held_out(self, clip: Clip, source: SourceConfig) -> HeldOutClip:
        images = None if clip.pixels is None else clip.pixels.float() / 255
        latents = clip.latents
        if latents is None:
            assert images is not None
            assert self.vae is not None
            latents = self.vae.encode(images).cpu()
        name = f"{source.name} {clip.provenance.scene_id}"
        cameras = Cameras(clip.c2w, clip.Ks_norm)
        return HeldOutClip(name, latents, cameras, clip.motion_strength, source.mode, images)


def _log_picture(tracker: Any, picture: Image.Image, step: int) -> None:
    """As each tracker takes it: W&B a list of PIL's pictures, TensorBoard an array."""
    if tracker.name == "wandb":
        tracker.log_images({"held_out": [picture]}, step=step)
    else:
        batch = np.asarray(picture)[None]
        tracker.log_images({"held_out": batch}, step=step, dataformats="NHWC")
