import math
import shutil
import struct

import numpy as np
import pytest
import torch

import genxd_core as gx
from genxd_core import InvalidInputError, load_cameras, save_cameras
from genxd_core.cameras.io import load_camera_file
from tests.core.cameras.builders import random_cameras
from tests.support import DATA, assert_same_up_to

LUND = DATA / "lund"
ANY_LENS = {"max_distortion": math.inf, "dtype": torch.float64}


@pytest.fixture
def model(tmp_path):
    """A copy of the Lund model that a test may change."""
    return shutil.copytree(LUND / "sparse" / "0", tmp_path / "sparse" / "0")


def one_camera(model: str, params: list[float]) -> str:
    return f"# a comment\n1 {model} 200 100 {' '.join(map(str, params))}\n"


def write_text_model(folder, cameras: str, images: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(cameras, encoding="utf-8")
    (folder / "images.txt").write_text(images, encoding="utf-8")


IMAGES = (
    "# comment\n2 1 0 0 0 1 2 3 1 second view.png\n1.5 2.5 -1 3 4 7\n1 1 0 0 0 0 0 0 1 a.png\n\n"
)


def test_lund_has_the_poses_that_pycolmap_reads():
    # Expected numbers were read with pycolmap 4.
    loaded = load_camera_file(LUND, **ANY_LENS)
    expected_centres = {
        0: [-0.4890458427190873, -0.5911404615531756, -2.5527758750281526],
        14: [3.551238507053143, 5.492601951794385, 7.671986057686828],
    }
    for view, centre in expected_centres.items():
        actual = loaded.cameras.centres[view]
        assert_same_up_to(actual, torch.tensor(centre, dtype=torch.float64), 1e-9)
    rotation = [
        [0.9979428476709443, -0.05672774082774278, -0.029866975122815168],
        [0.05698301533565985, 0.9983449449844144, 0.007765744479604977],
        [0.02937701049566428, -0.009451679461715054, 0.9995237150811833],
    ]
    actual = loaded.cameras.viewmats[0, :3, :3]
    assert_same_up_to(actual, torch.tensor(rotation, dtype=torch.float64), 1e-12)


def test_lund_is_sorted_by_picture_name():
    loaded = load_camera_file(LUND, **ANY_LENS)
    assert loaded.names == tuple(f"{number:02d}.jpg" for number in range(1, 16))
    assert loaded.sizes == ((640, 480),) * 15
    focal = 405.0198762651737
    expected = torch.tensor([[focal / 640, 0, 0.5], [0, focal / 480, 0.5], [0, 0, 1]])
    assert_same_up_to(loaded.cameras.Ks_norm, expected.double().expand(15, 3, 3), 1e-7)


def test_lunds_lens_is_refused_by_default():
    with pytest.raises(
        InvalidInputError, match=r"camera 1 of .* has lens distortion \(k = -0\.08741"
    ):
        load_cameras(LUND)


@pytest.mark.parametrize("place", ["", "sparse", "sparse/0", "sparse/0/images.bin"])
def test_a_model_is_found_from_wherever_it_is_named(place):
    assert len(load_cameras(LUND / place, **ANY_LENS)) == 15


def test_a_model_in_a_folder_named_0_is_found(model, tmp_path):
    shutil.move(model, tmp_path / "clip" / "0")
    assert len(load_cameras(tmp_path / "clip", **ANY_LENS)) == 15


def test_the_old_three_file_layout_gives_the_same_cameras(model):
    new = load_cameras(model, **ANY_LENS)
    for name in ("rigs.bin", "frames.bin"):
        (model / name).unlink()
    (model / "points3D.bin").write_bytes(struct.pack("<Q", 0))
    assert torch.equal(load_cameras(model, **ANY_LENS).c2w, new.c2w)


def test_lund_survives_both_writers(tmp_path):
    lund = load_cameras(LUND, **ANY_LENS)
    for format in ("colmap", "colmap-text"):
        folder = tmp_path / format
        save_cameras(lund, folder, format=format, width=640, height=480)
        again = load_cameras(folder, dtype=torch.float64)
        assert_same_up_to(again.c2w, lund.c2w, 1e-12)
        assert_same_up_to(again.Ks_norm, lund.Ks_norm, 1e-12)


def test_text_poses_are_world_to_camera_with_wxyz_quaternions(tmp_path):
    quarter = math.sqrt(0.5)
    images = f"1 {quarter} 0 0 {quarter} 1 2 3 1 a.png\n\n"
    write_text_model(tmp_path, one_camera("SIMPLE_PINHOLE", [100, 100, 50]), images)
    camera = load_cameras(tmp_path, dtype=torch.float64)
    # A quarter turn about z: x_cam = (-y + 1, x + 2, z + 3).
    expected = [[0.0, -1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0]]
    assert_same_up_to(camera.viewmats[0, :3], torch.tensor(expected, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize(
    ("name", "params", "fy"),
    [
        ("SIMPLE_PINHOLE", [100, 90, 60], 100),
        ("PINHOLE", [100, 120, 90, 60], 120),
        ("SIMPLE_RADIAL", [100, 90, 60, 0.01], 100),
        ("RADIAL", [100, 90, 60, 0.01, -0.02], 100),
        ("OPENCV", [100, 120, 90, 60, 0.01, 0, 0.001, 0], 120),
        ("FULL_OPENCV", [100, 120, 90, 60, 0.01, 0, 0, 0, 0, 0, 0, 0], 120),
    ],
)
def test_each_pinhole_model_gives_its_intrinsics(tmp_path, name, params, fy):
    write_text_model(tmp_path, one_camera(name, params), IMAGES)
    loaded = load_camera_file(tmp_path, dtype=torch.float64)
    expected = [[0.5, 0.0, 0.45], [0.0, fy / 100, 0.6], [0.0, 0.0, 1.0]]
    assert_same_up_to(loaded.cameras.Ks_norm[0], torch.tensor(expected).double(), 1e-7)
    assert loaded.names == ("a.png", "second view.png")
    assert_same_up_to(loaded.cameras.centres[1], torch.tensor([-1.0, -2.0, -3.0]).double(), 1e-12)


def test_pictures_of_different_sizes_are_normalised_by_their_own(tmp_path):
    cameras = one_camera("PINHOLE", [100, 100, 100, 50]) + "2 PINHOLE 400 200 100 100 200 100\n"
    images = "1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 0 0 0 2 b.png\n\n"
    write_text_model(tmp_path, cameras, images)
    loaded = load_camera_file(tmp_path)
    assert loaded.sizes == ((200, 100), (400, 200))
    assert loaded.cameras.Ks_norm[:, 0, 0].tolist() == [0.5, 0.25]


def test_a_fisheye_model_is_refused_by_name(tmp_path):
    write_text_model(tmp_path, one_camera("OPENCV_FISHEYE", [1] * 8), IMAGES)
    with pytest.raises(
        InvalidInputError, match="COLMAP camera model OPENCV_FISHEYE is not supported"
    ):
        load_cameras(tmp_path)


def test_a_fisheye_model_is_refused_by_number(model):
    data = bytearray((model / "cameras.bin").read_bytes())
    struct.pack_into("<i", data, 12, 5)
    (model / "cameras.bin").write_bytes(bytes(data))
    with pytest.raises(InvalidInputError, match="COLMAP camera model 5 is not supported"):
        load_cameras(model)


@pytest.mark.parametrize("keep", [0, 6, 100, 2600])
def test_a_file_that_was_cut_off_is_refused(model, keep):
    data = (model / "images.bin").read_bytes()
    (model / "images.bin").write_bytes(data[:keep])
    with pytest.raises(InvalidInputError, match="COLMAP files are damaged or cut off"):
        load_cameras(model, **ANY_LENS)


def test_a_text_line_that_is_no_pose_is_refused(tmp_path):
    write_text_model(tmp_path, one_camera("PINHOLE", [1, 1, 1, 1]), "1 1 0 0\n\n")
    with pytest.raises(InvalidInputError, match="COLMAP files are damaged or cut off"):
        load_cameras(tmp_path)


def test_intrinsics_of_the_wrong_number_are_refused(tmp_path):
    write_text_model(tmp_path, one_camera("PINHOLE", [1, 1, 1]), IMAGES)
    with pytest.raises(InvalidInputError, match="COLMAP files are damaged or cut off"):
        load_cameras(tmp_path)


def test_a_model_without_images_is_refused(tmp_path):
    write_text_model(tmp_path, one_camera("PINHOLE", [1, 1, 1, 1]), "# none\n")
    with pytest.raises(InvalidInputError, match="has no registered image"):
        load_cameras(tmp_path)


def test_images_of_a_camera_that_is_not_there_are_refused(tmp_path):
    images = "1 1 0 0 0 0 0 0 9 a.png\n\n"
    write_text_model(tmp_path, one_camera("PINHOLE", [1, 1, 1, 1]), images)
    with pytest.raises(InvalidInputError, match=r"images refer to the cameras \[9\]"):
        load_cameras(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="holds no COLMAP model"):
        load_cameras(tmp_path, format="colmap")


def test_writing_over_a_model_is_refused(model):
    with pytest.raises(InvalidInputError, match="holds a COLMAP model already"):
        save_cameras(random_cameras(2), model)


def test_equal_intrinsics_share_one_colmap_camera(tmp_path):
    save_cameras(gx.orbit(5), tmp_path / "shared")
    save_cameras(random_cameras(5), tmp_path / "own")
    counts = [
        struct.unpack_from("<Q", (tmp_path / name / "cameras.bin").read_bytes())[0]
        for name in ("shared", "own")
    ]
    assert counts == [1, 5]


def test_views_look_the_same_to_a_projection_by_colmaps_rules(tmp_path):
    cameras = random_cameras(3)
    save_cameras(cameras, tmp_path / "model", format="colmap-text", width=320, height=240)
    lines = (tmp_path / "model" / "images.txt").read_text(encoding="utf-8").splitlines()[1::2]
    point = np.array([0.3, -0.7, 1.1])
    for view, line in enumerate(lines):
        w, x, y, z, *translation = (float(value) for value in line.split()[1:8])
        vector = np.array([x, y, z])
        # Rotation of a point by a quaternion, as a sandwich product.
        turned = point + 2 * np.cross(vector, np.cross(vector, point) + w * point)
        expected = cameras.viewmats[view].numpy() @ np.append(point, 1.0)
        assert np.allclose(turned + translation, expected[:3], atol=1e-12)
