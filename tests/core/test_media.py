import importlib.util
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from genxd_core.errors import InvalidInputError, MissingDependencyError
from genxd_core.media import (
    contact_sheet,
    image_size,
    load_image,
    load_video,
    save_frames,
    save_image,
    save_video,
)
from tests.support import assert_same_up_to

needs_av = pytest.mark.skipif(
    importlib.util.find_spec("av") is None, reason="needs the extra `pipeline`"
)


def gradient(count=6, height=48, width=64):
    """Smooth frames that differ."""
    y = torch.linspace(0, 1, height).view(-1, 1).expand(height, width)
    x = torch.linspace(0, 1, width).expand(height, width)
    return torch.stack([torch.stack([x, y, torch.full_like(x, i / count)]) for i in range(count)])


def test_png_frames_come_back_to_within_half_a_level(tmp_path):
    frames = gradient(3)
    files = save_frames(frames, tmp_path / "frames")
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    for file, frame in zip(files, frames, strict=True):
        loaded = load_image(file)
        assert loaded.alpha is None
        assert_same_up_to(loaded.image, frame, 0.5 / 255 + 1e-6)
    assert not list((tmp_path / "frames").glob(".*"))


def test_an_image_keeps_its_transparency(tmp_path):
    levels = np.full((4, 5, 4), 255, dtype=np.uint8)
    levels[1, 2, 3] = 0
    Image.fromarray(levels).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.alpha.shape == (1, 4, 5)
    assert (loaded.alpha == 0).sum() == 1


def test_a_jpeg_is_turned_upright(tmp_path):
    picture = Image.new("RGB", (64, 32))
    exif = picture.getexif()
    exif[0x0112] = 8
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").image.shape == (3, 64, 32)


def test_pictures_that_cannot_be_read_are_told_apart(tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_image(tmp_path / "a.png")
    with pytest.raises(InvalidInputError, match="is a folder"):
        load_image(tmp_path)
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="not a picture that can be read"):
        load_image(tmp_path / "text.png")
    save_image(torch.rand(3, 64, 64), tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:3000])
    with pytest.raises(InvalidInputError, match="is damaged"):
        load_image(tmp_path / "b.png")


def test_a_picture_bomb_is_refused(tmp_path, monkeypatch):
    save_image(torch.rand(3, 64, 64), tmp_path / "b.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InvalidInputError, match="too large to be opened safely"):
        load_image(tmp_path / "b.png")


def test_an_unknown_picture_format_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"ends in no picture format"):
        save_image(torch.zeros(3, 8, 8), tmp_path / "a.xyz")
    assert not list(tmp_path.iterdir())


@needs_av
def test_a_video_comes_back_with_its_colours(tmp_path):
    frames = gradient(6)
    save_video(frames, tmp_path / "v.mp4", fps=6.0)
    back = load_video(tmp_path / "v.mp4")
    assert back.shape == frames.shape
    # A wrong colour matrix (BT.601 for BT.709) would be off by more than 0.03 on average.
    assert (back - frames).abs().mean() < 0.012
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.mp4"]


@needs_av
def test_a_video_says_how_it_is_to_be_shown(tmp_path):
    import av

    save_video(gradient(6), tmp_path / "v.mp4", fps=12.5)
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == 12.5
        assert stream.frames == 6
        assert stream.codec_context.colorspace == stream.codec_context.color_primaries == 1


@needs_av
def test_frames_are_taken_one_at_a_time(tmp_path):
    frames = gradient(6)
    save_video(iter(frames), tmp_path / "a.mp4")
    save_video(frames, tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    for wrong, message in (
        ([], "frames is empty"),
        ([frames[0], frames[0, :, :-2]], r"frame 1 has shape .* but the first has"),
        ([frames[0], frames[0] + 2], r"frames lies in"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            save_video(wrong, tmp_path / "c.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


@needs_av
def test_odd_sizes_are_padded_to_even_ones(tmp_path):
    frames = gradient(2, height=33, width=35)
    save_video(frames, tmp_path / "v.mp4")
    back = load_video(tmp_path / "v.mp4")
    assert back.shape == (2, 3, 34, 36)
    assert (back[:, :, :33, :35] - frames).abs().mean() < 0.02


@needs_av
def test_reading_can_stop_early(tmp_path):
    save_video(gradient(6), tmp_path / "v.mp4")
    assert len(load_video(tmp_path / "v.mp4", max_frames=4)) == 4


@needs_av
def test_a_phones_video_is_turned_as_it_is_to_be_shown(tmp_path):
    frames = torch.zeros(3, 3, 64, 96)
    frames[:, 0, :20, :20] = 1  # red at the top left
    save_video(frames, tmp_path / "v.mp4")
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    # The display matrix of the track header: a quarter turn clockwise.
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(
        ">9i", 0, 0x10000, 0, -0x10000, 0, 0, 64 * 0x10000, 0, 0x40000000
    )
    (tmp_path / "v.mp4").write_bytes(data)
    back = load_video(tmp_path / "v.mp4")
    assert back.shape == (3, 3, 96, 64)
    assert back[0, 0, 5, -5] > 0.9
    assert back[0, 0, 5, 5] < 0.1


@needs_av
def test_videos_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_video(tmp_path / "v.mp4")
    (tmp_path / "v.mp4").write_text("hello", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_video(tmp_path / "v.mp4")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("v.gif", {}, r"ends in '\.gif'; end it in \.mp4"),
        ("v.mp4", {"fps": 0.0}, "fps is 0"),
        ("v.mp4", {"fps": float("nan")}, "fps is nan"),
        ("v.mp4", {"crf": 52}, "crf is 52"),
    ],
)
def test_videos_that_cannot_be_written_are_refused(tmp_path, name, options, message):
    with pytest.raises(InvalidInputError, match=message):
        save_video(gradient(2), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_a_contact_sheet_shows_every_frame_unchanged():
    frames = (gradient(5, height=40, width=40) * 255).round() / 255
    sheet = contact_sheet(frames, columns=3)
    for frame in frames:
        windows = sheet.unfold(1, 40, 1).unfold(2, 40, 1)
        distance = (windows - frame[:, None, None]).abs().amax((0, 3, 4))
        assert distance.min() < 1e-6


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(12, None, 3), (1, None, 1), (5, 3, 2), (3, 9, 1)]
)
def test_a_contact_sheet_has_the_rows_that_follow_from_its_columns(count, columns, rows):
    frames = torch.zeros(count, 3, 60, 60)
    sheet = contact_sheet(frames, columns=columns)
    dark = (sheet < 0.1).all(0).sum(1) > 30  # lines through a row of frames
    starts = int((dark[1:] & ~dark[:-1]).sum())
    assert starts == rows


def test_given_frames_are_marked_in_red():
    frames = torch.ones(4, 3, 60, 60)

    def red(sheet):
        return bool(((sheet[0] - sheet[1]) > 0.3).any())

    assert red(contact_sheet(frames, given=[2]))
    assert not red(contact_sheet(frames))


def test_a_contact_sheet_without_columns_is_refused():
    with pytest.raises(InvalidInputError, match="columns is 0"):
        contact_sheet(torch.zeros(2, 3, 8, 8), columns=0)


def test_video_without_pyav_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"write video .*pip install av .*PNG"):
        save_video(gradient(2), tmp_path / "v.mp4")
    (tmp_path / "v.mp4").touch()
    with pytest.raises(MissingDependencyError, match=r"read video"):
        load_video(tmp_path / "v.mp4")


def test_captions_stand_in_place_of_numbers():
    frames = torch.ones(2, 3, 60, 120)
    numbered, named = contact_sheet(frames), contact_sheet(frames, captions=["first", "second"])
    assert numbered.shape == named.shape
    assert (named < 0.5).sum() > 2 * (numbered < 0.5).sum()  # more ink
    with pytest.raises(InvalidInputError, match="captions has 1 entries for 2 frames"):
        contact_sheet(frames, captions=["first"])


@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
@pytest.mark.parametrize("upright", [True, False])
def test_size_of_a_file_is_that_of_the_picture_that_is_loaded(tmp_path, orientation, upright):
    picture = Image.new("RGB", (8, 5))
    exif = picture.getexif()
    if orientation:
        exif[0x0112] = orientation
    picture.save(tmp_path / "a.jpg", exif=exif)
    turned = upright and orientation in (6, 8)
    assert image_size(tmp_path / "a.jpg", upright=upright) == ((5, 8) if turned else (8, 5))
    loaded = load_image(tmp_path / "a.jpg", upright=upright).image
    assert loaded.shape == ((3, 8, 5) if turned else (3, 5, 8))


def test_size_of_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(InvalidInputError, match=r"a\.png is not a picture"):
        image_size(tmp_path / "a.png")
    with pytest.raises(InvalidInputError, match=r"b\.png does not exist"):
        image_size(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("size", "suffix", "decode_side", "expected"),
    [
        ((64, 48), "jpg", 12, (16, 12)),
        ((64, 48), "jpg", 13, (32, 24)),
        ((64, 48), "jpg", 25, (64, 48)),
        ((64, 48), "jpg", 1, (8, 6)),
        ((64, 48), "jpg", None, (64, 48)),
        ((66, 48), "jpg", 6, (33, 24)),
        ((65, 48), "jpg", 6, (65, 48)),
        ((64, 48), "png", 12, (64, 48)),
    ],
)
def test_jpegs_are_decoded_smaller_where_that_divides_them_evenly(
    tmp_path, size, suffix, decode_side, expected
):
    frame = gradient(1, size[1], size[0])[0]
    file = tmp_path / f"a.{suffix}"
    save_image(frame, file)
    image = load_image(file, decode_side=decode_side).image
    assert (image.shape[2], image.shape[1]) == expected
    assert image_size(file, decode_side=decode_side) == expected
    blocks = torch.nn.functional.adaptive_avg_pool2d(frame, (expected[1], expected[0]))
    assert float((image - blocks).abs().mean()) < 0.01
