"""RealEstate10K and ACID text files: a line with the video's address, then 19 numbers a view.

Each row: time in microseconds; fx, fy, cx, cy, normalised; two zeros (distortion); then the 3 x 4
world-to-camera pose, row-major, with OpenCV axes. Some packings leave the time out: 18 numbers.
"""

from pathlib import Path

import numpy as np
import torch

from ...errors import InvalidInputError
from ..cameras import Cameras
from .camera_file import CameraFile, check_distortion, log_dropped_distortion, write_atomically

__all__ = ["is_realestate", "read_realestate", "read_timestamps", "write_realestate"]

_MICROSECONDS = 1_000_000
_COLUMNS = 19


def is_realestate(text: str) -> bool:
    """Whether a text looks like this format: its first row of numbers has 18 or 19 of them."""
    rows = _rows(text)
    return bool(rows) and len(rows[0][1]) in (_COLUMNS - 1, _COLUMNS) and _all_numbers(rows[0][1])


def read_realestate(text: str, path: Path, *, max_distortion: float | None) -> CameraFile:
    """Read the views in the file's order; time is scaled to [0, 1].

    A file without times, or with all of them equal, gives cameras without times.

    Args:
        text: the file's content; the line with the address may be missing.
        path: of the file, for messages.
        max_distortion: larger distortion coefficients are refused; ``None`` lets any through.

    Raises:
        InvalidInputError: a row that cannot be read; names its line.
    """
    rows = _rows(text)
    if not rows:
        raise InvalidInputError(f"path {path} holds no row of camera numbers.")
    table = np.array([_numbers(line, columns, path) for line, columns in rows])
    lenses = [{"k1": k1, "k2": k2} for k1, k2 in table[:, 5:7].tolist()]
    dropped = [
        check_distortion(lens, f"line {line} of {path}", max_distortion)
        for (line, _), lens in zip(rows, lenses, strict=True)
    ]
    log_dropped_distortion(max(dropped), path)
    w2c = np.tile(np.eye(4), (len(table), 1, 1))
    w2c[:, :3] = table[:, 7:].reshape(-1, 3, 4)
    Ks_norm = np.tile(np.eye(3), (len(table), 1, 1))
    Ks_norm[:, [0, 1, 0, 1], [0, 1, 2, 2]] = table[:, 1:5]
    cameras = Cameras.from_w2c(w2c, Ks_norm, _times(table[:, 0]))
    return CameraFile(cameras, distortion=tuple(lenses))


def read_timestamps(text: str) -> tuple[str, ...]:
    """The time of each row as it is written, in microseconds; empty where a row has none."""
    rows = [columns for _, columns in _rows(text)]
    has_times = all(len(columns) == _COLUMNS for columns in rows)
    return tuple(columns[0] for columns in rows) if has_times else ()


def write_realestate(cameras: Cameras, path: Path, *, source: str = "") -> None:
    """Write the format; times as microseconds of a clip of one second, all 0 if there are none.

    Args:
        cameras: the path; skew must be zero.
        path: the file.
        source: the address of the video for the first line.

    Raises:
        InvalidInputError: a camera has skew.
    """
    if bool((cameras.Ks_norm[:, 0, 1] != 0).any()):
        raise InvalidInputError(
            "cameras have skew, which RealEstate10K's format cannot hold; save them as genxd."
        )
    exact = cameras.to(device="cpu", dtype=torch.float64)
    lines = [source or "unknown"]
    for index in range(len(exact)):
        K = exact.Ks_norm[index]
        time = 0 if exact.times is None else round(float(exact.times[index]) * _MICROSECONDS)
        intrinsics = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
        numbers = [float(value) for value in intrinsics] + [0.0, 0.0]
        numbers += exact.viewmats[index, :3].flatten().tolist()
        lines.append(" ".join([str(time), *(repr(number) for number in numbers)]))
    write_atomically(path, "\n".join(lines) + "\n")


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Line numbers and columns of the rows; the first line is skipped if it is an address."""
    rows = [(number + 1, line.split()) for number, line in enumerate(text.splitlines())]
    rows = [(number, columns) for number, columns in rows if columns]
    if rows and not _all_numbers(rows[0][1]):
        rows = rows[1:]
    return rows


def _all_numbers(columns: list[str]) -> bool:
    try:
        [float(column) for column in columns]
    except ValueError:
        return False
    return True


def _numbers(line: int, columns: list[str], path: Path) -> list[float]:
    if len(columns) not in (_COLUMNS - 1, _COLUMNS) or not _all_numbers(columns):
        raise InvalidInputError(
            f"line {line} of {path} has {len(columns)} columns; expected {_COLUMNS} numbers: time, "
            "fx fy cx cy, two zeros, and the 3 x 4 world-to-camera pose."
        )
    values = [float(column) for column in columns]
    return values if len(values) == _COLUMNS else [0.0, *values]


def _times(microseconds: np.ndarray) -> np.ndarray | None:
    start, end = microseconds.min(), microseconds.max()
    if end == start:
        return None
    return np.asarray((microseconds - start) / (end - start))
