"""ComfyUI's SPLAT to the core's Gaussians, and back. Both worlds have the same axes."""

from collections.abc import Sequence

import torch
from comfy_api.latest import Types
from torch import Tensor

from ..genxd_core.errors import InvalidInputError
from ..genxd_core.lifting.gaussians import Gaussians

__all__ = ["gaussians_to_splat", "splat_to_gaussians"]

_SHAPES = {
    "positions": "(B, N, 3)",
    "scales": "(B, N, 3)",
    "rotations": "(B, N, 4)",
    "opacities": "(B, N, 1)",
    "sh": "(B, N, K, 3)",
}


def gaussians_to_splat(gaussians: Gaussians | Sequence[Gaussians]) -> Types.SPLAT:
    """A SPLAT of one scene, or a batch of several: float32 on the CPU.

    Scenes are padded with zeros to the largest and brought to the highest degree of them.

    Raises:
        InvalidInputError: there is no scene, or one without Gaussians.
    """
    scenes = [gaussians] if isinstance(gaussians, Gaussians) else list(gaussians)
    sizes = [len(scene) for scene in scenes]
    if not scenes or min(sizes) == 0:
        raise InvalidInputError(
            f"gaussians has {len(scenes)} scenes with {sizes[:20]} Gaussians; a splat needs at "
            "least one in each."
        )
    degree = max(scene.degree for scene in scenes)
    alike = [scene.detach().to("cpu", torch.float32).with_degree(degree) for scene in scenes]
    counts = torch.tensor(sizes) if len(set(sizes)) > 1 else None
    return Types.SPLAT(
        _padded([scene.means for scene in alike]),
        _padded([scene.scales for scene in alike]),
        _padded([scene.quats for scene in alike]),
        _padded([scene.opacities[:, None] for scene in alike]),
        _padded([scene.sh for scene in alike]),
        counts,
    )


def _padded(tensors: Sequence[Tensor]) -> Tensor:
    longest = max(map(len, tensors))
    batch = tensors[0].new_zeros(len(tensors), longest, *tensors[0].shape[1:])
    for row, tensor in zip(batch, tensors, strict=True):
        row[: len(tensor)] = tensor
    return batch


def splat_to_gaussians(splat: Types.SPLAT, name: str = "splat") -> list[Gaussians]:
    """Every scene of a SPLAT's batch without its padding: float32 on the CPU.

    Args:
        splat: scales linear, opacities in [0, 1], rotations wxyz of any length but 0.
        name: of the input, for messages.

    Raises:
        InvalidInputError: shapes that do not fit together, a scene without Gaussians, or a value
            that no Gaussian can have.
    """
    parts = {key: getattr(splat, key, None) for key in _SHAPES}
    _check_shapes(parts, name)
    batch, longest = parts["positions"].shape[:2]
    scenes = []
    for item, count in enumerate(_counts(splat, batch, longest, name)):
        means, scales, quats, opacities, sh = (
            part[item, :count].detach().to("cpu", torch.float32) for part in parts.values()
        )
        try:
            scenes.append(Gaussians(means, quats, scales, opacities[:, 0], sh))
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{name}: item {item} of the batch cannot be drawn: {error}"
            ) from error
    return scenes


def _check_shapes(parts: dict[str, Tensor | None], name: str) -> None:
    positions = parts["positions"]
    lead = tuple(positions.shape[:2]) if isinstance(positions, Tensor) else ()
    ends = {"positions": (3,), "scales": (3,), "rotations": (4,), "opacities": (1,), "sh": (3,)}
    for key, part in parts.items():
        shape = tuple(part.shape) if isinstance(part, Tensor) else None
        dims = 4 if key == "sh" else 3
        if shape is None or len(shape) != dims or shape[:2] != lead or shape[-1:] != ends[key]:
            raise InvalidInputError(
                f"{name}: its {key} have shape {shape}; expected {_SHAPES[key]} with the same B "
                "and N as its positions. Look at the node before."
            )


def _counts(splat: Types.SPLAT, batch: int, longest: int, name: str) -> list[int]:
    given = getattr(splat, "counts", None)
    counts = [longest] * batch if given is None else [int(count) for count in given]
    if batch == 0 or len(counts) != batch or max(counts) > longest or min(counts) < 0:
        raise InvalidInputError(
            f"{name}: its batch has {batch} items of {longest} Gaussians, but its counts are "
            f"{counts[:20]}; look at the node before."
        )
    if 0 in counts:
        raise InvalidInputError(
            f"{name}: item {counts.index(0)} of its batch of {batch} has no Gaussians; there is "
            "nothing to draw. Look at the node before."
        )
    return counts
