"""Thumbnails of the example workflows, and the table of them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from genxd_core.media import load_video
from genxd_core.pictures import to_pil

from .workflows_graph import Workflow

__all__ = ["device_name", "read_times", "save_thumbnail", "table", "updated_page"]

_SIZE = (640, 480)
_PAPER, _INK = (24, 26, 32), (222, 226, 234)
_GAP = 8
_COLUMNS = 3
_CAPTION = 20
_VIDEO_ROWS, _FRAME_GAP = 3, 2
_QUALITY = 88

BEGIN, END = "<!-- table: made by `python dev.py workflows` -->", "<!-- end of the table -->"
_ROW = re.compile(r"^\| .*?\[`(?P<name>[^`]+)`\].*\| (?P<time>[^|]+) \|$", re.M)
_NOT_MEASURED = "-"


def save_thumbnail(pictures: Sequence[tuple[str, Path]], path: Path) -> None:
    """Save one picture, frames of one video, or several captioned pictures as a thumbnail."""
    if len(pictures) == 1 and pictures[0][1].suffix == ".mp4":
        content = _frames(pictures[0][1])
    elif len(pictures) == 1:
        with Image.open(pictures[0][1]) as opened:
            content = opened.convert("RGB")
    else:
        content = _captioned(pictures)
    content.thumbnail((_SIZE[0] - 2 * _GAP, _SIZE[1] - 2 * _GAP), Image.Resampling.LANCZOS)
    page = Image.new("RGB", _SIZE, _PAPER)
    page.paste(content, ((_SIZE[0] - content.width) // 2, (_SIZE[1] - content.height) // 2))
    page.save(path, quality=_QUALITY)


def _frames(path: Path) -> Image.Image:
    """Frames of a video, spread evenly over it, in as many columns as fit beside each other."""
    frames = load_video(path)
    count, _, height, width = frames.shape
    cell = (_SIZE[1] - 2 * _GAP) // _VIDEO_ROWS - _FRAME_GAP
    across = cell * width // height
    columns = max(1, (_SIZE[0] - 2 * _GAP) // (across + _FRAME_GAP))
    number = columns * _VIDEO_ROWS
    page = Image.new(
        "RGB", (columns * (across + _FRAME_GAP), _VIDEO_ROWS * (cell + _FRAME_GAP)), _PAPER
    )
    for place in range(number):
        frame = to_pil(frames[place * (count - 1) // (number - 1)])
        frame = frame.resize((across, cell), Image.Resampling.LANCZOS)
        row, column = divmod(place, columns)
        page.paste(frame, (column * (across + _FRAME_GAP), row * (cell + _FRAME_GAP)))
    return page


def _captioned(pictures: Sequence[tuple[str, Path]]) -> Image.Image:
    """All pictures in a grid, each with its caption above it."""
    tile = (_SIZE[0] // _COLUMNS - _GAP, (_SIZE[1] * 3 // 4) // _COLUMNS)
    rows = -(-len(pictures) // _COLUMNS)
    width, height = tile[0] + _GAP, tile[1] + _CAPTION
    page = Image.new("RGB", (_COLUMNS * width, rows * height), _PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for number, (caption, path) in enumerate(pictures):
        left, top = number % _COLUMNS * width, number // _COLUMNS * height
        draw.text((left + 2, top + 1), caption, _INK, font)
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((tile[0], tile[1] - _GAP), Image.Resampling.LANCZOS)
        page.paste(picture, (left, top + _CAPTION))
    return page


def device_name() -> str:
    """What the times were measured on, in words."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores"


def read_times(page: str) -> dict[str, str]:
    """Return the times that a page's table tells, by workflow."""
    return {match["name"]: match["time"] for match in _ROW.finditer(page)}


def table(workflows: Sequence[Workflow], times: Mapping[str, str]) -> str:
    """Return the table of workflows in Markdown."""
    lines = ["| | workflow | models needed | time |", "| --- | --- | --- | --- |"]
    for flow in workflows:
        picture = f'<img src="{flow.name}.jpg" width="200" alt="">'
        what = f"[`{flow.name}`]({flow.name}.json)<br>{flow.shows}"
        time = times.get(flow.name, _NOT_MEASURED)
        lines.append(f"| {picture} | {what} | {flow.needs} | {time} |")
    return "\n".join(lines)


def updated_page(page: str, workflows: Sequence[Workflow], times: Mapping[str, str]) -> str:
    """Return the page with a new table between its marks; times that are not given stay.

    Raises:
        ValueError: the page lacks the marks.
    """
    if BEGIN not in page or END not in page:
        raise ValueError(f"the page lacks the marks {BEGIN} and {END}")
    head, _, rest = page.partition(BEGIN)
    tail = rest.partition(END)[2]
    text = table(workflows, {**read_times(page), **times})
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"
