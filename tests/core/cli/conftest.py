"""A place to run commands in."""

import pytest
import torch

from genxd_core.media import save_image
from tests.support import seeded


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in, with a picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENXD_MODELS", raising=False)
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    coarse = torch.rand(1, 3, 4, 4, generator=seeded())
    picture = torch.nn.functional.interpolate(coarse, (80, 100), mode="bicubic")[0]
    save_image(picture.clamp(0, 1), tmp_path / "photo.png")
    return tmp_path
