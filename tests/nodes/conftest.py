"""Models in the host and in the server, and a small scene to sample."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.host.in_process import Host
from tests.nodes.scenes import Scene, make_mini_model
from tests.support import seeded
from tests.tiny_model import make_tiny_model
from tools.comfy_client import ComfyClient
from tools.comfy_server import ComfyServer

TINY, MINI = "tiny", "mini"


@pytest.fixture(scope="session")
def models(host: Host) -> Path:
    """Put both test models where the loader finds them in the host: "tiny" and "mini"."""
    folder = host.base / "models" / "genxd"
    make_tiny_model(folder / TINY)
    make_mini_model(folder / MINI)
    return folder


@pytest.fixture(scope="session")
def loaded(host: Host, models: Path) -> tuple[Any, Any]:
    """MODEL and VAE of the reference's tiny model, in float32."""
    return host.run_node("GenXD_LoadModel", model=TINY, weight_dtype="fp32", vae="beside the model")


@pytest.fixture(scope="session")
def mini(host: Host, models: Path) -> tuple[Any, Any]:
    """MODEL and VAE of the mini model, in float32."""
    return host.run_node("GenXD_LoadModel", model=MINI, weight_dtype="fp32", vae="beside the model")


@pytest.fixture(scope="session")
def make_scene(host: Host, mini: tuple[Any, Any]) -> Any:
    """Return a function that conditions a small path for the mini model."""

    def make(mode: str = "4d", given: tuple[int, ...] = (0, 2), num_views: int = 4) -> Scene:
        gx = host.module("genxd_core")
        positive, negative, latent = host.run_node(
            "GenXD_ConditionViews",
            vae=mini[1],
            images=torch.rand(len(given), 32, 32, 3, generator=seeded(3)),
            cameras=gx.sway(num_views, elevation_deg=5.0),
            indices=", ".join(map(str, given)),
            mode=mode,
            motion_strength=2.0,
        )
        return Scene(host, mini[0], mini[1], positive, negative, latent, given)

    return make


@pytest.fixture(scope="session")
def scene(make_scene: Any) -> Scene:
    """Four views in 4D mode, the first and the third of them given."""
    return make_scene()


@pytest.fixture(scope="session")
def exact_scene(host: Host, scene: Scene) -> Scene:
    """The same scene with a network in float64: what is left of differences is no rounding."""
    model, _ = host.run_node(
        "GenXD_LoadModel", model=MINI, weight_dtype="fp32", vae="beside the model"
    )
    with torch.inference_mode():
        model.model.diffusion_model.double()
    model.model.manual_cast_dtype = torch.float64
    return replace(scene, model=model)


@pytest.fixture(scope="session")
def client(server: ComfyServer) -> ComfyClient:
    """A client of the server, which has both test models."""
    folder = server.base / "models" / "genxd"
    make_tiny_model(folder / TINY)
    make_mini_model(folder / MINI)
    return ComfyClient(server.url, server.check_alive)


@pytest.fixture
def watched() -> Any:
    """Return a context that notes every call of a MODEL's network: frames and branches."""

    @contextmanager
    def watch(model: Any) -> Iterator[list[dict[str, Any]]]:
        calls: list[dict[str, Any]] = []

        def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            options = kwargs["transformer_options"]
            calls.append(
                {
                    "frames": len(args[0]),
                    "cond_or_uncond": tuple(options["cond_or_uncond"]),
                    "dtype": args[0].dtype,
                }
            )

        hook = model.model.diffusion_model.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield calls
        finally:
            hook.remove()

    return watch
