"""A picture of a camera path: in perspective on the left, from above on the right."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ..errors import InvalidInputError
from .cameras import Cameras
from .conventions import estimate_up, path_scale
from .drawing import BACKGROUND, FAINT, INK, MUTED, PANEL, Canvas, blended, ramp
from .nerf_paths import focus_point

__all__ = ["draw_camera_path"]

_SMALLEST_SIDE = 96
_MOST_FRUSTUMS = 32
_SMALLEST_FRUSTUM, _LARGEST_FRUSTUM = 0.09, 0.16
_FARTHEST_FOCUS = 4.0
_AXIS_COLOURS = ((240, 96, 96), (112, 205, 110), (96, 152, 250))

Project = Callable[[ndarray], ndarray]


@dataclass(frozen=True)
class _Scene:
    """The path in an upright frame: z up, the first camera looking along +y, the middle at 0.

    Attributes:
        centres: (V, 3) of the cameras.
        corners: (V, 4, 3) of the frustums' far rectangles: top left, top right, bottom right, left.
        focus: the point that the cameras look at, if there is one nearby.
        world_axes: (3, 3) directions of the given world's X, Y and Z, one a row.
        shown: the views whose frustum is drawn.
        conditioned: the views that are marked.
        reach: radius of the sphere around 0 that holds everything.
        per_unit: scene units of the given world per unit here; ``None`` where no camera moves, so
            that the size of the picture means nothing.
    """

    centres: ndarray
    corners: ndarray
    focus: ndarray | None
    world_axes: ndarray
    shown: list[int]
    conditioned: list[int]
    reach: float
    per_unit: float | None

    def colour(self, view: int) -> tuple[int, int, int]:
        return ramp(view / max(len(self.centres) - 1, 1))

    @property
    def points(self) -> Float[ndarray, "n 3"]:
        parts = [self.centres, self.corners[self.shown].reshape(-1, 3)]
        if self.focus is not None:
            parts.append(self.focus[None])
        return np.concatenate(parts)

    @property
    def floor(self) -> float:
        return float(self.points[:, 2].min()) - 0.05 * self.reach


def draw_camera_path(
    cameras: Cameras,
    *,
    conditioned: Sequence[int] = (),
    width: int = 1024,
    height: int = 512,
    supersampling: int = 3,
) -> Float[Tensor, "3 {height} {width}"]:
    """Draw a camera path.

    Frustums run from violet (first) over teal to yellow (last), at most 32 of them; conditioned
    views have a white outline, a star and their index. The world's axes stand in the corner of the
    perspective view. The upward direction is `estimate_up`'s; seen from above, the first camera
    looks up the page, and a bar gives the scale.

    Args:
        cameras: any path, of any scale.
        conditioned: indices of the views whose pictures are given; negative ones count from the
            end.
        width: of the picture, in pixels, at least 96.
        height: of the picture, in pixels, at least 96.
        supersampling: how much larger it is drawn before it is reduced, 1 to 4.

    Returns:
        float32 in [0, 1], on the CPU.

    Raises:
        InvalidInputError: a conditioned view does not exist, or a size is out of range.
    """
    if min(width, height) < _SMALLEST_SIDE:
        raise InvalidInputError(
            f"width and height are {width} x {height}; expected at least {_SMALLEST_SIDE} pixels."
        )
    if supersampling not in range(1, 5):
        raise InvalidInputError(f"supersampling is {supersampling}; expected 1, 2, 3 or 4.")
    scene = _scene(cameras, _absolute(conditioned, len(cameras)))
    size = min(width / 2, height) / 26
    header, footer, gap = round(size * 2.1), round(size * 2.3), max(2, round(size * 0.5))
    panel_width, panel_height = (width - 3 * gap) // 2, height - header - footer
    page = Canvas(width, height, BACKGROUND, supersampling)
    panels = (("perspective", _draw_perspective), ("from above", _draw_top_view))
    for number, (title, draw) in enumerate(panels):
        panel = Canvas(panel_width, panel_height, PANEL, supersampling)
        draw(panel, scene, size)
        left = gap + number * (panel_width + gap)
        page.paste(panel, left, header)
        page.text((left + size * 0.2, header / 2), title, size, MUTED)
    page.text(
        (float(width - gap), header / 2),
        _summary(cameras, moves=scene.per_unit is not None),
        size * 0.9,
        MUTED,
        anchor="rm",
    )
    _draw_legend(page, scene, float(gap), height - footer / 2, size)
    return torch.from_numpy(page.to_array())


def _absolute(conditioned: Sequence[int], num_views: int) -> list[int]:
    for view in conditioned:
        if not -num_views <= view < num_views:
            raise InvalidInputError(
                f"conditioned holds view {view}, but there are {num_views} cameras; expected "
                f"indices from {-num_views} to {num_views - 1}."
            )
    return sorted({int(view) % num_views for view in conditioned})


def _summary(cameras: Cameras, *, moves: bool) -> str:
    count = f"{len(cameras)} camera{'' if len(cameras) == 1 else 's'}"
    fx_norm = float(cameras.Ks_norm[:, 0, 0].median())
    fov_deg = math.degrees(2 * math.atan(0.5 / fx_norm))
    scale = path_scale(cameras) if moves else 0.0
    return f"{count}  ·  scale {scale:.3g}  ·  {fov_deg:.0f}° wide"


# ---- the scene ----------------------------------------------------------------------------------


def _scene(cameras: Cameras, conditioned: list[int]) -> _Scene:
    c2w = cameras.c2w.cpu().double().numpy()
    upright = _upright_rotation(c2w[0, :3, 2], estimate_up(cameras).numpy())
    middle = (c2w[:, :3, 3].min(0) + c2w[:, :3, 3].max(0)) / 2
    rotations = upright @ c2w[:, :3, :3]
    centres = (c2w[:, :3, 3] - middle) @ upright.T
    # Rounding of coordinates far from the origin is no movement.
    extent = float(np.ptp(centres, axis=0).max())
    moves = extent > max(1e-6 * float(np.abs(middle).max()), 1e-30)
    centres = centres / extent if moves else np.zeros_like(centres)
    focus = _nearby_focus(rotations, centres) if moves else None
    shown = _shown(centres, rotations, conditioned)
    everything = centres if focus is None else np.concatenate([centres, focus[None]])
    centre = (everything.min(0) + everything.max(0)) / 2
    centres = centres - centre
    focus = None if focus is None else focus - centre
    span = max(float(np.ptp(everything, axis=0).max()), 1.0)
    corners = _frustum_corners(cameras, rotations, _frustum_size(centres[shown], span))
    corners = corners + centres[:, None]
    reach = float(np.linalg.norm(np.concatenate([centres, corners.reshape(-1, 3)]), axis=1).max())
    per_unit = extent if moves else None
    return _Scene(centres, corners, focus, upright.T, shown, conditioned, reach, per_unit)


def _upright_rotation(forward: ndarray, up: ndarray) -> Float[ndarray, "3 3"]:
    """World to upright: rows are the page's right, the first camera's level forward, and up."""
    level = forward - up * (forward @ up)
    if np.linalg.norm(level) < 1e-3:
        level = np.eye(3)[np.abs(up).argmin()]
        level = level - up * (level @ up)
    level = level / np.linalg.norm(level)
    return np.stack([np.cross(level, up), level, up])


def _nearby_focus(rotations: ndarray, centres: ndarray) -> Float[ndarray, "3"] | None:
    """The point that all cameras look at, if it is in front of them and not far away."""
    poses = np.concatenate([rotations * np.array([1.0, -1.0, -1.0]), centres[:, :, None]], axis=2)
    try:
        focus = focus_point(poses)
    except InvalidInputError:
        return None
    offsets = focus - centres
    distances = np.linalg.norm(offsets, axis=1)
    forwards = rotations[:, :, 2]
    misses = np.linalg.norm(np.cross(offsets, forwards), axis=1)
    ahead = (offsets * forwards).sum(1)
    converging = (ahead > 0).all() and float(np.median(misses / ahead)) < 0.05
    return focus if converging and distances.max() < _FARTHEST_FOCUS else None


def _frustum_size(centres: ndarray, span: float) -> float:
    """Smaller where the cameras stand close together, so that neighbours can be told apart."""
    if len(centres) < 2 or np.ptp(centres, axis=0).max() == 0:
        return _LARGEST_FRUSTUM * span
    spacing = float(np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1)))
    return min(max(1.4 * spacing, _SMALLEST_FRUSTUM * span), _LARGEST_FRUSTUM * span)


def _frustum_corners(cameras: Cameras, rotations: ndarray, size: float) -> ndarray:
    K_inverse = np.linalg.inv(cameras.Ks_norm.cpu().double().numpy())
    picture = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=np.float64)
    rays = np.einsum("vij,cj->vci", K_inverse, picture)
    longest = np.linalg.norm(rays, axis=2).max(axis=1)
    return np.asarray(np.einsum("vij,vcj->vci", rotations, rays) * (size / longest)[:, None, None])


def _shown(centres: ndarray, rotations: ndarray, conditioned: list[int]) -> list[int]:
    """Conditioned views, and others evenly picked unless one like them is shown already."""
    count = min(len(centres), _MOST_FRUSTUMS)
    candidates = np.linspace(0, len(centres) - 1, count).round().astype(int).tolist()
    shown = list(conditioned)
    for view in candidates:
        moved = np.abs(centres[shown] - centres[view]).max(axis=1, initial=0.0)
        turned = np.abs(rotations[shown] - rotations[view]).max(axis=(1, 2), initial=0.0)
        if not ((moved < 1e-4) & (turned < 1e-4)).any():
            shown.append(view)
    return sorted(set(shown))


# ---- the two views ------------------------------------------------------------------------------


def _draw_perspective(canvas: Canvas, scene: _Scene, size: float) -> None:
    azimuth, elevation = math.radians(-32.0), math.radians(27.0)
    outward = np.array(
        [
            math.cos(elevation) * math.sin(azimuth),
            -math.cos(elevation) * math.cos(azimuth),
            math.sin(elevation),
        ]
    )
    right = np.cross(-outward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right)
    axes = np.stack([right, np.cross(-outward, right), -outward])
    eye = outward * scene.reach * 4.2

    def flat(points: ndarray) -> ndarray:
        seen = (points - eye) @ axes.T
        return np.asarray(seen[..., :2] / seen[..., 2:])

    shadows = scene.centres * [1, 1, 0] + [0, 0, scene.floor]
    project = _fitted(flat, np.concatenate([scene.points, shadows]), canvas, size)
    _draw_grid(canvas, scene, project, lines_each_side=9)
    for view in scene.shown:
        foot = project(np.stack([scene.centres[view], shadows[view]]))
        canvas.line(foot, blended(PANEL, scene.colour(view), 0.3), 0.06 * size)
    near_last = sorted(scene.shown, key=lambda v: -float(scene.centres[v] @ -outward))
    _draw_path(canvas, scene, project, list(reversed(near_last)), size)
    _draw_axes(canvas, scene.world_axes @ axes.T, size)


def _draw_top_view(canvas: Canvas, scene: _Scene, size: float) -> None:
    def flat(points: ndarray) -> ndarray:
        return np.stack([points[..., 0], -points[..., 1]], axis=-1)

    project = _fitted(flat, scene.points, canvas, size)
    _draw_grid(canvas, scene, project, lines_each_side=24)
    lowest_first = sorted(scene.shown, key=lambda v: float(scene.centres[v, 2]))
    _draw_path(canvas, scene, project, lowest_first, size)
    if scene.per_unit is not None:
        _draw_scale_bar(canvas, scene.per_unit, project, size)


def _fitted(flat: Project, points: ndarray, canvas: Canvas, size: float) -> Project:
    """Follow a projection by the scaling that brings its picture of ``points`` into the canvas."""
    seen = flat(points)
    low, high = seen.min(0), seen.max(0)
    margin = 3.0 * size
    room = np.array([canvas.width - 2 * margin, canvas.height - 2 * margin])
    scale = float((room / np.maximum(high - low, 1e-9)).min())
    middle = np.array([canvas.width, canvas.height]) / 2

    def project(points: ndarray) -> ndarray:
        return np.asarray((flat(points) - (low + high) / 2) * scale + middle)

    return project


def _draw_grid(canvas: Canvas, scene: _Scene, project: Project, lines_each_side: int) -> None:
    per_unit = scene.per_unit or 1.0
    step = _round_number(scene.reach * per_unit / 3) / per_unit
    ends = step * lines_each_side
    for line in range(-lines_each_side, lines_each_side + 1):
        # Farther lines fade, so that the floor has no edge.
        fade = 1.0 - abs(line) / (lines_each_side + 1)
        at = line * step
        for first, last in (((at, -ends), (at, ends)), ((-ends, at), (ends, at))):
            both = np.array([[*first, scene.floor], [*last, scene.floor]])
            canvas.line(project(both), FAINT, 0.8, opacity=0.9 * fade)


def _draw_path(
    canvas: Canvas, scene: _Scene, project: Project, order: list[int], size: float
) -> None:
    centres = project(scene.centres)
    for view in range(len(centres) - 1):
        canvas.line(centres[view : view + 2], scene.colour(view), 0.16 * size, opacity=0.9)
    if scene.focus is not None:
        _draw_focus(canvas, project(scene.focus[None])[0], size)
    # Marked views on top: they are looked for first.
    for view in sorted(order, key=lambda view: view in scene.conditioned):
        _draw_frustum(canvas, scene, project, view, size)
    for view in scene.conditioned:
        canvas.star((centres[view][0], centres[view][1]), 0.5 * size, INK, BACKGROUND)
    for view in dict.fromkeys([*scene.conditioned, 0, len(centres) - 1]):
        colour = INK if view in scene.conditioned else scene.colour(view)
        at = (float(centres[view][0]), float(centres[view][1]))
        canvas.label(at, str(view), 0.95 * size, colour, distance=0.55 * size)


def _draw_frustum(canvas: Canvas, scene: _Scene, project: Project, view: int, size: float) -> None:
    colour, marked = scene.colour(view), view in scene.conditioned
    apex = project(scene.centres[view][None])[0]
    corners = project(scene.corners[view])
    for first in range(4):
        side = np.stack([apex, corners[first], corners[(first + 1) % 4]])
        canvas.polygon(side, colour, opacity=0.07)
    canvas.polygon(corners, colour, opacity=0.28 if marked else 0.18)
    outline, width = (INK, 0.14 * size) if marked else (colour, 0.1 * size)
    for corner in corners:
        canvas.line(np.stack([apex, corner]), outline, 0.7 * width)
    canvas.line(corners[[0, 1, 2, 3, 0]], outline, width)
    # The upper edge is thicker: it tells which way up the picture is.
    canvas.line(corners[:2], outline, 2.0 * width)
    canvas.dot((float(apex[0]), float(apex[1])), 0.16 * size, outline)


def _draw_focus(canvas: Canvas, at: ndarray, size: float) -> None:
    x, y, arm = float(at[0]), float(at[1]), 0.4 * size
    canvas.line([(x - arm, y), (x + arm, y)], MUTED, 0.09 * size)
    canvas.line([(x, y - arm), (x, y + arm)], MUTED, 0.09 * size)


def _draw_axes(canvas: Canvas, directions: ndarray, size: float) -> None:
    corner = np.array([2.4 * size, canvas.height - 2.4 * size])
    far_first = np.argsort(-directions[:, 2])
    for axis in far_first.tolist():
        tip = corner + directions[axis, :2] * 1.5 * size
        canvas.line(np.stack([corner, tip]), _AXIS_COLOURS[axis], 0.14 * size)
        beyond = corner + directions[axis, :2] * 2.0 * size
        at = (float(beyond[0]), float(beyond[1]))
        canvas.text(at, "XYZ"[axis], 0.8 * size, _AXIS_COLOURS[axis], anchor="mm")


def _draw_scale_bar(canvas: Canvas, per_unit: float, project: Project, size: float) -> None:
    ends = project(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    pixels_per_unit = float(ends[1, 0] - ends[0, 0]) / per_unit
    length = _round_number(canvas.width / 4 / pixels_per_unit)
    left, bottom = 1.2 * size, canvas.height - 1.2 * size
    right = left + length * pixels_per_unit
    canvas.line([(left, bottom), (right, bottom)], MUTED, 0.13 * size)
    for x in (left, right):
        canvas.line([(x, bottom - 0.3 * size), (x, bottom + 0.3 * size)], MUTED, 0.13 * size)
    canvas.text((left, bottom - 0.9 * size), f"{length:g}", 0.8 * size, MUTED)


def _draw_legend(page: Canvas, scene: _Scene, left: float, y: float, size: float) -> None:
    last = len(scene.centres) - 1
    x = left + 0.2 * size
    words = "first, 0"
    page.text((x, y), words, 0.9 * size, MUTED)
    x += page.text_width(words, 0.9 * size) + 0.6 * size
    bar, strips = min(9 * size, page.width / 5), 48
    for strip in range(strips):
        from_x, to_x = x + bar * strip / strips, x + bar * (strip + 1.2) / strips
        corners = [(from_x, y - 0.3 * size), (to_x, y - 0.3 * size)]
        corners += [(to_x, y + 0.3 * size), (from_x, y + 0.3 * size)]
        page.polygon(corners, ramp(strip / (strips - 1)))
    x += bar + 0.7 * size
    words = f"last, {last}"
    page.text((x, y), words, 0.9 * size, MUTED)
    if scene.conditioned:
        x += page.text_width(words, 0.9 * size) + 2.0 * size
        page.star((x, y), 0.5 * size, INK, BACKGROUND)
        page.text((x + 0.9 * size, y), _conditioned_words(scene.conditioned), 0.9 * size, MUTED)


def _conditioned_words(conditioned: list[int]) -> str:
    listed = ", ".join(map(str, conditioned[:6])) + (", ..." if len(conditioned) > 6 else "")
    return f"given picture{'' if len(conditioned) == 1 else 's'}: {listed}"


def _round_number(value: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above ``value``."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value * 1.0000001)
