"""The reference's tiny model as a folder in the released layout, and its recorded pipeline runs."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from tests.support import REFERENCE

__all__ = ["MODES", "case_names", "load_case", "make_tiny_model", "settings"]

MODES = {0: "3d", 1: "video", 2: "4d"}


@functools.lru_cache(maxsize=1)
def settings() -> dict[str, Any]:
    """The scheduler's settings and the parameters of the recorded runs."""
    return json.loads((REFERENCE / "pipeline_tiny.json").read_text(encoding="utf-8"))


def make_tiny_model(folder: Path) -> Path:
    """Lay the tiny UNet and VAE out as a released model."""
    for part in ("unet", "vae"):
        (folder / part).mkdir(parents=True)
        shutil.copy(
            REFERENCE / f"{part}_tiny.safetensors",
            folder / part / "diffusion_pytorch_model.safetensors",
        )
        shutil.copy(REFERENCE / f"{part}_tiny_config.json", folder / part / "config.json")
    (folder / "scheduler").mkdir()
    text = json.dumps(settings()["scheduler"])
    (folder / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
    return folder


def case_names() -> list[str]:
    """The runs that the original completed."""
    return [name for name, case in settings()["cases"].items() if "official_error" not in case]


def load_case(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Parameters and tensors of a recorded run."""
    prefix = name + "."
    with safe_open(REFERENCE / "pipeline_tiny.safetensors", framework="pt") as file:
        tensors = {
            key[len(prefix) :]: file.get_tensor(key)
            for key in file.keys()
            if key.startswith(prefix)
        }
    return settings()["cases"][name], tensors
