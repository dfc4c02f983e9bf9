"""Masked latent conditioning: what goes into the network besides the noisy latents (Sec. 4.1).

Conditioned frames keep their place and their clean latents; rays tell every frame's camera; a mask
tells which is which. The unconditional branch of guidance has zeros for all of it but the mask.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InvalidInputError
from .fusion import MODE_3D, MODE_4D, MODE_VIDEO

__all__ = [
    "MODES",
    "MODE_VIDEO",
    "Condition",
    "check_indices",
    "mode_indicator",
    "network_input",
]

MODES = {"3d": MODE_3D, "video": MODE_VIDEO, "4d": MODE_4D}


def mode_indicator(mode: str) -> int:
    """The network's indicator of a mode.

    Raises:
        InvalidInputError: the mode is none of "3d", "video", "4d".
    """
    if mode not in MODES:
        raise InvalidInputError(f"mode is {mode!r}, expected one of {', '.join(map(repr, MODES))}.")
    return MODES[mode]


def check_indices(indices: list[int] | tuple[int, ...], num_views: int) -> tuple[int, ...]:
    """Positions of the conditioned views, as non-negative unique numbers in the order given.

    Args:
        indices: positions; negative ones count from the end. The first is the reference view.
        num_views: views in all.

    Raises:
        InvalidInputError: none is given, one is out of range or given twice, or no view is left
            to generate.
    """
    if not indices:
        raise InvalidInputError("indices is empty, expected at least one conditioned view.")
    out: list[int] = []
    for index in indices:
        if not -num_views <= index < num_views:
            raise InvalidInputError(
                f"indices has {index}, expected positions from 0 to {num_views - 1} (or -1 to "
                f"{-num_views} from the end): the camera path has {num_views} views."
            )
        position = index % num_views
        if position in out:
            raise InvalidInputError(
                f"indices {list(indices)} name view {position} twice; give each view once."
            )
        out.append(position)
    if len(out) == num_views:
        raise InvalidInputError(
            f"indices name all {num_views} views, so there is nothing to generate; use a path "
            "with more cameras or condition fewer views."
        )
    return tuple(out)


@dataclass(frozen=True)
class Condition:
    """Everything the network is told about one batch of clips.

    Attributes:
        latents: clean latents, scaled by the VAE's factor; zero at frames to be generated.
        mask: which frames are conditioned.
        rays: Plücker rays at latent size, relative to the reference view.
        added_time_ids: (0, 1) for every frame, (0, 0) in video mode.
        motion_ids: motion strength per clip, or None for networks used without it.
        indicator: mode of every clip.
    """

    latents: Float[Tensor, "b v 4 h w"]
    mask: Bool[Tensor, "b v"]
    rays: Float[Tensor, "b v 6 h w"]
    added_time_ids: Float[Tensor, "b v 2"]
    motion_ids: Float[Tensor, "b"] | None
    indicator: tuple[int, ...]

    @classmethod
    def build(
        cls,
        latents: Float[Tensor, "b v 4 h w"],
        mask: Bool[Tensor, "b v"],
        rays: Float[Tensor, "b v 6 h w"],
        *,
        mode: str,
        motion_strength: Float[Tensor, "b"],
        use_motion_embedding: bool = True,
    ) -> "Condition":
        """The condition of clips that share a mode.

        Args:
            latents: clean latents; only those of conditioned frames are used.
            mask: which frames are conditioned.
            rays: as in the class; ignored (zeroed) in video mode, which has no camera path.
            mode: "3d", "video" or "4d".
            motion_strength: what the network takes, 0 = still; without effect in 3D mode.
            use_motion_embedding: False puts the motion strength into the added ids instead.
        """
        indicator = mode_indicator(mode)
        ids = latents.new_zeros(*mask.shape, 2)
        ids[..., 1] = 0.0 if indicator == MODE_VIDEO else 1.0
        if not use_motion_embedding:
            ids[..., 0] = motion_strength[:, None]
        return cls(
            latents=latents * mask[:, :, None, None, None],
            mask=mask,
            rays=torch.zeros_like(rays) if indicator == MODE_VIDEO else rays,
            added_time_ids=ids,
            motion_ids=motion_strength if use_motion_embedding else None,
            indicator=(indicator,) * len(mask),
        )

    def without(self, dropped: Bool[Tensor, "b"] | None = None) -> "Condition":
        """The unconditional branch: everything zero but the mask and the mode.

        Args:
            dropped: the clips to which it applies; None for all.
        """
        if dropped is None:
            dropped = torch.ones(len(self.mask), dtype=torch.bool, device=self.mask.device)
        keep = ~dropped
        frames = keep[:, None, None, None, None]
        return replace(
            self,
            latents=self.latents * frames,
            rays=self.rays * frames,
            added_time_ids=self.added_time_ids * keep[:, None, None],
            motion_ids=None if self.motion_ids is None else self.motion_ids * keep,
        )

    def joined(self, other: "Condition") -> "Condition":
        """Both batches, one behind the other."""
        motion = None
        if self.motion_ids is not None and other.motion_ids is not None:
            motion = torch.cat([self.motion_ids, other.motion_ids])
        return Condition(
            torch.cat([self.latents, other.latents]),
            torch.cat([self.mask, other.mask]),
            torch.cat([self.rays, other.rays]),
            torch.cat([self.added_time_ids, other.added_time_ids]),
            motion,
            self.indicator + other.indicator,
        )


def network_input(
    scaled_noisy: Float[Tensor, "b v 4 h w"], condition: Condition
) -> Float[Tensor, "b v 15 h w"]:
    """The 15 channels: latents, four zeros, six of rays, the mask.

    Args:
        scaled_noisy: noisy latents times ``1 / sqrt(sigma^2 + 1)``; conditioned frames are
            replaced by their clean latents, which are not scaled.
        condition: what the network is told.
    """
    mask = condition.mask[:, :, None, None, None]
    latents = torch.where(mask, condition.latents, scaled_noisy)
    plane = mask.to(latents).expand(-1, -1, 1, *latents.shape[-2:])
    return torch.cat([latents, torch.zeros_like(latents), condition.rays.to(latents), plane], dim=2)
