"""Runs a small TensorFlow Lite network with torch: its file is read directly, nothing is converted.

A ``.tflite`` file is a FlatBuffer: tables whose fields are found through a list of offsets. Only
floating-point networks of one subgraph and the few operations of `_OPERATIONS` are known.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..errors import WeightsError

__all__ = ["TfliteNetwork"]

_IDENTIFIER = b"TFL3"
_CUSTOM = 32
_TYPES: dict[int, Any] = {0: np.float32, 1: np.float16, 2: np.int32, 4: np.int64}
_SAME = 0  # padding: as much as keeps the size; 1 is none


class _Table:
    """A FlatBuffer table; fields are numbered as in the schema of the file format."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.fields = at - self._unpack("<i", at)
        self.size = self._unpack("<H", self.fields)

    def _unpack(self, kind: str, at: int) -> int:
        return int(struct.unpack_from(kind, self.data, at)[0])

    def _field(self, number: int) -> int | None:
        entry = 4 + 2 * number
        offset = self._unpack("<H", self.fields + entry) if entry < self.size else 0
        return self.at + offset if offset else None

    def number(self, field: int, kind: str = "<i", default: int = 0) -> int:
        at = self._field(field)
        return default if at is None else self._unpack(kind, at)

    def table(self, field: int) -> "_Table | None":
        at = self._field(field)
        return None if at is None else _Table(self.data, at + self._unpack("<I", at))

    def _vector(self, field: int) -> tuple[int, int]:
        at = self._field(field)
        if at is None:
            return 0, 0
        at += self._unpack("<I", at)
        return at + 4, self._unpack("<I", at)

    def numbers(self, field: int) -> list[int]:
        at, count = self._vector(field)
        return list(struct.unpack_from(f"<{count}i", self.data, at))

    def raw(self, field: int) -> bytes:
        at, count = self._vector(field)
        return self.data[at : at + count]

    def tables(self, field: int) -> "list[_Table]":
        at, count = self._vector(field)
        starts = range(at, at + 4 * count, 4)
        return [_Table(self.data, start + self._unpack("<I", start)) for start in starts]


@dataclass(frozen=True)
class _Step:
    """One operation: its name, where it reads and writes, its options."""

    name: str
    inputs: Sequence[int]
    output: int
    options: "_Table | None"
    custom: bytes


class TfliteNetwork:
    """A network with one picture in and one map out.

    Args:
        path: of the ``.tflite`` file.

    Attributes:
        size: (height, width) of the picture that it takes.

    Raises:
        WeightsError: the file is damaged, or the network is of another kind.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._read(path.read_bytes())
        except (OSError, struct.error, ValueError, IndexError, KeyError) as error:
            raise WeightsError(
                f"network {path} is missing, damaged, or of a kind that is not known ({error}); "
                "put the original file there again."
            ) from error

    def _read(self, data: bytes) -> None:
        if data[4:8] != _IDENTIFIER:
            raise ValueError("it is no TensorFlow Lite file")
        model = _Table(data, struct.unpack_from("<I", data, 0)[0])
        (graph,) = model.tables(2)
        buffers = model.tables(4)
        names = [_operation_name(code) for code in model.tables(1)]
        self._steps = [
            _Step(
                names[one.number(0, "<I")],
                one.numbers(1),
                one.numbers(2)[0],
                one.table(4),
                one.raw(5),
            )
            for one in graph.tables(3)
        ]
        unknown = sorted({step.name for step in self._steps} - set(_OPERATIONS))
        if unknown:
            raise ValueError(f"it has the operations {', '.join(unknown)}")
        tensors = graph.tables(0)
        self._constants = {
            index: constant
            for index, tensor in enumerate(tensors)
            if (constant := _constant(tensor, buffers)) is not None
        }
        (self._input,), (self._output,) = graph.numbers(1), graph.numbers(2)
        _, height, width, _ = tensors[self._input].numbers(0)
        self.size = (height, width)

    @torch.no_grad()
    def __call__(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 oh ow"]:
        """The network's map of each picture.

        Args:
            pictures: of `size`, in the range that the network was made for.
        """
        known: dict[int, Tensor] = {**self._constants, self._input: pictures.float()}
        for step in self._steps:
            inputs = [known[index] for index in step.inputs if index >= 0]
            known[step.output] = _OPERATIONS[step.name](inputs, step)
        return known[self._output]


def _operation_name(code: _Table) -> str:
    number = max(code.number(0, "<b"), code.number(3))
    return code.raw(1).decode("ascii") if number == _CUSTOM else str(number)


def _constant(tensor: _Table, buffers: Sequence[_Table]) -> Tensor | None:
    raw = buffers[tensor.number(2, "<I")].raw(0)
    if not raw:
        return None
    values = np.frombuffer(raw, _TYPES[tensor.number(1, "<b")]).reshape(tensor.numbers(0))
    return torch.from_numpy(values.copy())


# ---- operations: pictures are (B, C, H, W) here, and (B, H, W, C) in the file -------------------


def _activated(x: Tensor, options: _Table, field: int) -> Tensor:
    activation = options.number(field, "<b")
    if activation == 0:
        return x
    return {1: F.relu, 3: F.relu6}[activation](x)


def _padded(x: Tensor, padding: int, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    if padding != _SAME:
        return x
    needed = [
        max(0, (-(-size // step) - 1) * step + reach - size)
        for size, reach, step in zip(x.shape[2:], kernel, stride, strict=True)
    ]
    top, left = needed[0] // 2, needed[1] // 2
    return F.pad(x, (left, needed[1] - left, top, needed[0] - top))


def _options(step: _Step) -> _Table:
    if step.options is None:
        raise ValueError(f"operation {step.name} has no options")
    return step.options


def _convolution(inputs: Sequence[Tensor], step: _Step) -> Tensor:
    options, x, weight = _options(step), inputs[0], inputs[1].float().permute(0, 3, 1, 2)
    stride = (options.number(2), options.number(1))
    x = _padded(x, options.number(0, "<b"), weight.shape[2:], stride)
    return _activated(F.conv2d(x, weight, inputs[2].float(), stride), options, 3)


def _depthwise(inputs: Sequence[Tensor], step: _Step) -> Tensor:
    options, x, weight = _options(step), inputs[0], inputs[1].float().permute(3, 0, 1, 2)
    stride = (options.number(2), options.number(1))
    x = _padded(x, options.number(0, "<b"), weight.shape[2:], stride)
    return _activated(F.conv2d(x, weight, inputs[2].float(), stride, groups=x.shape[1]), options, 4)


def _transposed(inputs: Sequence[Tensor], step: _Step) -> Tensor:
    """MediaPipe's own: weights (out, kernel, kernel, in) and a bias; stride 2, kernel 2."""
    _, stride_w, stride_h = struct.unpack("<3i", step.custom[:12])
    weight = inputs[1].float().permute(3, 0, 1, 2)
    return F.conv_transpose2d(inputs[0], weight, inputs[2].float(), (stride_h, stride_w))


def _mean_pool(inputs: Sequence[Tensor], step: _Step) -> Tensor:
    options = _options(step)
    kernel, stride = (options.number(4), options.number(3)), (options.number(2), options.number(1))
    return F.avg_pool2d(inputs[0], kernel, stride)


def _resized(inputs: Sequence[Tensor], step: _Step) -> Tensor:
    options, size = _options(step), [int(side) for side in inputs[1]]
    corners = bool(options.number(2, "<b"))
    if corners or options.number(3, "<b"):
        return F.interpolate(inputs[0], size, mode="bilinear", align_corners=corners)
    return _from_corner(inputs[0], size)


def _from_corner(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear with the first pixels' corners, not their middles, laid upon each other."""
    rows, columns = (
        (torch.arange(new) * (old / new)).clamp(max=old - 1)
        for new, old in zip(size, x.shape[2:], strict=True)
    )
    grid_y = rows / max(1, x.shape[2] - 1) * 2 - 1
    grid_x = columns / max(1, x.shape[3] - 1) * 2 - 1
    grid = torch.stack(torch.meshgrid(grid_x, grid_y, indexing="xy"), -1)
    return F.grid_sample(x, grid[None].expand(len(x), -1, -1, -1), align_corners=True)


_OPERATIONS: Mapping[str, Callable[[Sequence[Tensor], _Step], Tensor]] = {
    "0": lambda inputs, step: inputs[0] + inputs[1],
    "1": _mean_pool,
    "3": _convolution,
    "4": _depthwise,
    "6": lambda inputs, step: inputs[0].float(),  # weights kept in half precision
    "14": lambda inputs, step: inputs[0].sigmoid(),
    "18": lambda inputs, step: inputs[0] * inputs[1],
    "19": lambda inputs, step: inputs[0].relu(),
    "23": _resized,
    "117": lambda inputs, step: F.hardswish(inputs[0]),
    "Convolution2DTransposeBias": _transposed,
}
