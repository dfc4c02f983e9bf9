"""RealEstate10K and ACID: texts with frames that were cut from the videos, as far as they exist."""

import numpy as np
import pytest

from genxd_core.data.datasets.realestate import ACID, RealEstate10K
from genxd_core.data.scene import BrokenSceneError, SceneDataset
from genxd_core.errors import InvalidInputError
from tests.core.data import known_points as known

WIDTH, HEIGHT = 96, 64
FX, FY, CX, CY = 0.9, 1.3, 0.53, 0.46  # fractions of width, height, width, height
FIRST_US, STEP_US = 52_553_000, 33_367


def time_us(row):
    return FIRST_US + row * STEP_US


def row_text(row, position):
    """A row as the dataset's page describes it: time, intrinsics, 0 0, [R | t] row by row."""
    w2c = known.opencv_w2c(position)
    numbers = [FX, FY, CX, CY, 0.0, 0.0, *w2c[:3].flatten()]
    return " ".join([str(time_us(row)), *(f"{number:.9f}" for number in numbers)])


def published_pixels(line):
    """Points by the page's formula: diag(width, height, 1) K [R | t] X, from the text's numbers."""
    numbers = np.array([float(column) for column in line.split()])
    fx, fy, cx, cy = numbers[1:5]
    P = numbers[7:].reshape(3, 4)
    K = np.array([[fx * WIDTH, 0, cx * WIDTH], [0, fy * HEIGHT, cy * HEIGHT], [0, 0, 1]])
    seen = (K @ P @ np.concatenate([known.POINTS, np.ones((3, 1))], axis=1).T).T
    return seen[:, :2] / seen[:, 2:]


def write_clip(root, clip="0a1b", *, rows=6, split="train", frames=None, name=None, skip=()):
    """Write text and frames; returns the rows of the text."""
    lines = [row_text(row, position) for row, position in enumerate(known.positions(rows))]
    text = root / split / f"{clip}.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("\n".join(["https://www.youtube.com/watch?v=x", *lines]) + "\n")
    folder = root / "frames" / clip if frames is None else frames
    folder.mkdir(parents=True, exist_ok=True)
    for row, line in enumerate(lines):
        if row not in skip:
            stem = str(time_us(row)) if name is None else name(row)
            known.picture(published_pixels(line), WIDTH, HEIGHT).save(folder / f"{stem}.png")
    return lines


def rewrite(root, lines, clip="0a1b", split="train"):
    (root / split / f"{clip}.txt").write_text("\n".join(["https://v", *lines]) + "\n")


@pytest.mark.parametrize("adapter", [RealEstate10K, ACID])
def test_cameras_project_as_the_published_formula_does(tmp_path, adapter):
    lines = write_clip(tmp_path)
    cameras = adapter(tmp_path).scene("train/0a1b").cameras
    expected = [published_pixels(line) for line in lines]
    np.testing.assert_allclose(known.projections(cameras, WIDTH, HEIGHT), expected, atol=1e-5)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_sample_shows_points_where_its_cameras_see_them(tmp_path, fit):
    write_clip(tmp_path)
    sample = known.sample_of(RealEstate10K(tmp_path), "train/0a1b", views=4, fit=fit)
    known.assert_points_are_where_cameras_say(sample)
    assert (sample.kind, sample.gamma, sample.masks) == ("3d", 0.0, None)
    assert sample.provenance.dataset == "realestate10k"


def test_rows_without_a_frame_are_left_out(tmp_path):
    lines = write_clip(tmp_path, skip=(0, 3))
    scene = RealEstate10K(tmp_path).scene("train/0a1b")
    assert list(scene.names) == [f"{time_us(row)}.png" for row in (1, 2, 4, 5)]
    expected = [published_pixels(lines[row]) for row in (1, 2, 4, 5)]
    seen = known.projections(scene.cameras, WIDTH, HEIGHT)
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    # Times keep their place in the clip of six rows.
    np.testing.assert_allclose(scene.cameras.times, [0.2, 0.4, 0.8, 1.0], atol=1e-6)
    known.assert_points_are_where_cameras_say(
        known.sample_of(RealEstate10K(tmp_path), "train/0a1b", views=4)
    )


def test_frames_of_any_names_are_taken_in_order_if_there_is_one_a_row(tmp_path):
    write_clip(tmp_path, rows=12, name=lambda row: f"frame{row}")  # frame10 after frame9
    sample = known.sample_of(RealEstate10K(tmp_path), "train/0a1b", views=12)
    assert sample.provenance.names[9:] == ("frame9.png", "frame10.png", "frame11.png")
    known.assert_points_are_where_cameras_say(sample)


def test_number_that_is_a_time_too_does_not_make_numbered_frames_times(tmp_path):
    lines = write_clip(tmp_path, rows=3, name=str)
    lines[0] = "0 " + lines[0].partition(" ")[2]  # a clip that begins with its video
    rewrite(tmp_path, lines)
    assert list(RealEstate10K(tmp_path).scene("train/0a1b").names) == ["0.png", "1.png", "2.png"]


def test_frames_may_lie_beside_the_text(tmp_path):
    write_clip(tmp_path, frames=tmp_path / "train" / "0a1b")
    known.assert_points_are_where_cameras_say(
        known.sample_of(RealEstate10K(tmp_path), "train/0a1b", views=6)
    )


def test_rows_without_times_go_with_frames_in_order(tmp_path):
    lines = write_clip(tmp_path, rows=4, name=lambda row: f"{row:03d}")
    rewrite(tmp_path, [line.partition(" ")[2] for line in lines])
    scene = RealEstate10K(tmp_path).scene("train/0a1b")
    assert scene.cameras.times is None
    known.assert_points_are_where_cameras_say(
        known.sample_of(RealEstate10K(tmp_path), "train/0a1b", views=4)
    )


def test_scenes_of_all_splits_or_of_one(tmp_path):
    write_clip(tmp_path, "b", rows=2)
    write_clip(tmp_path, "a", rows=2, split="test")
    write_clip(tmp_path, "c", rows=2, split=".")
    (tmp_path / "notes").mkdir()
    dataset = RealEstate10K(tmp_path)
    assert isinstance(dataset, SceneDataset)
    assert dataset.scene_ids == ("c", "test/a", "train/b")
    assert all(len(dataset.scene(scene_id).cameras) == 2 for scene_id in dataset.scene_ids)
    assert RealEstate10K(tmp_path, split="test").scene_ids == ("test/a",)
    with pytest.raises(InvalidInputError, match=r"split is 'val', .*expected test or train"):
        RealEstate10K(tmp_path, split="val")


def test_same_seed_gives_the_same_sample(tmp_path):
    write_clip(tmp_path, rows=8)
    dataset = RealEstate10K(tmp_path)
    samples = [known.sample_of(dataset, "train/0a1b", seed=seed) for seed in (5, 5)]
    known.assert_same_sample(*samples)
    drawn = {known.sample_of(dataset, "train/0a1b", seed=s).provenance.frames for s in range(8)}
    assert len(drawn) > 1


# ---- what is broken -----------------------------------------------------------------------------


def test_clip_without_frames_is_broken(tmp_path):
    write_clip(tmp_path, skip=range(6))
    dataset = ACID(tmp_path)
    assert dataset.scene_ids == ("train/0a1b",)
    with pytest.raises(BrokenSceneError, match=r"scene train/0a1b: .*holds 0 pictures for 6 rows"):
        dataset.scene("train/0a1b")
    (tmp_path / "frames" / "0a1b").rmdir()
    with pytest.raises(BrokenSceneError, match=r"scene train/0a1b: its pictures are not there"):
        dataset.scene("train/0a1b")


def test_frames_that_fit_no_row_are_broken(tmp_path):
    write_clip(tmp_path, name=lambda row: f"frame{row}", skip=(2,))
    with pytest.raises(BrokenSceneError, match=rf"5 pictures for 6 rows.*{FIRST_US}\.jpg"):
        RealEstate10K(tmp_path).scene("train/0a1b")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (7, "nan", "NaN or infinite"),
        (7, "3.0", "not orthonormal"),
        (1, "-0.9", "must be positive"),
        (1, "wide", "expected 19 numbers"),
        (5, "0.2", "lens distortion"),
    ],
)
def test_impossible_row_breaks_the_scene(tmp_path, column, value, message):
    lines = write_clip(tmp_path)
    columns = lines[2].split()
    columns[column] = value
    lines[2] = " ".join(columns)
    rewrite(tmp_path, lines)
    with pytest.raises(BrokenSceneError, match=f"scene train/0a1b: .*{message}"):
        RealEstate10K(tmp_path).scene("train/0a1b")


def test_mirrored_pose_breaks_the_scene(tmp_path):
    lines = write_clip(tmp_path)
    columns = lines[0].split()
    for column in range(7, 11):
        columns[column] = str(-float(columns[column]))
    rewrite(tmp_path, [" ".join(columns), *lines[1:]])
    with pytest.raises(BrokenSceneError, match=r"scene train/0a1b: .*is mirrored"):
        RealEstate10K(tmp_path).scene("train/0a1b")


def test_text_without_rows_is_broken(tmp_path):
    write_clip(tmp_path)
    rewrite(tmp_path, [])
    with pytest.raises(BrokenSceneError, match=r"scene train/0a1b: .*holds no row"):
        RealEstate10K(tmp_path).scene("train/0a1b")


def test_truncated_frame_breaks_the_sample(tmp_path):
    write_clip(tmp_path, rows=3)
    known.cut_short(tmp_path / "frames" / "0a1b" / f"{time_us(1)}.png")
    with pytest.raises(BrokenSceneError, match=rf"scene train/0a1b: image .*{time_us(1)}.png is"):
        known.sample_of(RealEstate10K(tmp_path), "train/0a1b")


# ---- what is refused ----------------------------------------------------------------------------


def test_another_layout_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(InvalidInputError, match=r"root of acid is .* which is empty"):
        ACID(tmp_path)
    (tmp_path / "videos").mkdir()
    with pytest.raises(InvalidInputError, match=r"10k is .* which holds videos; expected texts"):
        RealEstate10K(tmp_path)


@pytest.mark.parametrize("scene_id", ["0a1b", "train/../train/0a1b", ""])
def test_unknown_scene_is_refused(tmp_path, scene_id):
    write_clip(tmp_path, rows=2)
    with pytest.raises(InvalidInputError, match=f"scene_id is '{scene_id}', which realestate10k"):
        RealEstate10K(tmp_path).scene(scene_id)
