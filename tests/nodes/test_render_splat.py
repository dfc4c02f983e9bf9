"""GenXD Render Splat: where splats come to lie, beside ComfyUI's renderer; time, sizes, errors."""

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.core.cameras.builders import random_rotations
from tests.nodes.splats import blobs, centroid, half_pixel_on, refusal, render_with_comfyui
from tests.support import assert_same_up_to, seeded

WIDTH, HEIGHT = 240, 160


@pytest.fixture(scope="module", autouse=True)
def splat_nodes(host) -> None:
    host.load_extras("nodes_gaussian_splat")


@pytest.fixture(scope="module")
def gx(host) -> Any:
    return host.module("genxd_core")


@pytest.fixture(scope="module")
def to_splat(host) -> Any:
    return host.module("nodes._splats").gaussians_to_splat


@pytest.fixture(scope="module")
def upright(gx, to_splat) -> tuple[Any, Any]:
    """The four balls with -Y up as a SPLAT, and a path around them."""
    path = gx.orbit(8, elevation_deg=10.0, radius=3.0, aspect=WIDTH / HEIGHT)
    turned, cameras = gx.turn_upright(blobs(gx), path, up="+Z")
    return to_splat(turned), cameras


def render(host: Any, splat: Any, cameras: Any, **changes: Any) -> tuple[Tensor, ...]:
    options = {"width": WIDTH, "height": 0, "background": "#000000"}
    return host.run_node("GenXD_RenderSplat", splat=splat, cameras=cameras, **(options | changes))


def small_splat(gx: Any, to_splat: Any, point: Tensor) -> Any:
    one = gx.Gaussians.from_rgb(
        point[None],
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.full((1, 3), 0.02),
        torch.ones(1),
        torch.ones(1, 3),
    )
    return to_splat(one)


@pytest.mark.parametrize(("width", "height"), [(256, 192), (192, 256), (160, 160)])
@pytest.mark.parametrize("centred", [True, False])
def test_a_splat_lies_where_its_camera_projects_it(host, gx, to_splat, width, height, centred):
    """Pixel j's centre is j + 0.5; ComfyUI's renderer has it at j, and knows no lens shift."""
    generator = seeded(width + centred)
    rotations = random_rotations(4, seed=height).float()
    focal_px = 200.0
    for rotation in rotations:
        c2w = torch.eye(4)
        c2w[:3, :3] = rotation
        c2w[:3, 3] = torch.randn(3, generator=generator)
        cx, cy = (0.5, 0.5)
        if not centred:
            cx, cy = (0.5 + 0.2 * (torch.rand(2, generator=generator) - 0.5)).tolist()
        K = torch.tensor([[focal_px / width, 0, cx], [0, focal_px / height, cy], [0, 0, 1.0]])
        cameras = gx.Cameras(c2w[None], K[None])
        local = torch.tensor([0.5, 0.5, 2.5])
        local[:2] *= 2 * torch.rand(2, generator=generator) - 1
        splat = small_splat(gx, to_splat, c2w[:3, :3] @ local + c2w[:3, 3])
        _, mask, _, _ = render(host, splat, cameras, width=width, height=height)
        expected = focal_px * local[:2] / local[2] + torch.tensor([cx * width, cy * height])
        found = centroid(mask[0]) + 0.5
        assert_same_up_to(found, expected, 0.05)
        if centred:
            _, theirs = render_with_comfyui(host, splat, cameras, 0, width, height)
            assert_same_up_to(centroid(theirs), centroid(mask[0]) + 0.5, 0.05)


def test_pictures_are_those_of_comfyuis_renderer_half_a_pixel_on(host, gx, upright):
    splat, cameras = upright
    _, plain, _, _ = render(host, splat, cameras)
    _, moved, _, _ = render(host, splat, half_pixel_on(gx, cameras, WIDTH, HEIGHT))
    for view in range(0, 8, 3):
        _, theirs = render_with_comfyui(host, splat, cameras, view, WIDTH, HEIGHT)
        apart = float((moved[view] - theirs).abs().mean())
        assert apart < 0.002
        assert float((plain[view] - theirs).abs().mean()) > 2.5 * apart
        for axes in ((0,), (1,), (0, 1)):  # upside down, mirrored, turned by half
            assert float((moved[view].flip(axes) - theirs).abs().mean()) > 10 * apart


@pytest.mark.parametrize("view", [0, 4])
def test_colours_are_those_of_comfyuis_renderer(host, gx, upright, view):
    """From the front and from behind no ball hides another, where the two renderers differ."""
    splat, cameras = upright
    images, mask, _, _ = render(
        host, splat, half_pixel_on(gx, cameras, WIDTH, HEIGHT)[view], background="#000000"
    )
    picture, theirs = render_with_comfyui(host, splat, cameras, view, WIDTH, HEIGHT)
    solid = (mask[0] > 0.95) & (theirs > 0.95)
    assert int(solid.sum()) > 2000
    assert float((images[0] - picture)[solid].abs().mean()) < 0.003


def test_an_upright_scene_is_seen_upright(host, upright):
    """From the first camera: red on the left, green on top, blue far away and low on the right."""
    splat, cameras = upright
    images, mask, depth, _ = render(host, splat, cameras)
    colours = {
        "red": (images[0, ..., 0] > 0.6) & (images[0, ..., 1] < 0.3),
        "green": (images[0, ..., 1] > 0.6) & (images[0, ..., 0] < 0.3),
        "blue": (images[0, ..., 2] > 0.6) & (images[0, ..., 0] < 0.3),
        "white": images[0].min(-1).values > 0.8,
    }
    x, y = (
        {name: float(centroid(seen)[axis]) for name, seen in colours.items()} for axis in (0, 1)
    )
    assert x["red"] < x["white"] - 20 < x["green"] < x["white"] + 20 < x["blue"]
    assert y["green"] < y["red"] - 20 < y["white"] < y["red"] + 20 < y["blue"] + 20
    far = {name: float(depth[0, 0][seen].mean()) for name, seen in colours.items()}
    assert far["blue"] > far["white"] + 0.8
    assert far["white"] == pytest.approx(3.0, abs=0.3)
    assert mask.shape == (8, HEIGHT, WIDTH)


def test_outputs_belong_together(host, upright):
    splat, cameras = upright
    images, mask, depth, picture = render(host, splat, cameras, background="#ff8000")
    assert images.shape == picture.shape == (8, HEIGHT, WIDTH, 3)
    assert depth.shape == (8, 1, HEIGHT, WIDTH)
    for tensor in (images, mask, depth, picture):
        assert tensor.dtype == torch.float32
        assert tensor.device.type == "cpu"
        assert float(tensor.min()) >= 0.0
    assert float(torch.stack([images.max(), mask.max(), picture.max()]).max()) <= 1.0
    empty = mask == 0
    orange = torch.tensor([1.0, 128 / 255, 0.0])
    assert_same_up_to(images[empty], orange.expand(int(empty.sum()), 3), 1e-6)
    assert not depth[:, 0][empty].any()
    assert not picture[empty].any()
    solid = mask > 0.99
    nearer, farther = (depth[:, 0][solid].quantile(part) for part in (0.1, 0.9))
    levels = picture[..., 0]
    assert float(levels[solid & (depth[:, 0] < nearer)].mean()) > 0.8
    assert float(levels[solid & (depth[:, 0] > farther)].mean()) < 0.5


def test_a_batch_of_splats_is_time(host, gx, to_splat):
    """Moments of different sizes, one for each camera."""
    path = gx.static(3)
    scenes = [blobs(gx, each=count) for count in (20, 40, 30)]
    moving = render(host, to_splat(scenes), path, width=48)
    for view, scene in enumerate(scenes):
        alone = render(host, to_splat(scene), path[view], width=48)
        for together, single in zip(moving[:3], alone[:3], strict=True):
            assert torch.equal(together[view], single[0])


def test_size_follows_from_the_cameras(host, gx, upright):
    splat, cameras = upright
    assert render(host, splat, cameras[0], width=0, height=80)[0].shape == (1, 80, 120, 3)
    assert render(host, splat, cameras[0], width=99, height=66)[0].shape == (1, 66, 99, 3)


def test_what_cannot_be_drawn_is_refused(host, gx, to_splat, upright):
    splat, cameras = upright

    def told(**changes: Any) -> str:
        inputs = {"splat": splat, "cameras": cameras, "width": WIDTH, "height": 0}
        return refusal(host, "GenXD_RenderSplat", **(inputs | {"background": "#fff000"} | changes))

    assert "splat has a batch of 2, but the path has 8 cameras; give one splat for all" in told(
        splat=to_splat([blobs(gx, 5), blobs(gx, 6)])
    )
    assert (
        "GenXD Render Splat: cameras: camera 0 is for pictures of width / height 1.500, but this "
        "one's is 1.000" in told(height=WIDTH)
    )
    assert "GenXD Render Splat: width is 0 and height is 0; give at least one" in told(width=0)
    assert 'background is "white"; expected a colour as #' in told(background="white")
    assert "GenXD Render Splat: splat is a Gaussians; expected a splat" in told(splat=blobs(gx, 5))
    broken = to_splat(blobs(gx, 5))
    broken.positions[0, 7, 1] = torch.nan
    assert "GenXD Render Splat: splat: item 0 of the batch cannot be drawn: means of" in told(
        splat=broken
    )


def test_every_frame_is_shown_and_an_interrupt_stops_before_the_next(host, upright, monkeypatch):
    from comfy import utils

    splat, cameras = upright
    shown: list[Any] = []
    hook = utils.PROGRESS_BAR_HOOK

    def watch(value: int, total: int, preview: Any, node_id: str | None = None) -> None:
        if preview is not None:
            shown.append((value, total, preview))
        hook(value, total, preview, node_id=node_id)

    monkeypatch.setattr(utils, "PROGRESS_BAR_HOOK", watch)
    render(host, splat, cameras, width=60)
    assert [entry[:2] for entry in shown] == [(number, 8) for number in range(1, 9)]
    kind, picture, _ = shown[0][2]
    assert kind == "JPEG"
    assert isinstance(picture, Image.Image)
    assert picture.size == (60, 40)
    shown.clear()
    graph = {
        "splat": host.value(splat),
        "cameras": host.value(cameras),
        "render": {
            "class_type": "GenXD_RenderSplat",
            "inputs": {
                "splat": ["splat", 0],
                "cameras": ["cameras", 0],
                "width": 66,
                "height": 0,
                "background": "#000000",
            },
        },
        "out": host.capture(["render", 0]),
    }

    def stop(name: str, data: dict[str, Any]) -> None:
        if name == "progress" and data["value"] == 3:
            host.interrupt()

    run = host.run(graph, check=False, on_event=stop)
    assert "interrupted at GenXD_RenderSplat" in run.error
    assert [entry[0] for entry in shown] == [1, 2, 3]
    assert not run.captured
