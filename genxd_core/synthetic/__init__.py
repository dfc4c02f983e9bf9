"""Procedural scenes with exact ground truth: pictures, depth, objects, cameras, motion.

One seed gives one clip, whatever the batch it is made in and the device it is made on.
"""

from .clips import SyntheticClips, make_clips
from .families import FAMILIES, HELD_OUT, Family
from .moving_objects import MovingObjectViews, make_moving_object_views
from .objects import ObjectViews, make_object_views

__all__ = [
    "FAMILIES",
    "HELD_OUT",
    "Family",
    "MovingObjectViews",
    "ObjectViews",
    "SyntheticClips",
    "make_clips",
    "make_moving_object_views",
    "make_object_views",
]
