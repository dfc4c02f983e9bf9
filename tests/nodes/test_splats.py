"""Gaussians as ComfyUI's SPLAT and back; files, viewers and meshes of ComfyUI's own nodes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.nodes.splats import blobs
from tests.support import assert_same_up_to, seeded


@pytest.fixture(scope="module", autouse=True)
def splat_nodes(host) -> None:
    host.load_extras("nodes_gaussian_splat", "nodes_save_3d", "nodes_load_3d")


@pytest.fixture(scope="module")
def gx(host) -> Any:
    return host.module("genxd_core")


@pytest.fixture(scope="module")
def splats(host) -> Any:
    return host.module("nodes._splats")


def scene(gx: Any, count: int, *, degree: int = 0, seed: int = 0) -> Any:
    generator = seeded(seed)
    return gx.Gaussians(
        means=torch.randn(count, 3, generator=generator),
        quats=torch.randn(count, 4, generator=generator),
        scales=0.01 + 0.2 * torch.rand(count, 3, generator=generator),
        opacities=torch.rand(count, generator=generator),
        sh=torch.randn(count, (degree + 1) ** 2, 3, generator=generator),
    )


def assert_same_gaussians(actual: Any, expected: Any, tolerance: float = 1e-6) -> None:
    assert len(actual) == len(expected)
    assert actual.degree == expected.degree
    for name in ("means", "scales", "opacities", "sh", "quats"):
        assert_same_up_to(getattr(actual, name), getattr(expected, name), tolerance)


# ---- the conversion -----------------------------------------------------------------------------


def test_splat_has_comfyuis_layout(gx, splats):
    gaussians = scene(gx, 5, degree=1).to(dtype=torch.float64)
    splat = splats.gaussians_to_splat(gaussians)
    shapes = {name: tuple(tensor.shape) for name, tensor in vars(splat).items() if name != "counts"}
    assert shapes == {
        "positions": (1, 5, 3),
        "scales": (1, 5, 3),
        "rotations": (1, 5, 4),
        "opacities": (1, 5, 1),
        "sh": (1, 5, 4, 3),
    }
    assert splat.counts is None
    assert splat.positions.dtype == splat.sh.dtype == torch.float32
    assert_same_up_to(splat.opacities[0, :, 0], gaussians.opacities.float(), 1e-7)
    assert_same_up_to(splat.rotations[0], gaussians.quats.float(), 1e-7)
    (back,) = splats.splat_to_gaussians(splat)
    assert_same_gaussians(back, gaussians.to(dtype=torch.float32))


def test_a_batch_is_padded_and_its_counts_are_honoured(gx, splats):
    scenes = [scene(gx, 3, degree=1), scene(gx, 7, degree=0), scene(gx, 1, degree=2)]
    splat = splats.gaussians_to_splat(scenes)
    assert splat.counts.tolist() == [3, 7, 1]
    assert splat.sh.shape == (3, 7, 9, 3)
    assert not splat.positions[0, 3:].any()
    back = splats.splat_to_gaussians(splat)
    for found, given in zip(back, scenes, strict=True):
        assert_same_gaussians(found, given.with_degree(2))


def test_rotations_of_any_length_are_taken(gx, splats):
    gaussians = scene(gx, 4)
    splat = splats.gaussians_to_splat(gaussians)
    splat.rotations = splat.rotations * torch.tensor([0.1, 1.0, 3.0, 20.0])[None, :, None]
    (back,) = splats.splat_to_gaussians(splat)
    assert_same_up_to(back.quats, gaussians.quats, 1e-6)


def test_nothing_is_no_splat(gx, splats):
    for scenes in ([], [scene(gx, 2), scene(gx, 2)[:0]]):
        with pytest.raises(ValueError, match="a splat needs at least one in each"):
            splats.gaussians_to_splat(scenes)


def broken(splat: Any, **changes: Any) -> Any:
    return SimpleNamespace(**(vars(splat) | changes))


def test_splats_that_cannot_be_drawn_are_refused_by_what_is_wrong(gx, splats):
    splat = splats.gaussians_to_splat([scene(gx, 2), scene(gx, 3)])
    nan = splat.positions.clone()
    nan[1, 2, 0] = torch.nan
    cases = {
        "item 1 of the batch cannot be drawn: means of Gaussian 2 holds NaN": {"positions": nan},
        r"scales of Gaussian 0 is negative": {"scales": -splat.scales},
        r"opacities of Gaussian 0 lies outside \[0, 1\]": {"opacities": 3 + splat.opacities},
        r"quats of Gaussian 0 is zero": {"rotations": 0 * splat.rotations},
        "sh has 2 coefficients": {"sh": splat.sh.repeat(1, 1, 2, 1)},
        r"its sh have shape \(2, 3, 3\); expected \(B, N, K, 3\)": {"sh": splat.sh[:, :, 0]},
        r"its opacities have shape \(2, 3\)": {"opacities": splat.opacities[..., 0]},
        r"its scales have shape \(2, 2, 3\)": {"scales": splat.scales[:, :2]},
        r"its positions have shape None": {"positions": None},
        r"batch has 2 items of 3 Gaussians, but its counts are \[2, 4\]": {"counts": [2, 4]},
        "item 0 of its batch of 2 has no Gaussians": {"counts": torch.tensor([0, 3])},
        r"batch has 0 items": {
            name: value[:0] for name, value in vars(splat).items() if name != "counts"
        },
    }
    for message, changes in cases.items():
        with pytest.raises(ValueError, match=message) as error:
            splats.splat_to_gaussians(broken(splat, **changes))
        assert str(error.value).startswith("splat: ")


# ---- ComfyUI's own nodes ------------------------------------------------------------------------


@pytest.mark.parametrize("degree", range(4))
def test_ply_files_of_comfyui_and_ours_are_the_same(host, gx, splats, tmp_path, degree):
    """There and back through its writer and its reader, and either file in the other's reader."""
    from comfy_api.latest import Types

    gaussians = scene(gx, 20, degree=degree, seed=degree)
    splat = splats.gaussians_to_splat(gaussians)
    (file,) = host.run_node("SplatToFile3D", splat=splat, format="ply")
    (again,) = host.run_node("File3DToSplat", model_3d=file)
    assert_same_gaussians(splats.splat_to_gaussians(again)[0], gaussians, 2e-6)
    theirs = file.save_to(str(tmp_path / "theirs.ply"))
    assert_same_gaussians(gx.load_ply(theirs), gaussians, 2e-6)
    ours = gx.save_ply(gaussians, tmp_path / "ours.ply")
    (read,) = host.run_node("File3DToSplat", model_3d=Types.File3D(str(ours)))
    assert_same_gaussians(splats.splat_to_gaussians(read)[0], gaussians, 2e-6)


def test_splat_is_saved_and_shown_by_comfyui(host, gx, splats):
    gaussians = scene(gx, 12, degree=1)
    graph = {
        "splat": host.value(splats.gaussians_to_splat(gaussians)),
        "file": {
            "class_type": "SplatToFile3D",
            "inputs": {"splat": ["splat", 0], "format": "ply"},
        },
        "save": {
            "class_type": "SaveGaussianSplat",
            "inputs": {
                "model_3d": ["file", 0],
                "filename_prefix": "3d/genxd_test",
                "viewport_state": {},
                "width": 256,
                "height": 256,
            },
        },
        "show": {
            "class_type": "PreviewGaussianSplat",
            "inputs": {
                "model_3d": ["file", 0],
                "viewport_state": {},
                "width": 256,
                "height": 256,
            },
        },
    }
    run = host.run(graph)
    (saved,) = (host.base / "output" / "3d").glob("genxd_test*.ply")
    assert_same_gaussians(gx.load_ply(saved), gaussians, 2e-6)
    assert saved.name in str(run.ui["save"])
    (shown,) = [path for path in (host.base / "temp").glob("*.ply") if path.name in str(run.ui)]
    assert_same_gaussians(gx.load_ply(Path(shown)), gaussians, 2e-6)


def test_mesh_of_an_upright_scene_stands_upright(host, gx, splats):
    """ComfyUI's mesh has +Y up and +Z towards the viewer: red left, green on top, blue behind."""
    turned, _ = gx.turn_upright(blobs(gx), gx.orbit(8), up="+Z")
    (mesh,) = host.run_node(
        "SplatToMesh",
        splat=splats.gaussians_to_splat(turned),
        resolution=64,
        kernel=5,
        smooth=0,
        level=0.4,
        min_component=0,
        min_opacity=0.02,
        color_sharpen=2.0,
    )
    vertices, colours = mesh.vertices[0], mesh.vertex_colors[0]
    middles = {}
    for channel, name in enumerate(("red", "green", "blue")):
        others = colours.sum(1) - colours[:, channel]
        middles[name] = vertices[(colours[:, channel] > 0.3) & (others < 0.3)].mean(0)
    assert_same_up_to(middles["red"], torch.tensor([-0.7, 0.0, 0.0]), 0.03)
    assert_same_up_to(middles["green"], torch.tensor([0.0, 0.7, 0.0]), 0.03)
    assert_same_up_to(middles["blue"], torch.tensor([0.8, -0.4, -1.2]), 0.03)
    assert int(colours[vertices[:, 1].argmax()].argmax()) == 1
