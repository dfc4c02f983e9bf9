"""Paths through or around key poses, on bare float64 arrays: the numbers behind `keyframe_paths`.

Poses here are NeRF's: (N, 3, 4) camera-to-world with the columns right, up, backward, position; k
key poses make a path of n.
The methods are those of multi-NeRF code (Mildenhall et al. 2022), as the released GenXD fits its
few-view trajectories; they are kept to its numbers.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ..errors import InvalidInputError
from ..optional import require

__all__ = [
    "average_pose",
    "ellipse_poses",
    "focus_point",
    "interpolated_poses",
    "look_along",
    "pca_transform",
    "recentre_transform",
    "spiral_poses",
    "transformed",
    "vary_positions",
]

Poses = Float[ndarray, "k 3 4"]
PathPoses = Float[ndarray, "n 3 4"]

# The end of the unit interval that the even-speed ellipse is sampled on: it stops short of 1.
_LAST_SAMPLE = 1.0 - float(np.finfo(np.float32).eps)


def look_along(
    backward: Float[ndarray, "*n 3"], up: Float[ndarray, "*m 3"], position: Float[ndarray, "*n 3"]
) -> Float[ndarray, "*n 3 4"]:
    """Poses at ``position`` whose backward axis is given and whose up is as near as may be.

    Args:
        backward: any length but zero.
        up: one for all, or one each.
        position: of the cameras.
    """
    backward = _unit(backward)
    right = _unit(np.cross(np.broadcast_to(up, backward.shape), backward))
    columns = (right, np.cross(backward, right), backward, position)
    return np.asarray(np.stack(columns, axis=-1))


def average_pose(poses: Poses) -> Float[ndarray, "3 4"]:
    """The pose at the mean position, looking along the mean direction."""
    mean = poses.mean(axis=0)
    return look_along(mean[:, 2], mean[:, 1], mean[:, 3])


def focus_point(poses: Poses) -> Float[ndarray, "3"]:
    """The point with the least mean squared distance to all viewing axes.

    Raises:
        InvalidInputError: the axes are parallel, so that no point is nearest.
    """
    axes = poses[:, :, 2]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    system = across.mean(axis=0)
    if np.linalg.eigvalsh(system)[0] < 1e-9:
        raise InvalidInputError(
            "cameras: all views look in the same direction, so there is no point that they look "
            "at. Give bounds (nearest and farthest depth) or views from different sides."
        )
    wanted = np.einsum("nij,nj->i", across, poses[:, :, 3]) / len(poses)
    return np.asarray(np.linalg.solve(system, wanted))


def transformed(poses: Poses, transform: Float[ndarray, "4 4"]) -> Poses:
    """The poses after an affine change of the world; see `pca_transform` for its scale."""
    moved: Poses = np.asarray(transform[:3, :3] @ poses)
    moved[:, :, 3] += transform[:3, 3]
    return moved


def recentre_transform(poses: Poses) -> Float[ndarray, "4 4"]:
    """World-to-world transform that puts the average pose at the origin, axes aligned."""
    rotation, position = average_pose(poses)[:, :3], average_pose(poses)[:, 3]
    transform = np.eye(4)
    transform[:3, :3] = rotation.T
    transform[:3, 3] = -rotation.T @ position
    return transform


def pca_transform(poses: Poses) -> tuple[Poses, Float[ndarray, "4 4"]]:
    """Align the principal axes of the positions with the world's, +Z up, within a unit cube.

    Returns:
        The poses in the new world (rotations stay rotations) and the 4 x 4 transform of points,
        whose upper left part is a rotation times the scale.
    """
    positions = poses[:, :, 3]
    mean = positions.mean(axis=0)
    spread = (positions - mean).T @ (positions - mean)
    values, vectors = np.linalg.eigh(spread)
    axes = vectors[:, np.argsort(values)[::-1]]
    # Eigenvectors have no sign of their own: each axis points to the side of its largest entry.
    largest = np.abs(axes).argmax(axis=0)
    rotation = (axes * np.sign(axes[largest, range(3)])).T
    if np.linalg.det(rotation) < 0:
        rotation = np.diag([1.0, 1.0, -1.0]) @ rotation
    if (rotation @ poses.mean(axis=0))[2, 1] < 0:
        rotation = np.diag([1.0, -1.0, -1.0]) @ rotation
    turned = rotation @ poses
    turned[:, :, 3] -= rotation @ mean
    reach = float(np.abs(turned[:, :, 3]).max())
    scale = 1.0 / reach if reach > 0 else 1.0
    turned[:, :, 3] *= scale
    transform = np.eye(4)
    transform[:3, :3] = scale * rotation
    transform[:3, 3] = -scale * rotation @ mean
    return turned, transform


def vary_positions(
    poses: PathPoses, shifts: Sequence[Float[ndarray, "3"]] = (), scales: Sequence[float] = ()
) -> Float[ndarray, "all 3 4"]:
    """The path itself, then shifted copies; then all of them again at each other scale.

    Orientations stay: only positions are shifted (before) and multiplied.

    Args:
        poses: the path.
        shifts: offsets in world units.
        scales: factors of the positions, about the world's origin.

    Returns:
        N x (1 + number of shifts) x (1 + number of scales) poses.
    """
    copies = []
    for scale, shift in itertools.product([1.0, *scales], [np.zeros(3), *shifts]):
        copy = poses.copy()
        copy[:, :, 3] = (copy[:, :, 3] + shift) * scale
        copies.append(copy)
    return np.concatenate(copies)


def interpolated_poses(
    poses: Poses,
    num_views: int,
    *,
    spline_degree: int = 5,
    smoothness: float = 0.03,
    rotation_weight: float = 0.1,
) -> tuple[PathPoses, Float[ndarray, " n"], Float[ndarray, " k"]]:
    """A B-spline through the key poses; the end of its parameter range is left out.

    The spline runs in nine dimensions: position, a point ahead and a point above, the latter two
    ``rotation_weight`` away, which is what turning costs against moving.

    Args:
        poses: at least two different key poses.
        num_views: how many poses on the path.
        spline_degree: at most 5; lowered to the number of key poses minus 1.
        smoothness: how far the path may stay from the key poses: the sum of squared distances in
            the nine dimensions; 0 passes through all of them.
        rotation_weight: in scene units.

    Returns:
        The path, the spline's parameter in [0, 1) at its views, and that at the key poses.
    """
    scipy_interpolate = require(
        "scipy.interpolate",
        extra="lift",
        purpose="interpolate camera paths through key views",
        instead="`resample` interpolates between neighbouring views without it.",
    )
    positions = poses[:, :, 3]
    ahead = positions - rotation_weight * poses[:, :, 2]
    above = positions + rotation_weight * poses[:, :, 1]
    points = np.concatenate([positions, ahead, above], axis=1)
    degree = min(spline_degree, len(poses) - 1)
    spline, key_parameters = scipy_interpolate.splprep(points.T, k=degree, s=smoothness)
    parameters = np.linspace(0.0, 1.0, num_views, endpoint=False)
    on_spline = np.stack(scipy_interpolate.splev(parameters, spline), axis=1)
    position, ahead, above = np.split(on_spline, 3, axis=1)
    path = look_along(position - ahead, above - position, position)
    return path, parameters, key_parameters


def spiral_poses(
    poses: Poses,
    num_views: int,
    *,
    bounds: Float[ndarray, "m 2"] | None,
    turns: float = 2.0,
    z_rate: float = 0.5,
    percentile: float = 90.0,
) -> PathPoses:
    """A spiral about the average pose, looking at one point; for poses recentred about the origin.

    Args:
        poses: key poses whose average pose is (near) the identity.
        num_views: how many poses on the spiral.
        bounds: nearest and farthest depth of the scene in each view; the path looks at a depth
            between them, weighted to the near one. ``None`` looks at the views' focus point.
        turns: how many times around.
        z_rate: turns along the viewing direction per turn around it.
        percentile: of the key positions' distances along each axis: the spiral's radii.
    """
    centre = average_pose(poses)
    radii = np.percentile(np.abs(poses[:, :, 3]), percentile, axis=0)
    if bounds is None:
        looked_at = focus_point(poses)
    else:
        near, far = bounds.min() * 0.9, bounds.max() * 5.0
        looked_at = centre[:, 3] - centre[:, 2] / (0.25 / near + 0.75 / far)
    up = poses[:, :, 1].mean(axis=0)
    angles = np.linspace(0.0, 2 * np.pi * turns, num_views, endpoint=False)
    circle = np.stack([np.cos(angles), -np.sin(angles), -np.sin(angles * z_rate)], axis=1)
    positions = centre[:, 3] + (radii * circle) @ centre[:, :3].T
    return look_along(positions - looked_at, up, positions)


def ellipse_poses(
    poses: Poses,
    num_views: int,
    *,
    constant_speed: bool = True,
    z_variation: float = 0.0,
    z_phase: float = 0.0,
) -> PathPoses:
    """An ellipse in the horizontal plane around the focus point; for a world with +Z up.

    Args:
        poses: key poses around a scene.
        num_views: how many poses; the last is one step short of the first.
        constant_speed: even distances rather than even angles.
        z_variation: how much of the key views' range of heights the path uses, 0 to 1.
        z_phase: where on the ellipse the path is highest, in turns.
    """
    centre = focus_point(poses)
    offset = np.array([centre[0], centre[1], 0.0])
    radii = np.percentile(np.abs(poses[:, :, 3] - offset), 90, axis=0)
    z_low, z_high = np.percentile(poses[:, 2, 3], [10, 90])

    def positions_at(angles: Float[ndarray, " n"]) -> Float[ndarray, "n 3"]:
        wave = np.cos(angles + 2 * np.pi * z_phase) * 0.5
        height = z_low + (z_high - z_low) * (z_variation * wave + 0.5)
        x = offset[0] + radii[0] * np.cos(angles)
        y = offset[1] + radii[1] * np.sin(angles)
        return np.stack([x, y, height], axis=1)

    angles = np.linspace(0.0, 2 * np.pi, num_views + 1)
    positions = positions_at(angles)
    if constant_speed:
        lengths = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        travelled = np.concatenate([[0.0], np.cumsum(lengths) / lengths.sum()])
        wanted = np.linspace(0.0, _LAST_SAMPLE, num_views + 1)
        positions = positions_at(np.interp(wanted, travelled, angles))
    up = _nearest_axis(poses[:, :, 1].mean(axis=0))
    return look_along(positions[:-1] - centre, up, positions[:-1])


def _nearest_axis(direction: Float[ndarray, "3"]) -> Float[ndarray, "3"]:
    index = int(np.abs(direction).argmax())
    axis = np.zeros(3)
    axis[index] = np.sign(direction[index])
    return axis


def _unit(vectors: Float[ndarray, "*n 3"]) -> Float[ndarray, "*n 3"]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if (lengths < 1e-12).any():
        raise InvalidInputError(
            "cameras: the views' directions cancel out or run along the upward direction, so no "
            "pose follows from them. Leave out the view that looks straight up or down, or give "
            "views that share a side."
        )
    return np.asarray(vectors / lengths)
