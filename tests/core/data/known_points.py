"""Pictures of three known points, and where they must be found again in a sample.

Points are blobs in one colour channel each, so a mirrored, turned or shifted camera is seen at
once. Nothing here uses the library's geometry.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from genxd_core.data.sample import SamplePolicy, SceneSample, draw_sample
from genxd_core.data.sampling import FrameSampling
from genxd_core.data.scene import SceneDataset
from tests.support import seeded

POINTS = np.array([[0.3, -0.2, 0.1], [-0.4, 0.25, -0.15], [0.1, 0.35, 0.3]])
_BLOB_PX = 2.5


def positions(count):
    """Where cameras stand: no two alike, at different heights and distances."""
    angle = np.linspace(0.2, 1.9, count)
    radius, height = np.linspace(2.4, 3.2, count), np.linspace(-0.4, 1.3, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def opencv_w2c(position):
    """World-to-camera 4 x 4 of a camera at a position that looks at the origin, world +Z up."""
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    w2c = np.eye(4)
    w2c[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    w2c[:3, 3] = -w2c[:3, :3] @ position
    return w2c


def opencv_pixels(w2c, focal_px, centre_px):
    """Pixel positions (3, 2) of the points by the pinhole formula."""
    seen = POINTS @ w2c[:3, :3].T + w2c[:3, 3]
    return seen[:, :2] / seen[:, 2:] * np.asarray(focal_px) + np.asarray(centre_px)


def picture(pixels, width, height):
    """A black picture with one blob a channel; pixel centres at + 0.5."""
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    blobs = [np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * _BLOB_PX**2)) for u, v in pixels]
    return Image.fromarray((np.stack(blobs, axis=-1) * 255).round().astype(np.uint8))


def cut_short(path: Path):
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def sample_of(dataset: SceneDataset, scene_id, *, views=3, seed=0, **policy) -> SceneSample:
    """A sample drawn as training draws it."""
    policy = {"size": 48, "frames": FrameSampling(reverse=0.0), **policy}
    scene = dataset.scene(scene_id)
    return draw_sample(scene, dataset.name, views, SamplePolicy(**policy), seeded(seed))


def projections(cameras, width, height):
    """Where `Cameras` put the points, (V, 3, 2) in pixels; plain matrix products."""
    K = cameras.Ks_norm.double().numpy() * np.array([[width], [height], [1.0]])
    w2c = np.linalg.inv(cameras.c2w.double().numpy())
    seen = np.einsum("vij,pj->vpi", w2c[:, :3, :3], POINTS) + w2c[:, None, :3, 3]
    assert (seen[..., 2] > 0).all(), "points lie behind a camera"
    flat = np.einsum("vij,vpj->vpi", K, seen)
    return flat[..., :2] / flat[..., 2:]


def assert_points_are_where_cameras_say(sample: SceneSample, within_px=0.15):
    """The blobs' centroids in the fitted pictures against the projections of the points."""
    # What is faint is noise of the compression.
    images = (sample.images.double().numpy() - 0.25).clip(0)
    if sample.masks is not None:
        images = images * (sample.masks.numpy() > 0.95)  # behind the object stands white
    height, width = images.shape[2:]
    weight = images / images.sum(axis=(2, 3), keepdims=True)
    x = (weight * (np.arange(width) + 0.5)).sum(axis=(2, 3))
    y = (weight * (np.arange(height) + 0.5)[:, None]).sum(axis=(2, 3))
    off = np.stack([x, y], axis=-1) - projections(sample.cameras, width, height)
    assert np.abs(off).max() < within_px, f"off by {np.abs(off).max():.2f} px"


def assert_same_sample(one: SceneSample, other: SceneSample):
    """Equal to the last bit."""
    assert one.provenance == other.provenance
    assert bool((one.images == other.images).all())
    assert bool((one.cameras.c2w == other.cameras.c2w).all())
    assert bool((one.cameras.Ks_norm == other.cameras.Ks_norm).all())
