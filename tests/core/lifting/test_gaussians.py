import numpy as np
import pytest
import torch

import genxd_core as gx
from genxd_core.cameras.rotations import quat_to_rotation
from genxd_core.errors import InvalidInputError
from genxd_core.lifting.gaussians import multiply_quats
from tests.core.cameras.builders import random_rotations
from tests.core.lifting.splat_scenes import random_scene, scene_camera
from tests.support import assert_same_up_to, seeded

SIZE = {"width": 31, "height": 26}


def parts(count=3):
    return {
        "means": torch.zeros(count, 3),
        "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        "scales": torch.ones(count, 3),
        "opacities": torch.full((count,), 0.5),
        "sh": torch.zeros(count, 4, 3),
    }


def with_entry(name, place, value):
    changed = parts()
    changed[name][place] = value
    return changed


def test_everything_is_kept_as_given():
    given = parts()
    gaussians = gx.Gaussians(**given)
    assert all(torch.equal(getattr(gaussians, name), value) for name, value in given.items())
    assert (len(gaussians), gaussians.degree) == (3, 1)
    assert repr(gaussians) == "Gaussians(3, degree 1, torch.float32, cpu)"


def test_numpy_arrays_are_taken_and_follow_the_dtype_of_the_means():
    given = {name: value.numpy() for name, value in parts().items()}
    given["means"] = given["means"].astype(np.float64)[::-1]
    gaussians = gx.Gaussians(**given)
    assert gaussians.sh.dtype == gaussians.dtype == torch.float64


def test_quats_are_brought_to_unit_length():
    given = parts()
    given["quats"] = torch.tensor([[2.0, 0, 0, 0], [0, -3, 0, 4], [1, 1, 1, 1]])
    expected = torch.tensor([[1.0, 0, 0, 0], [0, -0.6, 0, 0.8], [0.5, 0.5, 0.5, 0.5]])
    assert_same_up_to(gx.Gaussians(**given).quats, expected, 1e-7)


def test_gradients_flow_to_what_was_given():
    given = {name: value.requires_grad_() for name, value in parts().items()}
    gaussians = gx.Gaussians(**given)
    found = gx.rasterize(gaussians, scene_camera(), **SIZE, backend="torch")
    found.rgb.sum().backward()
    assert all(value.grad is not None for value in given.values())
    assert not gaussians.detach().means.requires_grad


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**parts(), "means": torch.zeros(3, 2)}, r"means has shape \(3, 2\)"),
        ({**parts(), "means": torch.tensor(1.0)}, r"means has shape \(\)"),
        ({**parts(), "quats": torch.zeros(2, 4)}, r"quats has shape \(2, 4\) for 3 means"),
        ({**parts(), "opacities": torch.zeros(3, 1)}, r"Take \[:, 0\]"),
        ({**parts(), "sh": torch.zeros(3, 3)}, "taken by Gaussians.from_rgb"),
        ({**parts(), "sh": torch.zeros(3, 5, 3)}, "sh has 5 coefficients"),
        ({**parts(), "scales": np.array(["large"])}, "scales is ndarray, not a tensor"),
        (with_entry("means", (1, 2), torch.nan), "means of Gaussian 1 holds NaN or infinite"),
        (with_entry("sh", (2, 0, 1), torch.inf), "sh of Gaussian 2 holds NaN or infinite"),
        (with_entry("quats", 1, 0.0), "quats of Gaussian 1 is zero"),
        (with_entry("scales", (0, 1), -3.0), "scales of Gaussian 0 is negative.*exp of log"),
        (
            with_entry("opacities", 2, 1.5),
            r"opacities of Gaussian 2 lies outside \[0, 1\].*sigmoid",
        ),
        (with_entry("opacities", 0, -0.1), "opacities of Gaussian 0"),
    ],
)
def test_what_is_no_gaussian_is_refused(given, message):
    with pytest.raises(InvalidInputError, match=message):
        gx.Gaussians(**given)


def test_there_may_be_no_gaussians():
    empty = gx.Gaussians(**parts(0))
    assert len(empty) == 0
    assert len(gx.Gaussians.concatenate([empty, empty])) == 0
    assert len(empty.transformed(np.eye(3))) == 0


def test_colours_come_back():
    rgb = torch.rand(3, 3, generator=seeded())
    given = {name: value for name, value in parts().items() if name != "sh"}
    gaussians = gx.Gaussians.from_rgb(**given, rgb=rgb)
    assert gaussians.degree == 0
    assert_same_up_to(gaussians.rgb, rgb, 1e-6)
    with pytest.raises(InvalidInputError, match="rgb has shape"):
        gx.Gaussians.from_rgb(**given, rgb=rgb[None])


def test_selection_takes_slices_indices_and_masks():
    scene = random_scene(6, degree=1)
    mask = torch.tensor([False, True, False, True, False, False])
    for picked in (scene[1:4:2], scene[[1, 3]], scene[torch.tensor([1, 3])], scene[mask]):
        assert len(picked) == 2
        assert torch.equal(picked.sh, scene.sh[[1, 3]])
    assert len(scene[[]]) == 0
    assert torch.equal(scene[-1].means, scene.means[5:])
    with pytest.raises(IndexError):
        scene[6]


def test_concatenation_keeps_the_highest_degree():
    low, high = random_scene(2, degree=0), random_scene(3, degree=2, dtype=torch.float32)
    both = gx.Gaussians.concatenate([low, high])
    assert (len(both), both.degree, both.dtype) == (5, 2, torch.float64)
    assert torch.equal(both.sh[:2, :1], low.sh)
    assert not both.sh[:2, 1:].any()
    assert torch.equal(both.means[2:].float(), high.means)
    with pytest.raises(InvalidInputError, match="parts is empty"):
        gx.Gaussians.concatenate([])


def test_degree_can_be_raised_and_lowered():
    scene = random_scene(4, degree=1)
    assert torch.equal(scene.with_degree(3).with_degree(1).sh, scene.sh)
    assert torch.equal(scene.with_degree(0).sh, scene.sh[:, :1])
    with pytest.raises(InvalidInputError, match="sh has 25 coefficients"):
        scene.with_degree(4)


def test_precision_and_device_change_together():
    moved = random_scene(3).to("cpu", torch.float32)
    assert moved.dtype == torch.float32
    with pytest.raises(InvalidInputError, match=r"kept in torch\.float32 or"):
        moved.to(dtype=torch.float16)


def test_products_of_quats_are_products_of_rotations():
    quats = torch.randn(2, 5, 4, generator=seeded(), dtype=torch.float64)
    product = quat_to_rotation(quats[0]) @ quat_to_rotation(quats[1])
    assert_same_up_to(quat_to_rotation(multiply_quats(quats[0], quats[1])), product, 1e-14)


@pytest.mark.parametrize("degree", [0, 3])
def test_a_moved_scene_looks_the_same_to_moved_cameras(degree):
    scene, camera = random_scene(60, degree=degree), scene_camera()
    turn = random_rotations(1, seed=4)[0]
    shift, scale = torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64), 1.7
    c2w = camera.c2w.clone()
    c2w[:, :3, :3] = turn @ camera.c2w[:, :3, :3]
    c2w[:, :3, 3] = scale * camera.c2w[:, :3, 3] @ turn.T + shift
    moved = gx.Cameras(c2w, camera.Ks_norm)
    before = gx.rasterize(scene, camera, **SIZE, backend="torch")
    after = gx.rasterize(scene.transformed(turn, shift, scale), moved, **SIZE, backend="torch")
    assert_same_up_to(after.rgb, before.rgb, 1e-12)
    assert_same_up_to(after.depth, scale * before.depth, 1e-12)


def test_a_move_and_its_inverse_change_nothing():
    scene = random_scene(20, degree=3)
    turn = random_rotations(1)[0]
    there = scene.transformed(turn, (1, 2, 3), 2.0)
    shift = -(turn.T @ torch.tensor([1.0, 2, 3], dtype=torch.float64)) / 2
    back = there.transformed(turn.T, shift, 0.5)
    for name in ("means", "scales", "opacities", "sh"):
        assert_same_up_to(getattr(back, name), getattr(scene, name), 1e-13)
    assert_same_up_to((back.quats * scene.quats).sum(-1).abs(), torch.ones(20), 1e-13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.diag([1.0, 1, -1]),), "rotation is not an orthonormal"),
        ((2 * np.eye(3),), "rotation is not an orthonormal"),
        ((np.full((3, 3), np.nan),), "rotation is not an orthonormal"),
        ((np.eye(4),), "rotation is not an orthonormal"),
        ((np.eye(3), (0, 0, 0), 0.0), "scale is 0.0"),
        ((np.eye(3), (0, 0)), r"translation has shape \(2,\)"),
    ],
)
def test_what_is_no_similarity_is_refused(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        random_scene(2).transformed(*arguments)
