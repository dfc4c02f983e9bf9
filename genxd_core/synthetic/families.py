"""Named families of clips: what is drawn, how cameras move, what moves by itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .scenes import SceneRanges

__all__ = ["FAMILIES", "HELD_OUT", "Family"]

HELD_OUT = 10_000_000
"""Clips with seeds from here on are for evaluation alone."""


@dataclass(frozen=True)
class Family:
    """A distribution of clips.

    Attributes:
        scenes: what scenes are drawn from.
        paths: weight of each camera path in `camera_paths.PATHS`.
        motion: name in `motion.MOTIONS`, or None for scenes at rest; balls move, boxes stand.
        motion_size: range of the motion's size, in its own unit, drawn log-uniformly.
        still_share: share of clips with a motion in which nothing moves.
        focal_norm: focal length over the picture's smaller side.
    """

    scenes: SceneRanges = field(default_factory=SceneRanges)
    paths: Mapping[str, float] = field(default_factory=lambda: {"orbit": 1.0})
    motion: str | None = None
    motion_size: tuple[float, float] = (0.1, 0.9)
    still_share: float = 0.2
    focal_norm: float = 1.0938


_PATHS_3D = MappingProxyType(
    {"orbit": 4.0, "local_orbit": 2.0, "sway": 2.0, "free": 2.0, "shift": 1.0, "dolly": 1.0}
)
_PATHS_4D = MappingProxyType({**_PATHS_3D, "still": 5.0})

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        # What genxd-nano is trained on: balls hop, boxes stand.
        "nano_3d": Family(paths=_PATHS_3D),
        "nano_4d": Family(paths=_PATHS_4D, motion="hop"),
        "nano_video": Family(paths=MappingProxyType({"still": 1.0}), motion="hop"),
        # Harder, for lifting and curation: more objects, strong textures, other motions.
        "textured_3d": Family(
            scenes=SceneRanges(num_objects=(3, 6), texture_amplitude=(0.5, 1.0)), paths=_PATHS_3D
        ),
        "sliding_4d": Family(paths=_PATHS_4D, motion="slide", motion_size=(0.1, 1.0)),
        "spinning_4d": Family(paths=_PATHS_4D, motion="spin", motion_size=(0.05, 0.5)),
    }
)
