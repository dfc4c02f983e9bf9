"""The `Cameras` container: poses, normalised intrinsics and times of V views.

Dimension letters: v views.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from .rotations import invert_rigid

__all__ = ["Cameras"]

_ORTHONORMAL_TOLERANCE = 1e-3
_LARGEST_PRINCIPAL_POINT = 8.0
_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Cameras:
    """Poses, intrinsics and, optionally, times of V cameras.

    OpenCV axes (+X right, +Y down, +Z forward); a pixel in row i, column j has its centre at
    (j + 0.5, i + 0.5). Intrinsics are normalised: first row divided by the picture's width, second
    by its height, so a path depends on the picture's aspect and not on its size.

    Everything is kept in the dtype of the poses (float32 or float64; integers become float32) and
    on their device.

    Attributes:
        c2w: (V, 4, 4) camera-to-world: rotation, position in scene units, last row (0, 0, 0, 1).
        Ks_norm: (V, 3, 3) normalised intrinsics; positive focal lengths on the diagonal.
        times: (V,) in [0, 1], position in time within the clip; ``None`` for a still scene.
    """

    c2w: Float[Tensor, "v 4 4"]
    Ks_norm: Float[Tensor, "v 3 3"]
    times: Float[Tensor, " v"] | None = None

    def __init__(
        self,
        c2w: Tensor | np.ndarray,
        Ks_norm: Tensor | np.ndarray,
        times: Tensor | np.ndarray | Sequence[float] | None = None,
    ) -> None:
        """Check and keep the cameras; tensors and numpy arrays are taken alike.

        Args:
            c2w: (V, 4, 4) camera-to-world poses with OpenCV axes.
            Ks_norm: (V, 3, 3) normalised intrinsics.
            times: (V,) in [0, 1], or ``None``.

        Raises:
            InvalidInputError: a shape, pose, intrinsic matrix or time that no camera can have; the
                message names the camera by its index.
        """
        c2w_checked = _checked_c2w(_as_float_tensor(c2w, "c2w", like=None))
        Ks_checked = _checked_Ks_norm(_as_float_tensor(Ks_norm, "Ks_norm", like=c2w_checked))
        if len(Ks_checked) != len(c2w_checked):
            raise InvalidInputError(
                f"Ks_norm has {len(Ks_checked)} matrices for {len(c2w_checked)} poses in c2w; "
                "give one intrinsic matrix per camera (repeat it if they share one)."
            )
        times_checked = None
        if times is not None:
            times_tensor = _as_float_tensor(times, "times", like=c2w_checked)
            times_checked = _checked_times(times_tensor, len(c2w_checked))
        self._set(c2w_checked, Ks_checked, times_checked)

    @classmethod
    def from_w2c(
        cls,
        w2c: Tensor | np.ndarray,
        Ks_norm: Tensor | np.ndarray,
        times: Tensor | np.ndarray | Sequence[float] | None = None,
    ) -> "Cameras":
        """Build from world-to-camera poses, as COLMAP and most datasets store them.

        Args:
            w2c: (V, 4, 4) world-to-camera poses with OpenCV axes.
            Ks_norm: (V, 3, 3) normalised intrinsics.
            times: (V,) in [0, 1], or ``None``.

        Raises:
            InvalidInputError: as for ``Cameras``.
        """
        checked = _checked_c2w(_as_float_tensor(w2c, "w2c", like=None), name="w2c")
        return cls(invert_rigid(checked), Ks_norm, times)

    @property
    def viewmats(self) -> Float[Tensor, "v 4 4"]:
        """World-to-camera matrices."""
        return invert_rigid(self.c2w)

    def Ks(self, width: int, height: int) -> Float[Tensor, "v 3 3"]:
        """Intrinsics in pixels of a picture of ``width`` x ``height`` pixels."""
        size = self.Ks_norm.new_tensor([width, height, 1.0])
        return self.Ks_norm * size[:, None]

    @property
    def centres(self) -> Float[Tensor, "v 3"]:
        """Positions of the cameras in the world."""
        return self.c2w[:, :3, 3]

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.c2w.device

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.c2w.dtype

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Cameras":
        """The same cameras on another device or in another precision.

        Raises:
            InvalidInputError: ``dtype`` is neither float32 nor float64.
        """
        if dtype is not None and dtype not in _DTYPES:
            raise InvalidInputError(
                f"dtype is {dtype}; cameras are kept in torch.float32 or torch.float64, because "
                "half precision would bend the rotations. Convert what is computed from them."
            )
        times = None if self.times is None else _moved(self.times, device, dtype)
        return self._trusted(
            _moved(self.c2w, device, dtype), _moved(self.Ks_norm, device, dtype), times
        )

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Cameras":
        """Some of the views, always as `Cameras`: a single index gives one view, not a bare matrix.

        Args:
            index: an integer (negative ones count from the end), a slice, a sequence of integers,
                or a tensor of indices or of booleans.

        Raises:
            IndexError: an index is outside the views.
            InvalidInputError: nothing is selected.
        """
        if isinstance(index, (int, np.integer)):
            picked = torch.tensor([self._absolute(int(index))])
        elif isinstance(index, slice):
            picked = torch.tensor(range(len(self))[index], dtype=torch.long)
        elif isinstance(index, Tensor):
            picked = index
        else:
            picked = torch.tensor([self._absolute(int(i)) for i in index], dtype=torch.long)
        c2w = self.c2w[picked]
        if len(c2w) == 0:
            raise InvalidInputError(
                f"index {index!r} selects none of the {len(self)} cameras; select at least one."
            )
        times = None if self.times is None else self.times[picked]
        return self._trusted(c2w, self.Ks_norm[picked], times)

    def __iter__(self) -> Iterator["Cameras"]:
        for index in range(len(self)):
            yield self[index]

    def __repr__(self) -> str:
        times = "no times" if self.times is None else "with times"
        return f"Cameras({len(self)} views, {times}, {self.dtype}, {self.device})"

    def _absolute(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"camera {index} asked for, but there are {len(self)} cameras")
        return index % len(self)

    def _set(self, c2w: Tensor, Ks_norm: Tensor, times: Tensor | None) -> None:
        object.__setattr__(self, "c2w", c2w)
        object.__setattr__(self, "Ks_norm", Ks_norm)
        object.__setattr__(self, "times", times)

    @classmethod
    def _trusted(cls, c2w: Tensor, Ks_norm: Tensor, times: Tensor | None) -> "Cameras":
        # Parts of checked cameras need no second check, which would wait for the device.
        cameras = object.__new__(cls)
        cameras._set(c2w, Ks_norm, times)
        return cameras


def _as_float_tensor(value: object, name: str, like: Tensor | None) -> Tensor:
    try:
        # A copy of the array: it may be read-only or reversed, which tensors cannot share.
        is_array = isinstance(value, np.ndarray)
        tensor = torch.from_numpy(np.array(value)) if is_array else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"{name} is {type(value).__name__}, not a tensor or numpy array of numbers ({error})."
        ) from error
    if like is not None:
        return _moved(tensor, like.device, like.dtype)
    if tensor.dtype in (torch.float16, torch.bfloat16):
        raise InvalidInputError(
            f"{name} is in {tensor.dtype}, which is too coarse for poses; give float32 or float64."
        )
    return tensor if tensor.dtype in _DTYPES else tensor.to(torch.float32)


def _moved(tensor: Tensor, device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
    # Some devices know no float64: they are left before it, and reached after it.
    if dtype == torch.float64:
        return tensor.to(device=device).to(dtype=dtype)
    return tensor.to(dtype=dtype).to(device=device)


def _first(bad: Tensor) -> int:
    return int(bad.nonzero()[0, 0])


def _checked_c2w(c2w: Tensor, name: str = "c2w") -> Tensor:
    if c2w.ndim != 3 or c2w.shape[1:] != (4, 4) or len(c2w) == 0:
        raise InvalidInputError(
            f"{name} has shape {tuple(c2w.shape)}; expected (V, 4, 4) with at least one camera "
            "(add the row 0, 0, 0, 1 to 3 x 4 matrices)."
        )
    checks = torch.stack(
        [
            ~torch.isfinite(c2w).all(-1).all(-1),
            (c2w[:, :3, :3] == 0).all(-1).all(-1),
            ((c2w[:, 3] - c2w.new_tensor([0, 0, 0, 1])).abs() > 1e-5).any(-1),
            _departure(c2w[:, :3, :3]) > _ORTHONORMAL_TOLERANCE,
            torch.linalg.det(c2w[:, :3, :3]) < 0,
        ]
    ).cpu()
    if bool(checks.any()):
        _refuse_pose(c2w, checks, name)
    return c2w


def _departure(rotation: Tensor) -> Tensor:
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    return (rotation.transpose(-1, -2) @ rotation - identity).abs().amax((-1, -2))


def _refuse_pose(c2w: Tensor, checks: Tensor, name: str) -> None:
    index = _first(checks.any(0))
    not_finite, zero, last_row, bent, _ = checks[:, index].tolist()
    where = f"{name} of camera {index}"
    if not_finite:
        raise InvalidInputError(
            f"{where} holds NaN or infinite numbers; every entry must be finite."
        )
    if zero:
        raise InvalidInputError(
            f"{where} has a zero rotation: the pose was never filled in. Give a rotation matrix."
        )
    if last_row:
        row = [round(x, 6) for x in c2w[index, 3].tolist()]
        raise InvalidInputError(
            f"{where} has the last row {row}; expected [0, 0, 0, 1]. If the translation stands "
            "there, the matrix is transposed."
        )
    rotation = c2w[index, :3, :3].cpu().double()
    if bent:
        lengths = [round(x, 4) for x in rotation.norm(dim=0).tolist()]
        raise InvalidInputError(
            f"{where} has a rotation part that is not orthonormal (off by "
            f"{float(_departure(rotation[None])):.3g}, allowed {_ORTHONORMAL_TOLERANCE:g}; its "
            f"columns have the lengths {lengths}); remove scale and shear from the rotation."
        )
    raise InvalidInputError(
        f"{where} is mirrored (its rotation has determinant -1); two axes must be flipped between "
        "conventions, never one. Check the conversion to OpenCV axes (+X right, +Y down, "
        "+Z forward)."
    )


def _checked_Ks_norm(Ks_norm: Tensor) -> Tensor:
    if Ks_norm.ndim != 3 or Ks_norm.shape[1:] != (3, 3):
        raise InvalidInputError(
            f"Ks_norm has shape {tuple(Ks_norm.shape)}; expected (V, 3, 3), one matrix per camera."
        )
    expected_zeros = Ks_norm[:, [1, 2, 2], [0, 0, 1]]
    checks = torch.stack(
        [
            ~torch.isfinite(Ks_norm).all(-1).all(-1),
            (Ks_norm[:, [0, 1], [0, 1]] <= 0).any(-1),
            (expected_zeros != 0).any(-1) | (Ks_norm[:, 2, 2] != 1),
            (Ks_norm[:, :2, 2].abs() > _LARGEST_PRINCIPAL_POINT).any(-1),
        ]
    ).cpu()
    if bool(checks.any()):
        _refuse_intrinsics(Ks_norm, checks)
    return Ks_norm


def _refuse_intrinsics(Ks_norm: Tensor, checks: Tensor) -> None:
    index = _first(checks.any(0))
    not_finite, focal, layout, _ = checks[:, index].tolist()
    where = f"Ks_norm of camera {index}"
    matrix = [[round(x, 4) for x in row] for row in Ks_norm[index].tolist()]
    if not_finite:
        raise InvalidInputError(
            f"{where} holds NaN or infinite numbers; every entry must be finite."
        )
    if focal:
        raise InvalidInputError(
            f"{where} has the focal lengths {matrix[0][0]} and {matrix[1][1]}; both must be "
            "positive (focal length in pixels divided by the picture's width and height)."
        )
    if layout:
        raise InvalidInputError(
            f"{where} is {matrix}; expected [[fx, skew, cx], [0, fy, cy], [0, 0, 1]]."
        )
    raise InvalidInputError(
        f"{where} has its principal point at ({matrix[0][2]}, {matrix[1][2]}), which is far "
        "outside the picture: these look like pixels. Divide the first row by the width and the "
        "second by the height."
    )


def _checked_times(times: Tensor, num_views: int) -> Tensor:
    if times.shape != (num_views,):
        raise InvalidInputError(
            f"times has shape {tuple(times.shape)} for {num_views} cameras; expected "
            f"({num_views},), one time per camera."
        )
    # Written so that NaN counts as bad.
    bad = (~((times >= 0) & (times <= 1))).cpu()
    if bool(bad.any()):
        index = _first(bad[:, None])
        raise InvalidInputError(
            f"times of camera {index} is {float(times[index]):g}; times lie in [0, 1] (divide by "
            "the clip's length)."
        )
    return times
