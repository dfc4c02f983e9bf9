"""ReconFusion's packed sets: rows of 18 numbers, encoded pictures, splits."""

import io
import json

import numpy as np
import pytest
import torch

from genxd_core.data.datasets.reconfusion import NEAR_FAR, ReconFusion
from genxd_core.data.scene import BrokenSceneError, SceneDataset
from genxd_core.errors import InvalidInputError
from tests.core.data import known_points as known

WIDTH, HEIGHT = 88, 64
INTRINSICS = [0.95, 1.3, 0.47, 0.55]


def row(position):
    w2c = known.opencv_w2c(position)
    return [*INTRINSICS, 0.0, 0.0, *w2c[:3].flatten().tolist()]


def published_pixels(numbers):
    """diag(width, height, 1) K [R | t] X, from the row's own numbers."""
    fx, fy, cx, cy = numbers[:4]
    K = np.array([[fx * WIDTH, 0, cx * WIDTH], [0, fy * HEIGHT, cy * HEIGHT], [0, 0, 1]])
    P = np.array(numbers[6:]).reshape(3, 4)
    seen = (K @ P @ np.concatenate([known.POINTS, np.ones((3, 1))], axis=1).T).T
    return seen[:, :2] / seen[:, 2:]


def encoded(picture):
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=98, subsampling=0)
    return torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)


def packed(views=6):
    rows = [row(position) for position in known.positions(views)]
    pictures = [known.picture(published_pixels(numbers), WIDTH, HEIGHT) for numbers in rows]
    return {
        "key": "hall",
        "cameras": torch.tensor(rows, dtype=torch.float32),
        "images": [encoded(picture) for picture in pictures],
        "train_test_split_3": {"train_ids": [0, 2, 5], "test_ids": [1, 3]},
        "train_test_split_6": {"train_ids": torch.tensor([0, 1, 2]), "test_ids": (4,)},
    }


def write_set(root, content, *, files=("hall",)):
    root.mkdir(parents=True, exist_ok=True)
    index = {name: f"scenes/{name}.torch" for name in files}
    (root / "index.json").write_text(json.dumps(index))
    (root / "scenes").mkdir(exist_ok=True)
    for name in files:
        torch.save([content], root / "scenes" / f"{name}.torch")
    return root


def test_cameras_project_as_the_rows_do(tmp_path):
    write_set(tmp_path, packed())
    cameras = ReconFusion(tmp_path).scene("hall").cameras
    expected = [published_pixels(row(position)) for position in known.positions(6)]
    # The rows are float32.
    np.testing.assert_allclose(known.projections(cameras, WIDTH, HEIGHT), expected, atol=1e-4)
    assert cameras.times is None


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_sample_shows_points_where_its_cameras_see_them(tmp_path, fit):
    dataset = ReconFusion(write_set(tmp_path / "re10k", packed()))
    sample = known.sample_of(dataset, "hall", views=5, fit=fit)
    known.assert_points_are_where_cameras_say(sample)
    assert (sample.kind, sample.gamma, sample.masks) == ("3d", 0.0, None)


def test_splits_are_those_of_the_file(tmp_path):
    dataset = ReconFusion(write_set(tmp_path, packed()))
    assert dataset.split("hall", 3) == ((0, 2, 5), (1, 3))
    assert dataset.split("hall", 6) == ((0, 1, 2), (4,))
    message = r"no split for 9 given views; it has train_test_split_3, train_test_split_6"
    with pytest.raises(BrokenSceneError, match=message):
        dataset.split("hall", 9)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train_ids": [0, 6], "test_ids": [1]}, "names views beyond the 6"),
        ({"train_ids": [0]}, "no readable train_ids and test_ids"),
        ({"train_ids": ["a"], "test_ids": [1]}, "no readable train_ids and test_ids"),
    ],
)
def test_impossible_split_is_broken(tmp_path, split, message):
    dataset = ReconFusion(write_set(tmp_path, packed() | {"train_test_split_3": split}))
    with pytest.raises(BrokenSceneError, match=f"scene hall: train_test_split_3 .*{message}"):
        dataset.split("hall", 3)


@pytest.mark.parametrize("name", NEAR_FAR)
def test_set_is_known_by_its_folder(tmp_path, name):
    dataset = ReconFusion(write_set(tmp_path / name, packed()))
    published = {"re10k": (1, 100), "llff": (10, 100), "dtu": (1.125, 4.25), "co3d": (0.5, 40)}
    assert dataset.near_far == published.get(name, (0.1, 1e5))
    assert dataset.scene("hall").ordered == (name in ("re10k", "co3d"))


def test_set_of_another_folder_can_be_told(tmp_path):
    write_set(tmp_path / "mine", packed())
    assert ReconFusion(tmp_path / "mine").near_far is None
    assert ReconFusion(tmp_path / "mine", subset="dtu").near_far == (1.125, 4.25)
    with pytest.raises(InvalidInputError, match=r"subset is 'mine', expected one of re10k"):
        ReconFusion(tmp_path / "mine", subset="mine")


def test_scenes_are_those_of_the_index_sorted(tmp_path):
    dataset = ReconFusion(write_set(tmp_path, packed(2), files=("b", "a")))
    assert isinstance(dataset, SceneDataset)
    assert dataset.scene_ids == ("a", "b")
    with pytest.raises(InvalidInputError, match=r"scene_id is 'c', which reconfusion does not"):
        dataset.scene("c")


def test_same_seed_gives_the_same_sample(tmp_path):
    dataset = ReconFusion(write_set(tmp_path, packed(8)))
    samples = [known.sample_of(dataset, "hall", seed=seed) for seed in (2, 2)]
    known.assert_same_sample(*samples)
    drawn = {known.sample_of(dataset, "hall", seed=s).provenance.frames for s in range(8)}
    assert len(drawn) > 1


# ---- what is broken -----------------------------------------------------------------------------


def camera_changed(content, column, value):
    content["cameras"][1, column] = value
    return content


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (6, float("nan"), "NaN or infinite"),
        (6, 2.0, "not orthonormal"),
        (1, -1.0, "must be positive"),
    ],
)
def test_impossible_camera_breaks_the_scene(tmp_path, column, value, message):
    dataset = ReconFusion(write_set(tmp_path, camera_changed(packed(), column, value)))
    with pytest.raises(BrokenSceneError, match=f"scene hall: .*camera 1 .*{message}"):
        dataset.scene("hall")


def test_mirrored_pose_breaks_the_scene(tmp_path):
    content = packed()
    content["cameras"][:, 6:10] *= -1
    with pytest.raises(BrokenSceneError, match=r"scene hall: .*is mirrored"):
        ReconFusion(write_set(tmp_path, content)).scene("hall")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": torch.zeros(6, 19)}, r"cameras is \(6, 19\); expected a tensor \(N, 18\)"),
        ({"cameras": None}, r"cameras is NoneType"),
        ({"images": [1, 2]}, "images is no list of tensors"),
        ({"images": []}, "has 0 pictures for 6 cameras"),
    ],
)
def test_file_of_other_content_breaks_the_scene(tmp_path, change, message):
    with pytest.raises(BrokenSceneError, match=f"scene hall.*{message}"):
        ReconFusion(write_set(tmp_path, packed() | change)).scene("hall")


def test_truncated_file_breaks_the_scene(tmp_path):
    dataset = ReconFusion(write_set(tmp_path, packed()))
    known.cut_short(tmp_path / "scenes" / "hall.torch")
    with pytest.raises(BrokenSceneError, match=r"scene hall: its file .*hall.torch is damaged"):
        dataset.scene("hall")
    (tmp_path / "scenes" / "hall.torch").unlink()
    with pytest.raises(BrokenSceneError, match=r"scene hall: its file .* does not exist"):
        dataset.scene("hall")
    torch.save({"a": 1}, tmp_path / "scenes" / "hall.torch")
    with pytest.raises(BrokenSceneError, match=r"scene hall: .* is no list"):
        dataset.scene("hall")


class Code:
    """Anything that a pickle would have to run code for."""


def test_file_that_would_run_code_breaks_the_scene(tmp_path):
    dataset = ReconFusion(write_set(tmp_path, packed() | {"extra": Code()}))
    with pytest.raises(BrokenSceneError, match=r"scene hall: .*more than plain tensors"):
        dataset.scene("hall")


@pytest.mark.parametrize("whole", [True, False])
def test_damaged_picture_breaks_the_sample(tmp_path, whole):
    content = packed(3)
    picture = content["images"][1]
    content["images"][1] = torch.zeros(64, dtype=torch.uint8) if whole else picture[:400]
    dataset = ReconFusion(write_set(tmp_path, content))
    with pytest.raises(BrokenSceneError, match=r"scene hall: images\[1\] is a damaged picture"):
        known.sample_of(dataset, "hall")


def test_picture_that_is_not_encoded_breaks_the_sample(tmp_path):
    content = packed(3)
    content["images"][0] = torch.zeros(3, HEIGHT, WIDTH)
    dataset = ReconFusion(write_set(tmp_path, content))
    with pytest.raises(BrokenSceneError, match=r"images\[0\] is \(3, 64, 88\) in torch.float32"):
        known.sample_of(dataset, "hall")


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../other.torch", "/tmp/other.torch", "C:\\x", "", 3, None])
def test_index_that_names_files_elsewhere_is_refused(tmp_path, name):
    write_set(tmp_path, packed(2))
    (tmp_path / "index.json").write_text(json.dumps({"hall": name}))
    with pytest.raises(InvalidInputError, match=r"index.json names .*(leads out of|no path)"):
        ReconFusion(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is damaged"), ("[]", "names no scenes"), ("{}", "names no scenes")]
)
def test_damaged_index_is_refused(tmp_path, text, message):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(InvalidInputError, match=f"index.json {message}"):
        ReconFusion(tmp_path)


def test_another_layout_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(InvalidInputError, match=r"root of reconfusion is .* which is empty"):
        ReconFusion(tmp_path)
    write_set(tmp_path / "re10k", packed(2))
    with pytest.raises(InvalidInputError, match=r"holds re10k; expected the folder of one set"):
        ReconFusion(tmp_path)
