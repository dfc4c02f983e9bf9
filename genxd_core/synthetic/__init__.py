"""Procedural scenes with exact ground truth: pictures, depth, objects, cameras, motion.

One seed gives one clip, whatever the batch it is made in and the device it is made on.
"""

from .clips import SyntheticClips, make_clips
from .families import FAMILIES, HELD_OUT, Family

__all__ = ["FAMILIES", "HELD_OUT", "Family", "SyntheticClips", "make_clips"]
