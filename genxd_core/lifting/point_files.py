"""Point clouds from files: COLMAP's ``points3D`` and ``.ply``, checked before anything is made."""

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from ..cameras.io.colmap import find_colmap_model
from ..errors import InvalidInputError
from .ply import PLY_TYPES
from .point_cloud import PointCloud

__all__ = ["load_points"]

_LONGEST_HEADER = 1 << 16
_BYTES_PER_POINT3D = 51  # id, position, colour, error, length of the track
_BYTES_PER_TRACK_ELEMENT = 8
_FORMATS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_POSITION = ("x", "y", "z")
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"))


def load_points(
    path: str | Path, *, max_error: float = float("inf"), min_views: int = 0
) -> PointCloud:
    """Read the points of a scene.

    Args:
        path: a COLMAP model's folder (or one that holds it as ``sparse/0``), its ``points3D.bin``
            or ``.txt``, or a ``.ply`` whose first element is ``vertex`` with x, y, z and, where
            there is colour, red, green, blue.
        max_error: points of COLMAP with a larger reprojection error, in pixels, are left out, and
            those whose error or position is not finite.
        min_views: points of COLMAP that fewer pictures show are left out; 0 takes those of tools
            that write no pictures.

    Raises:
        InvalidInputError: there is no such file, it is of no known format, damaged, cut off, or
            holds no point that can be used.
    """
    path = Path(path)
    if path.is_dir():
        found = find_colmap_model(path)
        if found is None or not (found[0] / f"points3D{found[1]}").is_file():
            raise InvalidInputError(
                f"path {path} is a folder without points; expected a COLMAP model with points3D."
            )
        path = found[0] / f"points3D{found[1]}"
    if not path.is_file():
        raise InvalidInputError(
            f"path {path} is no file; expected points3D.bin or .txt, or a .ply."
        )
    try:
        if path.suffix.lower() == ".ply":
            return _read_ply(path)
        if path.suffix.lower() in (".bin", ".txt") and path.stem == "points3D":
            return _read_colmap(path, max_error, min_views)
    except InvalidInputError as error:
        if str(path) in str(error):
            raise
        raise InvalidInputError(f"path {path}: {error}") from error
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise InvalidInputError(
            f"path {path} is damaged or cut off ({error}); copy or export it again."
        ) from error
    raise InvalidInputError(
        f"path {path} has a name of no known format; expected points3D.bin or .txt, or a .ply."
    )


# ---- COLMAP -------------------------------------------------------------------------------------


def _read_colmap(path: Path, max_error: float, min_views: int) -> PointCloud:
    read = _rows_of_binary if path.suffix.lower() == ".bin" else _rows_of_text
    # Position, colour, error, number of pictures.
    table = np.fromiter(chain.from_iterable(read(path)), np.float64).reshape(-1, 8)
    if len(table) == 0:
        raise InvalidInputError(f"path {path} holds no points; the reconstruction has none.")
    usable = np.isfinite(table).all(1) & (table[:, 6] <= max_error) & (table[:, 7] >= min_views)
    if not usable.any():
        raise InvalidInputError(
            f"path {path}: none of its {len(table)} points is finite, shown by {min_views} "
            f"pictures and off by at most {max_error:g} pixels; allow more."
        )
    kept = torch.from_numpy(table[usable])
    return PointCloud(kept[:, :3].float(), kept[:, 3:6].float() / 255)


def _rows_of_binary(path: Path) -> Iterator[tuple[float, ...]]:
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size < 8:
            raise ValueError(f"it has {size} bytes")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            (count,) = struct.unpack_from("<Q", data, 0)
            if count * _BYTES_PER_POINT3D > size:
                raise ValueError(f"{count} points do not fit into its {size} bytes")
            offset = 8
            for _ in range(count):
                _, *values, length = struct.unpack_from("<Q3d3BdQ", data, offset)
                offset += _BYTES_PER_POINT3D + _BYTES_PER_TRACK_ELEMENT * length
                if offset > size:
                    raise ValueError("a point ends after the file")
                yield (*values, float(length))


def _rows_of_text(path: Path) -> Iterator[tuple[float, ...]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) < 8:
                raise ValueError(f"a line has {len(words)} numbers, not 8 or more")
            yield (*map(float, words[1:8]), float((len(words) - 8) // 2))


# ---- .ply ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Header:
    """What a file says about itself: bytes of the header, byte order, number and layout of rows."""

    length: int
    order: str
    count: int
    names: tuple[str, ...]
    kinds: tuple[str, ...]

    @property
    def row(self) -> "np.dtype[np.void]":
        kinds = [self.order + kind.lstrip("<") for kind in self.kinds]
        return np.dtype(list(zip(self.names, kinds, strict=True)))


def _read_ply(path: Path) -> PointCloud:
    with path.open("rb") as stream:
        header = _read_header(stream.read(_LONGEST_HEADER), path)
        size = os.fstat(stream.fileno()).st_size - header.length
        # Before anything is allocated: the header may claim any number.
        least = 2 * len(header.names) - 1 if not header.order else header.row.itemsize
        if header.count * least > size:
            raise InvalidInputError(
                f"path {path} is cut off: {header.count} points need at least "
                f"{header.count * least} bytes, but {size} follow the header. Copy or export it "
                "again."
            )
        stream.seek(header.length)
        if header.order:
            rows = np.fromfile(stream, header.row, header.count)
            columns = {name: rows[name].astype(np.float64) for name in header.names}
        else:
            columns = _columns_of_text(stream.read(), header)
    xyz = np.stack([columns[name] for name in _POSITION], 1)
    return PointCloud(torch.from_numpy(xyz).float(), _colours(columns, header))


def _columns_of_text(body: bytes, header: _Header) -> dict[str, np.ndarray]:
    lines = body.decode("ascii", errors="replace").split("\n")
    filled = [line for line in lines if line.strip()][: header.count]
    if len(filled) < header.count:
        raise ValueError(f"it has {len(filled)} of {header.count} points")
    rows = [line.split() for line in filled]
    if any(len(row) != len(header.names) for row in rows):
        raise ValueError(f"a line has another count of numbers than {len(header.names)}")
    table = np.array(rows, np.float64)
    return {name: table[:, place] for place, name in enumerate(header.names)}


def _colours(columns: dict[str, np.ndarray], header: _Header) -> torch.Tensor | None:
    for names in _COLOURS:
        if all(name in columns for name in names):
            kind = np.dtype(header.kinds[header.names.index(names[0])])
            largest = float(np.iinfo(kind).max) if kind.kind in "iu" else 1.0
            table = np.stack([columns[name] for name in names], 1) / largest
            return torch.from_numpy(table).float()
    return None


def _read_header(head: bytes, path: Path) -> _Header:
    if not head.startswith((b"ply\n", b"ply\r\n")):
        raise InvalidInputError(f"path {path} is no .ply file: it does not begin with 'ply'.")
    end = head.find(b"\nend_header")
    newline = head.find(b"\n", end + 1)
    if end < 0 or newline < 0:
        raise InvalidInputError(
            f"path {path} has no end of its header in the first {_LONGEST_HEADER} bytes; it is "
            "cut off or damaged."
        )
    lines = head[:end].decode("ascii", errors="replace").splitlines()[1:]
    words = [line.split() for line in lines]
    words = [line for line in words if line and line[0] not in ("comment", "obj_info")]
    if not words or words[0][0] != "format" or words[0][1:2] == [] or words[0][1] not in _FORMATS:
        raise _no_points(path, f"its first line is {' '.join(words[0])!r:.60}" if words else "")
    count, properties = _vertex_element(words[1:], path)
    missing = [name for name in _POSITION if name not in properties]
    if missing:
        raise _no_points(path, f"its vertices lack {', '.join(missing)}")
    if count == 0:
        raise InvalidInputError(f"path {path} holds 0 points; export it again.")
    names, kinds = tuple(properties), tuple(properties.values())
    return _Header(newline + 1, _FORMATS[words[0][1]], count, names, kinds)


def _vertex_element(words: list[list[str]], path: Path) -> tuple[int, dict[str, str]]:
    """Count and properties of the first element; those after it, such as faces, are passed over."""
    if not words or words[0][:2] != ["element", "vertex"] or not words[0][2:3]:
        raise _no_points(path, "its first element is no 'vertex'")
    if not words[0][2].isdecimal() or len(words[0][2]) > 18:
        raise _no_points(path, f"it says {' '.join(words[0])!r:.80}")
    properties = dict[str, str]()
    for line in words[1:]:
        if line[0] == "element":
            break
        if len(line) != 3 or line[0] != "property" or line[1] not in PLY_TYPES:
            raise _no_points(path, f"its header says {' '.join(line)!r:.80}")
        if line[2] in properties:
            raise _no_points(path, f"the property {line[2]!r:.40} comes twice")
        properties[line[2]] = PLY_TYPES[line[1]]
    return int(words[0][2]), properties


def _no_points(path: Path, told: str) -> InvalidInputError:
    return InvalidInputError(
        f"path {path} is no .ply of points: {told or 'its header is empty'}. Expected 'format' and "
        "'element vertex' with x, y, z; export it as a point cloud."
    )
