"""Animated objects: pictures named by view and time, cameras by name, depth, strength."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from genxd_core.cameras.io import load_cameras
from genxd_core.data.clip_file import RejectedClipError
from genxd_core.data.datasets.objaverse_animation import ObjaverseAnimation
from genxd_core.data.scene import BrokenSceneError, SceneDataset
from genxd_core.errors import InvalidInputError
from tests.core.data import known_points as known

SIDE = 64
FOCAL, CX, CY = 1.0938, 0.53, 0.48  # fractions of the side


def name_of(view, time):
    return f"{view:03d}_{time:03d}"


def camera_entry(name, position, time):
    """The columns of c2w are where right, down and forward point in the world, then the place."""
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(forward, right), forward, position], axis=1)
    entry = {"name": name, "fx": FOCAL, "fy": FOCAL, "cx": CX, "cy": CY, "c2w": c2w.tolist()}
    return entry if time is None else entry | {"time": time}


def write_cameras(folder, entries):
    content = {"format": "genxd-cameras", "version": 1, "cameras": entries}
    (folder / "cameras.json").write_text(json.dumps(content))


def draw(folder, name, position):
    pixels = known.opencv_pixels(
        known.opencv_w2c(position), [FOCAL * SIDE, FOCAL * SIDE], [CX * SIDE, CY * SIDE]
    )
    levels = np.array(known.picture(pixels, SIDE, SIDE).convert("RGBA"))
    levels[:4, :, 3] = 0  # nothing in the uppermost rows
    Image.fromarray(levels).save(folder / f"{name}.png")


def write_object(root, name="duck", *, frames=5, motion=None, depth=True):
    """An object whose video goes with the views; returns its folder and camera entries."""
    folder = root / name
    folder.mkdir(parents=True)
    entries = []
    for i, position in enumerate(known.positions(frames)):
        entries.append(camera_entry(name_of(i, i), position, i / (frames - 1)))
        draw(folder, name_of(i, i), position)
        if depth:
            values = np.zeros((SIDE, SIDE), np.float32)
            values[10:20, 10:20] = 3.0 + i
            values[30, 30] = 90.0
            np.save(folder / f"{name_of(i, i)}_depth.npy", values)
    # Listed in no order: names count.
    write_cameras(folder, entries[::-1])
    if motion is not None:
        (folder / "clip.json").write_text(json.dumps(motion))
    return folder, entries


MEASURED = {"motion_strength": 0.02, "stride": 1, "status": "kept"}


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_sample_shows_points_where_its_cameras_see_them(tmp_path, fit):
    write_object(tmp_path, motion=MEASURED)
    sample = known.sample_of(ObjaverseAnimation(tmp_path), "duck", views=5, fit=fit)
    known.assert_points_are_where_cameras_say(sample)
    assert sample.kind == "4d"
    assert sample.gamma == pytest.approx(0.02)


def test_cameras_stand_where_the_file_says_and_times_go_with_views(tmp_path):
    write_object(tmp_path)
    scene = ObjaverseAnimation(tmp_path).scene("duck")
    np.testing.assert_allclose(scene.cameras.centres, known.positions(5), atol=1e-6)
    np.testing.assert_allclose(scene.cameras.times, [0, 0.25, 0.5, 0.75, 1], atol=1e-6)
    assert list(scene.names) == [f"{name_of(i, i)}.png" for i in range(5)]


def test_camera_file_is_one_of_the_project_too(tmp_path):
    folder, _ = write_object(tmp_path)
    assert len(load_cameras(folder / "cameras.json")) == 5


def test_other_times_of_a_view_are_no_part_of_the_video(tmp_path):
    folder, entries = write_object(tmp_path)
    for view, time in [(0, 1), (0, 2), (3, 1)]:
        position = known.positions(5)[view]
        entries.append(camera_entry(name_of(view, time), position, time / 4))
        draw(folder, name_of(view, time), position)
    write_cameras(folder, entries)
    scene = ObjaverseAnimation(tmp_path).scene("duck")
    assert list(scene.names) == [f"{name_of(i, i)}.png" for i in range(5)]


def test_names_beyond_three_digits_keep_their_order(tmp_path):
    folder, entries = write_object(tmp_path, frames=3)
    for i, number in enumerate((998, 999, 1000)):
        entries[i]["name"] = name_of(number, number)
        (folder / f"{name_of(i, i)}.png").rename(folder / f"{name_of(number, number)}.png")
    write_cameras(folder, entries)
    scene = ObjaverseAnimation(tmp_path).scene("duck")
    assert list(scene.names) == ["998_998.png", "999_999.png", "1000_1000.png"]


def test_masks_are_what_is_opaque(tmp_path):
    write_object(tmp_path)
    scene = ObjaverseAnimation(tmp_path).scene("duck")
    assert scene.masks is not None
    mask = scene.masks[2]()
    assert mask.shape == (1, SIDE, SIDE)
    assert bool((mask[:, :4] == 0).all())
    assert bool((mask[:, 4:] == 1).all())


def test_depth_of_a_view_is_the_median_of_what_is_seen(tmp_path):
    folder, _ = write_object(tmp_path, motion=MEASURED)
    (folder / "003_003_depth.npy").unlink()
    np.save(folder / "004_004_depth.npy", np.zeros((SIDE, SIDE)))
    scene = ObjaverseAnimation(tmp_path).scene("duck")
    np.testing.assert_array_equal(scene.view_depths, [3.0, 4.0, 5.0, math.nan, math.nan])


def test_scale_by_depth_brings_the_first_frame_to_two(tmp_path):
    write_object(tmp_path, motion=MEASURED)
    dataset = ObjaverseAnimation(tmp_path)
    plain, scaled = (known.sample_of(dataset, "duck", views=5, scale=s) for s in ("none", "depth"))
    np.testing.assert_allclose(scaled.cameras.centres, plain.cameras.centres * 2.0 / 3.0, atol=1e-6)


def test_motion_is_what_was_measured_at_its_stride(tmp_path):
    write_object(tmp_path, "a", motion={"motion_strength": 0.06, "stride": 3, "status": "kept"})
    rejected = {"motion_strength": 0.001, "status": "rejected", "reason": "low_motion"}
    write_object(tmp_path, "b", motion=rejected)
    write_object(tmp_path, "c")
    dataset = ObjaverseAnimation(tmp_path)
    motion = dataset.scene("a").motion
    assert motion is not None
    assert motion.gamma_at(1) == pytest.approx(0.02)
    assert dataset.scene("c").motion is None
    with pytest.raises(RejectedClipError, match="scene b is not to be used"):
        dataset.scene("b")
    with pytest.raises(BrokenSceneError, match=r"scene c moves and has no measured motion"):
        known.sample_of(dataset, "c")


def test_same_seed_gives_the_same_sample(tmp_path):
    write_object(tmp_path, frames=8, motion=MEASURED)
    dataset = ObjaverseAnimation(tmp_path)
    samples = [known.sample_of(dataset, "duck", seed=seed) for seed in (4, 4)]
    known.assert_same_sample(*samples)
    drawn = {known.sample_of(dataset, "duck", seed=s).provenance.frames for s in range(8)}
    assert len(drawn) > 1
    assert all(list(frames) == sorted(frames) for frames in drawn)


def test_scenes_are_the_folders_with_cameras_sorted(tmp_path):
    for name in ("b", "a"):
        write_object(tmp_path, name)
    (tmp_path / "logs").mkdir()
    dataset = ObjaverseAnimation(tmp_path)
    assert isinstance(dataset, SceneDataset)
    assert dataset.scene_ids == ("a", "b")
    with pytest.raises(InvalidInputError, match=r"scene_id is '\.\./a', which objaverse_animation"):
        dataset.scene("../a")


# ---- what is broken -----------------------------------------------------------------------------


def test_picture_without_a_camera_breaks_the_scene(tmp_path):
    folder, entries = write_object(tmp_path)
    write_cameras(folder, entries[:-1])
    message = r"scene duck: cameras.json has no camera for 004_004.png"
    with pytest.raises(BrokenSceneError, match=message):
        ObjaverseAnimation(tmp_path).scene("duck")


def test_missing_picture_breaks_the_scene(tmp_path):
    folder, _ = write_object(tmp_path)
    (folder / "002_002.png").unlink()
    with pytest.raises(BrokenSceneError, match=r"scene duck: there is no picture 002_002.png"):
        ObjaverseAnimation(tmp_path).scene("duck")


def test_object_without_a_video_breaks_the_scene(tmp_path):
    folder, entries = write_object(tmp_path, frames=2)
    for i, entry in enumerate(entries):
        entry["name"] = name_of(i, 7)
        (folder / f"{name_of(i, i)}.png").rename(folder / f"{name_of(i, 7)}.png")
    write_cameras(folder, entries)
    with pytest.raises(BrokenSceneError, match=r"none of its 2 cameras has the same view and time"):
        ObjaverseAnimation(tmp_path).scene("duck")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "duck"}, "lacks names, or has one twice"),
        ({"name": None}, "lacks names, or has one twice"),
        ({"name": "000_000"}, "lacks names, or has one twice"),
        ({"time": None}, "has no time, but others have"),
        ({"fx": -1.0}, "must be positive"),
        ({"c2w": np.diag([1, 1, -1, 1]).tolist()}, "is mirrored"),
        ({"c2w": np.diag([1, math.nan, 1, 1]).tolist()}, "NaN or infinite"),
        ({"c2w": [[1]]}, "lacks c2w"),
    ],
)
def test_impossible_camera_breaks_the_scene(tmp_path, change, message):
    folder, entries = write_object(tmp_path)
    write_cameras(folder, [*entries[:-1], entries[-1] | change])
    with pytest.raises(BrokenSceneError, match=f"scene duck: .*{message}"):
        ObjaverseAnimation(tmp_path).scene("duck")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cameras.json is damaged"),
        ("[]", "holds a JSON list"),
        ('{"format": "other"}', "has the format 'other'; expected 'genxd-cameras'"),
    ],
)
def test_camera_file_of_another_kind_breaks_the_scene(tmp_path, text, message):
    folder, _ = write_object(tmp_path)
    (folder / "cameras.json").write_text(text)
    with pytest.raises(BrokenSceneError, match=f"scene duck: .*{message}"):
        ObjaverseAnimation(tmp_path).scene("duck")


def test_cameras_without_times_break_the_scene(tmp_path):
    folder, _ = write_object(tmp_path, frames=2)
    positions = known.positions(2)
    write_cameras(folder, [camera_entry(name_of(i, i), p, None) for i, p in enumerate(positions)])
    with pytest.raises(BrokenSceneError, match=r"scene duck: cameras.json has no times"):
        ObjaverseAnimation(tmp_path).scene("duck")


@pytest.mark.parametrize(
    ("motion", "message"),
    [
        (MEASURED | {"motion_strength": "much"}, "motion_strength is 'much'"),
        (MEASURED | {"motion_strength": -0.1}, "motion_strength is -0.1"),
        (MEASURED | {"motion_strength": math.nan}, "motion_strength is nan"),
        (MEASURED | {"stride": 0}, "stride is 0"),
        ([], r"the file is \[\], expected a JSON object"),
    ],
)
def test_impossible_strength_breaks_the_scene(tmp_path, motion, message):
    write_object(tmp_path, motion=motion)
    with pytest.raises(BrokenSceneError, match=f"scene duck: clip file .*{message}"):
        ObjaverseAnimation(tmp_path).scene("duck")


def test_damaged_depth_breaks_the_scene(tmp_path):
    folder, _ = write_object(tmp_path)
    known.cut_short(folder / "001_001_depth.npy")
    with pytest.raises(BrokenSceneError, match=r"scene duck: 001_001_depth.npy is damaged"):
        ObjaverseAnimation(tmp_path).scene("duck")


def test_depth_that_would_run_code_breaks_the_scene(tmp_path):
    folder, _ = write_object(tmp_path)
    np.save(folder / "001_001_depth.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BrokenSceneError, match=r"scene duck: 001_001_depth.npy is damaged"):
        ObjaverseAnimation(tmp_path).scene("duck")


def test_truncated_picture_breaks_the_sample(tmp_path):
    folder, _ = write_object(tmp_path, frames=3, motion=MEASURED)
    known.cut_short(folder / "001_001.png")
    with pytest.raises(BrokenSceneError, match=r"scene duck: image .*001_001.png is damaged"):
        known.sample_of(ObjaverseAnimation(tmp_path), "duck")


def test_picture_without_transparency_breaks_the_sample(tmp_path):
    folder, _ = write_object(tmp_path, frames=3, motion=MEASURED)
    known.picture(np.full((3, 2), 20.0), SIDE, SIDE).save(folder / "001_001.png")
    with pytest.raises(BrokenSceneError, match=r"scene duck: .*has no transparency"):
        known.sample_of(ObjaverseAnimation(tmp_path), "duck")


def test_another_layout_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(InvalidInputError, match=r"objaverse_animation is .* which is empty"):
        ObjaverseAnimation(tmp_path)
    (tmp_path / "duck").mkdir()
    with pytest.raises(InvalidInputError, match=r"which holds duck; expected a folder for each"):
        ObjaverseAnimation(tmp_path)
