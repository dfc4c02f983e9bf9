"""GenXD Lift To 3DGS: what it makes of views, how it is watched and stopped, what it refuses."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.nodes.splats import blobs, centroid, refusal, render_with_comfyui
from tests.support import assert_same_up_to

NODE = "GenXD_LiftTo3DGS"
VIEWS, SIZE = 16, 64
QUICK: dict[str, Any] = {
    "recipe": "test",
    "start": "auto",
    "plain_background": False,
    "background": "#ffffff",
    "hold_out_every": 8,
    "up": "+Z",
    "iterations": 30,
    "num_gaussians": 600,
    "lpips_weight": -1.0,
    "seed": 5,
    "when_interrupted": "stop",
}


@pytest.fixture(scope="module", autouse=True)
def splat_nodes(host) -> None:
    host.load_extras("nodes_gaussian_splat")


@pytest.fixture(scope="module")
def gx(host) -> Any:
    return host.module("genxd_core")


@pytest.fixture(scope="module")
def scene(gx) -> dict[str, Any]:
    """Four balls over grey, seen all around: pictures, masks, cameras, with +Z up."""
    cameras = gx.orbit(VIEWS, elevation_deg=15.0, radius=3.0)
    grey = (0.5, 0.5, 0.5)
    drawn = gx.render_views(blobs(gx), cameras, width=SIZE, height=SIZE, background=grey)
    images = drawn.rgb.clamp(0, 1).movedim(1, -1).contiguous()
    mask = drawn.alpha[:, 0].clamp(0, 1)
    return {"images": images, "cameras": cameras, "mask": mask, "background": "#808080"}


def lift(host: Any, scene: dict[str, Any], **changes: Any) -> tuple[Any, Any, Tensor, dict]:
    splat, cameras, compared, report = host.run_node(NODE, **(QUICK | scene | changes))
    return splat, cameras, compared, json.loads(report)


@pytest.fixture(scope="module")
def lifted(host, scene) -> tuple[Any, Any, Tensor, dict]:
    """The result of a fit with masks that is long enough to be good."""
    return lift(host, scene, iterations=200)


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


def render(host: Any, splat: Any, cameras: Any, scene: dict[str, Any]) -> Tensor:
    options = {"width": SIZE, "height": 0, "background": scene["background"]}
    return host.run_node("GenXD_RenderSplat", splat=splat, cameras=cameras, **options)[0]


def without(scene: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in scene.items() if name not in names}


def test_the_splat_drawn_through_its_cameras_is_the_given_pictures(host, scene, lifted):
    splat, cameras, _, report = lifted
    assert len(cameras) == VIEWS
    drawn = render(host, splat, cameras, scene)
    assert psnr(drawn, scene["images"]) > 35
    quality = [psnr(one, other) for one, other in zip(drawn, scene["images"], strict=True)]
    held_out = report["held_out"]
    assert held_out == [4, 12]
    assert sum(quality[view] for view in held_out) / 2 == pytest.approx(
        report["held_out_psnr"], abs=0.1
    )


def test_report_tells_how_it_went(lifted):
    splat, _, _, report = lifted
    expected = {
        "recipe": "test",
        "views": VIEWS,
        "iterations": 200,
        "num_gaussians": splat.positions.shape[1],
        "started_from": "masks",
        "cancelled": False,
    }
    assert {name: report[name] for name in expected} == expected
    history = report["history"]
    assert history[-1]["psnr"] > history[0]["psnr"] + 10
    assert [step["iteration"] for step in history] == list(range(1, 200, 2))


def test_comparisons_are_truth_rendering_and_difference(host, scene, lifted):
    splat, cameras, compared, report = lifted
    assert compared.shape == (2, SIZE, 3 * SIZE, 3)
    truth, drawn, difference = compared.split(SIZE, dim=2)
    assert_same_up_to(truth, scene["images"][report["held_out"]], 1e-6)
    whole = render(host, splat, cameras, scene)[report["held_out"]]
    assert_same_up_to(drawn, whole, 2e-3)  # one was turned
    assert_same_up_to(difference, (3 * (drawn - truth).abs()).clamp(0, 1), 1e-5)


def test_comfyui_sees_the_splat_upright_and_saves_it(host, scene, lifted):
    """The red ball is on the left of the first picture, the green one on top."""
    splat, cameras, _, _ = lifted
    picture, _ = render_with_comfyui(host, splat, cameras, 0, SIZE, SIZE)
    for channel in range(3):
        ours = (scene["images"][0, ..., channel] - 0.5).clamp(0) * scene["mask"][0]
        theirs = (picture[..., channel] - 0.5).clamp(0)
        assert_same_up_to(centroid(theirs), centroid(ours), 2.0)
    (file,) = host.run_node("SplatToFile3D", splat=splat, format="ply")
    (again,) = host.run_node("File3DToSplat", model_3d=file)
    assert_same_up_to(again.positions, splat.positions, 1e-6)
    assert_same_up_to(again.opacities, splat.opacities, 1e-5)


@pytest.mark.parametrize("up", ["+Z", "-Y", "from cameras", "keep"])
def test_up_turns_splat_and_cameras_together(host, scene, up):
    splat, cameras, _, _ = lift(host, scene, up=up)
    kept, given, _, _ = lift(host, scene, up="keep")
    assert torch.equal(given.c2w, scene["cameras"].c2w)
    turned = up in ("+Z", "from cameras")
    assert torch.equal(kept.positions, splat.positions) is not turned
    # The first camera stands 15 degrees above the middle, in every world but its own.
    height = cameras.centres[:, 1] if turned else -cameras.centres[:, 2]
    assert_same_up_to(height, height.new_full((VIEWS,), -0.776), 1e-3)
    assert_same_up_to(render(host, splat, cameras, scene), render(host, kept, given, scene), 5e-3)


def test_same_seed_gives_the_same_splat(host, scene):
    first, second, other = (lift(host, scene, seed=seed)[0] for seed in (5, 5, 2**64 - 1))
    assert torch.equal(first.positions, second.positions)
    assert torch.equal(first.sh, second.sh)
    assert first.positions.shape != other.positions.shape or not torch.equal(
        first.positions, other.positions
    )


STARTS: dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]] = {
    "frusta": lambda gx, drawn: {},
    "masks": lambda gx, drawn: {"plain_background": True},
    "points": lambda gx, drawn: {"points": gx.PointCloud(blobs(gx, 100).means.float())},
    "depth": lambda gx, drawn: {"depth": drawn.depth},
}


@pytest.mark.parametrize("start", STARTS)
def test_starts_from_what_is_connected(host, gx, scene, start):
    drawn = gx.render_views(blobs(gx), scene["cameras"], width=SIZE, height=SIZE)
    given = without(scene, "mask") | STARTS[start](gx, drawn)
    for choice in ("auto", start):
        report = lift(host, given, start=choice, iterations=45)[3]
        assert report["started_from"] == start
        losses = [step["loss"] for step in report["history"]]
        assert sum(losses[-8:]) < sum(losses[:8])


@pytest.mark.parametrize("weights", [False, True])
def test_recipe_with_a_perceptual_model(host, scene, weights):
    from tests.backbones import save_random_backbone

    perceptual = "gradient"
    if weights:
        folder = host.base / "models" / "genxd" / "perceptual"
        save_random_backbone(folder / "lift_squeeze.safetensors")
        (perceptual,) = host.run_node(
            "GenXD_LoadPerceptualModel", perceptual_model="lift_squeeze.safetensors"
        )
        (folder / "lift_squeeze.safetensors").unlink()
    report = run_with(host, scene, recipe="single_view", iterations=32, perceptual=perceptual)
    assert report["recipe"] == "single_view"
    # Each step is of another view and background: several together tell.
    losses = [step["loss"] for step in report["history"]]
    assert sum(losses[-8:]) < sum(losses[:8])


def graph_of(host: Any, scene: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The node, and behind it GenXD Render Splat."""
    inputs = QUICK | scene | changes
    links = {"images", "cameras", "mask", "perceptual", "points", "depth"}
    graph = {name: host.value(inputs[name]) for name in links & set(inputs)}
    graph["lift"] = {
        "class_type": NODE,
        "inputs": {n: [n, 0] if n in links else value for n, value in inputs.items()},
    }
    render = {"splat": ["lift", 0], "cameras": ["lift", 1], "width": SIZE, "height": 0}
    graph["render"] = {
        "class_type": "GenXD_RenderSplat",
        "inputs": render | {"background": "#000000"},
    }
    graph["out"] = host.capture(["render", 0])
    graph["told"] = host.capture(["lift", 3], "report")
    return graph


def run_with(host: Any, scene: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return json.loads(host.run(graph_of(host, scene, **changes)).captured["report"])


def at_iteration(host: Any, number: int) -> Callable[[str, dict[str, Any]], None]:
    def stop(name: str, data: dict[str, Any]) -> None:
        if name == "progress_text" and data["text"].startswith(f"{number}/"):
            host.interrupt()

    return stop


def test_an_interrupt_stops_within_an_iteration(host, scene):
    graph = graph_of(host, scene, iterations=1000)
    run = host.run(graph, check=False, on_event=at_iteration(host, 30))
    assert f"interrupted at {NODE}" in run.error
    assert max(data["value"] for data in run.told("progress")) < 30
    assert run.told("progress_text")[-1]["text"].startswith("30/1000: ")
    assert not run.captured


def test_what_is_there_is_used_after_an_interrupt(host, scene):
    graph = graph_of(host, scene, iterations=1000, when_interrupted="use what is there")
    run = host.run(graph, on_event=at_iteration(host, 230))
    report = json.loads(run.captured["report"])
    assert report["iterations"] == 230
    assert report["cancelled"] is True
    assert run.captured["out"].shape == (VIEWS, SIZE, SIZE, 3)
    best = max(step["held_out_psnr"] or 0 for step in report["history"])
    assert report["held_out_psnr"] >= best - 0.01


def test_an_interrupt_before_the_fit_leaves_nothing_to_use(host, scene, monkeypatch):
    """While points are looked for."""
    module = host.module("genxd_core.lifting.triangulate")

    def looking(*args: Any, progress: Any, **options: Any) -> None:
        progress(1, 5)
        host.interrupt()
        progress(2, 5)
        raise AssertionError("it goes on")

    monkeypatch.setattr(module, "triangulate_points", looking)
    changes = {"start": "triangulate", "when_interrupted": "use what is there"}
    run = host.run(graph_of(host, scene, **changes), check=False)
    assert f"interrupted at {NODE}" in run.error


def test_previews_and_text_arrive(host, scene, monkeypatch):
    from comfy import utils

    shown: list[Any] = []
    hook = utils.PROGRESS_BAR_HOOK

    def watch(value: int, total: int, preview: Any, node_id: str | None = None) -> None:
        if preview is not None:
            shown.append((value, total, preview))
        hook(value, total, preview, node_id=node_id)

    monkeypatch.setattr(utils, "PROGRESS_BAR_HOOK", watch)
    run = host.run(graph_of(host, scene, iterations=120))
    fits = [entry for entry in shown if entry[1] == 120]
    assert [entry[0] for entry in fits] == list(range(3, 121, 3))
    kind, picture, _ = fits[-1][2]
    assert kind == "JPEG"
    assert isinstance(picture, Image.Image)
    levels = torch.from_numpy(np.array(picture)) / 255
    assert psnr(levels, scene["images"][4]) > 25  # the first of those held out
    texts = [data["text"] for data in run.told("progress_text") if data["node"] == "lift"]
    assert [text.partition("/")[0] for text in texts] == [str(n) for n in range(10, 121, 10)]
    assert "held-out" not in texts[0]
    assert texts[-1].startswith("120/120: PSNR ")
    assert ", held-out " in texts[-1]
    assert texts[-1].endswith(" Gaussians")


def test_ends_of_settings(host, scene):
    """No view held out; a single iteration."""
    report = lift(host, scene, hold_out_every=0, iterations=1)[3]
    assert report["held_out"] == []
    assert "held_out_psnr" not in report
    compared = lift(host, scene, hold_out_every=0, iterations=1)[2]
    assert compared.shape == (8, SIZE, 3 * SIZE, 3)
    assert lift(host, scene, iterations=1, num_gaussians=7000)[0].positions.shape[1] == 7000


def test_models_leave_the_gpu_before_the_fit(host, scene, monkeypatch):
    """Where Gaussians are drawn on one; on the CPU models keep their place."""
    from comfy import model_management

    freed: list[str] = []
    monkeypatch.setattr(model_management, "unload_all_models", lambda: freed.append("models"))
    lift(host, scene, iterations=1)
    assert freed == []
    module = host.module("nodes._fits")
    monkeypatch.setattr(module, "drawing_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(model_management, "soft_empty_cache", lambda: freed.append("cache"))
    assert host.call(module.free_device).type == "cuda"
    assert freed == ["models", "cache"]


def outward(gx: Any, views: int = 4) -> Any:
    """Cameras back to back: none sees what another sees."""
    c2w = gx.orbit(views, elevation_deg=0.0, radius=1.0).c2w.clone()
    c2w[:, :3, [0, 2]] *= -1
    return gx.Cameras(c2w, gx.orbit(views).Ks_norm)


def one_inside(gx: Any, scene: dict[str, Any]) -> dict[str, Any]:
    """The last camera is moved into the white ball, and its picture is full of it."""
    c2w, mask = scene["cameras"].c2w.clone(), scene["mask"].clone()
    c2w[-1, :3, 3] = 0.0
    mask[-1, 1:-1, 1:-1] = 1.0
    return {"cameras": gx.Cameras(c2w, scene["cameras"].Ks_norm), "mask": mask}


MISTAKES: dict[str, tuple[Callable[[Any, dict[str, Any]], dict[str, Any]], str]] = {
    "no overlap": (
        lambda gx, s: {"images": s["images"][:4], "cameras": outward(gx), "mask": None},
        "cameras do not overlap: of",
    ),
    "empty masks": (
        lambda gx, s: {"mask": torch.zeros_like(s["mask"])},
        "masks are all empty, so there is no object to fit; 1 means object. Invert them",
    ),
    "full masks": (
        lambda gx, s: {"mask": torch.ones_like(s["mask"])},
        "masks are all full, so they outline nothing",
    ),
    "one mask": (
        lambda gx, s: {"mask": s["mask"][:1]},
        "mask has 1 picture for 16 images; give one mask for each.",
    ),
    "masks of another size": (
        lambda gx, s: {"mask": s["mask"][:, ::2]},
        "mask is 64 x 32 pixels in 16 pictures, but images are 64 x 64 in 16",
    ),
    "one view": (
        lambda gx, s: {k: s[k][:1] for k in ("images", "mask")} | {"cameras": s["cameras"][0]},
        "1 of 1 views are left to fit; a scene needs at least 2 views from different places",
    ),
    "all held out": (
        lambda gx, s: {"hold_out_every": 1},
        "hold_out_every is 1, which leaves 0 of 16 views to fit; a scene needs at least 2.",
    ),
    "counts": (
        lambda gx, s: {"cameras": s["cameras"][:15]},
        "images has 16 pictures for 15 cameras; give one camera per picture, in the same order",
    ),
    "other pictures' cameras": (
        lambda gx, s: {"cameras": gx.orbit(16, aspect=1.5)},
        "images are 64 x 64 pixels, but camera 0 has intrinsics for pictures of aspect 1.5",
    ),
    "NaN": (
        lambda gx, s: {"images": torch.full_like(s["images"], torch.nan)},
        "images holds values that are not finite",
    ),
    "inside": (
        one_inside,
        "camera 15 stands inside of the object that the masks outline",
    ),
    "no perceptual model": (
        lambda gx, s: {"recipe": "single_view"},
        "perceptual is missing, but the recipe has an LPIPS term of weight 0.2. Give a model",
    ),
    "two outlines": (
        lambda gx, s: {"plain_background": True},
        "mask is connected and plain_background is on; both outline the object.",
    ),
    "no plain background": (
        lambda gx, s: {"plain_background": True, "mask": None, "background": "#ff0000"},
        "picture 0 has next to no border of the colour (1.0, 0.0, 0.0)",
    ),
    "nothing to start from": (
        lambda gx, s: {"start": "points"},
        "start is 'points', but no points came; give them.",
    ),
    "points elsewhere": (
        lambda gx, s: {"points": gx.PointCloud(torch.full((9, 3), 1e6))},
        "points: none of the 9 points is before any camera",
    ),
    "points of another kind": (
        lambda gx, s: {"points": torch.zeros(9, 3)},
        "points is a Tensor; expected points of GenXD Load Capture",
    ),
    "depth of another size": (
        lambda gx, s: {"depth": torch.ones(16, 1, 32, 64)},
        "depth has shape (16, 1, 32, 64); expected (16, 1, 64, 64)",
    ),
    "depth of nothing": (
        lambda gx, s: {"depth": torch.zeros(16, 1, 64, 64)},
        "no value above 0",
    ),
    "undecided up": (
        lambda gx, s: {"cameras": gx.roll(16, angle_deg=300.0), "up": "from cameras"},
        'up is "from cameras", but the 16 cameras contradict each other',
    ),
    "tiny": (
        lambda gx, s: {"images": s["images"][:, :8, :8], "mask": s["mask"][:, :8, :8]},
        "images are 8 x 8 pixels; the smaller side must be at least 11",
    ),
    "colour": (lambda gx, s: {"background": "white"}, 'background is "white"; expected a colour'),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told(host, gx, scene, mistake):
    change, message = MISTAKES[mistake]
    inputs = QUICK | scene | change(gx, scene)
    inputs = {name: value for name, value in inputs.items() if value is not None}
    told = refusal(host, NODE, **inputs)
    assert message in told
    assert mistake == "colour" or "GenXD Lift To 3DGS: " in told
