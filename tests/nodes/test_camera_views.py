"""Pictures of camera paths, and cameras to and from ComfyUI's 3D viewers and splat renderer."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.core.cameras.builders import random_rotations
from tests.nodes.splats import centroid
from tests.support import assert_same_up_to, seeded

SIZES = [(256, 192), (192, 256), (256, 256)]


@pytest.fixture(scope="module", autouse=True)
def splat_nodes(host) -> None:
    host.load_extras("nodes_gaussian_splat")


@pytest.fixture(scope="module")
def path(host) -> Any:
    return host.module("genxd_core").orbit(12, elevation_deg=15.0)


def told(host: Any, class_type: str, **inputs: Any) -> str:
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


# ---- the picture --------------------------------------------------------------------------------


def test_preview_is_a_picture_shown_and_put_out(host, path):
    graph = {
        "path": host.value(path),
        "1": {
            "class_type": "GenXD_PreviewCameras",
            "inputs": {"cameras": ["path", 0], "indices": ""},
        },
        "2": host.capture(["1", 0]),
    }
    run = host.run(graph)
    picture = run.captured["out"]
    assert picture.shape == (1, 512, 1024, 3)
    assert 0.0 <= float(picture.min()) < float(picture.max()) <= 1.0
    (shown,) = run.ui["1"]["images"]
    assert (host.base / "temp" / shown["filename"]).is_file()


def test_preview_marks_the_conditioned_views(host, path):
    plain, marked, negative, all_of = (
        host.run_node("GenXD_PreviewCameras", cameras=path, indices=indices)[0]
        for indices in ("", "0, 11", "0 -1", ",".join(map(str, range(12))))
    )
    assert torch.equal(marked, negative)
    changed = float((plain != marked).float().mean())
    assert 1e-3 < changed < 0.2
    assert float((plain != all_of).float().mean()) > changed


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ("0, x", 'indices is "0, x", and "x" is not a whole number'),
        ("3 3", 'indices "3 3" name a view twice'),
        (",", "has no number in it"),
        ("12", "GenXD Preview Cameras: indices is 12, but the path has 12 cameras; give 0 to 11"),
    ],
)
def test_preview_refuses_marks_that_no_view_has(host, path, indices, message):
    assert message in told(host, "GenXD_PreviewCameras", cameras=path, indices=indices)


# ---- LOAD3D_CAMERA ------------------------------------------------------------------------------


def splat_at(point: Tensor) -> Any:
    """One small round opaque white splat, as ComfyUI's type has it."""
    from comfy_api.latest import Types

    return Types.SPLAT(
        point.reshape(1, 1, 3).float(),
        torch.full((1, 1, 3), 0.02),
        torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]),
        torch.ones(1, 1, 1),
        torch.full((1, 1, 1, 3), 0.5 / 0.28209479),
    )


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_render_of_a_splat_lies_where_the_camera_projects_it(host, width, height):
    """ComfyUI's renderer samples at whole pixels: its index is our position, half a pixel off."""
    gx = host.module("genxd_core")
    generator = seeded(8)
    rotations = random_rotations(4, seed=6).float()
    for number in range(4):
        c2w = torch.eye(4)
        c2w[:3, :3] = rotations[number]
        c2w[:3, 3] = torch.randn(3, generator=generator)
        local = torch.tensor([0.4, -0.3, 2.5]) * (1 - 2 * torch.rand(3, generator=generator))
        local[2] = 2.5
        focal_px = 200.0
        K = torch.tensor([[focal_px / width, 0, 0.5], [0, focal_px / height, 0.5], [0, 0, 1.0]])
        cameras = gx.Cameras(c2w[None], K[None])
        (info,) = host.run_node(
            "GenXD_CamerasToLoad3D",
            cameras=cameras,
            view=0,
            width=width,
            height=height,
            target_distance=2.0,
        )
        _, mask = host.run_node(
            "RenderSplat",
            splat=splat_at(c2w[:3, :3] @ local + c2w[:3, 3]),
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
        expected = focal_px * local[:2] / local[2] + torch.tensor([width / 2, height / 2])
        assert float(mask.sum()) > 1
        assert_same_up_to(centroid(mask[0]), expected, 0.05)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_camera_comes_back_from_load3d(host, path, width, height):
    gx = host.module("genxd_core")
    path = gx.orbit(12, elevation_deg=15.0, aspect=width / height)
    for view in (0, 5, -1):
        (info,) = host.run_node(
            "GenXD_CamerasToLoad3D",
            cameras=path,
            view=view,
            width=width,
            height=height,
            target_distance=2.0,
        )
        # All it holds is plain JSON, as a viewer's is.
        import json

        info = json.loads(json.dumps(info))
        (back,) = host.run_node(
            "GenXD_CamerasFromLoad3D",
            camera_info=info,
            num_views=3,
            width=width,
            height=height,
        )
        assert_same_up_to(back.c2w, path.c2w[view].expand(3, 4, 4), 1e-5)
        assert_same_up_to(back.Ks_norm, path.Ks_norm[view].expand(3, 3, 3), 1e-5)
        assert_same_up_to(back.times, torch.tensor([0.0, 0.5, 1.0]), 1e-6)


def test_target_is_in_front_at_its_distance(host, path):
    (info,) = host.run_node(
        "GenXD_CamerasToLoad3D", cameras=path, view=0, width=256, height=256, target_distance=2.0
    )
    position, target = (
        torch.tensor([info[name][axis] for axis in "xyz"]) for name in ("position", "target")
    )
    # The orbit's middle is the origin, 2 away, whatever the axes are called.
    assert float((position - target).norm()) == pytest.approx(2.0, rel=1e-5)
    assert float(target.norm()) < 1e-5
    assert info["fov"] == pytest.approx(2 * math.degrees(math.atan(0.5 / 1.0938)), rel=1e-5)


def test_two_viewer_cameras_make_an_arc_around_what_they_look_at(host):
    def info(x: float, z: float) -> dict[str, Any]:
        return {
            "position": {"x": x, "y": 0.0, "z": z},
            "target": {"x": 0.0, "y": 0.0, "z": 0.0},
            "fov": 40.0,
            "cameraType": "perspective",
        }

    (cameras,) = host.run_node(
        "GenXD_CamerasFromLoad3D",
        camera_info=info(0.0, 3.0),
        last_camera_info=info(3.0, 0.0),
        num_views=5,
        width=256,
        height=256,
    )
    assert len(cameras) == 5
    assert_same_up_to(cameras.centres.norm(dim=-1), torch.full((5,), 3.0), 1e-4)
    # three.js' +X is the splat world's +X, its +Z the splat world's -Z.
    assert_same_up_to(cameras.centres[0], torch.tensor([0.0, 0.0, -3.0]), 1e-5)
    assert_same_up_to(cameras.centres[-1], torch.tensor([3.0, 0.0, 0.0]), 1e-5)
    looking = -cameras.centres / 3.0
    assert_same_up_to(cameras.c2w[:, :3, 2], looking, 1e-4)


GOOD = {
    "position": {"x": 0.0, "y": 0.0, "z": 3.0},
    "target": {"x": 0.0, "y": 0.0, "z": 0.0},
    "fov": 40.0,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameraType": "orthographic"}, "camera_info: an orthographic camera came"),
        ({"fov": 200.0}, "camera_info: its fov is 200.0 degrees"),
        ({"fov": float("nan")}, "camera_info: its fov is nan degrees"),
        ({"fov": "wide"}, "camera_info cannot be read"),
        ({"position": [0, 0, 3]}, "camera_info cannot be read"),
        ({"position": {"x": float("nan")}}, "camera_info: c2w of camera 0 holds NaN"),
        ({"target": {"x": 0.0, "y": 0.0, "z": 3.0}}, "camera_info: it has no quaternion and its"),
        ({"quaternion": {"x": 0, "y": 0, "z": 0, "w": 0}}, "camera_info"),
        ({"zoom": -1.0}, "camera_info: Ks_norm of camera 0"),
    ],
)
def test_viewer_cameras_that_make_no_sense_are_refused(host, change, message):
    options = {"num_views": 3, "width": 256, "height": 256}
    error = told(host, "GenXD_CamerasFromLoad3D", camera_info=GOOD | change, **options)
    assert "GenXD Cameras From Load3D: camera_info" in error
    assert message in error
    error = told(
        host,
        "GenXD_CamerasFromLoad3D",
        camera_info=GOOD,
        last_camera_info=GOOD | change,
        **options,
    )
    assert f"last_{message}" in error


def test_camera_info_of_another_kind_is_refused(host):
    error = told(
        host, "GenXD_CamerasFromLoad3D", camera_info="front", num_views=3, width=64, height=64
    )
    assert "camera_info is a str; expected the camera_info of a 3D viewer" in error


@pytest.mark.parametrize("view", [12, -13])
def test_view_that_the_path_has_not_is_refused(host, path, view):
    options = {"width": 256, "height": 256, "target_distance": 2.0}
    error = told(host, "GenXD_CamerasToLoad3D", cameras=path, view=view, **options)
    assert f"view is {view}, but the path has 12 cameras; give 0 to 11, or -1 to -12" in error
