"""Moving splats in ComfyUI: fitted, frozen, as a batch, drawn over time, saved and read again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.nodes.splats import refusal

NODE = "GenXD_LiftTo4DGS"
SIZE, TIMES, VIEWS = 40, 12, 6
QUICK: dict[str, Any] = {
    "recipe": "test",
    "plain_background": False,
    "background": "#ffffff",
    "hold_out_every": 8,
    "up": "+Z",
    "iterations": 20,
    "num_gaussians": 300,
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
def scene(host) -> dict[str, Any]:
    """Two balls that bob before white, from six sides at twelve times."""
    views = host.module("genxd_core.synthetic").make_moving_object_views(
        3, size=SIZE, num_times=TIMES, num_views=VIEWS
    )
    images = views.images.movedim(1, -1).contiguous()
    return {"images": images, "cameras": views.cameras, "mask": views.masks[:, 0].contiguous()}


def lift(host: Any, scene: dict[str, Any], **changes: Any) -> tuple[Any, Any, Tensor, dict]:
    moving, cameras, compared, report = host.run_node(NODE, **(QUICK | scene | changes))
    return moving, cameras, compared, json.loads(report)


@pytest.fixture(scope="module")
def lifted(host, scene) -> tuple[Any, Any, Tensor, dict]:
    """A fit that is long enough to move."""
    return lift(host, scene, iterations=300, num_gaussians=0)


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


def render(host: Any, splat: Any, cameras: Any) -> Tensor:
    options = {"width": SIZE, "height": 0, "background": "#ffffff"}
    return host.run_node("GenXD_RenderSplat", splat=splat, cameras=cameras, **options)[0]


def test_every_picture_is_seen_again_at_its_time(host, scene, lifted):
    moving, cameras, compared, report = lifted
    drawn = render(host, moving, cameras)
    assert psnr(drawn, scene["images"]) > 19
    assert report["held_out"] == list(range(4, 72, 8))
    assert compared.shape == (8, SIZE, 3 * SIZE, 3)
    # The pictures of the first moment would be drawn for the last one otherwise.
    frozen = host.run_node("GenXD_SplatAtTime", splat4d=moving, time=0.0)[0]
    late = slice(3 * VIEWS, 4 * VIEWS)
    still = render(host, frozen, cameras[late])
    assert psnr(drawn[late], scene["images"][late]) > psnr(still, scene["images"][late]) + 3


def test_a_batch_has_every_moment_and_comfyui_takes_it(host, scene, lifted):
    moving, cameras, _, _ = lifted
    (batch,) = host.run_node("GenXD_Splat4DToBatch", splat4d=moving, num_frames=5)
    assert batch.positions.shape[0] == 5
    for place, time in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        (frozen,) = host.run_node("GenXD_SplatAtTime", splat4d=moving, time=time)
        assert torch.equal(batch.positions[place], frozen.positions[0])
    gx = host.module("genxd_core")
    path = cameras[torch.zeros(5, dtype=torch.long)]
    timed = gx.Cameras(path.c2w, path.Ks_norm, torch.linspace(0, 1, 5))
    assert torch.allclose(render(host, batch, path), render(host, moving, timed), atol=1e-5)
    (file,) = host.run_node("SplatToFile3D", splat=batch, format="ply")
    assert file is not None


def test_up_turns_motion_and_cameras_together(host, scene):
    moving, cameras, _, _ = lift(host, scene)
    kept, given, _, _ = lift(host, scene, up="keep")
    assert not torch.equal(moving.at(0.5).means, kept.at(0.5).means)
    assert torch.equal(cameras.times, given.times)
    assert torch.allclose(render(host, moving, cameras), render(host, kept, given), atol=5e-3)


def test_static_views_are_fitted_first(host, scene):
    first = slice(0, VIEWS)
    moving, _, _, report = lift(
        host,
        scene,
        static_images=scene["images"][first],
        static_cameras=scene["cameras"][first],
        static_mask=scene["mask"][first],
    )
    assert report["iterations"] == 80
    assert len(moving) == 300


def test_a_fit_goes_on_in_the_world_that_the_splat_was_turned_to(host, scene, lifted, folders):
    """With the cameras that came with it, from this graph or from a file."""
    moving, cameras, _, first = lifted
    more = {"cameras": cameras, "splat4d": moving, "up": "keep", "num_gaussians": 0}
    again, given, _, report = lift(host, scene, **more)
    assert torch.equal(given.c2w, cameras.c2w)
    assert torch.equal(again.rotation, moving.rotation)
    assert (report["started_from"], report["iterations"]) == ("resume", 20)
    # Twenty steps at first rates cost a dB; in a world turned twice nothing would be in its place.
    assert report["held_out_psnr"] > first["held_out_psnr"] - 1.5
    assert psnr(render(host, again, cameras), scene["images"]) > 19
    host.run_node("GenXD_Save4D", splat4d=moving, filename_prefix="a", num_frames=0, fps=8.0)
    (loaded,) = host.run_node("GenXD_Load4D", file="a_00001.safetensors [output]")
    from_file, _, _, _ = lift(host, scene, **(more | {"splat4d": loaded}))
    assert torch.allclose(from_file.at(0.5).means, again.at(0.5).means, atol=1e-5)


def test_what_a_fit_cannot_go_on_from_is_refused(host, gx, scene, lifted):
    moving, cameras, _, _ = lifted
    given = QUICK | scene | {"cameras": cameras, "splat4d": moving}
    assert 'up is "+Z", but splat4d is turned upright already' in refusal(host, NODE, **given)
    still = {"static_images": scene["images"], "static_cameras": cameras, "up": "keep"}
    assert "static_images and splat4d are connected" in refusal(host, NODE, **(given | still))
    bases = host.module("genxd_core.lifting.motion_bases").MotionBases
    other = gx.Gaussians4D(moving.canonical, bases.__new__(bases))
    told = refusal(host, NODE, **(given | {"splat4d": other, "up": "keep"}))
    assert "splat4d has motion bases" in told


def test_frames_without_times_are_one_video(host, gx, scene):
    """One camera's frames, in order."""
    index = torch.arange(TIMES) * VIEWS + 1
    cameras = scene["cameras"][index]
    video = {
        "images": scene["images"][index],
        "mask": scene["mask"][index],
        "static_images": scene["images"][:VIEWS],
        "static_cameras": scene["cameras"][:VIEWS],
        "static_mask": scene["mask"][:VIEWS],
        "hold_out_every": 0,
    }
    untimed = gx.Cameras(cameras.c2w, cameras.Ks_norm)
    one, seen, _, _ = lift(host, video | {"cameras": untimed})
    other, _, _, _ = lift(host, video | {"cameras": cameras})
    assert torch.allclose(seen.times, torch.linspace(0, 1, TIMES))
    assert torch.equal(one.at(0.3).means, other.at(0.3).means)


def test_bases_move_what_the_masks_outline(host, scene):
    given = {
        "recipe": "test",
        "nothing_at_rest": True,
        "background": "#ffffff",
        "hold_out_every": 8,
        "up": "+Z",
        "seed": 1,
        "when_interrupted": "stop",
    }
    moving, cameras, compared, report = host.run_node("GenXD_LiftToMotionBases", **scene, **given)
    assert moving.motion.kind == "motion_bases"
    assert json.loads(report)["started_from"] == "masks"
    assert compared.shape == (8, SIZE, 3 * SIZE, 3)
    (frozen,) = host.run_node("GenXD_SplatAtTime", splat4d=moving, time=0.0)
    assert frozen.positions.shape[1] == len(moving)
    still = psnr(render(host, frozen, cameras), scene["images"])
    assert psnr(render(host, moving, cameras), scene["images"]) > still + 1


def test_tracks_of_other_pictures_and_what_is_no_tracks_are_refused(host, scene):
    few = {"track_path": torch.zeros(3, 5, 2), "track_visibility": torch.ones(3, 5)}
    given = {
        **{"recipe": "test", "nothing_at_rest": True, "background": "#ffffff"},
        **{"hold_out_every": 8, "up": "+Z", "seed": 1, "when_interrupted": "stop"},
    }
    node = "GenXD_LiftToMotionBases"
    assert "tracks are of 3 pictures" in refusal(host, node, **scene, **given, tracks=few)
    assert "tracks holds no track_path" in refusal(host, node, **scene, **given, tracks={"a": 1})


@pytest.fixture
def folders(host, tmp_path, monkeypatch) -> Path:
    """Input and output folders of this test alone."""
    import folder_paths

    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


def test_saved_scenes_come_back(host, lifted, folders):
    moving, cameras, _, _ = lifted
    saved = {"splat4d": moving, "filename_prefix": "genxd/scene", "num_frames": 3, "fps": 8.0}
    (file,) = host.run_node("GenXD_Save4D", cameras=cameras, **saved)
    (second,) = host.run_node("GenXD_Save4D", **(saved | {"num_frames": 0}))
    assert (file, second) == ("genxd/scene_00001.safetensors", "genxd/scene_00002.safetensors")
    sequence = folders / "output" / "genxd" / "scene_00001"
    assert len(list(sequence.glob("*.ply"))) == 3
    assert json.loads((sequence / "manifest.json").read_text())["fps"] == 8
    shutil.copy(folders / "output" / file, folders / "input" / "mine.safetensors")
    for name in ("mine.safetensors", f"{file} [output]"):
        (again,) = host.run_node("GenXD_Load4D", file=name)
        assert torch.allclose(again.at(0.7).means, moving.at(0.7).means, atol=1e-6)


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "count": (NODE, {"cameras": 5}, "72 pictures for 5 cameras"),
    "static alone": (NODE, {"static_images": 6}, "static_images came without static_cameras"),
    "static mask alone": (NODE, {"static_mask": 6}, "static_mask is connected without"),
    "one time": (NODE, {"images": 6, "cameras": 6, "mask": 6, "hold_out_every": 0}, "the time 0;"),
    "lpips": (NODE, {"recipe": "object_4d"}, "perceptual is missing"),
    "name": (
        "GenXD_Save4D",
        {"filename_prefix": "../out", "num_frames": 0, "fps": 8.0},
        "expected a name inside the output folder",
    ),
    "one frame": (
        "GenXD_Save4D",
        {"filename_prefix": "a", "num_frames": 1, "fps": 8.0},
        "num_frames is 1",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(host, scene, lifted, folders, name):
    node, changes, message = MISTAKES[name]
    source = {
        "static_images": scene["images"],
        "static_mask": scene["mask"],
        **scene,
    }
    changes = {
        key: source[key][:value] if key in source and isinstance(value, int) else value
        for key, value in changes.items()
    }
    given = QUICK | scene if node == NODE else {"splat4d": lifted[0]}
    assert message in refusal(host, node, **(given | changes))
    assert not list((folders / "output").iterdir())
