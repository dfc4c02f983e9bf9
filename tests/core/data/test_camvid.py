"""CamVid-30K's layout, with and without what the curation wrote."""

import shutil

import numpy as np
import pytest
import torch

from genxd_core.data.clip_file import ClipFile, RejectedClipError, write_clip_file
from genxd_core.data.datasets.camvid import CamVid
from genxd_core.data.sample import SamplePolicy, draw_sample
from genxd_core.data.sampling import FrameSampling
from genxd_core.data.scene import BrokenSceneError, MeasuredMotion, SceneDataset
from genxd_core.errors import InvalidInputError
from tests.core.data.known_scene import pixels_of, projected, seen_spots
from tests.core.data.layouts_colmap import (
    FOCAL_PX,
    HEIGHT,
    PRINCIPAL_PX,
    WIDTH,
    write_capture,
)
from tests.support import DATA, assert_same_up_to, seeded

NAMES = [f"{number:05d}.jpg" for number in range(6)]


@pytest.fixture
def clip(tmp_path):
    """The folder of a clip with a strength."""
    write_capture(tmp_path / "a1", "0", names=NAMES)
    (tmp_path / "a1" / "0" / "project.ini").write_text("log_level=0\n", encoding="utf-8")
    write_clip_file(
        ClipFile(status="kept", motion_strength=0.012, stride=2), tmp_path / "a1" / "clip.json"
    )
    return tmp_path / "a1"


def test_cameras_show_the_points_where_the_pictures_do(clip):
    views = write_capture(clip, "0", names=NAMES)
    scene = CamVid(clip.parent).scene("a1")
    expected = torch.from_numpy(np.stack([pixels_of(v, FOCAL_PX, PRINCIPAL_PX) for v in views]))
    assert_same_up_to(projected(scene.cameras, WIDTH, HEIGHT), expected, 1e-6)
    for places, picture in zip(expected, scene.pictures, strict=True):
        assert_same_up_to(seen_spots(picture().image), places, 0.1)


def test_frames_come_in_the_order_of_their_names_and_times(clip):
    dataset = CamVid(clip.parent)
    assert isinstance(dataset, SceneDataset)
    assert dataset.kind == "4d"
    scene = dataset.scene("a1")
    # The model has them in the order of its numbers: 5, 3, 1, 2, 0, 4.
    assert scene.names == tuple(NAMES)
    assert_same_up_to(scene.cameras.times, torch.linspace(0, 1, 6).double(), 1e-7)


def test_numbers_in_names_count_as_numbers(tmp_path):
    names = [f"frame{number}.jpg" for number in (1, 2, 9, 10, 11, 100)]
    write_capture(tmp_path / "a1", "0", names=names)
    assert CamVid(tmp_path).scene("a1").names == tuple(names)


def test_missing_frame_leaves_its_gap_in_time(tmp_path):
    write_capture(tmp_path / "a1", "0", names=NAMES, with_camera=[0, 1, 2, 4, 5])
    scene = CamVid(tmp_path).scene("a1")
    assert scene.names == (*NAMES[:3], *NAMES[4:])
    assert_same_up_to(scene.cameras.times, torch.tensor([0, 0.2, 0.4, 0.8, 1]).double(), 1e-7)


def test_strength_of_the_clip_file_goes_into_the_sample(clip):
    scene = CamVid(clip.parent).scene("a1")
    assert scene.motion == MeasuredMotion(0.012, stride=2)
    policy = SamplePolicy(size=48, frames=FrameSampling(strides=(1,)))
    sample = draw_sample(scene, "camvid", 4, policy, seeded())
    # Measured between every second frame, drawn at neighbours.
    assert sample.gamma == pytest.approx(0.006)
    assert bool((sample.cameras.times.diff() > 0).all())
    for image, places in zip(sample.images, projected(sample.cameras, 48, 48), strict=True):
        assert_same_up_to(seen_spots(image), places, 0.2)
    again = draw_sample(CamVid(clip.parent).scene("a1"), "camvid", 4, policy, seeded())
    assert torch.equal(sample.images, again.images)


def test_clip_without_a_clip_file_has_no_known_motion(clip):
    (clip / "clip.json").unlink()
    scene = CamVid(clip.parent).scene("a1")
    assert scene.motion is None
    with pytest.raises(BrokenSceneError, match="scene a1 moves and has no measured motion"):
        draw_sample(scene, "camvid", 4, SamplePolicy(size=32), seeded())


@pytest.mark.parametrize(("status", "reason"), [("rejected", "low_motion"), ("failed", "no disk")])
def test_clip_that_was_not_kept_is_refused_with_the_reason(clip, status, reason):
    shutil.rmtree(clip / "0")
    write_clip_file(ClipFile(status=status, reason=reason), clip / "clip.json")
    dataset = CamVid(clip.parent)
    assert dataset.scene_ids == ("a1",)
    with pytest.raises(RejectedClipError, match=rf"scene a1 .* calls it {status} \({reason}\)"):
        dataset.scene("a1")


def test_damaged_clip_file_breaks_the_scene(clip):
    (clip / "clip.json").write_text('{"status": "kept"', encoding="utf-8")
    with pytest.raises(BrokenSceneError, match=r"scene a1: clip file .* cannot be read"):
        CamVid(clip.parent).scene("a1")


def test_clips_may_lie_in_folders_of_their_origin(clip):
    root = clip.parent
    (root / "VIPSeg").mkdir()
    shutil.copytree(clip, root / "VIPSeg" / "b2")
    (root / "VIPSeg" / "lists").mkdir()
    dataset = CamVid(root)
    assert dataset.scene_ids == ("VIPSeg/b2", "a1")
    assert len(dataset.scene("VIPSeg/b2").cameras) == 6
    with pytest.raises(InvalidInputError, match="scene_id is 'VIPSeg'"):
        dataset.scene("VIPSeg")


def test_frames_named_with_a_folder_are_found(tmp_path):
    write_capture(tmp_path / "a1", "0", names=NAMES)
    file = tmp_path / "a1" / "0" / "images.bin"
    file.write_bytes(file.read_bytes().replace(b"0000", b"images/0000"))
    scene = CamVid(tmp_path).scene("a1")
    assert len(scene.pictures) == 6
    assert scene.pictures[5]().image.shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_damaged_binary_breaks_the_scene(clip, name):
    file = clip / "0" / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(BrokenSceneError, match=r"scene a1: path .* damaged or cut off"):
        CamVid(clip.parent).scene("a1")


def test_lund_in_the_older_layout_of_three_files_is_read(tmp_path):
    shutil.copytree(DATA / "lund" / "images", tmp_path / "lund" / "images")
    (tmp_path / "lund" / "0").mkdir()
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        shutil.copy(DATA / "lund" / "sparse" / "0" / name, tmp_path / "lund" / "0")
    scene = CamVid(tmp_path).scene("lund")
    assert len(scene.cameras) == 15
    assert bool((scene.view_depths > 0).all())
    assert scene.pictures[0]().image.shape == (3, 240, 320)


def test_roots_of_another_layout_are_refused(tmp_path):
    write_capture(tmp_path / "a1")
    with pytest.raises(
        InvalidInputError, match=r"root of camvid .* holds a1; expected folders <id>"
    ):
        CamVid(tmp_path)
