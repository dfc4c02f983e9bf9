import math
import struct
import tracemalloc

import numpy as np
import pytest
import torch

import genxd_core as gx
from genxd_core.errors import InvalidInputError
from tests.core.lifting.splat_scenes import random_scene
from tests.support import assert_same_up_to

NAMES = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
NAMES += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
VALUES = dict(zip(NAMES, [1.0, 2, 3, 0, 0, 0, 0.1, 0.2, 0.3], strict=False))
VALUES |= {"opacity": 0.0, "scale_0": 0.0, "scale_1": -1.0, "scale_2": 1.0}
VALUES |= {"rot_0": 1.0, "rot_1": 0.0, "rot_2": 0.0, "rot_3": 0.0}


def header(names, count="1", form="binary_little_endian 1.0", kind="float"):
    lines = ["ply", f"format {form}", "comment by hand", f"element vertex {count}"]
    lines += [f"property {kind} {name}" for name in names]
    return "\n".join([*lines, "end_header", ""]).encode()


def row(names=NAMES, **changes):
    values = {**VALUES, **changes}
    return struct.pack(f"<{len(names)}f", *(values.get(name, 0.0) for name in names))


@pytest.fixture
def file(tmp_path):
    """Write bytes to a .ply file and return its path."""

    def write(content):
        path = tmp_path / "scene.ply"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_gaussians_come_back_from_a_file(tmp_path, degree):
    scene = random_scene(50, degree=degree, dtype=torch.float32)
    path = gx.save_ply(scene, tmp_path / "new" / "scene.ply")
    read = gx.load_ply(path)
    assert read.degree == degree
    for name in ("means", "quats", "sh"):
        assert_same_up_to(getattr(read, name), getattr(scene, name), 1e-6)
    assert_same_up_to(read.opacities, scene.opacities, 2e-6)
    assert_same_up_to(read.scales / scene.scales, torch.ones(50, 3), 1e-6)
    assert [file.name for file in path.parent.iterdir()] == ["scene.ply"]


def test_reading_and_writing_again_gives_the_same_numbers(tmp_path):
    first = gx.load_ply(gx.save_ply(random_scene(9, degree=3), tmp_path / "a.ply"))
    second = gx.load_ply(gx.save_ply(first, tmp_path / "b.ply"))
    assert_same_up_to(second.scales / first.scales, torch.ones(9, 3), 1e-6)
    assert torch.equal(second.sh, first.sh)
    assert torch.equal(second.means, first.means)


def test_a_file_by_hand_is_read_as_activated_values(file):
    read = gx.load_ply(file(header(NAMES) + row()))
    assert read.means.tolist() == [[1.0, 2.0, 3.0]]
    assert read.scales[0].tolist() == pytest.approx([1.0, math.exp(-1), math.e])
    assert read.opacities.tolist() == [0.5]
    assert read.quats.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert read.sh[0, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_a_written_file_has_the_standard_layout(tmp_path):
    scene = random_scene(2, degree=1, dtype=torch.float32)
    content = gx.save_ply(scene, tmp_path / "scene.ply").read_bytes()
    head, _, body = content.partition(b"end_header\n")
    rest = [f"f_rest_{number}" for number in range(9)]
    names = [line.split()[-1] for line in head.decode().splitlines() if "property" in line]
    assert names == NAMES[:9] + rest + NAMES[9:]
    assert head.startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 2\n")
    table = np.frombuffer(body, "<f4").reshape(2, len(names))
    # All of red first, then green, then blue.
    expected = scene.sh[:, 1:].permute(0, 2, 1).reshape(2, 9)
    assert np.array_equal(table[:, 9:18], expected.numpy())
    assert not table[:, 3:6].any()


def test_properties_may_come_in_another_order_and_of_other_types(file):
    names = [*reversed(NAMES), "label"]
    values = struct.pack(f"<{len(names)}d", *(VALUES.get(name, 7.0) for name in names))
    read = gx.load_ply(file(header(names, kind="double") + values))
    assert read.means.tolist() == [[1.0, 2.0, 3.0]]


def test_lines_may_end_as_on_windows(file):
    content = header(NAMES).replace(b"\n", b"\r\n") + row()
    assert len(gx.load_ply(file(content))) == 1


def test_normals_may_be_missing(file):
    names = [name for name in NAMES if name not in ("nx", "ny", "nz")]
    assert len(gx.load_ply(file(header(names, 2) + 2 * row(names)))) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with 'ply'"),
        (b"solid cube", "does not begin with 'ply'"),
        (b"ply\nformat binary", "no end of its header"),
        (b"ply\n" + b"comment x\n" * 20000, "no end of its header"),
        (header(NAMES, form="ascii 1.0") + b"1 2 3", "format 'format ascii 1.0'.*binary .ply"),
        (header(NAMES, form="binary_big_endian 1.0") + row(), "format binary_big_endian"),
        (b"ply\nend_header\n", "format 'nothing'"),
        (
            header(NAMES) + row()[:-1],
            "is cut off: 1 Gaussians of 68 bytes would be 68 bytes, but 67",
        ),
        (header(NAMES, 2) + row(), "is cut off"),
        (header(NAMES) + row() + b"\n", "holds more than its header says"),
        (header(NAMES, 10**12) + row(), "is cut off: 1000000000000 Gaussians"),
        (header(NAMES, 10**30) + row(), "is cut off"),
        (header(NAMES, 0), "holds 0 Gaussians"),
        (header(NAMES, -1), "header says 'element vertex -1'"),
        (header(NAMES, "many"), "header says 'element vertex many'"),
        (header(["x", "y", "z", "red", "green", "blue"]) + row(), "lack f_dc_0.*Point clouds"),
        (header(NAMES[:-1]) + row(NAMES[:-1]), "vertices lack rot_3"),
        (header([*NAMES, "x"]) + row(), "'x' comes twice"),
        (header([*NAMES, "f_rest_0"]) + row([*NAMES, "f_rest_0"]), "1 properties f_rest_"),
        (header([*NAMES, *(f"f_rest_{n}" for n in range(1, 10))]), "9 properties f_rest_"),
        (header(NAMES, kind="list uchar int"), "header says 'property list uchar int x'"),
        (header(NAMES, kind="half"), "header says 'property half x'"),
        (header(NAMES).replace(b"vertex", b"chunk"), "begins with the element 'chunk'"),
        (
            header(NAMES).replace(b"end_header", b"element face 3\nend_header") + row(),
            "second element 'face'",
        ),
        (b"ply\nformat binary_little_endian 1.0\nend_header\n", "no element 'vertex'"),
        (header(NAMES) + row(y=math.nan), "y of Gaussian 0 is nan"),
        (header(NAMES, 2) + row() + row(opacity=math.inf), "opacity of Gaussian 1 is inf"),
        (header(NAMES) + row(scale_0=200.0), "scales of Gaussian 0 holds NaN or infinite"),
        (header(NAMES) + row(rot_0=0.0), "quats of Gaussian 0 is zero"),
    ],
)
def test_what_is_no_standard_file_is_refused_with_the_reason(file, content, message):
    path = file(content)
    with pytest.raises(InvalidInputError, match=message) as caught:
        gx.load_ply(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match="is no file"):
        gx.load_ply(tmp_path / "none.ply")
    with pytest.raises(InvalidInputError, match="is no file"):
        gx.load_ply(tmp_path)


def test_a_claim_of_a_billion_rows_allocates_nothing(file):
    path = file(header(NAMES, 10**9) + row())
    tracemalloc.start()
    with pytest.raises(InvalidInputError, match="is cut off"):
        gx.load_ply(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6


def test_fully_opaque_clear_and_flat_gaussians_have_finite_numbers_in_a_file(tmp_path):
    scene = gx.Gaussians.from_rgb(
        torch.zeros(2, 3),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        torch.tensor([[1.0, 1, 0], [0, 0, 0]]),
        torch.tensor([1.0, 0.0]),
        torch.ones(2, 3),
    )
    read = gx.load_ply(gx.save_ply(scene, tmp_path / "scene.ply"))
    assert_same_up_to(read.opacities, scene.opacities, 2e-6)
    assert_same_up_to(read.scales, scene.scales, 1e-6)


def test_faint_gaussians_are_left_out_on_request(tmp_path):
    scene = random_scene(40, dtype=torch.float32)
    read = gx.load_ply(gx.save_ply(scene, tmp_path / "scene.ply", min_opacity=0.5))
    assert len(read) == int((scene.opacities >= 0.5).sum())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    scene = random_scene(3)
    path = gx.save_ply(scene, tmp_path / "scene.ply")
    before = path.read_bytes()
    scene.means[1, 0] = math.nan
    with pytest.raises(InvalidInputError, match="holds NaN or infinite numbers, so"):
        gx.save_ply(scene, path)
    with pytest.raises(InvalidInputError, match="none of its 3 Gaussians left"):
        gx.save_ply(random_scene(3), path, min_opacity=1.0)
    with pytest.raises(InvalidInputError, match="none of its 0 Gaussians left"):
        gx.save_ply(random_scene(3)[:0], tmp_path / "other.ply")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["scene.ply"]
