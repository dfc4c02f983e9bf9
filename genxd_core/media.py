"""Pictures and videos on disk: loading, saving, and contact sheets.

Dimension letters: v views.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from PIL import ExifTags, Image, ImageDraw, ImageFont, UnidentifiedImageError
from torch import Tensor

from .errors import InvalidInputError
from .files import write_atomically
from .optional import require
from .pictures import check_pictures, from_pil, to_pil

__all__ = [
    "LoadedImage",
    "check_fps",
    "contact_sheet",
    "frame_names",
    "image_size",
    "load_image",
    "load_video",
    "save_frames",
    "save_image",
    "save_video",
]

_CAPTION_INK = (60, 60, 60)
_MARKED_INK = (190, 40, 40)
_PAPER = (255, 255, 255)
_ON_THE_SIDE = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_BT709 = 1  # the code points of ITU-T H.273
_LIMITED_RANGE = 1


@dataclass(frozen=True)
class LoadedImage:
    """A picture file as tensors in [0, 1].

    Attributes:
        image: colour; behind transparent parts whatever the file holds.
        alpha: 1 = opaque; None where the file has no transparency.
    """

    image: Float[Tensor, "3 h w"]
    alpha: Float[Tensor, "1 h w"] | None


def image_size(
    path: str | Path, *, upright: bool = True, decode_side: int | None = None
) -> tuple[int, int]:
    """(width, height) in pixels of a picture, of the file's head alone; as `load_image`.

    Args:
        path: of the file.
        upright: after turning it by its EXIF orientation; else as the file has rows and columns.
        decode_side: as `load_image`.

    Raises:
        InvalidInputError: as `load_image`.
    """
    with _opened(Path(path)) as picture:
        _decode_smaller(picture, decode_side)
        turned = upright and picture.getexif().get(ExifTags.Base.Orientation, 1) in _ON_THE_SIDE
        return (picture.height, picture.width) if turned else (picture.width, picture.height)


def load_image(
    path: str | Path, *, upright: bool = True, decode_side: int | None = None
) -> LoadedImage:
    """Load a picture: any format that Pillow reads.

    Args:
        path: of the file.
        upright: turn it by its EXIF orientation; else as the file has its rows and columns.
        decode_side: decode a JPEG at an eighth, a quarter or half of its size where that divides
            width and height evenly and leaves its smaller side at least this many pixels; many
            times quicker. What is seen where stays; values are the decoder's averages of blocks.
            ``None``, and other formats: the whole picture.

    Raises:
        InvalidInputError: the file is missing, damaged, too large, or no picture.
    """
    with _opened(Path(path)) as picture:
        _decode_smaller(picture, decode_side)
        if not upright:
            picture.getexif().pop(ExifTags.Base.Orientation, None)
        image, alpha = from_pil(picture)
    return LoadedImage(image, alpha)


def _decode_smaller(picture: Image.Image, decode_side: int | None) -> None:
    if decode_side is None or picture.format != "JPEG":
        return
    width, height = picture.size
    for factor in (8, 4, 2):
        # An uneven rest would be a block that is partly outside: the picture's scale would change.
        if (
            not width % factor
            and not height % factor
            and min(width, height) >= factor * decode_side
        ):
            picture.draft(None, (width // factor, height // factor))
            return


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture file; what goes wrong with it is told in words that name it."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidInputError(f"image {path} {problem}; give a picture file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                yield picture
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidInputError(f"image {path} is too large to be opened safely ({error}).") from (
            error
        )
    except UnidentifiedImageError as error:
        raise InvalidInputError(
            f"image {path} is not a picture that can be read; give PNG, JPEG or WebP."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidInputError(f"image {path} is damaged ({error}).") from error


def save_image(image: Shaped[Tensor, "3 h w"], path: str | Path) -> None:
    """Save a picture in [0, 1] as 8 bits, in the format of the name's suffix; whole or not at all.

    Raises:
        InvalidInputError: the suffix names no format.
    """
    path = Path(path)
    if path.suffix.lower() not in Image.registered_extensions():
        raise InvalidInputError(f"path {path} ends in no picture format; end it in .png.")
    picture = to_pil(image)
    write_atomically(path, picture.save)


def frame_names(count: int) -> list[str]:
    """File names of the frames of a path: 00000.png and so on."""
    return [f"{number:05d}.png" for number in range(count)]


def save_frames(frames: Float[Tensor, "v 3 h w"], folder: str | Path) -> list[Path]:
    """Save every frame as a numbered PNG and return the files.

    Args:
        frames: in [0, 1].
        folder: made if needed; files of the same names are replaced.
    """
    files = [Path(folder) / name for name in frame_names(len(frames))]
    for frame, file in zip(frames, files, strict=True):
        save_image(frame, file)
    return files


def save_video(
    frames: Float[Tensor, "v 3 h w"] | Iterable[Float[Tensor, "3 h w"]],
    path: str | Path,
    *,
    fps: float = 8.0,
    crf: int = 16,
) -> None:
    """Save frames as an H.264 mp4 that browsers play; the file appears whole or not at all.

    Args:
        frames: in [0, 1]; an odd height or width gets its last row or column twice. Of an iterator
            one at a time is held.
        path: ends in ``.mp4``.
        fps: frames a second.
        crf: quality of the encoder, 0 (lossless) to 51; each 6 more halve the size.

    Raises:
        InvalidInputError: a suffix, rate or quality that cannot be used, no frame, or frames that
            differ in size.
        MissingDependencyError: PyAV is not installed.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InvalidInputError(f"path {path} ends in {path.suffix!r}; end it in .mp4.")
    check_fps(fps)
    if crf not in range(52):
        raise InvalidInputError(f"crf is {crf}; expected a whole number from 0 to 51.")
    if isinstance(frames, Tensor):
        check_pictures(frames, "frames")
    av = _av("write video")
    even = _even(frames)
    write_atomically(path, lambda unfinished: _encode(av, even, unfinished, fps, crf))


def _even(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """Each frame, checked, with an even height and width."""
    size = None
    for number, frame in enumerate(frames):
        check_pictures(frame[None], "frames")
        size = size or frame.shape
        if frame.shape != size:
            raise InvalidInputError(
                f"frames: frame {number} has shape {tuple(frame.shape)}, but the first has "
                f"{tuple(size)}; give frames of one size."
            )
        height, width = frame.shape[1:]
        yield F.pad(frame[None], (0, width % 2, 0, height % 2), mode="replicate")[0]
    if size is None:
        raise InvalidInputError("frames is empty; give at least one frame.")


def check_fps(fps: float) -> None:
    """Refuse frame rates that no video has.

    Raises:
        InvalidInputError: not above 0 and up to 1000.
    """
    if not 0.0 < fps <= 1000.0:
        raise InvalidInputError(f"fps is {fps}; expected a number above 0, up to 1000.")


def load_video(path: str | Path, *, max_frames: int | None = None) -> Float[Tensor, "v 3 h w"]:
    """Load the frames of a video, in [0, 1], turned as it says it is to be shown.

    Args:
        path: any video that FFmpeg reads.
        max_frames: stop after this many.

    Raises:
        InvalidInputError: the file is missing, or no video.
        MissingDependencyError: PyAV is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInputError(f"video {path} does not exist; give a video file.")
    av = _av("read video")
    frames = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                levels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                # Phones store the sensor's picture and how far to turn it, counter-clockwise;
                # older PyAV does not tell.
                turn = getattr(frame, "rotation", 0)
                frames.append(torch.rot90(levels, round(turn / 90)))
                if len(frames) == max_frames:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise InvalidInputError(f"video {path} cannot be read ({error}).") from error
    if not frames:
        raise InvalidInputError(f"video {path} has no frames.")
    return torch.stack(frames).permute(0, 3, 1, 2).float() / 255


def contact_sheet(
    frames: Shaped[Tensor, "..."],
    *,
    columns: int | None = None,
    given: Sequence[int] = (),
    captions: Sequence[str] = (),
) -> Float[Tensor, "3 H W"]:
    """All frames on one page, numbered, row by row.

    Args:
        frames: (V, 3, H, W) in [0, 1].
        columns: frames in a row; by default what makes the page about twice as wide as high.
        given: the views whose pictures were given; their number is red and says so.
        captions: one for each frame, in place of its number.

    Raises:
        InvalidInputError: ``frames`` is no set of pictures, there is no column, or not one caption
            for each frame.
    """
    check_pictures(frames, "frames")
    count, _, height, width = frames.shape
    if columns is None:
        columns = _columns(count, height / width)
    if columns < 1:
        raise InvalidInputError(f"columns is {columns}; expected at least 1.")
    if captions and len(captions) != count:
        raise InvalidInputError(
            f"captions has {len(captions)} entries for {count} frames; give one for each, or none."
        )
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    text = max(10, min(height, width) // 12)
    gap, caption = max(2, text // 3), round(text * 1.5)
    page = Image.new(
        "RGB",
        (gap + columns * (width + gap), gap + rows * (height + caption + gap)),
        _PAPER,
    )
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(text)
    for number, frame in enumerate(frames):
        row, column = divmod(number, columns)
        left, top = gap + column * (width + gap), gap + row * (height + caption + gap)
        page.paste(to_pil(frame), (left, top))
        is_given = number in given
        words = captions[number] if captions else str(number)
        words = f"{words} given" if is_given else words
        middle = (left + width / 2, top + height + caption / 2)
        draw.text(middle, words, _MARKED_INK if is_given else _CAPTION_INK, font, anchor="mm")
    return from_pil(page)[0]


def _columns(count: int, tallness: float) -> int:
    """Near a page twice as wide as high, and with few empty places in its last row."""
    ideal = max(1, round(math.sqrt(2 * count * tallness)))
    near = range(max(1, ideal - 1), ideal + 3)
    return min(near, key=lambda columns: (-count % columns, abs(columns - ideal)))


def _av(purpose: str) -> ModuleType:
    return require(
        "av", extra="pipeline", purpose=purpose, instead="Frames can be saved as PNG without it."
    )


def _encode(av: Any, frames: Iterator[Tensor], file: Path, fps: float, crf: int) -> None:
    first = next(frames)
    # BT.709, written into the file: without the tags players guess by the picture's height.
    with av.open(str(file), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": str(crf)}
        )
        stream.height, stream.width = first.shape[1:]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        for frame in chain([first], frames):
            picture = av.VideoFrame.from_image(to_pil(frame))
            converted = picture.reformat(
                format="yuv420p",
                dst_colorspace=_BT709,
                dst_color_range=_LIMITED_RANGE,
            )
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
