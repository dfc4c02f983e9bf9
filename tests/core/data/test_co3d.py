"""CO3D: PyTorch3D's cameras in both kinds of NDC, lazy annotations, masks, quality."""

import gzip
import json
import math

import numpy as np
import pytest
from PIL import Image

from genxd_core.data.datasets.co3d import Co3D
from genxd_core.data.scene import BrokenSceneError, SceneDataset
from genxd_core.errors import InvalidInputError
from tests.core.data import known_points as known

FOCAL, PRINCIPAL = np.array([2.1, 2.3]), np.array([0.11, -0.07])


def write_jgz(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        json.dump(content, stream)


def pytorch3d_camera(position):
    """R and T of ``x_cam = x_world R + T``: R's columns are left, up, forward, in the world."""
    forward = -position / np.linalg.norm(position)
    left = np.cross([0.0, 0.0, 1.0], forward)
    left /= np.linalg.norm(left)
    R = np.stack([left, np.cross(forward, left), forward], axis=1)
    return R, -position @ R


def pytorch3d_pixels(R, T, ndc, width, height):
    """Points through PyTorch3D's own formulas: NDC, +x left and +y up, then the screen."""
    x, y, z = (known.POINTS @ R + T).T
    x_ndc, y_ndc = FOCAL[0] * x / z + PRINCIPAL[0], FOCAL[1] * y / z + PRINCIPAL[1]
    smaller = min(width, height)
    unit = (smaller, smaller) if ndc == "ndc_isotropic" else (width, height)
    return np.stack([width / 2 - x_ndc * unit[0] / 2, height / 2 - y_ndc * unit[1] / 2], axis=1)


def frame(root, category, sequence, number, position, ndc, size):
    """Write picture and mask, and return the annotation."""
    width, height = size
    R, T = pytorch3d_camera(position)
    image = f"{category}/{sequence}/images/frame{number:06d}.jpg"
    mask = f"{category}/{sequence}/masks/frame{number:06d}.png"
    for path in (root / image, root / mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    drawn = known.picture(pytorch3d_pixels(R, T, ndc, width, height), width, height)
    drawn.save(root / image, quality=98, subsampling=0)
    # The object is all but the upper quarter.
    levels = np.full((height, width), 255, np.uint8)
    levels[: height // 4] = 0
    Image.fromarray(levels).save(root / mask)
    viewpoint = {"R": R.tolist(), "T": T.tolist()}
    viewpoint |= {"focal_length": FOCAL.tolist(), "principal_point": PRINCIPAL.tolist()}
    if ndc:
        viewpoint["intrinsics_format"] = ndc
    return {
        "sequence_name": sequence,
        "frame_number": number,
        "frame_timestamp": number / 10,
        "image": {"path": image, "size": [height, width]},
        "mask": {"path": mask, "mass": 100.0},
        "viewpoint": viewpoint,
    }


def write_category(root, category, sequences, *, ndc="ndc_isotropic", size=(96, 64), frames=5):
    content = [
        frame(root, category, sequence, number + 1, position, ndc, size)
        for sequence in sequences
        for number, position in enumerate(known.positions(frames))
    ]
    write_jgz(root / category / "frame_annotations.jgz", content)
    return content


def rewrite(root, content, category="apple"):
    write_jgz(root / category / "frame_annotations.jgz", content)


@pytest.mark.parametrize("size", [(96, 64), (56, 88)])
@pytest.mark.parametrize("ndc", ["ndc_isotropic", "ndc_norm_image_bounds", ""])
def test_cameras_project_as_pytorch3d_does(tmp_path, ndc, size):
    write_category(tmp_path, "apple", ["one"], ndc=ndc, size=size)
    cameras = Co3D(tmp_path).scene("apple/one").cameras
    expected = [
        pytorch3d_pixels(*pytorch3d_camera(position), ndc, *size) for position in known.positions(5)
    ]
    np.testing.assert_allclose(known.projections(cameras, *size), expected, atol=1e-6)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("ndc", ["ndc_isotropic", "ndc_norm_image_bounds"])
def test_sample_shows_points_where_its_cameras_see_them(tmp_path, ndc, fit):
    write_category(tmp_path, "apple", ["one"], ndc=ndc)
    dataset = Co3D(tmp_path, masks=False)
    sample = known.sample_of(dataset, "apple/one", fit=fit)
    known.assert_points_are_where_cameras_say(sample)
    assert (sample.kind, sample.gamma, sample.masks) == ("3d", 0.0, None)


def test_frames_of_several_sizes_have_intrinsics_of_their_own(tmp_path):
    content = write_category(tmp_path, "apple", ["one"], frames=2)
    content[1] = frame(tmp_path, "apple", "one", 2, known.positions(2)[1], "", (56, 88))
    rewrite(tmp_path, content)
    scene = Co3D(tmp_path).scene("apple/one")
    for view, (ndc, size) in enumerate([("ndc_isotropic", (96, 64)), ("", (56, 88))]):
        expected = pytorch3d_pixels(*pytorch3d_camera(known.positions(2)[view]), ndc, *size)
        actual = known.projections(scene.cameras[view], *size)[0]
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_masks_are_one_at_the_object_and_follow_the_crop(tmp_path):
    write_category(tmp_path, "apple", ["one"], size=(64, 64))
    masks = known.sample_of(Co3D(tmp_path), "apple/one").masks
    assert masks is not None
    assert bool((masks[:, :, :10] < 0.1).all())
    assert bool((masks[:, :, 14:] > 0.9).all())


def test_frames_come_in_the_order_of_the_video(tmp_path):
    content = write_category(tmp_path, "apple", ["one"])
    in_order = Co3D(tmp_path).scene("apple/one")
    rewrite(tmp_path, content[::-1])
    scene = Co3D(tmp_path).scene("apple/one")
    assert list(scene.names) == [f"frame{number:06d}.jpg" for number in range(1, 6)]
    assert bool((scene.cameras.c2w == in_order.cameras.c2w).all())


def test_scenes_are_those_with_a_folder(tmp_path):
    content = write_category(tmp_path, "cup", ["two", "one"], frames=2)
    absent = [{**entry, "sequence_name": "not_downloaded"} for entry in content[:2]]
    rewrite(tmp_path, content + absent, "cup")
    write_category(tmp_path, "apple", ["three"], frames=2)
    dataset = Co3D(tmp_path)
    assert isinstance(dataset, SceneDataset)
    assert dataset.scene_ids == ("apple/three", "cup/one", "cup/two")
    assert Co3D(tmp_path, categories=("cup",)).scene_ids == ("cup/one", "cup/two")
    with pytest.raises(InvalidInputError, match="'cup/not_downloaded', which co3d does not have"):
        dataset.scene("cup/not_downloaded")


def test_annotations_are_read_once_and_only_when_needed(tmp_path):
    write_category(tmp_path, "apple", ["one"], frames=2)
    (tmp_path / "cup").mkdir()
    (tmp_path / "cup" / "frame_annotations.jgz").write_bytes(b"no gzip")
    dataset = Co3D(tmp_path)  # looks at names alone
    dataset.scene("apple/one")  # needs its own category alone
    with pytest.raises(InvalidInputError, match=r"cup/frame_annotations.jgz is damaged"):
        _ = dataset.scene_ids
    (tmp_path / "apple" / "frame_annotations.jgz").unlink()
    assert dataset.scene("apple/one").scene_id == "apple/one"


def test_quality_leaves_out_bad_sequences_and_those_without_a_score(tmp_path):
    write_category(tmp_path, "apple", ["bad", "good", "unknown"], frames=2)
    scores = {"bad": 0.2, "good": 0.9, "unknown": None}
    write_jgz(
        tmp_path / "apple" / "sequence_annotations.jgz",
        [{"sequence_name": n, "viewpoint_quality_score": score} for n, score in scores.items()],
    )
    assert Co3D(tmp_path, min_quality=0.5).scene_ids == ("apple/good",)
    assert len(Co3D(tmp_path).scene_ids) == 3
    with pytest.raises(InvalidInputError, match=r"no sequence of quality 0\.95 or more in apple"):
        _ = Co3D(tmp_path, min_quality=0.95).scene_ids


def test_quality_without_sequence_annotations_is_refused(tmp_path):
    write_category(tmp_path, "apple", ["one"], frames=2)
    with pytest.raises(InvalidInputError, match=r"min_quality is 0\.5, but .*apple has no"):
        _ = Co3D(tmp_path, min_quality=0.5).scene_ids


def test_same_seed_gives_the_same_sample(tmp_path):
    write_category(tmp_path, "apple", ["one"], frames=6)
    dataset = Co3D(tmp_path)
    samples = [known.sample_of(dataset, "apple/one", seed=seed) for seed in (3, 3)]
    known.assert_same_sample(*samples)
    starts = {known.sample_of(dataset, "apple/one", seed=s).provenance.frames for s in range(8)}
    assert len(starts) > 1


# ---- what is broken -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}, "is mirrored"),
        ({"R": [[1, 0, 0], [0, 2, 0], [0, 0, 1]]}, "not orthonormal"),
        ({"T": [0, math.nan, 1]}, "NaN or infinite"),
        ({"T": [0, 1]}, "annotation of frame 1 cannot be read"),
        ({"R": None}, "annotation of frame 1 cannot be read"),
        ({"focal_length": [2, -2]}, "must be positive"),
        ({"intrinsics_format": "pixels"}, "format pixels"),
    ],
)
def test_impossible_camera_breaks_its_scene_alone(tmp_path, change, message):
    content = write_category(tmp_path, "apple", ["bad", "good"], frames=2)
    content[0]["viewpoint"] |= change
    rewrite(tmp_path, content)
    dataset = Co3D(tmp_path)
    assert dataset.scene_ids == ("apple/bad", "apple/good")
    with pytest.raises(BrokenSceneError, match=f"scene apple/bad: .*{message}"):
        dataset.scene("apple/bad")
    assert len(dataset.scene("apple/good").cameras) == 2


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/hostname", "a/../../b.jpg", "C:\\a.jpg"])
def test_picture_outside_of_the_root_breaks_the_scene(tmp_path, path):
    content = write_category(tmp_path / "root", "apple", ["one"], frames=2)
    content[0]["image"]["path"] = path
    rewrite(tmp_path / "root", content)
    with pytest.raises(BrokenSceneError, match=r"scene apple/one: .*which leads out of"):
        Co3D(tmp_path / "root").scene("apple/one")


def test_missing_picture_breaks_the_scene(tmp_path):
    content = write_category(tmp_path, "apple", ["one"], frames=2)
    (tmp_path / content[1]["image"]["path"]).unlink()
    with pytest.raises(BrokenSceneError, match=r"one: the picture .*000002.jpg does not exist"):
        Co3D(tmp_path).scene("apple/one")


def test_missing_mask_breaks_the_scene_unless_masks_are_not_wanted(tmp_path):
    content = write_category(tmp_path, "apple", ["one"], frames=2)
    (tmp_path / content[1]["mask"]["path"]).unlink()
    with pytest.raises(BrokenSceneError, match=r"the mask .* does not exist; .*masks=False"):
        Co3D(tmp_path).scene("apple/one")
    assert Co3D(tmp_path, masks=False).scene("apple/one").masks is None


def test_sequence_whose_annotations_lack_a_mask_has_none(tmp_path):
    content = write_category(tmp_path, "apple", ["one"], frames=2)
    content[1]["mask"] = None
    rewrite(tmp_path, content)
    assert Co3D(tmp_path).scene("apple/one").masks is None


def test_truncated_picture_breaks_the_sample(tmp_path):
    content = write_category(tmp_path, "apple", ["one"], frames=3)
    known.cut_short(tmp_path / content[1]["image"]["path"])
    with pytest.raises(BrokenSceneError, match=r"scene apple/one: image .*000002.jpg is damaged"):
        known.sample_of(Co3D(tmp_path), "apple/one")


def test_picture_of_another_shape_breaks_the_sample(tmp_path):
    content = write_category(tmp_path, "apple", ["one"], frames=3)
    Image.new("RGB", (64, 64)).save(tmp_path / content[0]["image"]["path"])
    with pytest.raises(BrokenSceneError, match=r"64 x 64 pixels, another shape .*\(96 x 64\)"):
        known.sample_of(Co3D(tmp_path), "apple/one")


# ---- what is refused ----------------------------------------------------------------------------


def test_another_layout_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(InvalidInputError, match=r"root of co3d is .*which is empty; expected"):
        Co3D(tmp_path)
    for name in ("a.txt", "b.txt", "c.txt", "d.txt", "e.txt"):
        (tmp_path / name).touch()
    with pytest.raises(InvalidInputError, match=r"holds a.txt, .*d.txt, \.\.\.; expected fold"):
        Co3D(tmp_path)
    with pytest.raises(InvalidInputError, match="which is a file"):
        Co3D(tmp_path / "a.txt")


@pytest.mark.parametrize("categories", [("car",), ()])
def test_unknown_categories_are_refused(tmp_path, categories):
    write_category(tmp_path, "apple", ["one"], frames=2)
    with pytest.raises(InvalidInputError, match=r"categories are (car|none); .*: apple"):
        Co3D(tmp_path, categories=categories)


@pytest.mark.parametrize(
    ("content", "message"),
    [({"a": 1}, "holds a JSON dict, no list"), ([{"image": 1}], "an entry without sequence_name")],
)
def test_annotations_of_another_kind_are_refused(tmp_path, content, message):
    rewrite(tmp_path, content)
    with pytest.raises(InvalidInputError, match=message):
        _ = Co3D(tmp_path).scene_ids


def test_annotations_cut_short_are_refused(tmp_path):
    write_category(tmp_path, "apple", ["one"], frames=2)
    known.cut_short(tmp_path / "apple" / "frame_annotations.jgz")
    with pytest.raises(InvalidInputError, match=r"frame_annotations.jgz is damaged or cut off"):
        _ = Co3D(tmp_path).scene_ids
