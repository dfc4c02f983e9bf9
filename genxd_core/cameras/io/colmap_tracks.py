"""The points of a COLMAP model with their tracks: which pictures each was seen in.

`genxd_core.lifting.point_files` reads the same files for their colours; here many points are read
quickly, for depths.

Dimension letters: n points, k observations.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...errors import InvalidInputError

__all__ = ["Tracks", "read_tracks"]

_POINT_BYTES = 51  # id, position, colour, error, length of the track
_LENGTH_AT = 43
_ELEMENT_BYTES = 8  # image id, index of the 2-D point


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points and the pictures that they were seen in.

    Attributes:
        xyz: positions in the model's world and units; those that are not finite are left out.
        point: of each observation, which row of ``xyz``.
        image_id: of each observation, COLMAP's number of the picture.
    """

    xyz: Float[Tensor, "n 3"]
    point: Int64[Tensor, " k"]
    image_id: Int64[Tensor, " k"]

    def seen_in(self, image_id: int) -> Float[Tensor, "n 3"]:
        """The points seen in one picture; all of them where the model has no tracks at all."""
        if len(self.point) == 0:
            return self.xyz
        return self.xyz[self.point[self.image_id == image_id]]


def read_tracks(path: Path) -> Tracks:
    """Read ``points3D.bin`` or ``.txt``; a model may have no points.

    Args:
        path: of the file.

    Raises:
        InvalidInputError: it is damaged or cut off.
    """
    try:
        if path.suffix.lower() == ".bin":
            xyz, lengths, image_id = _from_bytes(path.read_bytes())
        else:
            xyz, lengths, image_id = _from_text(path.read_text(encoding="utf-8"))
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise InvalidInputError(
            f"path {path} is damaged or cut off ({error}); copy or export it again."
        ) from error
    point = np.repeat(np.arange(len(xyz)), lengths)
    finite = np.isfinite(xyz).all(1)
    kept = finite[point]
    renumbered = np.cumsum(finite) - 1
    return Tracks(
        torch.from_numpy(xyz[finite]),
        torch.from_numpy(renumbered[point[kept]].astype(np.int64)),
        torch.from_numpy(image_id[kept].astype(np.int64)),
    )


def _from_bytes(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, lengths of the tracks, and the image ids of all tracks one after another."""
    (count,) = struct.unpack_from("<Q", data, 0)
    if count * _POINT_BYTES > len(data):
        raise ValueError(f"{count} points do not fit into its {len(data)} bytes")
    starts, lengths = np.empty(count, np.int64), np.empty(count, np.int64)
    offset, length_of = 8, struct.Struct("<Q").unpack_from
    # Only the lengths one by one: everything else is gathered at once.
    for index in range(count):
        (length,) = length_of(data, offset + _LENGTH_AT)
        starts[index], lengths[index] = offset, length
        offset += _POINT_BYTES + _ELEMENT_BYTES * length
        if offset > len(data):
            raise ValueError("a point ends after the file")
    table = np.frombuffer(data, np.uint8)
    xyz = _gather(table, starts + 8, 24).view("<f8").reshape(-1, 3)
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.repeat(starts + _POINT_BYTES, lengths)
    places += _ELEMENT_BYTES * (np.arange(len(places)) - first)
    return xyz, lengths, _gather(table, places, 4).view("<u4").reshape(-1)


def _gather(table: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    return np.ascontiguousarray(table[starts[:, None] + np.arange(width)])


def _from_text(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    positions, lengths, image_ids = [], [], list[int]()
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 8 or len(words) % 2:
            raise ValueError(f"a line has {len(words)} numbers, not 8 and two for each picture")
        positions.append([float(word) for word in words[1:4]])
        seen = [int(word) for word in words[8::2]]
        lengths.append(len(seen))
        image_ids += seen
    xyz = np.array(positions, np.float64).reshape(-1, 3)
    return xyz, np.array(lengths, np.int64), np.array(image_ids, np.int64)
