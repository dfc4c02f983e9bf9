"""The `Gaussians` container: N anisotropic Gaussians with view-dependent colour, activated values.

Dimension letters: n Gaussians, k spherical-harmonic coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.rotations import rotation_to_quat
from ..errors import InvalidInputError
from .sh import degree_of, rgb_to_sh0, rotate_sh, sh0_to_rgb

__all__ = ["Gaussians", "multiply_quats"]

_DTYPES = (torch.float32, torch.float64)
_SHAPES = {
    "means": "(N, 3)",
    "quats": "(N, 4)",
    "scales": "(N, 3)",
    "opacities": "(N,)",
    "sh": "(N, K, 3)",
}
_NEARLY_IN_RANGE = 1e-5


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Gaussians:
    """N Gaussians in a world with OpenCV axes. All values are activated: no logarithm, no logit.

    Everything is kept in the dtype of the means (float32 or float64) and on their device.
    Gradients flow through to the tensors that were given.

    Attributes:
        means: (N, 3) centres in scene units.
        quats: (N, 4) rotations wxyz, of unit length.
        scales: (N, 3) standard deviations along the rotated axes, in scene units, at least 0.
        opacities: (N,) in [0, 1].
        sh: (N, K, 3) coefficients of red, green and blue; K = (degree + 1)^2 with degree 0 to 3.
            The colour is 0.5 + 0.28209479 sh[:, 0] + ..., see `genxd_core.lifting.sh`.
    """

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    sh: Float[Tensor, "n k 3"]

    def __init__(
        self,
        means: Tensor | np.ndarray,
        quats: Tensor | np.ndarray,
        scales: Tensor | np.ndarray,
        opacities: Tensor | np.ndarray,
        sh: Tensor | np.ndarray,
    ) -> None:
        """Check and keep the Gaussians; tensors and numpy arrays are taken alike.

        Args:
            means: (N, 3); N may be 0.
            quats: (N, 4) wxyz, of any length but 0; kept with length 1.
            scales: (N, 3), linear, at least 0.
            opacities: (N,) in [0, 1].
            sh: (N, K, 3), K one of 1, 4, 9, 16.

        Raises:
            InvalidInputError: a shape or value that no Gaussian can have; the message names the
                first such Gaussian by its index.
        """
        given = {
            "means": means,
            "quats": quats,
            "scales": scales,
            "opacities": opacities,
            "sh": sh,
        }
        first = _as_tensor(means, "means")
        dtype = first.dtype if first.dtype in _DTYPES else torch.float32
        kept = {
            name: _moved(_as_tensor(value, name), first.device, dtype)
            for name, value in given.items()
        }
        _check_shapes(kept)
        _check_values(kept)
        kept["quats"] = torch.nn.functional.normalize(kept["quats"], dim=-1)
        kept["opacities"] = kept["opacities"].clamp(0, 1)
        self._set(**kept)

    @classmethod
    def from_rgb(
        cls,
        means: Tensor | np.ndarray,
        quats: Tensor | np.ndarray,
        scales: Tensor | np.ndarray,
        opacities: Tensor | np.ndarray,
        rgb: Tensor | np.ndarray,
    ) -> "Gaussians":
        """Gaussians that look the same from everywhere.

        Args:
            means: (N, 3).
            quats: (N, 4) wxyz.
            scales: (N, 3), linear.
            opacities: (N,) in [0, 1].
            rgb: (N, 3) colours in [0, 1].

        Raises:
            InvalidInputError: as for ``Gaussians``.
        """
        colours = _as_tensor(rgb, "rgb")
        if colours.ndim != 2 or colours.shape[1] != 3:
            raise InvalidInputError(f"rgb has shape {tuple(colours.shape)}; expected (N, 3).")
        return cls(
            means, quats, scales, opacities, rgb_to_sh0(colours.to(_float(colours)))[:, None]
        )

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return degree_of(self.sh.shape[1])

    @property
    def rgb(self) -> Float[Tensor, "n 3"]:
        """Base colours: the part that does not depend on the direction, limited to [0, 1]."""
        return sh0_to_rgb(self.sh[:, 0]).clamp(0, 1)

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.means.device

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.means.dtype

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Gaussians":
        """The same Gaussians on another device or in another precision.

        Raises:
            InvalidInputError: ``dtype`` is neither float32 nor float64.
        """
        if dtype is not None and dtype not in _DTYPES:
            raise InvalidInputError(
                f"dtype is {dtype}; Gaussians are kept in torch.float32 or torch.float64."
            )
        kind = dtype or self.dtype
        return self._trusted(*(_moved(tensor, device, kind) for tensor in self._tensors()))

    def detach(self) -> "Gaussians":
        """The same Gaussians without a history for gradients."""
        return self._trusted(*(tensor.detach() for tensor in self._tensors()))

    def with_degree(self, degree: int) -> "Gaussians":
        """The same Gaussians with more coefficients, which are 0, or with fewer.

        Raises:
            InvalidInputError: ``degree`` is not 0 to 3.
        """
        count = (degree + 1) ** 2
        degree_of(count)
        sh = self.sh[:, :count]
        missing = count - sh.shape[1]
        if missing:
            sh = torch.cat([sh, sh.new_zeros(len(sh), missing, 3)], 1)
        return self._trusted(self.means, self.quats, self.scales, self.opacities, sh)

    @staticmethod
    def concatenate(parts: Sequence["Gaussians"]) -> "Gaussians":
        """All Gaussians of some sets as one, with the dtype and device of the first.

        The highest degree of the parts is kept.

        Raises:
            InvalidInputError: there are no parts.
        """
        if len(parts) == 0:
            raise InvalidInputError("parts is empty; give at least one set of Gaussians.")
        degree = max(part.degree for part in parts)
        first = parts[0]
        alike = [part.to(first.device, first.dtype).with_degree(degree) for part in parts]
        columns = zip(*(part._tensors() for part in alike), strict=True)
        return Gaussians._trusted(*(torch.cat(column) for column in columns))

    def transformed(
        self,
        rotation: Tensor | np.ndarray,
        translation: Tensor | np.ndarray | Sequence[float] = (0.0, 0.0, 0.0),
        scale: float = 1.0,
    ) -> "Gaussians":
        """The scene moved by a similarity: ``x -> scale * rotation @ x + translation``.

        Means, rotations, scales and the directions of the colours all follow. Cameras have to be
        moved by the same similarity to see the same picture.

        Args:
            rotation: (3, 3), orthonormal with determinant 1.
            translation: (3,) in scene units.
            scale: above 0.

        Raises:
            InvalidInputError: ``rotation`` is no rotation, or ``scale`` is not above 0.
        """
        exact = _as_tensor(rotation, "rotation").detach().to("cpu").double()
        departure = float("inf")
        if exact.shape == (3, 3) and bool(torch.isfinite(exact).all()):
            departure = float((exact.T @ exact - torch.eye(3, dtype=exact.dtype)).abs().max())
        if not departure < 1e-4 or float(torch.linalg.det(exact)) < 0:
            raise InvalidInputError(
                "rotation is not an orthonormal (3, 3) matrix with determinant 1; a mirrored, "
                "sheared or scaled scene is not a similarity. Pass the size change as scale."
            )
        shift = _moved(_as_tensor(translation, "translation"), self.device, self.dtype)
        if shift.shape != (3,) or not (scale > 0 and np.isfinite(scale)):
            raise InvalidInputError(
                f"translation has shape {tuple(shift.shape)} and scale is {scale}; expected (3,) "
                "and a number above 0."
            )
        turn = exact.to(self.dtype).to(self.device)
        quat = rotation_to_quat(exact).to(self.dtype).to(self.device)
        return self._trusted(
            scale * self.means @ turn.T + shift,
            multiply_quats(quat.expand_as(self.quats), self.quats),
            scale * self.scales,
            self.opacities,
            rotate_sh(self.sh, turn),
        )

    def __len__(self) -> int:
        return self.means.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Gaussians":
        """Some of the Gaussians: an index, a slice, indices, or a tensor of booleans."""
        if not isinstance(index, (slice, Tensor)):
            index = torch.tensor(index, dtype=torch.long).reshape(-1)
        if isinstance(index, Tensor):
            index = index.to(self.device)
        return self._trusted(*(tensor[index] for tensor in self._tensors()))

    def __repr__(self) -> str:
        return f"Gaussians({len(self)}, degree {self.degree}, {self.dtype}, {self.device})"

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.means, self.quats, self.scales, self.opacities, self.sh

    def _set(
        self, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, sh: Tensor
    ) -> None:
        for name, tensor in zip(_SHAPES, (means, quats, scales, opacities, sh), strict=True):
            object.__setattr__(self, name, tensor)

    @classmethod
    def _trusted(cls, *tensors: Tensor) -> "Gaussians":
        # What was made of checked Gaussians needs no second check, which would wait for the device.
        gaussians = object.__new__(cls)
        gaussians._set(*tensors)
        return gaussians


def multiply_quats(
    first: Float[Tensor, "n 4"], second: Float[Tensor, "n 4"]
) -> Float[Tensor, "n 4"]:
    """Hamilton products wxyz: the turn ``second`` followed by the turn ``first``."""
    w, x, y, z = first.unbind(-1)
    ow, ox, oy, oz = second.unbind(-1)
    return torch.stack(
        [
            w * ow - x * ox - y * oy - z * oz,
            w * ox + x * ow + y * oz - z * oy,
            w * oy - x * oz + y * ow + z * ox,
            w * oz + x * oy - y * ox + z * ow,
        ],
        -1,
    )


def _moved(tensor: Tensor, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
    # Some devices know no float64: they are left before it, and reached after it.
    if dtype == torch.float64:
        return tensor.to(device=device).to(dtype=dtype)
    return tensor.to(dtype=dtype).to(device=device)


def _float(tensor: Tensor) -> torch.dtype:
    return tensor.dtype if tensor.dtype in _DTYPES else torch.float32


def _as_tensor(value: object, name: str) -> Tensor:
    try:
        # A copy of the array: it may be read-only or reversed, which tensors cannot share.
        is_array = isinstance(value, np.ndarray)
        return torch.from_numpy(np.array(value)) if is_array else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"{name} is {type(value).__name__}, not a tensor or numpy array of numbers ({error})."
        ) from error


def _check_shapes(tensors: dict[str, Tensor]) -> None:
    count = tensors["means"].shape[0] if tensors["means"].ndim else -1
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        fits = {
            "means": shape == (count, 3),
            "quats": shape == (count, 4),
            "scales": shape == (count, 3),
            "opacities": shape == (count,),
            "sh": len(shape) == 3 and shape[0] == count and shape[2] == 3,
        }[name]
        if not fits:
            hint = ""
            if name == "opacities" and shape == (count, 1):
                hint = " Take [:, 0]."
            if name == "sh" and shape == (count, 3):
                hint = " Colours are taken by Gaussians.from_rgb."
            raise InvalidInputError(
                f"{name} has shape {shape} for {max(count, 0)} means; expected {_SHAPES[name]} "
                f"with the same N for all.{hint}"
            )
    degree_of(tensors["sh"].shape[1])


def _check_values(tensors: dict[str, Tensor]) -> None:
    """All checks in one answer from the device; only a failed one asks for more."""
    if len(tensors["means"]) == 0:
        return
    with torch.no_grad():
        bad = {
            f"{name} holds NaN or infinite numbers; every entry must be finite": (
                ~torch.isfinite(tensor.reshape(len(tensor), -1)).all(-1)
            )
            for name, tensor in tensors.items()
        }
        bad["quats is zero, which stands for no rotation; use (1, 0, 0, 0) for none"] = (
            tensors["quats"].norm(dim=-1) < 1e-12
        )
        bad["scales is negative; scales are linear, at least 0: take exp of logarithms"] = (
            tensors["scales"] < 0
        ).any(-1)
        opacities = tensors["opacities"]
        bad["opacities lies outside [0, 1]; take sigmoid of logits"] = (
            opacities < -_NEARLY_IN_RANGE
        ) | (opacities > 1 + _NEARLY_IN_RANGE)
        found = torch.stack(list(bad.values())).cpu()
    if not bool(found.any()):
        return
    for message, row in zip(bad, found, strict=True):
        if bool(row.any()):
            index = int(row.nonzero()[0, 0])
            name, _, rest = message.partition(" ")
            raise InvalidInputError(f"{name} of Gaussian {index} {rest}.")
