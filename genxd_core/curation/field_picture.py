"""A picture of the object motion field: arrows from where keypoints would be to where they are."""

import math

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from ..cameras.drawing import BACKGROUND, INK, Canvas, Colour, ramp
from ..errors import InvalidInputError
from .motion_field import MotionField
from .motion_strength import MOTION_THRESHOLD

__all__ = ["overlay"]

_SUPERSAMPLING = 3
_FULL = 3.0  # times the threshold: what moves this far has the last colour
_DIMMED = 0.55  # of the picture's brightness, so that the arrows stand out


def overlay(
    image: Float[Tensor, "3 h w"],
    field: MotionField,
    *,
    frame: int | None = None,
    arrow_scale: float = 4.0,
) -> Float[Tensor, "3 h w"]:
    """Draw a motion field over a frame.

    An arrow starts where the keypoint would be if it stood still. Violet is still, yellow is three
    times the least motion (0.009) or more; what does not move is a dot.

    Args:
        image: frame j, in which the tracker found the keypoints, in [0, 1].
        field: of the clip or of one pair.
        frame: index of ``image`` in the clip, to draw only the pair that ends there; ``None`` for
            all samples of the field.
        arrow_scale: arrows are so many times as long as the motion.

    Returns:
        The picture, in the size of ``image``, with a line that tells the scale of the arrows and
        the mean of what is drawn.

    Raises:
        InvalidInputError: a picture of another size than the field's, or a scale that is not
            positive.
    """
    _, height, width = image.shape
    if (height, width) != (field.height, field.width):
        raise InvalidInputError(
            f"image is {width} x {height} and the field was measured in {field.width} x "
            f"{field.height} pixels; give a frame of that size."
        )
    if not arrow_scale > 0:
        raise InvalidInputError(f"arrow_scale is {arrow_scale}, expected more than 0.")
    if frame is not None:
        field = field.of(field.frame_i == frame - 1)
    picture = Image.fromarray(
        (image.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    )
    grey = Image.blend(picture.convert("L").convert("RGB"), picture, 0.35)
    ground = Image.blend(Image.new("RGB", picture.size, BACKGROUND), grey, _DIMMED)
    canvas = _PictureCanvas(ground)
    size = torch.tensor([width, height], dtype=torch.float64)
    lengths = field.displacement.norm(dim=1)
    thick = max(1.2, min(width, height) / 220)
    for number in lengths.argsort().tolist():
        start = field.xy_still[number]
        end = start + arrow_scale * field.displacement[number] * size
        share = min(1.0, float(lengths[number]) / (_FULL * MOTION_THRESHOLD))
        _arrow(canvas, start.tolist(), end.tolist(), ramp(share), thick)
    return torch.from_numpy(_labelled(canvas, lengths, arrow_scale))


class _PictureCanvas(Canvas):
    """A canvas that begins with a picture."""

    def __init__(self, picture: Image.Image) -> None:
        super().__init__(picture.width, picture.height, BACKGROUND, _SUPERSAMPLING)
        factor = _SUPERSAMPLING
        size = (picture.width * factor, picture.height * factor)
        self._image = picture.resize(size, Image.Resampling.BICUBIC)
        self._draw = ImageDraw.Draw(self._image, "RGBA")


def _arrow(
    canvas: Canvas, start: list[float], end: list[float], colour: Colour, thick: float
) -> None:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    canvas.dot((start[0], start[1]), 1.9 * thick, BACKGROUND)
    if length > 2.5 * thick:
        head = min(4.5 * thick, 0.6 * length)
        ux, uy = dx / length, dy / length
        neck = (end[0] - 0.8 * head * ux, end[1] - 0.8 * head * uy)
        tips = [
            (end[0], end[1]),
            (end[0] - head * ux - 0.5 * head * uy, end[1] - head * uy + 0.5 * head * ux),
            (end[0] - head * ux + 0.5 * head * uy, end[1] - head * uy - 0.5 * head * ux),
        ]
        shaft = [(start[0], start[1]), neck]
        canvas.line(shaft, BACKGROUND, 2.2 * thick, opacity=0.8)
        canvas.line(shaft, colour, thick)
        canvas.polygon(tips, colour)
    canvas.dot((start[0], start[1]), 1.2 * thick, colour)


def _labelled(canvas: Canvas, lengths: Tensor, arrow_scale: float) -> "Float[np.ndarray, '3 h w']":
    mean = float(lengths.mean()) if len(lengths) else 0.0
    text = f"mean {mean:.4f} of the picture, {len(lengths)} points, arrows x {arrow_scale:g}"
    size = max(9.0, min(canvas.width, canvas.height) / 26)
    # The whole line has to fit, also into small pictures.
    size = min(size, size * (canvas.width - 12) / max(canvas.text_width(text, size), 1.0))
    top = canvas.height - 1.7 * size
    corners = [(0, top), (canvas.width, top), (canvas.width, canvas.height), (0, canvas.height)]
    canvas.polygon(corners, BACKGROUND, opacity=0.75)
    canvas.text((6, top + 0.85 * size), text, size, INK)
    return canvas.to_array()
