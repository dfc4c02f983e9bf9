"""Splats and scenes for the tests of this folder, and ComfyUI's own renderer on a path's camera."""

from typing import Any

import torch
from torch import Tensor

from tests.host.in_process import Host
from tests.support import seeded

__all__ = ["blobs", "centroid", "half_pixel_on", "refusal", "render_with_comfyui"]

_BLOBS = {  # in a world with +Z up, seen from +Y: what it is, where, its radius
    "white": ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), 0.25),
    "red": ((0.9, 0.1, 0.1), (0.7, 0.0, 0.0), 0.2),  # on the left
    "green": ((0.1, 0.8, 0.1), (0.0, 0.0, 0.7), 0.2),  # on top
    "blue": ((0.1, 0.2, 0.9), (-0.8, -1.2, -0.4), 0.2),  # far behind, low on the right
}


def blobs(gx: Any, each: int = 250) -> Any:
    """Four solid balls of small splats that tell left from right, up from down, near from far."""
    generator = seeded(4)
    parts = []
    for colour, place, radius in _BLOBS.values():
        directions = torch.nn.functional.normalize(
            torch.randn(each, 3, generator=generator, dtype=torch.float64), dim=-1
        )
        reach = torch.rand(each, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
        parts.append(
            gx.Gaussians.from_rgb(
                torch.tensor(place).double() + radius * reach * directions,
                torch.randn(each, 4, generator=generator),
                0.03 + 0.04 * torch.rand(each, 3, generator=generator),
                torch.full((each,), 0.9),
                torch.tensor(colour).expand(each, 3),
            )
        )
    return gx.Gaussians.concatenate(parts)


def centroid(picture: Tensor) -> Tensor:
    """Mean pixel index (x, y) of one channel, (H, W), weighted by its values."""
    weights = picture.double()
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in weights.shape)
    total = weights.sum()
    return torch.stack([(weights.sum(0) * columns).sum(), (weights.sum(1) * rows).sum()]) / total


def half_pixel_on(gx: Any, cameras: Any, width: int, height: int) -> Any:
    """Cameras whose pixel (i, j) shows what lies at (j, i): where ComfyUI's renderer samples."""
    Ks_norm = cameras.Ks_norm.clone()
    Ks_norm[:, 0, 2] += 0.5 / width
    Ks_norm[:, 1, 2] += 0.5 / height
    return gx.Cameras(cameras.c2w, Ks_norm, cameras.times)


def render_with_comfyui(
    host: Host, splat: Any, cameras: Any, view: int, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """Picture (H, W, 3) and mask (H, W) of ComfyUI's Render Splat, as plain as it can."""
    (info,) = host.run_node(
        "GenXD_CamerasToLoad3D",
        cameras=cameras,
        view=view,
        width=width,
        height=height,
        target_distance=2.0,
    )
    images, masks = host.run_node(
        "RenderSplat",
        splat=splat,
        camera_info=info,
        width=width,
        height=height,
        frames=1,
        splat_scale=1.0,
        sharpen=1.0,
        headlight_shading=0.0,
        opacity_threshold=0.0,
        render_style="color",
        background="#000000",
    )
    return images[0], masks[0]


def refusal(host: Host, class_type: str, **inputs: Any) -> str:
    """What a node says against inputs that it refuses."""
    graph: dict[str, Any] = {"1": {"class_type": class_type, "inputs": {}}}
    for name, value in inputs.items():
        if isinstance(value, int | float | str):
            graph["1"]["inputs"][name] = value
        else:
            graph[name] = host.value(value)
            graph["1"]["inputs"][name] = [name, 0]
    graph["2"] = host.capture(["1", 0])
    run = host.run(graph, check=False)
    assert not run.captured
    return run.error.partition("\nTraceback")[0]
