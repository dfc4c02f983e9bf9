"""What the pipeline is asked for, checked before anything is computed."""

import numbers
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .cameras.cameras import Cameras
from .errors import InvalidInputError
from .model.conditioning import check_indices, mode_indicator
from .pictures import as_pictures
from .sizes import check_size

__all__ = [
    "PipelineInputs",
    "check_device",
    "check_dtype",
    "check_inputs",
    "check_motion_strength",
]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_LARGEST_MOTION_STRENGTH = 50.0


@dataclass(frozen=True)
class PipelineInputs:
    """Checked arguments of a run.

    Attributes:
        images: the given pictures, float32 in [0, 1].
        indices: their positions, non-negative, in the order given.
        cameras: the path.
        mode: "3d", "video" or "4d".
        motion_strength: what the network takes.
        use_motion_embedding: how it takes it.
        noise: unit noise to start from, or None to draw it.
        video: frames to start from, or None.
        decode_chunk_size: frames decoded at a time, or None for all.
        latent_shape: (V, 4, h, w).
    """

    images: Float[Tensor, "k 3 H W"]
    indices: tuple[int, ...]
    cameras: Cameras
    mode: str
    motion_strength: float
    use_motion_embedding: bool
    noise: Float[Tensor, "v 4 h w"] | None
    video: Float[Tensor, "v 3 H W"] | None
    decode_chunk_size: int | None
    latent_shape: tuple[int, int, int, int]


def check_inputs(
    images: Any,
    cond_indices: Any,
    cameras: Any,
    *,
    mode: str,
    motion_strength: float,
    latents: Any,
    video: Any,
    strength: float,
    use_motion_embedding: bool,
    decode_chunk_size: int | None,
    size_multiple: int,
    factor: int,
    has_motion_embedding: bool,
) -> PipelineInputs:
    """Check the arguments of `GenXDPipeline.__call__`, which describes them.

    Args:
        images: as there.
        cond_indices: as there.
        cameras: as there.
        mode: as there.
        motion_strength: as there.
        latents: as there.
        video: as there.
        strength: as there.
        use_motion_embedding: as there.
        decode_chunk_size: as there.
        size_multiple: what the model's picture sides are multiples of.
        factor: pixels per latent pixel.
        has_motion_embedding: whether the network has one.

    Raises:
        InvalidInputError: the message names the argument, what came and what is expected.
    """
    if not isinstance(cameras, Cameras):
        raise InvalidInputError(
            f"cameras is {type(cameras).__name__}; expected Cameras, for instance from sway(12)."
        )
    mode_indicator(mode)
    check_motion_strength(motion_strength)
    if use_motion_embedding and not has_motion_embedding:
        raise InvalidInputError(
            "use_motion_embedding is True, but this network has no motion embedding; pass "
            "use_motion_embedding=False."
        )
    pictures = as_pictures(images, "images")
    indices = check_indices(_whole_numbers(cond_indices), len(cameras))
    if len(indices) != len(pictures):
        raise InvalidInputError(
            f"images has {len(pictures)} pictures and cond_indices {len(indices)} positions "
            f"({list(indices)}); give one position for every picture."
        )
    height, width = pictures.shape[2:]
    check_size(height, width, multiple=size_multiple)
    shape = (len(cameras), 4, height // factor, width // factor)
    if video is None and strength != 1.0:
        raise InvalidInputError(
            f"strength is {strength}, but there is no video to keep anything of; give video= or "
            "leave strength at 1."
        )
    if decode_chunk_size is not None and not _is_whole(decode_chunk_size, at_least=1):
        raise InvalidInputError(
            f"decode_chunk_size is {decode_chunk_size!r}; expected None (all frames at once) or at "
            "least 1 frame."
        )
    return PipelineInputs(
        images=pictures.detach().float(),
        indices=indices,
        cameras=cameras,
        mode=mode,
        motion_strength=float(motion_strength),
        use_motion_embedding=use_motion_embedding,
        noise=None if latents is None else _unit_noise(latents, shape),
        video=None if video is None else _video(video, len(cameras), (height, width)),
        decode_chunk_size=decode_chunk_size,
        latent_shape=shape,
    )


def check_motion_strength(motion_strength: float) -> None:
    """Refuse motion strengths outside 0 to 50, the range that the training values can have.

    Raises:
        InvalidInputError: negative, too large, infinite or NaN.
    """
    if not 0.0 <= motion_strength <= _LARGEST_MOTION_STRENGTH:
        raise InvalidInputError(
            f"motion_strength is {motion_strength}; expected 0 (still) to "
            f"{_LARGEST_MOTION_STRENGTH:g}; typical values are 0 to 2."
        )


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse precisions that the network does not run in.

    Raises:
        InvalidInputError: not float32, float16 or bfloat16.
    """
    if dtype not in _DTYPES:
        raise InvalidInputError(
            f"dtype is {dtype}; expected torch.float32, torch.float16 or torch.bfloat16."
        )


def check_device(device: torch.device | str) -> torch.device:
    """The device, if this machine has it.

    Raises:
        InvalidInputError: it does not, or there is no device of that name.
    """
    try:
        where = torch.device(device)
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(
            f"device is {str(device)!r}, which cannot be used here ({reason}); expected one that "
            'this machine has, such as "cpu".'
        ) from error
    return where


def _is_whole(value: object, *, at_least: int) -> bool:
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_whole and int(value) >= at_least  # type: ignore[call-overload]


def _whole_numbers(cond_indices: Any) -> list[int]:
    try:
        if isinstance(cond_indices, (str, bytes)):
            raise TypeError
        if any(isinstance(index, bool) for index in cond_indices):
            raise TypeError
        return [operator.index(index) for index in cond_indices]
    except TypeError as error:
        raise InvalidInputError(
            f"cond_indices is {cond_indices!r}; expected a list of whole numbers, such as [0] or "
            "[0, 5, 11]."
        ) from error


def _unit_noise(latents: Tensor, shape: Sequence[int]) -> Tensor:
    given = latents[0] if latents.ndim == 5 and len(latents) == 1 else latents
    if tuple(given.shape) != tuple(shape):
        raise InvalidInputError(
            f"latents has shape {tuple(latents.shape)}; expected {tuple(shape)}, unit noise for "
            "every view, or the same with a first dimension of 1."
        )
    if not given.is_floating_point() or not bool(torch.isfinite(given).all()):
        raise InvalidInputError(
            f"latents ({given.dtype}) must be finite floating point numbers: unit noise."
        )
    return given.detach().float()


def _video(video: Any, views: int, size: tuple[int, int]) -> Tensor:
    frames = as_pictures(video, "video")
    if len(frames) != views or tuple(frames.shape[2:]) != size:
        raise InvalidInputError(
            f"video has {len(frames)} frames of {frames.shape[2]} x {frames.shape[3]} pixels; "
            f"expected {views}, one for each camera, of {size[0]} x {size[1]} like the images."
        )
    return frames.detach().float()
