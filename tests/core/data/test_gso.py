"""GSO's renders: two sets of views with different axes."""

import numpy as np
import pytest
import torch

from genxd_core.data.datasets.gso import GSO
from genxd_core.data.sample import SamplePolicy, draw_sample
from genxd_core.data.scene import BrokenSceneError, SceneDataset
from genxd_core.errors import InvalidInputError
from tests.core.data.known_scene import (
    as_blender_w2c,
    as_opencv_w2c,
    paint,
    pixels_of,
    projected,
    seen_spots,
    views_around,
)
from tests.support import assert_same_up_to, seeded

SIDE = 80
FOCAL_PX = 35 / 32 * SIDE
SETS = {
    "mvs_25": ("render_mvs_25/model", as_blender_w2c, 5),
    "sync_36": ("render_sync_36_single/model", as_opencv_w2c, 7),
}


@pytest.fixture
def root(tmp_path):
    for place, matrix, count in SETS.values():
        folder = tmp_path / "mug" / place
        folder.mkdir(parents=True)
        for number, view in enumerate(views_around(count)):
            spots = pixels_of(view, FOCAL_PX, (SIDE / 2, SIDE / 2))
            picture = paint(spots, SIDE, SIDE, transparent=True)
            picture.save(folder / f"{number:03d}.png")
            np.save(folder / f"{number:03d}.npy", matrix(view))
    return tmp_path


@pytest.mark.parametrize("views", SETS)
def test_cameras_of_both_sets_show_the_points_where_the_renders_do(root, views):
    dataset = GSO(root, views=views)
    assert isinstance(dataset, SceneDataset)
    assert dataset.scene_ids == ("mug",)
    scene = dataset.scene("mug")
    around = views_around(SETS[views][2])
    expected = np.stack([pixels_of(v, FOCAL_PX, (SIDE / 2, SIDE / 2)) for v in around])
    assert_same_up_to(projected(scene.cameras, SIDE, SIDE), torch.from_numpy(expected), 1e-9)


@pytest.mark.parametrize("views", SETS)
def test_spots_of_a_drawn_sample_lie_where_its_cameras_see_the_points(root, views):
    scene = GSO(root, views=views).scene("mug")
    sample = draw_sample(scene, "gso", 5, SamplePolicy(size=64), seeded())
    for image, places in zip(sample.images, projected(sample.cameras, 64, 64), strict=True):
        assert_same_up_to(seen_spots(image, on_white=True), places, 0.15)
    assert sample.masks is not None
    again = draw_sample(scene, "gso", 5, SamplePolicy(size=64), seeded())
    assert torch.equal(sample.images, again.images)


def test_both_sets_have_one_world(root):
    first = GSO(root).scene("mug").cameras
    second = GSO(root, views="sync_36").scene("mug").cameras
    assert_same_up_to(first.c2w, second[:5].c2w, 1e-12)


def test_opaque_renders_have_no_masks(root):
    for number in range(5):
        file = root / "mug" / "render_mvs_25" / "model" / f"{number:03d}.png"
        paint([(20, 20)] * 3, SIDE, SIDE).save(file)
    assert GSO(root).scene("mug").masks is None


def test_missing_picture_breaks_the_scene(root):
    (root / "mug" / "render_mvs_25" / "model" / "004.png").unlink()
    with pytest.raises(BrokenSceneError, match=r"scene mug: 004\.png is missing"):
        GSO(root).scene("mug")


def test_scene_without_the_set_is_broken(root):
    (root / "cup").mkdir()
    dataset = GSO(root)
    with pytest.raises(BrokenSceneError, match="scene cup: "):
        dataset.scene("cup")


def test_wrong_options_and_roots_are_refused(root, tmp_path):
    with pytest.raises(InvalidInputError, match="views is 'all', expected 'mvs_25' or 'sync_36'"):
        GSO(root, views="all")
    with pytest.raises(
        InvalidInputError, match=r"holds render_.* expected folders <object>/render"
    ):
        GSO(root / "mug")
