"""The standard ``.ply`` file of 3D Gaussian splatting, both ways.

Binary little-endian, one element ``vertex`` of float32: x y z, nx ny nz (zeros), f_dc_0..2,
f_rest_* channel after channel, opacity (logit), scale_0..2 (natural logarithm), rot_0..3 (wxyz).
Axes are OpenCV's, as everywhere here; many viewers expect +Y up and show such files upside down.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import InvalidInputError
from ..files import write_atomically
from .gaussians import Gaussians
from .sh import MAX_DEGREE

__all__ = ["PLY_TYPES", "load_ply", "save_ply"]

_LONGEST_HEADER = 1 << 16
# The format's names of number types to numpy's.
PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2"},
    **{"int32": "<i4", "uint32": "<u4", "float": "<f4", "double": "<f8"},
    **{"float32": "<f4", "float64": "<f8"},
}
_MEANS = ("x", "y", "z")
_SH0 = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALES = ("scale_0", "scale_1", "scale_2")
_QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")
_NEEDED = (*_MEANS, *_SH0, "opacity", *_SCALES, *_QUATS)
_REST_COUNTS = tuple(3 * ((degree + 1) ** 2 - 1) for degree in range(MAX_DEGREE + 1))

# Logits and logarithms have no end; a file needs one.
_LEAST_OPACITY = 1e-6
_LEAST_SCALE = 1e-20


def save_ply(gaussians: Gaussians, path: str | Path, *, min_opacity: float = 0.0) -> Path:
    """Write Gaussians as a standard 3DGS ``.ply``; the file is whole or not there.

    Args:
        gaussians: at least one.
        path: of the file; its folder is made.
        min_opacity: what is fainter is left out; 1/255 loses nothing that is ever drawn, 0 keeps
            count and order.

    Returns:
        The path.

    Raises:
        InvalidInputError: there is nothing to write, or a value is not finite.
    """
    path = Path(path)
    kept = gaussians.detach().to("cpu", torch.float32)
    if min_opacity > 0:
        kept = kept[kept.opacities >= min_opacity]
    if len(kept) == 0:
        raise InvalidInputError(
            f"gaussians has none of its {len(gaussians)} Gaussians left to write to {path} with "
            f"min_opacity {min_opacity:g}; a file without Gaussians cannot be read again."
        )
    opacities = kept.opacities.clamp(_LEAST_OPACITY, 1 - _LEAST_OPACITY)
    columns = [
        kept.means,
        torch.zeros_like(kept.means),
        kept.sh[:, 0],
        kept.sh[:, 1:].transpose(1, 2).flatten(1),
        torch.logit(opacities)[:, None],
        kept.scales.clamp_min(_LEAST_SCALE).log(),
        kept.quats,
    ]
    table = torch.cat(columns, 1).numpy().astype("<f4")
    if not np.isfinite(table).all():
        raise InvalidInputError(
            f"gaussians holds NaN or infinite numbers, so {path} is not written; the fit that made "
            "them has diverged."
        )
    num_rest = 3 * (kept.sh.shape[1] - 1)
    rest = [f"f_rest_{number}" for number in range(num_rest)]
    names = [*_MEANS, "nx", "ny", "nz", *_SH0, *rest, "opacity", *_SCALES, *_QUATS]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    content = "\n".join(header).encode("ascii")

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as stream:
            stream.write(content)
            stream.write(table.tobytes())

    write_atomically(path, write)
    return path


def load_ply(path: str | Path) -> Gaussians:
    """Read a standard 3DGS ``.ply``, on the CPU in float32.

    Properties may come in any order; normals may be missing, and further ones are passed over.

    Args:
        path: of the file.

    Raises:
        InvalidInputError: there is no such file, it is no binary 3DGS ``.ply``, it is cut off or
            too long, it holds no Gaussians, or a value that no Gaussian can have.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInputError(f"path {path} is no file; expected a 3DGS .ply.")
    with path.open("rb") as stream:
        header = _read_header(stream.read(_LONGEST_HEADER), path)
        size = os.fstat(stream.fileno()).st_size - header.length
        # Before anything is allocated: the header may claim any number.
        expected = header.count * header.row.itemsize
        if size != expected:
            told = "is cut off" if size < expected else "holds more than its header says"
            raise InvalidInputError(
                f"path {path} {told}: {header.count} Gaussians of {header.row.itemsize} bytes "
                f"would be {expected} bytes, but {size} follow the header. Copy or export it again."
            )
        stream.seek(header.length)
        rows = np.fromfile(stream, header.row, header.count)
    if len(rows) != header.count:
        raise InvalidInputError(f"path {path} was cut off while it was read; try again.")
    _refuse_not_finite(rows, path)
    num_rest = len([name for name in header.names if name.startswith("f_rest_")])
    rest = _columns(rows, tuple(f"f_rest_{number}" for number in range(num_rest)))
    try:
        return Gaussians(
            means=_columns(rows, _MEANS),
            quats=_columns(rows, _QUATS),
            scales=_columns(rows, _SCALES).exp(),
            opacities=_columns(rows, ("opacity",))[:, 0].sigmoid(),
            sh=torch.cat(
                [_columns(rows, _SH0)[:, None], rest.view(len(rows), 3, -1).transpose(1, 2)], 1
            )
            if num_rest
            else _columns(rows, _SH0)[:, None],
        )
    except InvalidInputError as error:
        raise InvalidInputError(
            f"path {path} holds no Gaussians that can be drawn: {error}"
        ) from error


@dataclass(frozen=True)
class _Header:
    """What a file says about itself: bytes of the header, number and layout of the rows."""

    length: int
    count: int
    row: "np.dtype[np.void]"

    @property
    def names(self) -> tuple[str, ...]:
        return self.row.names or ()


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
    if not words or words[0] != ["format", "binary_little_endian", "1.0"]:
        told = " ".join(words[0]) if words else "nothing"
        raise InvalidInputError(
            f"path {path} has the format {told!r:.60}; only 'format binary_little_endian 1.0' is "
            "read. Export it as a binary .ply."
        )
    count, properties = _vertex_element(words[1:], path)
    _check_properties(properties, path)
    return _Header(
        newline + 1, count, np.dtype([(name, kind) for name, kind in properties.items()])
    )


def _vertex_element(words: list[list[str]], path: Path) -> tuple[int, dict[str, str]]:
    count, properties = -1, dict[str, str]()
    for line in words:
        if line[0] == "element" and len(line) == 3 and line[2].isdecimal() and count < 0:
            if line[1] != "vertex":
                raise _dialect(path, f"it begins with the element {line[1]!r:.40}")
            count = int(line[2])
        elif line[0] == "element" and len(line) == 3 and count >= 0:
            raise _dialect(path, f"it has a second element {line[1]!r:.40}")
        elif line[0] == "property" and len(line) == 3 and line[1] in PLY_TYPES and count >= 0:
            if line[2] in properties:
                raise _dialect(path, f"the property {line[2]!r:.40} comes twice")
            properties[line[2]] = PLY_TYPES[line[1]]
        else:
            raise _dialect(path, f"its header says {' '.join(line)!r:.80}")
    if count < 0:
        raise _dialect(path, "it has no element 'vertex'")
    if count == 0:
        raise InvalidInputError(
            f"path {path} holds 0 Gaussians; there is nothing to show. Export it again."
        )
    return count, properties


def _check_properties(properties: dict[str, str], path: Path) -> None:
    missing = [name for name in _NEEDED if name not in properties]
    if missing:
        raise _dialect(path, f"its vertices lack {', '.join(missing)}")
    rest = {name for name in properties if name.startswith("f_rest_")}
    if rest != {f"f_rest_{number}" for number in range(len(rest))} or len(rest) not in _REST_COUNTS:
        raise _dialect(path, f"its vertices have {len(rest)} properties f_rest_*, not 0, 9, 24, 45")


def _dialect(path: Path, told: str) -> InvalidInputError:
    return InvalidInputError(
        f"path {path} is no standard 3DGS .ply: {told}. Point clouds, meshes and compressed splats "
        "have to be converted first."
    )


def _columns(rows: np.ndarray, names: tuple[str, ...]) -> torch.Tensor:
    table = np.empty((len(rows), len(names)), np.float32)
    for place, name in enumerate(names):
        table[:, place] = rows[name]
    return torch.from_numpy(table)


def _refuse_not_finite(rows: np.ndarray, path: Path) -> None:
    names = [name for name in rows.dtype.names or () if name in _NEEDED or name[:7] == "f_rest_"]
    for name in names:
        bad = ~np.isfinite(rows[name].astype(np.float32))
        if bad.any():
            raise InvalidInputError(
                f"path {path} holds NaN or infinite numbers: {name} of Gaussian "
                f"{int(bad.argmax())} is {rows[name][bad.argmax()]}. Export it again, or remove "
                "such Gaussians."
            )
