"""Objaverse's renders."""

import numpy as np
import pytest
import torch

from genxd_core.data.datasets.objaverse import Objaverse
from genxd_core.data.sample import SamplePolicy, draw_sample
from genxd_core.data.scene import BrokenSceneError, SceneDataset
from genxd_core.errors import InvalidInputError
from tests.core.data.known_scene import (
    as_blender_w2c,
    paint,
    pixels_of,
    projected,
    seen_spots,
    views_around,
)
from tests.support import assert_same_up_to, seeded

SIDE = 80
# A lens of 35 mm on a sensor of 32 mm, 80 pixels wide.
FOCAL_PX = 35 / 32 * SIDE


def write_object(folder, count=12):
    folder.mkdir(parents=True)
    views = views_around(count)
    for number, view in enumerate(views):
        spots = pixels_of(view, FOCAL_PX, (SIDE / 2, SIDE / 2))
        paint(spots, SIDE, SIDE, transparent=True).save(folder / f"{number:03d}.png")
        np.save(folder / f"{number:03d}.npy", as_blender_w2c(view))
    return views


@pytest.fixture
def root(tmp_path):
    write_object(tmp_path / "chair")
    write_object(tmp_path / "apple", count=5)
    return tmp_path


def test_scenes_are_the_objects(root):
    dataset = Objaverse(root)
    assert isinstance(dataset, SceneDataset)
    assert dataset.scene_ids == ("apple", "chair")
    assert (dataset.kind, dataset.has_depth) == ("3d", False)
    assert len(dataset.scene("apple").cameras) == 5
    scene = dataset.scene("chair")
    assert len(scene.cameras) == 12
    assert not scene.ordered
    assert scene.names[11] == "011.png"


def test_cameras_show_the_points_where_the_renders_do(root):
    scene = Objaverse(root).scene("chair")
    expected = [pixels_of(v, FOCAL_PX, (SIDE / 2, SIDE / 2)) for v in views_around(12)]
    expected = torch.from_numpy(np.stack(expected))
    assert_same_up_to(projected(scene.cameras, SIDE, SIDE), expected, 1e-9)


def test_spots_of_a_drawn_sample_lie_where_its_cameras_see_the_points(root):
    scene = Objaverse(root).scene("chair")
    sample = draw_sample(scene, "objaverse", 12, SamplePolicy(size=64), seeded())
    assert sorted(sample.provenance.frames) == list(range(12))
    for image, places in zip(sample.images, projected(sample.cameras, 64, 64), strict=True):
        assert_same_up_to(seen_spots(image, on_white=True), places, 0.15)
        assert image[:, 0, 0].tolist() == [1, 1, 1]


def test_alpha_is_the_mask(root):
    scene = Objaverse(root).scene("chair")
    policy = SamplePolicy(size=SIDE)
    sample = draw_sample(scene, "objaverse", 3, policy, seeded())
    # What is not white is covered by the object, as far as it is.
    assert_same_up_to(sample.masks, 1 - sample.images.amin(1, keepdim=True), 1 / 255)
    assert float(sample.masks.amax()) == pytest.approx(1, abs=0.1)


def test_field_of_view_is_that_of_the_paper(root):
    fx_norm = float(Objaverse(root).scene("apple").cameras.Ks_norm[0, 0, 0])
    assert np.degrees(2 * np.arctan(0.5 / fx_norm)) == pytest.approx(49.13, abs=0.005)
    assert fx_norm == pytest.approx(1.0938, abs=1e-4)
    other = Objaverse(root, focal_norm=1.2).scene("apple")
    assert float(other.cameras.Ks_norm[0, 1, 1]) == pytest.approx(1.2)


def test_same_seed_draws_the_same_sample(root):
    first, second, third = (
        draw_sample(Objaverse(root).scene("chair"), "objaverse", 6, SamplePolicy(size=32), rng)
        for rng in (seeded(1), seeded(1), seeded(2))
    )
    assert torch.equal(first.images, second.images)
    assert first.provenance.frames != third.provenance.frames


@pytest.mark.parametrize(
    ("missing", "told"),
    [("003.png", r"003\.png is missing beside 003\.npy"), ("003.npy", r"003\.npy is missing")],
)
def test_view_without_picture_or_pose_breaks_the_scene(root, missing, told):
    (root / "chair" / missing).unlink()
    with pytest.raises(BrokenSceneError, match=f"scene chair: {told}"):
        Objaverse(root).scene("chair")


@pytest.mark.parametrize(
    ("pose", "told"),
    [
        (np.full((3, 4), np.nan), r"002\.npy holds NaN"),
        (np.eye(3), r"002\.npy holds float64 of shape \(3, 3\)"),
        (np.eye(4)[:3] * 2, "camera 2 has a rotation part that is not orthonormal"),
        (np.diag([1.0, 1.0, -1.0, 1.0])[:3], "camera 2 is mirrored"),
        (np.array([[{}] * 4] * 3), r"002\.npy cannot be read"),
    ],
)
def test_impossible_pose_breaks_the_scene(root, pose, told):
    np.save(root / "chair" / "002.npy", pose, allow_pickle=True)
    with pytest.raises(BrokenSceneError, match=f"scene chair: .*{told}"):
        Objaverse(root).scene("chair")


def test_cut_off_pose_breaks_the_scene(root):
    file = root / "chair" / "002.npy"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(BrokenSceneError, match=r"scene chair: 002\.npy cannot be read"):
        Objaverse(root).scene("chair")


@pytest.mark.parametrize("break_picture", ["cut", "wide", "opaque"])
def test_bad_picture_breaks_the_sample(root, break_picture):
    file = root / "apple" / "001.png"
    if break_picture == "cut":
        file.write_bytes(file.read_bytes()[:200])
        told = "damaged"
    elif break_picture == "wide":
        paint([(5, 5)] * 3, 40, 30, transparent=True).save(file)
        told = "40 x 30 pixels; expected a square"
    else:
        paint([(5, 5)] * 3, SIDE, SIDE).save(file)
        told = "no transparency"
    scene = Objaverse(root).scene("apple")
    with pytest.raises(BrokenSceneError, match=rf"scene apple: image .*001\.png .*{told}"):
        draw_sample(scene, "objaverse", 5, SamplePolicy(size=32), seeded())


def test_roots_of_another_layout_are_refused(tmp_path, root):
    (tmp_path / "other" / "chair" / "views").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match=r"holds chair; expected folders <object>, each"):
        Objaverse(tmp_path / "other")
    with pytest.raises(InvalidInputError, match=r"focal_norm is 0\.0"):
        Objaverse(root, focal_norm=0.0)
