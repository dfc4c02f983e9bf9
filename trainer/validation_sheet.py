"""The sheet of a validation: generated views of each held-out clip, and the truth below them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genxd_core.media import contact_sheet
from genxd_core.pictures import from_pil

__all__ = ["SheetRow", "SheetSample", "draw_sheet"]

_MOST_COLUMNS = 12
_SMALLEST, _LARGEST = 128, 256  # pixels of a frame's longer side, for captions to be readable
_TITLE = 16  # pixels of its letters
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True, eq=False)
class SheetRow:
    """The views of a clip as one conditioning gave them.

    Attributes:
        name: of the conditioning.
        frames: every view, in [0, 1].
        given: positions of the conditioned ones.
    """

    name: str
    frames: Float[Tensor, "v 3 h w"]
    given: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SheetSample:
    """One clip on the sheet.

    Attributes:
        title: stands above it.
        rows: one for each conditioning.
        truth: every view, in [0, 1].
    """

    title: str
    rows: Sequence[SheetRow]
    truth: Float[Tensor, "v 3 h w"]


def draw_sheet(samples: Sequence[SheetSample]) -> Float[Tensor, "3 H W"]:
    """Samples below each other, on white.

    Each has a title, a row for each conditioning (given views are marked in red) and a row of the
    truth. Of long clips evenly spaced views are shown, all given ones among them. Small frames are
    enlarged and large ones reduced.

    Args:
        samples: at least one.
    """
    blocks = [
        torch.cat([_title(s.title, b.shape[-1]), b], dim=1) for s in samples for b in [_grid(s)]
    ]
    width = max(block.shape[-1] for block in blocks)
    return torch.cat([F.pad(b, (0, width - b.shape[-1]), value=1.0) for b in blocks], dim=1)


def _grid(sample: SheetSample) -> Tensor:
    always = {view for row in sample.rows for view in row.given}
    columns = _columns(len(sample.truth), always)
    frames: list[Tensor] = []
    captions: list[str] = []
    given: list[int] = []
    for row in [*sample.rows, SheetRow("true", sample.truth, ())]:
        given += [len(captions) + place for place, v in enumerate(columns) if v in row.given]
        captions += [f"{row.name} {view}" for view in columns]
        frames.append(_resized(row.frames[columns]))
    return contact_sheet(torch.cat(frames), columns=len(columns), given=given, captions=captions)


def _columns(views: int, always: set[int]) -> list[int]:
    """Which views are shown: all, or evenly spaced ones besides those that always are."""
    if views <= _MOST_COLUMNS:
        return list(range(views))
    others = [view for view in range(views) if view not in always]
    places = max(0, _MOST_COLUMNS - len(always))
    spaced = torch.linspace(0, len(others) - 1, places + 2)[1:-1].round().int().tolist()
    return sorted(always | {others[place] for place in spaced})


def _resized(frames: Tensor) -> Tensor:
    side = max(frames.shape[-2:])
    if _SMALLEST <= side <= _LARGEST:
        return frames
    if side < _SMALLEST:
        return F.interpolate(frames, scale_factor=-(-_SMALLEST // side), mode="nearest")
    size = [max(1, round(edge * _LARGEST / side)) for edge in frames.shape[-2:]]
    return F.interpolate(frames, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def _title(text: str, width: int) -> Tensor:
    page = Image.new("RGB", (width, 2 * _TITLE), _PAPER)
    font = ImageFont.load_default(_TITLE)
    ImageDraw.Draw(page).text((_TITLE // 2, _TITLE), text, _INK, font, anchor="lm")
    return from_pil(page)[0]
