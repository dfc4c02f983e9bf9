"""Paths fitted to given views: interpolated through them, or a spiral or ellipse about them.

The few-view trajectories of the paper (App. H). The numbers are the reference's, see `nerf_paths`.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from ..errors import InvalidInputError
from .cameras import Cameras
from .conventions import opencv_to_opengl_c2w, opengl_to_opencv_c2w
from .nerf_paths import (
    PathPoses,
    Poses,
    ellipse_poses,
    interpolated_poses,
    pca_transform,
    recentre_transform,
    spiral_poses,
    transformed,
    vary_positions,
)

__all__ = ["both_sides", "ellipse", "interpolate", "spiral"]

Shift = tuple[float, float, float]


def both_sides(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> list[Shift]:
    """Shifts along each axis with a distance other than 0, to that side and to the other.

    Args:
        x: fraction for the first axis, as in the ``shifts`` of a path.
        y: for the second.
        z: for the third.
    """
    shifts: list[Shift] = []
    for axis, distance in enumerate((x, y, z)):
        for signed in (distance, -distance) if distance else ():
            first, second, third = (signed if number == axis else 0.0 for number in range(3))
            shifts.append((first, second, third))
    return shifts


def interpolate(
    cameras: Cameras,
    num_views: int,
    *,
    spline_degree: int = 5,
    smoothness: float = 0.03,
    rotation_weight: float = 0.1,
    shifts: Sequence[Shift] = (),
    scales: Sequence[float] = (),
) -> Cameras:
    """A smooth path through key views, in their order; the last key view itself is left out.

    A B-spline through each view's position, a point ahead of it and a point above it.

    Args:
        cameras: at least two key views, neighbours different.
        num_views: how many cameras, per variant.
        spline_degree: 1 to 5; lowered to the number of key views minus 1.
        smoothness: how far the path may stay from the key views (a sum of squares, in scene
            units); 0 passes through all of them. The default suits scenes of path scale 1 to 4.
        rotation_weight: what turning costs against moving, in scene units.
        shifts: further variants, shifted along the world's axes: (x, y, z) as fractions of half the
            10-90 percentile range of the key positions.
        scales: further variants, positions (shifted ones too) multiplied about the world's origin.

    Returns:
        The path, then its shifted variants, then all of these at each further scale: ``num_views``
        cameras each. Intrinsics and times are interpolated.

    Raises:
        InvalidInputError: fewer than two key views, equal neighbours, or a number out of range.
        MissingDependencyError: scipy is not installed.
    """
    _check_counts(cameras, num_views, at_least=2, path="an interpolated path")
    if spline_degree not in range(1, 6):
        raise InvalidInputError(f"spline_degree is {spline_degree}; expected 1, 2, 3, 4 or 5.")
    for name, value, lowest in (
        ("smoothness", smoothness, 0),
        ("rotation_weight", rotation_weight, 1e-9),
    ):
        if not value >= lowest:
            raise InvalidInputError(f"{name} is {value}; expected a number of at least {lowest}.")
    poses = _to_nerf(cameras)
    _refuse_equal_neighbours(poses)
    path, parameters, key_parameters = interpolated_poses(
        poses,
        num_views,
        spline_degree=spline_degree,
        smoothness=smoothness,
        rotation_weight=rotation_weight,
    )
    Ks_flat = cameras.Ks_norm.cpu().double().numpy().reshape(len(cameras), 9)
    Ks_on_path = _interpolated(parameters, key_parameters, Ks_flat).reshape(-1, 3, 3)
    times = None
    if cameras.times is not None:
        times = cameras.times.cpu().double().numpy()[:, None]
        times = _interpolated(parameters, key_parameters, times)[:, 0]
    varied = vary_positions(path, _in_scene_units(shifts, poses), _checked_scales(scales))
    return _to_cameras(varied, Ks_on_path, times, like=cameras)


def spiral(
    cameras: Cameras,
    num_views: int,
    *,
    bounds: tuple[float, float] | None = None,
    turns: float = 2.0,
    z_rate: float = 0.5,
    percentile: float = 90.0,
    shifts: Sequence[Shift] = (),
    scales: Sequence[float] = (),
) -> Cameras:
    """A spiral about the average of forward-facing key views, all looking at one point.

    It is drawn in the frame of the average view (right, up, backward), as wide as the key
    positions spread there, and brought back to the given world.

    Args:
        cameras: key views that face about the same way.
        num_views: how many cameras, per variant.
        bounds: nearest and farthest depth of the scene, in scene units: the path looks at a depth
            between them. ``None`` looks at the point nearest to all viewing axes.
        turns: how many times around.
        z_rate: turns along the viewing direction per turn around it.
        percentile: of the key positions' distances along each axis: the spiral's radii.
        shifts: further variants, shifted along the average view's right, up and backward axes, as
            fractions of half the 10-90 percentile range of the key positions there.
        scales: further variants, positions multiplied about the average position.

    Returns:
        The variants one after another as in `interpolate`, with the key views' mean intrinsics.

    Raises:
        InvalidInputError: views that define no spiral (they cancel out, or look in parallel and no
            bounds are given), or a number out of range.
    """
    _check_counts(cameras, num_views, at_least=1, path="a spiral")
    if not 0 <= percentile <= 100:
        raise InvalidInputError(f"percentile is {percentile}; expected 0 to 100.")
    depth_range = None
    if bounds is not None:
        depth_range = np.asarray(bounds, dtype=np.float64).reshape(-1, 2)
        if not (depth_range[:, 0] > 0).all() or not (np.diff(depth_range) > 0).all():
            raise InvalidInputError(
                f"bounds is {bounds}; expected the nearest and the farthest depth, 0 < near < far."
            )

    def draw(poses: Poses) -> PathPoses:
        return spiral_poses(
            poses,
            num_views,
            bounds=depth_range,
            turns=turns,
            z_rate=z_rate,
            percentile=percentile,
        )

    poses = _to_nerf(cameras)
    transform = recentre_transform(poses)
    return _drawn_elsewhere(cameras, transformed(poses, transform), transform, draw, shifts, scales)


def ellipse(
    cameras: Cameras,
    num_views: int,
    *,
    constant_speed: bool = True,
    z_variation: float = 0.0,
    z_phase: float = 0.0,
    shifts: Sequence[Shift] = (),
    scales: Sequence[float] = (),
) -> Cameras:
    """An ellipse around the scene that key views surround, looking at their focus point.

    It is drawn in the principal frame of the key positions (+Z up, within a unit cube) and brought
    back to the given world.

    Args:
        cameras: key views around a scene.
        num_views: how many cameras, per variant; the end meets the start.
        constant_speed: even distances rather than even angles.
        z_variation: how much of the key views' range of heights the path uses, 0 to 1.
        z_phase: where on the ellipse the path is highest, in turns.
        shifts: further variants, shifted along the principal axes, as fractions of half the 10-90
            percentile range of the key positions there.
        scales: further variants, positions multiplied about the key views' mean position.

    Returns:
        The variants one after another as in `interpolate`, with the key views' mean intrinsics.

    Raises:
        InvalidInputError: views that define no ellipse (fewer than three, or all parallel), or a
            number out of range.
    """
    _check_counts(cameras, num_views, at_least=3, path="an ellipse")

    def draw(poses: Poses) -> PathPoses:
        return ellipse_poses(
            poses,
            num_views,
            constant_speed=constant_speed,
            z_variation=z_variation,
            z_phase=z_phase,
        )

    poses, transform = pca_transform(_to_nerf(cameras))
    return _drawn_elsewhere(cameras, poses, transform, draw, shifts, scales)


def _drawn_elsewhere(
    cameras: Cameras,
    poses: Poses,
    transform: Float[ndarray, "4 4"],
    draw: Callable[[Poses], PathPoses],
    shifts: Sequence[Shift],
    scales: Sequence[float],
) -> Cameras:
    """Draw a path in a better frame and bring it back: ``transform`` is world to that frame."""
    varied = vary_positions(draw(poses), _in_scene_units(shifts, poses), _checked_scales(scales))
    back = np.linalg.inv(transform)
    varied = transformed(varied, back)
    varied[:, :, :3] /= np.cbrt(np.linalg.det(back[:3, :3]))
    mean_K = cameras.Ks_norm.cpu().double().numpy().mean(axis=0, keepdims=True)
    return _to_cameras(varied, mean_K, None, like=cameras)


def _to_nerf(cameras: Cameras) -> Poses:
    c2w_opengl = opencv_to_opengl_c2w(cameras.c2w.cpu().double())
    return np.asarray(c2w_opengl[:, :3].numpy())


def _to_cameras(path: PathPoses, Ks_norm: ndarray, times: ndarray | None, like: Cameras) -> Cameras:
    """OpenCV cameras; intrinsics and times of one variant are repeated for all."""
    c2w = np.tile(np.eye(4), (len(path), 1, 1))
    c2w[:, :3] = path
    repeats = len(path) // len(Ks_norm)
    all_times = None if times is None else np.tile(times, repeats)
    c2w_opencv = opengl_to_opencv_c2w(torch.from_numpy(c2w))
    return Cameras(
        c2w_opencv.to(like.dtype).to(like.device), np.tile(Ks_norm, (repeats, 1, 1)), all_times
    )


def _interpolated(
    wanted: Float[ndarray, " n"], known: Float[ndarray, " k"], values: Float[ndarray, "k c"]
) -> Float[ndarray, "n c"]:
    return np.stack([np.interp(wanted, known, column) for column in values.T], axis=1)


def _in_scene_units(shifts: Sequence[Shift], poses: Poses) -> list[Float[ndarray, "3"]]:
    low, high = np.percentile(poses[:, :, 3], [10, 90], axis=0)
    offsets = []
    for shift in shifts:
        fractions = np.asarray(shift, dtype=np.float64)
        if fractions.shape != (3,) or not np.isfinite(fractions).all():
            raise InvalidInputError(
                f"shifts holds {shift}; expected three finite numbers (x, y, z) per variant."
            )
        offsets.append(fractions * (high - low) / 2)
    return offsets


def _checked_scales(scales: Sequence[float]) -> list[float]:
    for scale in scales:
        if not (np.isfinite(scale) and scale > 0):
            raise InvalidInputError(f"scales holds {scale}; expected positive, finite factors.")
    return [float(scale) for scale in scales]


def _check_counts(cameras: Cameras, num_views: int, *, at_least: int, path: str) -> None:
    if len(cameras) < at_least:
        raise InvalidInputError(
            f"cameras has {len(cameras)} key views; {path} needs at least {at_least}."
        )
    if num_views < 1:
        raise InvalidInputError(f"num_views is {num_views}; expected at least 1.")


def _refuse_equal_neighbours(poses: Poses) -> None:
    same = (np.diff(poses, axis=0) == 0).all(axis=(1, 2))
    if same.any():
        index = int(same.argmax())
        raise InvalidInputError(
            f"cameras: key views {index} and {index + 1} are the same pose, and a path through "
            "them has no direction there. Leave one out."
        )
