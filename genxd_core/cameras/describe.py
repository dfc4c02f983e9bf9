"""A camera path in words, for logs and for the text of nodes."""

import math

from .cameras import Cameras
from .conventions import path_scale
from .rotations import rotation_angle

__all__ = ["describe"]

# Path scales that the released weights met: still cameras, walks of decimetres, orbits of radius 2.
_SMALLEST_USUAL_SCALE = 0.05
_LARGEST_USUAL_SCALE = 10.0


def describe(cameras: Cameras, *, reference: int = 0) -> str:
    """A few plain lines: how many views, scale, length, turn, field of view, times.

    Args:
        cameras: the path.
        reference: index of the first conditioned view, from which the scale is measured.

    Returns:
        Lines without a final line break. A scale far from what the released weights saw adds a
        line that says what to do.
    """
    centres = cameras.centres.cpu().double()
    rotations = cameras.c2w[:, :3, :3].cpu().double()
    scale = path_scale(cameras, reference)
    length = float((centres[1:] - centres[:-1]).norm(dim=-1).sum())
    turn = math.degrees(float(rotation_angle(rotations[:-1], rotations[1:]).sum()))
    lines = [
        f"{len(cameras)} camera{'' if len(cameras) == 1 else 's'}, {_fields_of_view(cameras)}",
        f"path scale {scale:.4g} (largest distance from view {reference}), length {length:.4g}, "
        f"turning {turn:.0f} degrees in all",
        _times(cameras),
    ]
    advice = _advice(scale)
    return ";\n".join(lines) + (f".\n{advice}" if advice else ".")


def _fields_of_view(cameras: Cameras) -> str:
    focal = cameras.Ks_norm[:, [0, 1], [0, 1]].cpu().double()
    degrees = (2 * (0.5 / focal).atan()).rad2deg()
    low, high = degrees.amin(0).tolist(), degrees.amax(0).tolist()
    if max(high[0] - low[0], high[1] - low[1]) < 0.05:
        return f"field of view {low[0]:.1f} x {low[1]:.1f} degrees"
    return f"field of view {low[0]:.1f}-{high[0]:.1f} x {low[1]:.1f}-{high[1]:.1f} degrees"


def _times(cameras: Cameras) -> str:
    if cameras.times is None:
        return "no times"
    return f"times {float(cameras.times.min()):.3g} to {float(cameras.times.max()):.3g}"


def _advice(scale: float) -> str:
    if scale > _LARGEST_USUAL_SCALE:
        return (
            "This scale is far above what the released weights saw (about 1 to 4): scale the path, "
            f"for instance by {2.0 / scale:.3g}."
        )
    if 0 < scale < _SMALLEST_USUAL_SCALE:
        return (
            "This scale is far below what the released weights saw (about 1 to 4), so the camera "
            f"will hardly seem to move: scale the path, for instance by {2.0 / scale:.3g}."
        )
    return ""
