"""Camera files: every format read and written, and what each says about files it cannot read."""

import json
import logging
import math
import struct

import numpy as np
import pytest
import torch
from PIL import Image

import genxd_core as gx
from genxd_core import Cameras, InvalidInputError, load_cameras, save_cameras
from genxd_core.cameras.io import load_camera_file
from tests.core.cameras.builders import random_cameras
from tests.support import assert_same_up_to

FLOAT64 = {"dtype": torch.float64}
ROUND_TRIPS = [
    ("path.json", None),
    ("transforms.json", None),
    ("model", None),
    ("model", "colmap-text"),
    ("clip.txt", None),
]


def assert_same_cameras(actual: Cameras, expected: Cameras, tolerance: float = 1e-9) -> None:
    assert_same_up_to(actual.c2w, expected.c2w, tolerance)
    assert_same_up_to(actual.Ks_norm, expected.Ks_norm, tolerance)


def write_json(path, content) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(("name", "format"), ROUND_TRIPS)
@pytest.mark.parametrize("seed", range(3))
def test_round_trip_keeps_poses_and_intrinsics(tmp_path, name, format, seed):
    cameras = random_cameras(12, seed)
    save_cameras(cameras, tmp_path / name, format=format)
    again = load_cameras(tmp_path / name, **FLOAT64)
    assert_same_cameras(again, cameras)
    assert again.times is None


@pytest.mark.parametrize(("name", "format"), ROUND_TRIPS)
def test_round_trip_of_an_explicit_picture_size(tmp_path, name, format):
    cameras = random_cameras(3)
    save_cameras(cameras, tmp_path / name, format=format, width=640, height=360)
    assert_same_cameras(load_cameras(tmp_path / name, **FLOAT64), cameras)


@pytest.mark.parametrize("name", ["path.json", "transforms.json", "clip.txt"])
def test_round_trip_keeps_times(tmp_path, name):
    cameras = random_cameras(5, times=True)
    save_cameras(cameras, tmp_path / name)
    assert_same_up_to(load_cameras(tmp_path / name, **FLOAT64).times, cameras.times, 1e-6)


def test_our_own_format_keeps_every_number_exactly(tmp_path):
    cameras = random_cameras(4, times=True, skew=True)
    save_cameras(cameras, tmp_path / "path.json")
    again = load_cameras(tmp_path / "path.json", **FLOAT64)
    assert torch.equal(again.c2w, cameras.c2w)
    assert torch.equal(again.Ks_norm, cameras.Ks_norm)
    assert torch.equal(again.times, cameras.times)


def test_loaded_cameras_are_float32_unless_asked(tmp_path):
    save_cameras(random_cameras(2), tmp_path / "path.json")
    assert load_cameras(tmp_path / "path.json").dtype == torch.float32


def test_saving_replaces_a_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "path.json"
    save_cameras(random_cameras(2), path)
    save_cameras(random_cameras(3), str(path))
    assert len(load_cameras(str(path))) == 3
    assert [file.name for file in path.parent.iterdir()] == ["path.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "path.json"
    save_cameras(random_cameras(2), path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_cameras(random_cameras(3), path)
    monkeypatch.undo()
    assert len(load_cameras(path)) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["path.json"]


def test_a_format_overrides_the_name(tmp_path):
    cameras = random_cameras(3)
    save_cameras(cameras, tmp_path / "cameras.dat", format="realestate10k")
    assert_same_cameras(load_cameras(tmp_path / "cameras.dat", **FLOAT64), cameras)
    save_cameras(cameras, tmp_path / "odd.txt", format="genxd")
    assert_same_cameras(load_cameras(tmp_path / "odd.txt", **FLOAT64), cameras)


def test_loading_logs_the_path_scale(tmp_path, caplog):
    save_cameras(gx.scale_cameras(gx.orbit(6), 50.0), tmp_path / "path.json")
    with caplog.at_level(logging.INFO, logger="genxd_core"):
        load_cameras(tmp_path / "path.json")
    assert "path scale 200" in caplog.text
    assert "far above what the released weights saw" in caplog.text


def test_names_and_sizes_come_along(tmp_path):
    names = ["b.png", "a.png", "c.png"]
    cameras = random_cameras(3)
    settings = {"width": 64, "height": 48, "names": names}
    save_cameras(cameras, tmp_path / "transforms.json", **settings)
    loaded = load_camera_file(tmp_path / "transforms.json", **FLOAT64)
    assert loaded.names == tuple(names)
    assert loaded.sizes == ((64, 48),) * 3
    save_cameras(cameras, tmp_path / "model", **settings)
    loaded = load_camera_file(tmp_path / "model", **FLOAT64)
    assert loaded.names == ("a.png", "b.png", "c.png")
    assert_same_cameras(loaded.cameras, cameras[[1, 0, 2]])


# ---- nerfstudio, Blender -------------------------------------------------------------------------


def blender(**changes) -> dict:
    """A camera at (0, 0, 5) in Blender's rest orientation: it looks down, +Y up in its picture."""
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 5], [0, 0, 0, 1]]
    content = {
        "camera_angle_x": math.pi / 2,
        "frames": [{"file_path": "./r_0", "transform_matrix": pose}],
    }
    return {**content, **changes}


def test_blender_camera_looks_down_from_above(tmp_path):
    write_json(tmp_path / "transforms.json", blender())
    camera = load_cameras(tmp_path / "transforms.json")
    assert camera.c2w[0, :3, 2].tolist() == [0.0, 0.0, -1.0]
    assert camera.c2w[0, :3, 1].tolist() == [0.0, -1.0, 0.0]
    assert camera.centres.tolist() == [[0.0, 0.0, 5.0]]
    assert_same_up_to(
        camera.Ks_norm[0], torch.tensor([[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]]), 1e-6
    )


def test_blender_file_without_a_size_says_that_it_assumes_squares(tmp_path, caplog):
    write_json(tmp_path / "transforms.json", blender())
    load_cameras(tmp_path / "transforms.json")
    assert "gives no picture size; square pictures are assumed" in caplog.text


def test_blender_file_takes_the_size_of_its_picture(tmp_path, caplog):
    Image.new("RGB", (200, 100)).save(tmp_path / "r_0.png")
    write_json(tmp_path / "transforms.json", blender())
    loaded = load_camera_file(tmp_path / "transforms.json")
    assert loaded.sizes == ((200, 100),)
    assert float(loaded.cameras.Ks_norm[0, 1, 1]) == pytest.approx(1.0)
    assert "assumed" not in caplog.text


def test_camera_angle_y_is_taken(tmp_path):
    write_json(tmp_path / "transforms.json", blender(camera_angle_y=2 * math.atan(0.25)))
    camera = load_cameras(tmp_path)
    assert float(camera.Ks_norm[0, 1, 1]) == pytest.approx(2.0)


def test_intrinsics_of_a_frame_go_before_those_of_the_file(tmp_path):
    content = blender(fl_x=100.0, w=200, h=100, cx=90.0, cy=60.0)
    own = {
        **content["frames"][0],
        "fl_x": 50.0,
        "fl_y": 80.0,
        "w": 100,
        "h": 50,
        "cx": 50,
        "cy": 25,
    }
    content["frames"].append(own)
    write_json(tmp_path / "transforms.json", content)
    Ks_norm = load_cameras(tmp_path / "transforms.json").Ks_norm
    shared = torch.tensor([[0.5, 0, 0.45], [0, 1.0, 0.6], [0, 0, 1]])
    assert_same_up_to(Ks_norm[0], shared, 1e-6)
    assert_same_up_to(Ks_norm[1], torch.tensor([[0.5, 0, 0.5], [0, 1.6, 0.5], [0, 0, 1]]), 1e-6)


def test_small_distortion_is_ignored_with_a_word(tmp_path, caplog):
    content = blender(camera_model="OPENCV", fl_x=100.0, w=200, h=100, k1=0.01, p1=-0.001)
    write_json(tmp_path / "transforms.json", content)
    load_cameras(tmp_path / "transforms.json")
    assert "lens distortion (up to 0.01) is ignored" in caplog.text


def test_large_distortion_is_refused_unless_allowed(tmp_path):
    content = blender(camera_model="OPENCV", fl_x=100.0, w=200, h=100, k1=0.01, k2=-0.05)
    write_json(tmp_path / "transforms.json", content)
    message = r"frame 0 of .* has lens distortion \(k2 = -0\.05, allowed 0\.02\)"
    with pytest.raises(InvalidInputError, match=message):
        load_cameras(tmp_path / "transforms.json")
    assert len(load_cameras(tmp_path / "transforms.json", max_distortion=0.1)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": []}, r'"frames" is missing or empty'),
        ({"frames": [7]}, "frame 0 of .* is no object with a transform_matrix"),
        ({"frames": [{}]}, "frame 0 of .* has no readable transform_matrix"),
        ({"frames": [{"transform_matrix": [[1, 2]]}]}, r"transform_matrix of shape \(1, 2\)"),
        ({"camera_angle_x": 4.0}, "frame 0 of .* has a field of view of 4.0 rad"),
        ({"camera_model": "OPENCV_FISHEYE"}, "has the camera model OPENCV_FISHEYE; only pinhole"),
        ({"fl_x": 100.0}, "focal length in pixels but no picture size; add w and h"),
        ({"fl_x": None, "w": 4, "h": 4}, "has something else than numbers in its intrinsics"),
        ({"w": "wide", "h": 4}, "has something else than numbers in its intrinsics, size"),
    ],
)
def test_transforms_that_cannot_be_read_are_refused_by_frame(tmp_path, change, message):
    write_json(tmp_path / "transforms.json", blender(**change))
    with pytest.raises(InvalidInputError, match=message):
        load_cameras(tmp_path / "transforms.json", format="transforms")


def test_transforms_without_intrinsics_are_refused(tmp_path):
    content = blender()
    del content["camera_angle_x"]
    write_json(tmp_path / "transforms.json", content)
    with pytest.raises(InvalidInputError, match=r"frame 0 of .* has no intrinsics: expected fl_x"):
        load_cameras(tmp_path / "transforms.json")


def test_a_mirrored_pose_in_a_file_is_refused_with_the_files_name(tmp_path):
    content = blender()
    content["frames"][0]["transform_matrix"][0][0] = -1
    write_json(tmp_path / "transforms.json", content)
    with pytest.raises(InvalidInputError, match=r"transforms\.json: c2w of camera 0 is mirrored"):
        load_cameras(tmp_path / "transforms.json")


# ---- RealEstate10K -------------------------------------------------------------------------------

ROW = "0.9 1.6 0.5 0.5 0 0 1 0 0 0.1 0 1 0 0.2 0 0 1 0.3"


def test_realestate_rows_hold_world_to_camera(tmp_path):
    (tmp_path / "clip.txt").write_text(f"https://video\n0 {ROW}\n500000 {ROW}\n", encoding="utf-8")
    cameras = load_cameras(tmp_path / "clip.txt")
    assert_same_up_to(cameras.centres[0], torch.tensor([-0.1, -0.2, -0.3]), 1e-6)
    expected = torch.tensor([[0.9, 0, 0.5], [0, 1.6, 0.5], [0, 0, 1]])
    assert_same_up_to(cameras.Ks_norm[0], expected, 1e-6)
    assert cameras.times.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("text", [f"0 {ROW}\n", f"{ROW}\n{ROW}\n", f"\n  0 {ROW}\r\n\r\n"])
def test_realestate_without_address_or_times_is_read(tmp_path, text):
    (tmp_path / "clip.txt").write_text(text, encoding="utf-8", newline="")
    assert load_cameras(tmp_path / "clip.txt").times is None


def test_realestate_rows_of_another_length_are_refused_by_line(tmp_path):
    (tmp_path / "clip.txt").write_text(f"address\n0 {ROW}\n1 2 3\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"line 3 of .* has 3 columns; expected 19"):
        load_cameras(tmp_path / "clip.txt")


def test_an_empty_realestate_file_is_refused(tmp_path):
    (tmp_path / "clip.txt").write_text("address\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="holds no row of camera numbers"):
        load_cameras(tmp_path / "clip.txt", format="realestate10k")


# ---- our own -------------------------------------------------------------------------------------


def native(**changes) -> dict:
    camera = {"c2w": np.eye(4).tolist(), "fx": 1.0, "fy": 1.0, "cx": 0.5, "cy": 0.5}
    return {"format": "genxd-cameras", "version": 1, "cameras": [camera, dict(camera)], **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2 of genxd-cameras; this release reads version 1"),
        ({"cameras": []}, r'"cameras" is missing or empty'),
        ({"cameras": [{"fx": 1.0}]}, "a camera lacks c2w"),
        ({"cameras": [{**native()["cameras"][0], "fx": "wide"}]}, "something else than numbers"),
    ],
)
def test_our_own_format_refuses_what_it_cannot_read(tmp_path, change, message):
    write_json(tmp_path / "path.json", native(**change))
    with pytest.raises(InvalidInputError, match=message):
        load_cameras(tmp_path / "path.json")


def test_our_own_format_refuses_times_of_some(tmp_path):
    content = native()
    content["cameras"][0]["time"] = 0.5
    write_json(tmp_path / "path.json", content)
    with pytest.raises(InvalidInputError, match="camera 1 has no time, but others have"):
        load_cameras(tmp_path / "path.json")


# ---- what is no camera file ----------------------------------------------------------------------


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist; give a camera file or folder"):
        load_cameras(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "is of no known format: neither JSON"),
        (b"[1]", "holds a JSON list, no object"),
        (b'{"scene": 1}', "is JSON of no known format"),
        (b"\xff\xfe\x00\x9d", "is neither text nor part of a COLMAP model"),
    ],
)
def test_files_of_no_known_format_are_refused(tmp_path, content, message):
    (tmp_path / "path.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        load_cameras(tmp_path / "path.json")


def test_a_folder_without_cameras_is_refused_and_names_what_is_there(tmp_path):
    with pytest.raises(InvalidInputError, match="is a folder without a camera file"):
        load_cameras(tmp_path)
    write_json(tmp_path / "transforms_train.json", blender())
    with pytest.raises(InvalidInputError, match=r"It holds transforms_train\.json: name one"):
        load_cameras(tmp_path)


def test_an_unknown_format_or_suffix_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"ends in \.obj, which names no camera format"):
        save_cameras(random_cameras(2), tmp_path / "path.obj")


@pytest.mark.parametrize("name", ["transforms.json", "clip.txt", "model"])
def test_skew_is_refused_where_a_format_cannot_hold_it(tmp_path, name):
    with pytest.raises(InvalidInputError, match=r"cameras have skew, which .* cannot hold"):
        save_cameras(random_cameras(2, skew=True), tmp_path / name)


@pytest.mark.parametrize("size", [{"width": 64}, {"width": 64, "height": 0}])
def test_half_a_picture_size_is_refused(tmp_path, size):
    with pytest.raises(InvalidInputError, match="give both in pixels, or neither"):
        save_cameras(random_cameras(2), tmp_path / "transforms.json", **size)


def test_names_must_be_one_per_view(tmp_path):
    with pytest.raises(InvalidInputError, match="names has 1 entries for 2 cameras"):
        save_cameras(random_cameras(2), tmp_path / "transforms.json", names=["a.png"])


def test_the_default_picture_size_has_square_pixels(tmp_path):
    save_cameras(gx.orbit(2, aspect=2.0), tmp_path / "model")
    header = (tmp_path / "model" / "cameras.bin").read_bytes()
    assert struct.unpack_from("<QQ", header, 16) == (1024, 512)
