import json
import shutil
import struct

import pytest
import torch
from PIL import Image

import genxd_core as gx
from genxd_core.cameras.conventions import path_scale
from genxd_core.errors import Cancelled, InvalidInputError
from genxd_core.media import save_frames, save_image
from tests.support import DATA, assert_same_up_to, seeded

LUND = DATA / "lund"
PLY = b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
PLY += b"property float z\nend_header\n1 2 3\n"


@pytest.fixture
def lund(tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(LUND, tmp_path / "my lund-1")


@pytest.fixture
def path():
    return gx.orbit(3, radius=2.0, aspect=1.5)


@pytest.fixture
def frames():
    return torch.rand(3, 3, 16, 24, generator=seeded()).mul(255).round() / 255


@pytest.fixture
def transforms(tmp_path, path, frames):
    """A transforms.json with three pictures beside it."""
    folder = tmp_path / "scene"
    save_frames(frames, folder / "pictures")
    names = [f"pictures/{number:05d}.png" for number in range(3)]
    gx.save_cameras(path, folder / "transforms.json", width=24, height=16, names=names)
    return folder / "transforms.json"


def change(file, **changes):
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | changes), encoding="utf-8")


def rename(file, view, name):
    content = json.loads(file.read_text(encoding="utf-8"))
    content["frames"][view]["file_path"] = name
    file.write_text(json.dumps(content), encoding="utf-8")


# ---- COLMAP -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "sparse", "sparse/0", "sparse/0/images.bin"])
def test_lund_is_read_from_wherever_it_is_named(place):
    capture = gx.load_capture(LUND / place)
    assert capture.images.shape == (15, 3, 240, 320)
    assert capture.names[:2] == ("01.jpg", "02.jpg")
    assert len(capture.cameras) == 15
    assert len(capture.points) == 724


def test_lund_is_undistorted_and_its_cameras_follow():
    capture = gx.load_capture(LUND)
    lens = gx.load_cameras(LUND, max_distortion=0.1)
    zoom = capture.cameras.Ks_norm[:, 0, 0] / lens.Ks_norm[:, 0, 0]
    assert_same_up_to(zoom, torch.full((15,), 0.967), 2e-3)
    assert_same_up_to(capture.cameras.Ks_norm[:, :2, 2], lens.Ks_norm[:, :2, 2], 0.0)
    assert torch.equal(capture.cameras.c2w, lens.c2w)


def test_small_pictures_have_the_same_cameras():
    full, small = gx.load_capture(LUND), gx.load_capture(LUND, max_side=80)
    assert small.images.shape == (15, 3, 60, 80)
    assert torch.equal(small.cameras.Ks_norm, full.cameras.Ks_norm)
    means = full.images.unflatten(2, (60, 4)).unflatten(4, (80, 4)).mean((3, 5))
    assert float((small.images - means).abs().mean()) < 0.02


def test_without_undistortion_a_strong_lens_is_refused():
    with pytest.raises(InvalidInputError, match="has lens distortion"):
        gx.load_capture(LUND, undistort=False)


def test_a_model_without_points_gives_none(tmp_path, path, frames):
    for format in ("colmap", "colmap-text"):
        folder = tmp_path / format
        gx.save_cameras(path, folder / "sparse" / "0", format=format, width=24, height=16)
        save_frames(frames, folder / "images")
        capture = gx.load_capture(folder)
        assert capture.points is None
        assert_same_up_to(capture.images, frames, 1e-6)


def test_pictures_may_lie_elsewhere(lund, tmp_path):
    shutil.move(lund / "images", tmp_path / "elsewhere")
    with pytest.raises(InvalidInputError, match="no folder 'images' beside it"):
        gx.load_capture(lund)
    assert len(gx.load_capture(lund, tmp_path / "elsewhere").images) == 15


def test_missing_pictures_are_named(lund):
    for number in (2, 5, 7, 11):
        (lund / "images" / f"{number:02d}.jpg").unlink()
    with pytest.raises(InvalidInputError, match=r"02.jpg, 05.jpg, 07.jpg and 1 more of 15"):
        gx.load_capture(lund)


def test_damaged_points_are_refused(lund):
    points = lund / "sparse" / "0" / "points3D.bin"
    points.write_bytes(struct.pack("<Q", 10**12) + points.read_bytes()[8:])
    with pytest.raises(InvalidInputError, match=r"points3D.bin is damaged or cut off"):
        gx.load_capture(lund)


def test_exif_orientation_is_left_alone_as_the_reconstruction_did(lund):
    with Image.open(lund / "images" / "01.jpg") as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(lund / "images" / "01.jpg", exif=exif)
    turned = gx.load_capture(lund).images[0]
    assert float((turned - gx.load_capture(LUND).images[0]).abs().mean()) < 0.02


# ---- transforms.json ----------------------------------------------------------------------------


def test_a_transforms_file_names_its_pictures(transforms, path, frames):
    for place in (transforms, transforms.parent):
        capture = gx.load_capture(place)
        assert_same_up_to(capture.images, frames, 1e-6)
        assert_same_up_to(capture.cameras.c2w, path.c2w, 1e-6)
        assert capture.points is None


def test_names_without_a_suffix_are_found(transforms, frames):
    rename(transforms, 1, "./pictures/00001")
    assert_same_up_to(gx.load_capture(transforms).images, frames, 1e-6)


def test_points_that_the_file_names_are_read(transforms):
    (transforms.parent / "points.ply").write_bytes(PLY)
    change(transforms, ply_file_path="points.ply")
    assert gx.load_capture(transforms).points.xyz.tolist() == [[1, 2, 3]]
    change(transforms, ply_file_path="../points.ply")
    with pytest.raises(InvalidInputError, match="which lead out of"):
        gx.load_capture(transforms)


def test_transparent_pictures_are_put_on_white(transforms):
    picture = Image.new("RGBA", (24, 16), (255, 0, 0, 51))
    picture.save(transforms.parent / "pictures" / "00001.png")
    colour = gx.load_capture(transforms).images[1, :, 3, 3].tolist()
    assert colour == pytest.approx([1.0, 0.8, 0.8])


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "..\\out.png", "a/../../out.png"])
def test_names_that_lead_out_of_the_folder_are_refused(transforms, frames, name):
    save_image(frames[0], transforms.parent.parent / "out.png")
    rename(transforms, 1, name)
    with pytest.raises(InvalidInputError, match="which leads out of"):
        gx.load_capture(transforms)


def test_links_that_lead_out_of_the_folder_are_refused(transforms, frames):
    save_image(frames[0], transforms.parent.parent / "out.png")
    link = transforms.parent / "pictures" / "00001.png"
    link.unlink()
    try:
        link.symlink_to(transforms.parent.parent / "out.png")
    except OSError as error:
        pytest.skip(f"links need a privilege here: {error}")
    with pytest.raises(InvalidInputError, match="which leads out of"):
        gx.load_capture(transforms)


def test_a_name_with_other_folders_is_looked_up_in_the_folder_that_is_given(transforms, frames):
    rename(transforms, 1, "../elsewhere/00001.png")
    capture = gx.load_capture(transforms, transforms.parent / "pictures")
    assert_same_up_to(capture.images, frames, 1e-6)


def test_a_picture_that_two_cameras_name_is_refused(transforms):
    rename(transforms, 1, "pictures/00002.png")
    with pytest.raises(InvalidInputError, match="several cameras name the picture"):
        gx.load_capture(transforms)


def test_lenses_of_transforms_are_undone(transforms, path):
    change(transforms, camera_model="OPENCV", k1=-0.2, p1=0.001)
    capture = gx.load_capture(transforms)
    assert float(capture.cameras.Ks_norm[0, 0, 0]) < float(path.Ks_norm[0, 0, 0]) - 0.01


def test_coefficients_that_programs_read_differently_are_refused(transforms):
    change(transforms, camera_model="OPENCV", k1=-0.2, k4=0.1)
    with pytest.raises(InvalidInputError, match="distortion k4, which programs read in different"):
        gx.load_capture(transforms)


def test_pictures_of_different_sizes_are_refused(transforms, frames):
    half = torch.nn.functional.avg_pool2d(frames[:1], 2)[0]
    save_image(half, transforms.parent / "pictures" / "00001.png")
    with pytest.raises(InvalidInputError, match=r"00001\.png has 12 x 8 pixels, but 00000"):
        gx.load_capture(transforms)


def test_pictures_of_another_shape_than_their_cameras_are_refused(transforms, frames):
    save_image(frames[0, :, :, :16], transforms.parent / "pictures" / "00001.png")
    with pytest.raises(InvalidInputError, match=r"16 x 16 pixels, but its camera .* 24 x 16"):
        gx.load_capture(transforms)


def test_a_damaged_picture_is_named(transforms):
    (transforms.parent / "pictures" / "00001.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInputError, match=r"00001.png is not a picture"):
        gx.load_capture(transforms)


# ---- other camera files -------------------------------------------------------------------------


def test_pictures_without_names_are_taken_in_order(tmp_path, path, frames):
    gx.save_cameras(path, tmp_path / "path.json")
    for number, frame in zip((2, 9, 10), frames, strict=True):
        save_image(frame, tmp_path / "pictures" / f"view {number}.png")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="does not name its pictures; give their folder"):
        gx.load_capture(tmp_path / "path.json")
    capture = gx.load_capture(tmp_path / "path.json", tmp_path / "pictures")
    assert_same_up_to(capture.images, frames, 1e-6)
    assert capture.names == ("view 2.png", "view 9.png", "view 10.png")
    (tmp_path / "pictures" / "view 9.png").unlink()
    with pytest.raises(InvalidInputError, match=r"holds 2 picture\(s\) for 3 cameras"):
        gx.load_capture(tmp_path / "path.json", tmp_path / "pictures")


def test_intrinsics_of_another_shape_are_refused(tmp_path, path, frames):
    gx.save_cameras(path, tmp_path / "path.json")
    save_frames(frames[:, :, :, :16], tmp_path / "pictures")
    with pytest.raises(InvalidInputError, match=r"are 1.5 times as wide as high"):
        gx.load_capture(tmp_path / "path.json", tmp_path / "pictures")


def test_wrong_arguments_are_refused(transforms, tmp_path):
    with pytest.raises(InvalidInputError, match="is no folder"):
        gx.load_capture(transforms, tmp_path / "none")
    with pytest.raises(InvalidInputError, match="max_side is 0"):
        gx.load_capture(transforms, max_side=0)
    with pytest.raises(InvalidInputError, match="does not exist"):
        gx.load_capture(tmp_path / "none")


# ---- what one does with it ----------------------------------------------------------------------


def test_cameras_and_points_are_scaled_together():
    capture = gx.load_capture(LUND, max_side=32)
    scaled = capture.scaled_to(2.0)
    assert path_scale(scaled.cameras) == pytest.approx(2.0, rel=1e-5)

    def seen(one):
        viewmats = one.cameras.viewmats
        points = one.points.xyz @ viewmats[3, :3, :3].T + viewmats[3, :3, 3]
        return points / points.norm(dim=1, keepdim=True)

    assert_same_up_to(seen(scaled), seen(capture), 1e-4)


def test_reading_tells_its_steps_and_can_be_stopped():
    steps = []

    def progress(step, total, preview=None):
        steps.append((step, total, tuple(preview.shape)))
        return step < 3

    with pytest.raises(Cancelled):
        gx.load_capture(LUND, max_side=32, progress=progress)
    assert steps == [(step, 15, (1, 3, 24, 32)) for step in (1, 2, 3)]
