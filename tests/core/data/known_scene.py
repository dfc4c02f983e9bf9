"""Three spots in space, photographed by formulas that know nothing of the project.

A camera is its centre and three directions in the world: right, down and forward in the picture.
What lies right of the view shows right in the picture; the rest is perspective. Writers of layouts
put these directions into each layout's own matrices.
"""

import struct
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

__all__ = [
    "POINTS",
    "View",
    "as_blender_w2c",
    "as_opencv_w2c",
    "colmap_cameras",
    "colmap_images",
    "colmap_points",
    "paint",
    "pixels_of",
    "projected",
    "seen_spots",
    "views_around",
]

POINTS = np.array([[0.35, 0.1, 0.3], [-0.3, 0.25, -0.15], [0.1, -0.35, 0.05]])
"""Of no symmetry; world +Z up."""

_SPOT_PX = 1.6


@dataclass(frozen=True)
class View:
    """Where a camera stands and what its picture's axes are in the world."""

    centre: np.ndarray
    right: np.ndarray
    down: np.ndarray
    forward: np.ndarray

    def seen(self, points=POINTS):
        """How far points lie along right, down and forward, (n, 3)."""
        return (points - self.centre) @ np.stack([self.right, self.down, self.forward], 1)


def views_around(count, radius=2.0):
    """Cameras on an arc about the points, each at another height, looking near the middle."""
    views = []
    for number in range(count):
        azimuth, height = 0.4 + 0.25 * number, 0.2 + 0.15 * number
        flat = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
        centre = radius * (flat * np.cos(height) + np.array([0.0, 0.0, np.sin(height)]))
        forward = np.array([0.03, -0.02, 0.01]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        views.append(View(centre, right, np.cross(forward, right), forward))
    return views


def pixels_of(view, focal_px, principal_px, k1=0.0, points=POINTS):
    """Where a camera shows points, in pixels; k1 is the first radial coefficient of its lens."""
    x, y, z = view.seen(points).T
    x, y = x / z, y / z
    lens = 1 + k1 * (x * x + y * y)
    return np.stack([focal_px * x * lens, focal_px * y * lens], 1) + np.array(principal_px)


def paint(spots, width, height, *, transparent=False):
    """A picture with a red, a green and a blue spot at places in pixels, on black.

    A transparent one has a cyan, a magenta and a yellow one on nothing: on white each takes its own
    channel away, so that they do not disturb each other where they overlap.
    """
    y, x = np.mgrid[:height, :width] + 0.5
    away = [(x - u) ** 2 + (y - v) ** 2 for u, v in spots]
    levels = np.exp(-np.stack(away, -1) / (2 * _SPOT_PX**2))
    if not transparent:
        return Image.fromarray((levels * 255).round().astype(np.uint8))
    alpha = levels.max(-1, keepdims=True)
    colour = 1 - levels / alpha
    both = np.concatenate([colour, alpha], -1)
    return Image.fromarray((both * 255).round().astype(np.uint8), "RGBA")


def seen_spots(image, *, on_white=False):
    """Where the three spots of a picture (3, h, w) lie, in pixels: (3, 2)."""
    levels = image.double()
    if on_white:
        levels = 1 - levels
    levels = (levels - 0.15).clamp(min=0)
    height, width = levels.shape[1:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    total = levels.sum((1, 2))
    assert float(total.min()) > 1.0, "a spot is not in the picture"
    return torch.stack([(levels * x).sum((1, 2)), (levels * y).sum((1, 2))], 1) / total[:, None]


def projected(cameras, width, height, points=POINTS):
    """Where cameras of the project see points, in pixels of such a picture: (v, n, 2)."""
    c2w = cameras.c2w.double()
    away = torch.from_numpy(points)[None] - c2w[:, None, :3, 3]
    seen = torch.einsum("vnw,vwc->vnc", away, c2w[:, :3, :3])
    x, y, z = seen.unbind(-1)
    K = cameras.Ks_norm.double()[:, None]
    u = (K[..., 0, 0] * x / z + K[..., 0, 2]) * width
    v = (K[..., 1, 1] * y / z + K[..., 1, 2]) * height
    return torch.stack([u, v], -1)


# ---- the layouts' matrices ----------------------------------------------------------------------


def as_opencv_w2c(view):
    """(3, 4): camera axes right, down, forward."""
    rotation = np.stack([view.right, view.down, view.forward])
    return np.concatenate([rotation, -(rotation @ view.centre)[:, None]], 1)


def as_blender_w2c(view):
    """(3, 4): camera axes right, up, backward."""
    rotation = np.stack([view.right, -view.down, -view.forward])
    return np.concatenate([rotation, -(rotation @ view.centre)[:, None]], 1)


def colmap_cameras(model_id, width, height, params):
    """``cameras.bin`` of one camera, number 7."""
    head = struct.pack("<Q", 1) + struct.pack("<IiQQ", 7, model_id, width, height)
    return head + struct.pack(f"<{len(params)}d", *params)


def colmap_images(views, names, ids, camera_id=7):
    """``images.bin``; as COLMAP writes the pose: quaternion (w, x, y, z) and translation."""
    data = struct.pack("<Q", len(views))
    for view, name, image_id in zip(views, names, ids, strict=True):
        w2c = as_opencv_w2c(view)
        data += struct.pack("<I7dI", image_id, *_quaternion(w2c[:, :3]), *w2c[:, 3], camera_id)
        data += name.encode() + b"\0" + struct.pack("<Q", 1) + struct.pack("<ddq", 1.5, 2.5, -1)
    return data


def colmap_points(points, tracks):
    """``points3D.bin``; ``tracks`` lists the numbers of the pictures that show each point."""
    data = struct.pack("<Q", len(points))
    for number, (point, track) in enumerate(zip(points, tracks, strict=True)):
        data += struct.pack("<Q3d3Bd", number + 100, *point, 9, 8, 7, 0.5)
        data += struct.pack("<Q", len(track))
        data += b"".join(struct.pack("<II", image_id, 0) for image_id in track)
    return data


def _quaternion(rotation):
    """By axis and angle; not for half turns."""
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    axis = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    axis /= np.linalg.norm(axis)
    return [np.cos(angle / 2), *(np.sin(angle / 2) * axis)]
