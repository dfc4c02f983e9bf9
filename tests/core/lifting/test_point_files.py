import struct
import tracemalloc

import pytest
import torch

import genxd_core as gx
from genxd_core.errors import InvalidInputError
from tests.support import DATA, assert_same_up_to

LUND = DATA / "lund"


def record(xyz=(1.0, 2.0, 3.0), rgb=(255, 0, 51), error=0.5, track=2, claimed=None):
    length = track if claimed is None else claimed
    head = struct.pack("<Q3d3BdQ", 7, *xyz, *rgb, error, length)
    return head + struct.pack("<II", 1, 2) * track


def binary(*records, count=None):
    return struct.pack("<Q", len(records) if count is None else count) + b"".join(records)


def header(*properties, count="2", form="ascii", more=()):
    lines = ["ply", f"format {form} 1.0", "comment by hand", f"element vertex {count}"]
    lines += [f"property {one}" for one in properties or ("float x", "float y", "float z")]
    return "\n".join([*lines, *more, "end_header", ""]).encode()


@pytest.fixture
def file(tmp_path):
    """Write bytes to a file and return its path."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("place", [".", "sparse/0", "sparse/0/points3D.bin"])
def test_points_of_lund_are_found_from_wherever_they_are_named(place):
    points = gx.load_points(LUND / place)
    assert len(points) == 724
    assert points.rgb.shape == (724, 3)
    # As pycolmap reads them.
    assert_same_up_to(points.xyz.mean(0), torch.tensor([0.05331339, -0.5214023, 3.6657934]), 1e-5)
    assert_same_up_to(points.rgb.mean(0), torch.tensor([0.383458, 0.377901, 0.342801]), 1e-5)
    assert len(gx.load_points(LUND / place, min_views=4)) == 239
    assert len(gx.load_points(LUND / place, min_views=4, max_error=0.5)) == 105


def test_points_of_lund_lie_before_the_cameras_that_see_the_street():
    points = gx.load_points(LUND)
    cameras = gx.load_cameras(LUND, max_distortion=1.0)
    depth = (points.xyz @ cameras.viewmats[0, :3, :3].T + cameras.viewmats[0, :3, 3])[:, 2]
    assert float((depth > 0).float().mean()) > 0.99


def test_a_binary_model_by_hand_is_read(file):
    points = gx.load_points(file("points3D.bin", binary(record(), record(xyz=(4, 5, 6), track=0))))
    assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert points.rgb[0].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_a_text_model_by_hand_is_read(file):
    text = b"# comment\n7 1 2 3 255 0 51 0.5 1 2 3 4\n\n8 4 5 6 0 0 0 1.5\n"
    points = gx.load_points(file("points3D.txt", text))
    assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert points.rgb[0].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_points_are_chosen_by_error_and_number_of_pictures(file):
    path = file(
        "points3D.bin",
        binary(
            record(xyz=(0, 0, 0)),
            record(xyz=(1, 0, 0), error=9.0),
            record(xyz=(2, 0, 0), track=1),
            record(xyz=(3, 0, 0), error=float("nan")),
            record(xyz=(float("inf"), 0, 0)),
        ),
    )
    assert gx.load_points(path).xyz[:, 0].tolist() == [0, 1, 2]
    assert gx.load_points(path, max_error=2.0, min_views=2).xyz[:, 0].tolist() == [0]
    with pytest.raises(InvalidInputError, match="none of its 5 points is finite, shown by 9"):
        gx.load_points(path, min_views=9)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1",
        binary(record(), count=10**12),
        binary(record(), record())[:-20],
        binary(record(claimed=10**15)),
        binary(record(claimed=2**64 - 1)),
    ],
)
def test_damaged_binary_models_are_refused_before_anything_is_made(file, content):
    path = file("points3D.bin", content)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match=r"points3D.bin is damaged or cut off"):
            gx.load_points(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("line", [b"1 2 3\n", b"1 2 3 4 a b c 5\n", b"\xff\xfe\n"])
def test_damaged_text_models_are_refused(file, line):
    with pytest.raises(InvalidInputError, match=r"points3D.txt is damaged or cut off"):
        gx.load_points(file("points3D.txt", line))


def test_a_model_without_points_is_refused(file):
    with pytest.raises(InvalidInputError, match="holds no points"):
        gx.load_points(file("points3D.bin", binary()))


@pytest.mark.parametrize(("form", "order"), [("little", "<"), ("big", ">")])
def test_a_binary_ply_is_read_in_either_byte_order(file, form, order):
    kinds = ["double x", "double y", "double z", "uchar red", "uchar green", "uchar blue"]
    rows = struct.pack(f"{order}3d3B", 1, 2, 3, 255, 0, 51) + struct.pack(
        f"{order}3d3B", 4, 5, 6, 0, 0, 0
    )
    points = gx.load_points(file("a.ply", header(*kinds, form=f"binary_{form}_endian") + rows))
    assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert points.rgb[0].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_a_ply_of_text_is_read_with_faces_behind_it(file):
    faces = ("element face 1", "property list uchar int vertex_indices")
    path = file("a.ply", header(more=faces) + b"1 2 3\r\n4 5 6\r\n3 0 1 0\r\n")
    points = gx.load_points(path)
    assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert points.rgb is None


def test_colours_as_fractions_stay_fractions(file):
    kinds = ["float x", "float y", "float z", "float red", "float green", "float blue"]
    points = gx.load_points(file("a.ply", header(*kinds, count="1") + b"0 0 0 1 0.5 0.25\n"))
    assert points.rgb.tolist() == [[1.0, 0.5, 0.25]]


def test_a_splat_file_gives_its_means(tmp_path):
    from tests.core.lifting.splat_scenes import random_scene

    scene = random_scene(5, degree=1, dtype=torch.float32)
    points = gx.load_points(gx.save_ply(scene, tmp_path / "splat.ply"))
    assert_same_up_to(points.xyz, scene.means, 1e-6)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no", "does not begin with 'ply'"),
        (b"ply\nformat ascii 1.0\n", "no end of its header"),
        (header(form="zip"), "no .ply of points: its first line is"),
        (header(count="1000000000000") + b"1 2 3\n", "is cut off: 1000000000000 points need"),
        (header(count="9" * 30), "it says 'element vertex 999"),
        (header(form="binary_little_endian") + bytes(23), "is cut off: 2 points need at least 24"),
        (header() + b"1 2 3\n     \n", "has 1 of 2 points"),
        (header() + b"1 2 3\n4 5\n66\n", "another count of numbers than 3"),
        (header() + b"1 2 3\n4 5 a\n", "is damaged or cut off"),
        (header() + b"1 2 3\n4 5 nan\n", "NaN or infinite"),
        (header("float x", "float y"), "its vertices lack z"),
        (header("float x", "float x"), "'x' comes twice"),
        (header("list uchar int x"), "its header says 'property list"),
        (header(count="0"), "holds 0 points"),
        (b"ply\nformat ascii 1.0\nelement face 1\nend_header\n", "first element is no 'vertex'"),
    ],
)
def test_files_that_hold_no_points_are_refused_plainly(file, content, told):
    with pytest.raises(InvalidInputError, match=r"a\.ply") as caught:
        gx.load_points(file("a.ply", content))
    assert told in str(caught.value)


def test_other_files_and_folders_are_refused(tmp_path, file):
    for path, told in [
        (tmp_path, "is a folder without points"),
        (tmp_path / "none.ply", "is no file"),
        (file("a.obj", b"v 1 2 3"), "name of no known format"),
    ]:
        with pytest.raises(InvalidInputError, match=told):
            gx.load_points(path)
