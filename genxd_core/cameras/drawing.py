"""A small antialiased canvas over Pillow and a perceptual colour ramp, for pictures of paths."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["BACKGROUND", "FAINT", "INK", "MUTED", "PANEL", "Canvas", "Colour", "blended", "ramp"]

Colour = tuple[int, int, int]
Point = tuple[float, float]

BACKGROUND: Colour = (17, 20, 27)
PANEL: Colour = (25, 29, 38)
FAINT: Colour = (46, 53, 67)
MUTED: Colour = (139, 150, 170)
INK: Colour = (236, 240, 247)

# The ramp in OKLCH: lightness, chroma and hue (degrees) of the first and the last view. On the dark
# ground the lightness alone tells the order, so it also reads in grey and for the colour-blind.
_FIRST_LCH = (0.60, 0.17, 285.0)
_LAST_LCH = (0.92, 0.15, 95.0)


def ramp(fraction: float) -> Colour:
    """The colour of a view that lies ``fraction`` of the way along the path, 0 to 1.

    Even steps look even: it is a line in OKLCH (Ottosson 2020), from violet over teal to yellow.
    """
    first, last = _FIRST_LCH, _LAST_LCH
    lightness, chroma, hue = (a + (b - a) * fraction for a, b in zip(first, last, strict=True))
    # Teal and green reach less chroma in sRGB than the ends do.
    chroma -= 0.05 * math.sin(math.pi * fraction)
    return _oklch_to_srgb(lightness, chroma, math.radians(hue))


def blended(colour: Colour, other: Colour, share: float) -> Colour:
    """``colour`` with ``share`` (0 to 1) of ``other`` mixed in."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def _oklch_to_srgb(lightness: float, chroma: float, hue_rad: float) -> Colour:
    a, b = chroma * math.cos(hue_rad), chroma * math.sin(hue_rad)
    cone_roots = (
        lightness + 0.3963377774 * a + 0.2158037573 * b,
        lightness - 0.1055613458 * a - 0.0638541728 * b,
        lightness - 0.0894841775 * a - 1.2914855480 * b,
    )
    long, medium, short = (root**3 for root in cone_roots)
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    red, green, blue = (round(255 * _gamma(min(max(value, 0.0), 1.0))) for value in linear)
    return red, green, blue


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "_Box") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


class Canvas:
    """Draws in final pixels on a picture that is ``supersampling`` times as large.

    Translucent fills blend; labels keep out of each other's way.
    """

    def __init__(self, width: int, height: int, ground: Colour, supersampling: int) -> None:
        """Make an empty picture of ``width`` x ``height`` final pixels."""
        self.width, self.height = width, height
        self._factor = supersampling
        size = (width * supersampling, height * supersampling)
        self._image = Image.new("RGB", size, ground)
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self._labels: list[_Box] = []

    def line(
        self,
        points: Float[ndarray, "n 2"] | Sequence[Point],
        colour: Colour,
        width: float,
        opacity: float = 1.0,
    ) -> None:
        """A connected line with round joints."""
        scaled = self._scaled(points)
        pixels = max(1, round(width * self._factor))
        self._draw.line(scaled, fill=(*colour, round(255 * opacity)), width=pixels, joint="curve")

    def polygon(
        self, points: Float[ndarray, "n 2"] | Sequence[Point], colour: Colour, opacity: float = 1.0
    ) -> None:
        """A filled area."""
        self._draw.polygon(self._scaled(points), fill=(*colour, round(255 * opacity)))

    def dot(self, centre: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        x, y = centre[0] * self._factor, centre[1] * self._factor
        r = radius * self._factor
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def star(self, centre: Point, radius: float, colour: Colour, outline: Colour) -> None:
        """A five-pointed star, pointing up, with an outline that sets it off."""
        for size, fill in ((radius * 1.35, outline), (radius, colour)):
            reach = [size if tip % 2 == 0 else 0.45 * size for tip in range(10)]
            angles = [math.pi * tip / 5 for tip in range(10)]
            tips = [
                (centre[0] + r * math.sin(a), centre[1] - r * math.cos(a))
                for r, a in zip(reach, angles, strict=True)
            ]
            self.polygon(tips, fill)

    def text_width(self, text: str, size: float) -> float:
        """Width of a line of text."""
        return self._font(size).getlength(text) / self._factor

    def text(self, at: Point, text: str, size: float, colour: Colour, anchor: str = "lm") -> None:
        """A line of text; the anchor is Pillow's: ``"lm"`` is left, middle."""
        place = (at[0] * self._factor, at[1] * self._factor)
        self._draw.text(place, text, fill=colour, font=self._font(size), anchor=anchor)

    def label(self, at: Point, text: str, size: float, colour: Colour, distance: float) -> None:
        """A line of text beside a point, where it covers no other label and stays inside."""
        width, height = self.text_width(text, size) + 0.4 * size, 1.25 * size
        best = None
        for angle_deg in (-45, 45, -135, 135, 0, 180, -90, 90):
            for reach in (1.0, 1.8, 2.6):
                angle = math.radians(angle_deg)
                x = at[0] + math.cos(angle) * (distance * reach + width / 2)
                y = at[1] + math.sin(angle) * (distance * reach + height / 2)
                box = _Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                best = best or (box, x, y)
                if self._is_free(box):
                    best = (box, x, y)
                    break
            else:
                continue
            break
        if best is not None:
            box, x, y = best
            self._labels.append(box)
            edges = (box.left, box.top, box.right, box.bottom)
            self._draw.rounded_rectangle(
                [edge * self._factor for edge in edges],
                radius=0.3 * size * self._factor,
                fill=(*BACKGROUND, 170),
            )
            self.text((x, y), text, size, colour, anchor="mm")

    def paste(self, other: "Canvas", left: int, top: int) -> None:
        """Put another canvas of the same supersampling onto this one."""
        self._image.paste(other._image, (left * self._factor, top * self._factor))

    def to_array(self) -> Float[ndarray, "3 h w"]:
        """The finished picture, float32 in [0, 1]."""
        size = (self.width, self.height)
        small = self._image.resize(size, Image.Resampling.BOX)
        return np.asarray(np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 255.0)

    def _is_free(self, box: _Box) -> bool:
        inside = (
            box.left >= 2
            and box.top >= 2
            and box.right <= self.width - 2
            and box.bottom <= self.height - 2
        )
        return inside and not any(box.overlaps(other) for other in self._labels)

    def _scaled(self, points: Float[ndarray, "n 2"] | Sequence[Point]) -> list[Point]:
        return [(float(x) * self._factor, float(y) * self._factor) for x, y in points]

    def _font(self, size: float) -> ImageFont.FreeTypeFont:
        font = ImageFont.load_default(max(1.0, size * self._factor))
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise TypeError("Pillow without FreeType has no font that scales")
        return font
