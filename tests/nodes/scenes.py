"""A small conditioned path, and a model small enough to sample it with every sampler."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import genxd_core as gx
from tests.host.in_process import Host
from tests.support import REFERENCE, seeded
from tests.tiny_model import settings

__all__ = ["Scene", "make_mini_model", "mini_unet"]


def mini_unet(seed: int = 0, levels: int = 2) -> gx.GenXDUNet:
    """A network of two levels (or one) with random weights, every one of which matters."""
    unet = gx.GenXDUNet(gx.GenXDUNetConfig.with_widths((32,) * levels, (2, 4)[:levels]))
    generator = seeded(seed)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:  # scales around 1, everything else around 0: the temporal branch has its half
                parameter.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
    return unet


def make_mini_model(folder: Path, unet: gx.GenXDUNet | None = None) -> Path:
    """Lay a network out as a released model, with the reference's tiny VAE."""
    gx.save_unet(unet or mini_unet(), folder / "unet")
    vae = folder / "vae"
    vae.mkdir(parents=True)
    shutil.copy(REFERENCE / "vae_tiny.safetensors", vae / "diffusion_pytorch_model.safetensors")
    shutil.copy(REFERENCE / "vae_tiny_config.json", vae / "config.json")
    (folder / "scheduler").mkdir()
    text = json.dumps(settings()["scheduler"])
    (folder / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Scene:
    """What GenXD_ConditionViews made of a small path.

    Attributes:
        host: where it lives.
        model: a MODEL.
        vae: its VAE.
        positive: CONDITIONING.
        negative: CONDITIONING.
        latent: LATENT.
        given: positions of the given views.
    """

    host: Host
    model: Any
    vae: Any
    positive: Any
    negative: Any
    latent: dict[str, Any]
    given: tuple[int, ...]

    @property
    def clean(self) -> Tensor:
        """Latents of the given views."""
        return self.latent["samples"][list(self.given)]

    def sample(self, node: str = "KSampler", **changes: Any) -> Tensor:
        """Sample the scene and return the latents; ``changes`` replace the node's inputs."""
        options = {
            "model": self.model,
            "positive": self.positive,
            "negative": self.negative,
            "latent_image": self.latent,
            "steps": 2,
            "cfg": 3.0,
            "sampler_name": "euler",
            "scheduler": "karras",
        }
        if node == "KSampler":
            options |= {"seed": 1, "denoise": 1.0}
        (out,) = self.host.run_node(node, **(options | changes))
        return out["samples"]
