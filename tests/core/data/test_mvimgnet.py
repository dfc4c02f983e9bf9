"""MVImgNet's layout, partial reconstructions included."""

import shutil
import struct

import pytest
import torch

from genxd_core.data.datasets.mvimgnet import MVImgNet
from genxd_core.data.sample import SamplePolicy, draw_sample
from genxd_core.data.scene import BrokenSceneError, SceneDataset
from genxd_core.errors import InvalidInputError
from tests.core.data.known_scene import projected, seen_spots
from tests.core.data.layouts_colmap import write_capture
from tests.support import DATA, assert_same_up_to, seeded


@pytest.fixture
def root(tmp_path):
    """Two objects of one class; the lens of the first is distorted, the second is partial."""
    write_capture(tmp_path / "12" / "0a", k1=0.2)
    write_capture(tmp_path / "12" / "0b", with_camera=[0, 1, 3, 5])
    write_capture(tmp_path / "7" / "1c")
    return tmp_path


def test_scenes_are_classes_and_ids(root):
    dataset = MVImgNet(root)
    assert isinstance(dataset, SceneDataset)
    assert dataset.scene_ids == ("12/0a", "12/0b", "7/1c")
    assert (dataset.name, dataset.kind, dataset.has_depth) == ("mvimgnet", "3d", True)


@pytest.mark.parametrize("scene_id", ["12/0a", "12/0b", "7/1c"])
def test_spots_of_a_drawn_sample_lie_where_its_cameras_see_the_points(root, scene_id):
    scene = MVImgNet(root).scene(scene_id)
    sample = draw_sample(scene, "mvimgnet", 4, SamplePolicy(size=48), seeded())
    for image, places in zip(sample.images, projected(sample.cameras, 48, 48), strict=True):
        assert_same_up_to(seen_spots(image), places, 0.15)
    assert sample.motion_strength == 0.0


def test_pictures_without_a_camera_are_left_out(root):
    scene = MVImgNet(root).scene("12/0b")
    assert scene.names == ("000.png", "001.png", "003.png", "005.png")


def test_camera_without_its_picture_breaks_the_scene(root):
    (root / "12" / "0b" / "images" / "003.png").unlink()
    with pytest.raises(BrokenSceneError, match=r"scene 12/0b: .*003\.png of 4 pictures"):
        MVImgNet(root).scene("12/0b")


def test_scene_without_a_reconstruction_is_broken(root):
    shutil.rmtree(root / "12" / "0b" / "sparse")
    dataset = MVImgNet(root)
    with pytest.raises(BrokenSceneError, match=r"scene 12/0b: .*does not exist"):
        dataset.scene("12/0b")
    assert len(dataset.scene("12/0a").cameras) == 6


def test_pose_that_is_not_finite_breaks_the_scene(root):
    file = root / "7" / "1c" / "sparse" / "0" / "images.bin"
    data = bytearray(file.read_bytes())
    data[44:52] = struct.pack("<d", float("nan"))  # first picture's first number of t
    file.write_bytes(bytes(data))
    with pytest.raises(BrokenSceneError, match=r"scene 7/1c: .*NaN or infinite"):
        MVImgNet(root).scene("7/1c")


def test_depth_scales_a_sample_so_that_the_scene_lies_two_units_away(root):
    scene = MVImgNet(root).scene("7/1c")
    policy = SamplePolicy(size=32, scale="depth")
    sample = draw_sample(scene, "mvimgnet", 6, policy, seeded())
    plain = draw_sample(scene, "mvimgnet", 6, SamplePolicy(size=32), seeded())
    depth = scene.view_depths[sample.provenance.frames[0]]
    assert_same_up_to(sample.cameras.centres, plain.cameras.centres * (2 / depth), 1e-5)


def test_same_seed_draws_the_same_sample(root):
    scene = MVImgNet(root).scene("12/0a")
    first, second = (
        draw_sample(scene, "mvimgnet", 4, SamplePolicy(size=32), seeded(3)) for _ in range(2)
    )
    assert first.provenance == second.provenance
    assert torch.equal(first.images, second.images)


def test_lund_is_read_as_an_object(tmp_path):
    shutil.copytree(DATA / "lund", tmp_path / "street" / "lund")
    scene = MVImgNet(tmp_path).scene("street/lund")
    assert len(scene.cameras) == 15
    assert scene.pictures[0]().image.shape == (3, 240, 320)
    assert bool((scene.view_depths > 0).all())


def test_roots_of_another_layout_are_refused(tmp_path):
    write_capture(tmp_path / "0a")
    with pytest.raises(InvalidInputError, match=r"root of mvimgnet .* holds 0a; expected folders"):
        MVImgNet(tmp_path)
