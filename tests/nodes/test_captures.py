"""Photographs with cameras from ComfyUI's input folder, and the points that they share."""

import importlib.util
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import DATA, assert_same_up_to

ENTRY = "lund/sparse/0/ (COLMAP)"
AS_IT_IS = {"max_side": 64, "scale_to": 0.0, "pictures": "", "undistort": True}
SETTINGS = {"max_points": 0, "seed": 0, "time_limit": 300}
needs_pycolmap = pytest.mark.skipif(
    importlib.util.find_spec("pycolmap") is None, reason="pycolmap is not installed"
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The input folder of this test alone, with Lund in it."""
    import folder_paths

    (tmp_path / "input").mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    shutil.copytree(DATA / "lund", tmp_path / "input" / "lund")
    return tmp_path / "input"


@pytest.fixture(scope="module")
def clip(host) -> Any:
    make_clips = host.module("genxd_core.synthetic").make_clips
    return make_clips([0], "textured_3d", num_frames=12, size=128)


def load(host: Any, file: str = ENTRY, **changes: Any) -> tuple[Any, ...]:
    return host.run_node("GenXD_LoadCapture", file=file, **(AS_IT_IS | changes))


def graph(host: Any, class_type: str, **inputs: Any) -> dict[str, Any]:
    nodes: dict[str, Any] = {"1": {"class_type": class_type, "inputs": {}}}
    for name, value in inputs.items():
        if not isinstance(value, int | float | str):
            nodes[name] = host.value(value)
            value = [name, 0]
        nodes["1"]["inputs"][name] = value
    nodes["2"] = host.capture(["1", 0])
    return nodes


def told(host: Any, class_type: str, **inputs: Any) -> str:
    run = host.run(graph(host, class_type, **inputs), check=False)
    assert not run.captured
    return run.error.partition("\nTraceback")[0]


def test_a_colmap_project_gives_pictures_cameras_points_and_names(host, folder):
    images, cameras, points, names, report, _ = load(host)
    assert images.shape == (15, 48, 64, 3)
    assert len(cameras) == 15
    assert len(points) == 724
    assert names.splitlines()[:2] == ["01.jpg", "02.jpg"]
    assert report.startswith("15 pictures of 64 x 48 pixels, 724 points\n15 cameras")


def test_scaling_moves_cameras_and_points(host, folder):
    _, cameras, points, *_ = load(host)
    _, scaled_cameras, scaled_points, *_ = load(host, scale_to=2.0)
    factor = scaled_cameras.centres.norm() / cameras.centres.norm()
    assert_same_up_to(scaled_points.xyz, points.xyz * factor, 1e-4)
    distances = (scaled_cameras.centres - scaled_cameras.centres[0]).norm(dim=-1)
    assert float(distances.max()) == pytest.approx(2.0, rel=1e-5)


def test_a_capture_without_points_has_none(host, folder):
    (folder / "lund" / "sparse" / "0" / "points3D.bin").unlink()
    assert load(host)[2] is None


def test_pictures_may_lie_in_another_folder_of_the_input_folder(host, folder):
    shutil.move(folder / "lund" / "images", folder / "photos of lund")
    error = told(host, "GenXD_LoadCapture", file=ENTRY, **AS_IT_IS)
    assert "GenXD Load Capture: path" in error
    assert "no folder 'images' beside it" in error
    assert load(host, pictures="photos of lund")[0].shape == (15, 48, 64, 3)


@pytest.mark.parametrize("name", ["../outside", "lund/../../outside", "nul\0l"])
def test_folders_outside_of_the_input_folder_are_refused_before_running(host, folder, name):
    (folder.parent / "outside").mkdir()
    error = told(host, "GenXD_LoadCapture", file=ENTRY, **(AS_IT_IS | {"pictures": name}))
    assert f"pictures is {name!r}; expected a folder inside ComfyUI's input folder" in error
    assert "Custom validation failed" in error


def test_distortion_is_refused_when_it_is_not_undone(host, folder):
    error = told(host, "GenXD_LoadCapture", file=ENTRY, **(AS_IT_IS | {"undistort": False}))
    assert "has lens distortion" in error


def test_a_changed_picture_is_read_again(host, folder):
    node = host.nodes.NODE_CLASS_MAPPINGS["GenXD_LoadCapture"]
    before = host.call(lambda: node.fingerprint_inputs(file=ENTRY, **AS_IT_IS))
    assert host.call(lambda: node.fingerprint_inputs(file=ENTRY, **AS_IT_IS)) == before
    picture = folder / "lund" / "images" / "07.jpg"
    stamp = time.time_ns() + 10**9
    os.utime(picture, ns=(stamp, stamp))
    changed = host.call(lambda: node.fingerprint_inputs(file=ENTRY, **AS_IT_IS))
    assert changed != before
    picture.unlink()
    assert host.call(lambda: node.fingerprint_inputs(file=ENTRY, **AS_IT_IS)) != changed


@needs_pycolmap
def test_masks_lie_in_a_folder_of_their_own(host, folder):
    from PIL import Image

    assert load(host)[5] is None
    for number, name in enumerate(load(host)[3].splitlines()):
        left = Image.new("L", (8, 6))
        left.paste(255, (0, 0, 4, 6))
        (folder / "outlines").mkdir(exist_ok=True)
        left.save(folder / "outlines" / f"{name}.png" if number else folder / "outlines/01.png")
    mask = load(host, masks="outlines")[5]
    assert mask.shape == (15, 48, 64)
    assert (mask[:, :, :20] > 0.9).all()
    assert (mask[:, :, 44:] < 0.1).all()
    (folder / "outlines" / "01.png").unlink()
    error = told(host, "GenXD_LoadCapture", file=ENTRY, **AS_IT_IS, masks="outlines")
    assert "masks: 01.jpg of 15 pictures have no mask of the same name" in error


@pytest.mark.parametrize("name", ["../outside", "a/../../b"])
def test_masks_stay_in_the_input_folder(host, folder, name):
    error = told(host, "GenXD_LoadCapture", file=ENTRY, **AS_IT_IS, masks=name)
    assert f"masks is {name!r}; expected a folder inside ComfyUI's input folder" in error


def test_points_are_found_in_pictures_with_cameras(host, clip):
    images, cameras = clip.images[0].movedim(1, -1), clip.cameras(0)
    points, report = host.run_node(
        "GenXD_TriangulatePoints", images=images, cameras=cameras, **SETTINGS
    )
    assert len(points) > 150
    assert report.startswith(f"{len(points)} points from 12 views")
    few, _ = host.run_node(
        "GenXD_TriangulatePoints",
        images=images,
        cameras=cameras,
        mask=(clip.ids[0] > 0).float(),
        **(SETTINGS | {"max_points": 40}),
    )
    assert len(few) == 40
    # A mask of objects leaves the floor out, which is at height 0.
    assert float(few.xyz[:, 2].median()) > float(points.xyz[:, 2].median()) - 0.05


@needs_pycolmap
def test_interrupting_ends_the_search_soon(host, clip):
    interrupted: list[float] = []

    def on_event(event: str, data: Any) -> None:
        if event == "progress" and not interrupted:
            interrupted.append(time.monotonic())
            host.interrupt()

    images, cameras = clip.images[0].movedim(1, -1), clip.cameras(0)
    nodes = graph(host, "GenXD_TriangulatePoints", images=images, cameras=cameras, **SETTINGS)
    run = host.run(nodes, check=False, on_event=on_event)
    assert "interrupted" in run.error
    assert time.monotonic() - interrupted[0] < 2.0
    assert not run.captured


def test_what_does_not_belong_together_is_told_with_the_nodes_name(host, clip):
    images, cameras = clip.images[0].movedim(1, -1), clip.cameras(0)
    for inputs, expected in [
        ({"images": images[:3], "cameras": cameras}, "3 pictures for 12 cameras"),
        ({"images": images[:1], "cameras": cameras[:1]}, "has one picture"),
        (
            {"images": images, "cameras": cameras, "mask": torch.zeros(1, 64, 64)},
            "masks has shape (1, 1, 64, 64)",
        ),
    ]:
        error = told(host, "GenXD_TriangulatePoints", **inputs, **SETTINGS)
        assert "GenXD Triangulate Points: " in error
        assert expected in error
