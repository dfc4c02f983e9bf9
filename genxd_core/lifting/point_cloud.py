"""The `PointCloud` container: points of a scene with colours, what a fit may start from."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError

__all__ = ["PointCloud"]


@dataclass(frozen=True, eq=False)
class PointCloud:
    """P points in the world of the cameras.

    Attributes:
        xyz: (P, 3) positions in scene units, P at least 1; float32 on the CPU.
        rgb: (P, 3) colours in [0, 1]; ``None`` if they are not known.

    Raises:
        InvalidInputError: there is no point, a shape is wrong, or a number is not finite.
    """

    xyz: Float[Tensor, "p 3"]
    rgb: Float[Tensor, "p 3"] | None = None

    def __post_init__(self) -> None:
        for name in ("xyz", "rgb"):
            value = getattr(self, name)
            if value is None and name == "rgb":
                continue
            tensor = torch.as_tensor(value, dtype=torch.float32, device="cpu")
            if tensor.ndim != 2 or tensor.shape[1] != 3 or len(tensor) == 0:
                raise InvalidInputError(
                    f"points' {name} has shape {tuple(tensor.shape)}; expected (P, 3) with at "
                    "least one point."
                )
            if not bool(tensor.isfinite().all()):
                raise InvalidInputError(
                    f"points' {name} holds NaN or infinite numbers; leave such points out."
                )
            object.__setattr__(self, name, tensor)
        if self.rgb is not None:
            if len(self.rgb) != len(self.xyz):
                raise InvalidInputError(
                    f"points have {len(self.rgb)} colours for {len(self.xyz)} positions; give one "
                    "for each."
                )
            object.__setattr__(self, "rgb", self.rgb.clamp(0, 1))

    def __len__(self) -> int:
        return len(self.xyz)
