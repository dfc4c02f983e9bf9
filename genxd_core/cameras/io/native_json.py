"""The project's own camera file: everything `Cameras` holds, readable and exact.

.. code-block:: json

    {"format": "genxd-cameras", "version": 1,
     "cameras": [{"c2w": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
                  "fx": 1.09, "fy": 1.09, "cx": 0.5, "cy": 0.5, "skew": 0, "time": 0}]}

``c2w`` is camera-to-world with OpenCV axes (+X right, +Y down, +Z forward). fx, cx and skew are
divided by the picture's width, fy and cy by its height. ``skew`` may be missing (0); ``time``, in
[0, 1], is there for all cameras or for none.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import InvalidInputError
from ..cameras import Cameras
from .camera_file import CameraFile, write_atomically

__all__ = ["FORMAT_NAME", "read_native", "write_native"]

FORMAT_NAME = "genxd-cameras"
_VERSION = 1


def read_native(content: Mapping[str, Any], path: Path) -> CameraFile:
    """Read the project's own format.

    Args:
        content: the parsed file.
        path: of the file, for messages.

    Raises:
        InvalidInputError: a newer version, or an entry that is missing or of the wrong kind.
    """
    version = content.get("version")
    if version != _VERSION:
        raise InvalidInputError(
            f"path {path} has version {version!r} of {FORMAT_NAME}; this release reads version "
            f"{_VERSION}. Update ComfyUI-GenXD to read newer files."
        )
    entries = content.get("cameras")
    if not isinstance(entries, list) or not entries:
        raise InvalidInputError(f'path {path}: "cameras" is missing or empty; it lists the views.')
    try:
        c2w = torch.tensor([entry["c2w"] for entry in entries], dtype=torch.float64)
        Ks_norm = torch.tensor([_to_K_norm(entry) for entry in entries], dtype=torch.float64)
        times = [entry.get("time") for entry in entries]
        given = [float(time) for time in times if time is not None]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"path {path}: a camera lacks c2w (4 x 4), fx, fy, cx or cy, or has something else "
            f"than numbers there ({error!r})."
        ) from error
    if given and len(given) != len(entries):
        missing = times.index(None)
        raise InvalidInputError(
            f"path {path}: camera {missing} has no time, but others have; give all or none."
        )
    return CameraFile(Cameras(c2w, Ks_norm, given or None))


def write_native(cameras: Cameras, path: Path) -> None:
    """Write the project's own format; reading it gives the same numbers.

    Args:
        cameras: the path.
        path: the file.
    """
    exact = cameras.to(device="cpu", dtype=torch.float64)
    entries = []
    for index in range(len(exact)):
        (fx, skew, cx), (_, fy, cy), _ = exact.Ks_norm[index].tolist()
        entry: dict[str, Any] = {"c2w": exact.c2w[index].tolist()}
        entry |= {"fx": fx, "fy": fy, "cx": cx, "cy": cy}
        if skew:
            entry["skew"] = skew
        if exact.times is not None:
            entry["time"] = float(exact.times[index])
        entries.append(json.dumps(entry))
    head = f'{{"format": "{FORMAT_NAME}", "version": {_VERSION}, "cameras": ['
    write_atomically(path, head + "\n " + ",\n ".join(entries) + "\n]}\n")


def _to_K_norm(entry: Mapping[str, Any]) -> list[list[float]]:
    fx, fy, cx, cy = (float(entry[name]) for name in ("fx", "fy", "cx", "cy"))
    return [[fx, float(entry.get("skew", 0.0)), cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]
