"""Captures in COLMAP's layouts, made of the known scene."""

from tests.core.data.known_scene import (
    POINTS,
    colmap_cameras,
    colmap_images,
    colmap_points,
    paint,
    pixels_of,
    views_around,
)

__all__ = ["FOCAL_PX", "HEIGHT", "IDS", "PRINCIPAL_PX", "WIDTH", "write_capture"]

WIDTH, HEIGHT, FOCAL_PX, PRINCIPAL_PX = 96, 72, 110.0, (50.0, 34.0)
IDS = (31, 5, 12, 8, 40, 2)
"""COLMAP's numbers of the pictures: in another order than their names."""

_SIMPLE_PINHOLE, _SIMPLE_RADIAL = 0, 2


def write_capture(
    folder, model="sparse/0", *, names=None, k1=0.0, with_camera=range(6), points=True
):
    """Six pictures of the known scene, and a model with cameras of some; each sees two points."""
    views = views_around(6)
    names = names or [f"{number:03d}.png" for number in range(6)]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for view, name in zip(views, names, strict=True):
        picture = paint(pixels_of(view, FOCAL_PX, PRINCIPAL_PX, k1), WIDTH, HEIGHT)
        options = {"quality": 98, "subsampling": 0} if name.endswith(".jpg") else {}
        picture.save(folder / "images" / name, **options)
    place = folder / model
    place.mkdir(parents=True, exist_ok=True)
    model_id = _SIMPLE_RADIAL if k1 else _SIMPLE_PINHOLE
    params = [FOCAL_PX, *PRINCIPAL_PX, *([k1] if k1 else [])]
    (place / "cameras.bin").write_bytes(colmap_cameras(model_id, WIDTH, HEIGHT, params))
    kept = [(views[i], names[i], IDS[i]) for i in with_camera]
    # By number, as COLMAP writes them.
    kept.sort(key=lambda image: image[2])
    (place / "images.bin").write_bytes(colmap_images(*zip(*kept, strict=True)))
    if points:
        # The third point is seen by no picture.
        tracks = [IDS, IDS, ()]
        (place / "points3D.bin").write_bytes(colmap_points(POINTS, tracks))
    return views
