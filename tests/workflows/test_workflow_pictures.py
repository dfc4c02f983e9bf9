"""Thumbnails and the table of workflows."""

import numpy as np
import pytest
import torch
from PIL import Image

from genxd_core.media import save_video
from tools.workflows_graph import Workflow
from tools.workflows_pictures import BEGIN, END, read_times, save_thumbnail, updated_page

FLOWS = [Workflow("01_one", "Shows one."), Workflow("02_two", "Shows two.", needs="none")]


def picture(path, size, colour):
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.mark.parametrize("size", [(1036, 776), (1580, 524), (100, 300)])
def test_thumbnail_of_one_picture_holds_all_of_it(tmp_path, size):
    source = picture(tmp_path / "a.png", size, (200, 40, 40))
    save_thumbnail([("A", source)], tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as made:
        assert made.size == (640, 480)
        red = [made.getpixel((x, 240))[0] > 150 for x in range(640)]
        seen = sum(red) / sum(made.getpixel((320, y))[0] > 150 for y in range(480))
    assert seen == pytest.approx(size[0] / size[1], rel=0.03)


def test_thumbnail_of_several_pictures_holds_each(tmp_path):
    colours = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 30)]
    shown = [
        (f"Path {n}", picture(tmp_path / f"{n}.png", (1024, 512), colour))
        for n, colour in enumerate(colours)
    ]
    save_thumbnail(shown, tmp_path / "all.jpg")
    with Image.open(tmp_path / "all.jpg") as made:
        assert made.size == (640, 480)
        found = {made.getpixel((x, y)) for x in range(0, 640, 8) for y in range(0, 480, 8)}
    for colour in colours:
        assert any(max(abs(a - b) for a, b in zip(colour, f, strict=True)) < 12 for f in found)


def test_table_keeps_the_times_that_are_not_measured_again():
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\nEnd\n"
    once = updated_page(page, FLOWS, {"01_one": "9 s, here", "02_two": "3 s, here"})
    again = updated_page(once, FLOWS, {"02_two": "4 s, there"})
    assert read_times(again) == {"01_one": "9 s, here", "02_two": "4 s, there"}
    assert again.startswith("# Title\n")
    assert again.endswith("\nEnd\n")
    assert "old" not in again
    assert "Shows one." in again
    assert "(02_two.json)" in again


def test_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="lacks the marks"):
        updated_page("# Title", FLOWS, {})


@pytest.mark.parametrize(("width", "height", "columns"), [(64, 64, 4), (96, 72, 3), (128, 64, 2)])
def test_thumbnail_of_a_video_shows_frames_from_its_first_to_its_last(
    tmp_path, width, height, columns
):
    """Frames go from black to white: so do the cells, row by row."""
    levels = torch.linspace(0, 1, 25)[:, None, None, None]
    save_video(levels.expand(25, 3, height, width).contiguous(), tmp_path / "video.mp4", fps=8)
    save_thumbnail([("Video", tmp_path / "video.mp4")], tmp_path / "shown.jpg")
    with Image.open(tmp_path / "shown.jpg") as picture:
        assert picture.size == (640, 480)
        page = np.asarray(picture.convert("L"), dtype=float)
    across = 153 * width // height + 2
    left = (640 - columns * across) // 2
    cells = [
        page[8 + 155 * row + 70, left + column * across + across // 2]
        for row in range(3)
        for column in range(columns)
    ]
    assert cells == sorted(cells)
    assert cells[0] < 20
    assert cells[-1] > 235
