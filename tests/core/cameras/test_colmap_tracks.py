"""Points of COLMAP models with the pictures that show them."""

import struct

import pytest
import torch

from genxd_core.cameras.io.colmap_tracks import read_tracks
from genxd_core.errors import InvalidInputError

NAN = float("nan")
POINTS = [
    ((1.0, 2.0, 3.0), [4, 9]),
    ((NAN, 0.0, 1.0), [4]),
    ((5.0, 6.0, 7.0), []),
    ((8, 9, 10), [9]),
]


def as_binary(points):
    data = struct.pack("<Q", len(points))
    for number, (xyz, track) in enumerate(points):
        data += struct.pack("<Q3d3BdQ", number, *xyz, 1, 2, 3, 0.5, len(track))
        data += b"".join(struct.pack("<II", image_id, 77) for image_id in track)
    return data


def as_text(points):
    lines = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"]
    for number, ((x, y, z), track) in enumerate(points):
        seen = " ".join(f"{image_id} 77" for image_id in track)
        lines.append(f"{number} {x} {y} {z} 1 2 3 0.5 {seen}")
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("name", "write"), [("points3D.bin", as_binary), ("points3D.txt", as_text)]
)
def test_each_picture_has_its_points(tmp_path, name, write):
    (tmp_path / name).write_bytes(write(POINTS))
    tracks = read_tracks(tmp_path / name)
    assert tracks.xyz.tolist() == [[1, 2, 3], [5, 6, 7], [8, 9, 10]]
    assert tracks.seen_in(4).tolist() == [[1, 2, 3]]
    assert tracks.seen_in(9).tolist() == [[1, 2, 3], [8, 9, 10]]
    assert tracks.seen_in(5).tolist() == []


@pytest.mark.parametrize(
    ("name", "write"), [("points3D.bin", as_binary), ("points3D.txt", as_text)]
)
def test_without_any_track_every_picture_has_all_points(tmp_path, name, write):
    (tmp_path / name).write_bytes(write([((1.0, 2.0, 3.0), []), ((4.0, 5.0, 6.0), [])]))
    assert read_tracks(tmp_path / name).seen_in(1).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("name", "write"), [("points3D.bin", as_binary), ("points3D.txt", as_text)]
)
def test_model_may_have_no_points(tmp_path, name, write):
    (tmp_path / name).write_bytes(write([]))
    assert torch.equal(read_tracks(tmp_path / name).seen_in(1), torch.empty(0, 3).double())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("points3D.bin", b""),
        ("points3D.bin", struct.pack("<Q", 10**12)),
        ("points3D.bin", as_binary(POINTS)[:-3]),
        ("points3D.bin", as_binary([((1.0, 2.0, 3.0), [])])[:-8] + struct.pack("<Q", 2**60)),
        ("points3D.txt", b"1 2 3\n"),
        ("points3D.txt", b"1 x 3 4 5 6 7 8\n"),
        ("points3D.txt", b"\xff\xfe"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInputError, match=r"points3D\..* is damaged or cut off"):
        read_tracks(tmp_path / name)
