"""Masks of everything that might move; greedy, for cameras stand and fall with it (Sec. 3.1).

A pixel masked in vain costs a few features; a moving one that is not masked costs the cameras. Who
finds them is a provider: files, a segmenter, or `find_movable`'s choice of what is there.

Dimension letters: t frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ..capture_masks import find_masks, read_mask
from ..errors import InvalidInputError, MissingDependencyError
from ..pictures import check_pictures
from ..progress import Progress, Stages, report

__all__ = [
    "MaskFiles",
    "MovableMasks",
    "MovableSegmenter",
    "Union",
    "check_available",
    "dilated",
    "find_movable",
    "of_one_object",
]

DILATION_AT_400 = 5.0
"""Pixels that masks grow by in a picture 400 pixels wide: edges of what moves are features too."""


@dataclass(frozen=True, eq=False)
class MovableMasks:
    """What may move in each frame of a clip.

    Attributes:
        masks: 1 = may move, else 0; everything that structure from motion must not look at.
        labels: of what counts as an object: 0 = none, k = object k of that frame. The same number
            in two frames need not be the same object.
        classes: for each frame the names of its objects by number; unknown ones are missing.
        low_confidence: rests on stand-ins that overlook much and see things that are not there.
        provider: name and version of who found them.
    """

    masks: Float[Tensor, "t 1 h w"]
    labels: Int64[Tensor, "t h w"]
    classes: tuple[Mapping[int, str], ...]
    low_confidence: bool
    provider: str

    @property
    def shares(self) -> Float[Tensor, " t"]:
        """The part of each frame that may move."""
        return self.masks.mean((1, 2, 3))


@runtime_checkable
class MovableSegmenter(Protocol):
    """Finds what may move; anyone can add one."""

    @property
    def name(self) -> str:
        """Short, for reports and settings."""
        ...

    @property
    def version(self) -> str:
        """Of its method or weights."""
        ...

    @property
    def licence(self) -> str:
        """Of its weights, as an SPDX name where there is one."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Packages and files that it needs, in words."""
        ...

    def available(self) -> str | None:
        """Why it cannot work here; ``None`` where it can. Never downloads anything."""
        ...

    def segment(
        self, images: Shaped[Tensor, "..."], *, progress: Progress | None = None
    ) -> MovableMasks:
        """What may move in the frames (T, 3, H, W) in [0, 1] of a clip, in their order."""
        ...


def find_movable(
    images: Shaped[Tensor, "..."],
    providers: Sequence[MovableSegmenter],
    *,
    dilation_at_400: float = DILATION_AT_400,
    progress: Progress | None = None,
) -> MovableMasks:
    """Ask the first provider that is available, and grow its masks a little.

    Args:
        images: the frames, (T, 3, H, W) in [0, 1].
        providers: in the order of preference; see `genxd_core.curation.segmenters`.
        dilation_at_400: pixels to grow by in a picture 400 pixels wide; more in wider ones. Labels
            do not grow.
        progress: told of the provider's steps.

    Raises:
        InvalidInputError: no pictures, or no provider is given.
        MissingDependencyError: none of the providers is available; says why for each.
    """
    check_pictures(images, "images")
    if not providers:
        raise InvalidInputError("providers is empty; give at least one that finds what may move.")
    reasons = []
    for provider in providers:
        reason = provider.available()
        if reason is None:
            found = provider.segment(images, progress=progress)
            return replace(found, masks=dilated(found.masks, dilation_at_400))
        reasons.append(f"{provider.name}: {reason}")
    raise MissingDependencyError(
        f"nobody can tell what may move in these pictures. {' '.join(reasons)}"
    )


def dilated(masks: Float[Tensor, "t 1 h w"], at_400: float) -> Float[Tensor, "t 1 h w"]:
    """Masks grown to all sides by ``at_400`` pixels in a picture 400 pixels wide.

    Raises:
        InvalidInputError: a negative number.
    """
    if not at_400 >= 0:
        raise InvalidInputError(f"dilation_at_400 is {at_400}; expected 0 or more pixels.")
    radius = round(at_400 * masks.shape[3] / 400)
    if radius == 0:
        return masks
    # Rows, then columns: a square, without the work of one.
    rows = F.max_pool2d(masks, (2 * radius + 1, 1), 1, (radius, 0))
    return F.max_pool2d(rows, (1, 2 * radius + 1), 1, (0, radius))


def of_one_object(
    masks: Bool[Tensor, "t 1 h w"], *, name: str, low_confidence: bool, provider: str
) -> MovableMasks:
    """Masks that do not tell objects apart: all of it is object 1, with a name or without."""
    classes: tuple[Mapping[int, str], ...] = tuple(
        {1: name} if name and bool(mask.any()) else {} for mask in masks
    )
    return MovableMasks(masks.float(), masks[:, 0].long(), classes, low_confidence, provider)


def check_available(provider: MovableSegmenter) -> None:
    """Refuse to work with what is not there.

    Raises:
        MissingDependencyError: the provider is not available; says why.
    """
    reason = provider.available()
    if reason is not None:
        raise MissingDependencyError(f"{provider.name} cannot be used. {reason}")


class MaskFiles:
    """Masks from a folder: files with the names of the pictures, white = may move.

    Args:
        folder: of the masks.
        names: of the frames' files, in their order.
    """

    name = "files"
    version = "1"
    licence = ""
    needs = ("a mask for each frame, white where it may move",)

    def __init__(self, folder: str | Path, names: Sequence[str]) -> None:
        self.folder, self.names = Path(folder), list(names)

    def available(self) -> str | None:
        """Why it cannot work; a folder with some masks missing is an error of `segment`."""
        if self.folder.is_dir():
            return None
        return f"There is no folder {self.folder}; put a mask for each frame there."

    def segment(
        self, images: Shaped[Tensor, "..."], *, progress: Progress | None = None
    ) -> MovableMasks:
        """Read the masks; they may have another size than the pictures, not another shape.

        Raises:
            InvalidInputError: another number of names than pictures, a missing, damaged or
                misshapen mask.
            MissingDependencyError: there is no such folder.
        """
        check_available(self)
        check_pictures(images, "images")
        if len(self.names) != len(images):
            raise InvalidInputError(
                f"images has {len(images)} pictures for {len(self.names)} names of masks; give "
                "the name of each picture's file."
            )
        height, width = images.shape[2:]
        masks = torch.zeros(len(images), 1, height, width, dtype=torch.bool)
        for index, file in enumerate(find_masks(self.folder, self.names)):
            mask = read_mask(file, self.names[index], upright=True, size=(width, height))
            # A pixel that moves in part moves: thin parts must not get lost.
            masks[index] = F.adaptive_max_pool2d(mask, (height, width)) > 0.5
            report(progress, index + 1, len(images))
        return of_one_object(masks, name="", low_confidence=False, provider=_told(self))


class Union:
    """All that any of several providers finds; objects are those of the first.

    Args:
        providers: at least one; those that are not available are left out.
    """

    def __init__(self, *providers: MovableSegmenter) -> None:
        self.providers = providers
        self.name = "+".join(one.name for one in providers)
        self.version = "+".join(one.version for one in providers)
        self.licence = " AND ".join(sorted({one.licence for one in providers if one.licence}))
        self.needs = tuple(need for one in providers for need in one.needs)

    def available(self) -> str | None:
        """Why none of them can work."""
        reasons = [one.available() for one in self.providers]
        return None if None in reasons else " ".join(filter(None, reasons))

    def segment(
        self, images: Shaped[Tensor, "..."], *, progress: Progress | None = None
    ) -> MovableMasks:
        """Ask each of those that are available.

        Raises:
            MissingDependencyError: none is.
        """
        check_available(self)
        there = [one for one in self.providers if one.available() is None]
        stages = Stages(progress, [len(images)] * len(there))
        found = [one.segment(images, progress=stages.following()) for one in there]
        masks = torch.stack([one.masks for one in found]).amax(0)
        return replace(
            found[0],
            masks=masks,
            low_confidence=any(one.low_confidence for one in found),
            provider=" + ".join(one.provider for one in found),
        )


def _told(provider: MovableSegmenter) -> str:
    return f"{provider.name} {provider.version}"
