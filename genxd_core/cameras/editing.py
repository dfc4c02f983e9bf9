"""Changing a path: reverse, loop, join, resample, ease, rebase. Every function returns new cameras.

Scaling is in `conventions` (`scale_cameras`, `normalise_scale`).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError
from .cameras import Cameras
from .conventions import path_scale, relative_c2w
from .easing import Easing, eased
from .rotations import rotation_angle, slerp_rotations

__all__ = [
    "at_positions",
    "ease",
    "hold",
    "join",
    "loop",
    "rebase",
    "resample",
    "resample_by_arc_length",
    "reverse",
    "step_lengths",
    "with_even_times",
]


def reverse(cameras: Cameras) -> Cameras:
    """The path from its last view to its first; each view keeps its intrinsics and its time."""
    return cameras[list(range(len(cameras) - 1, -1, -1))]


def join(*paths: Cameras) -> Cameras:
    """The paths one after another.

    Args:
        paths: at least one. Device and dtype are those of the first.

    Returns:
        All views in order. A view that ends one path and starts the next is kept twice.

    Raises:
        InvalidInputError: no path, or some have times and others have none.
    """
    if not paths:
        raise InvalidInputError("paths is empty; give at least one path to join.")
    with_times = [path.times is not None for path in paths]
    if any(with_times) and not all(with_times):
        missing = with_times.index(False)
        raise InvalidInputError(
            f"paths: path {missing} has no times, but others have. Give every path times "
            "(`with_even_times`), or none."
        )
    alike = [path.to(paths[0].device, paths[0].dtype) for path in paths]
    times = [path.times for path in alike if path.times is not None]
    return Cameras(
        torch.cat([path.c2w for path in alike]),
        torch.cat([path.Ks_norm for path in alike]),
        torch.cat(times) if times else None,
    )


def loop(
    cameras: Cameras,
    *,
    mode: Literal["there-and-back", "closed"] = "there-and-back",
    num_views: int | None = None,
) -> Cameras:
    """Make the path end where it starts, so that it can be played over and over.

    Args:
        cameras: at least two views.
        mode: ``"there-and-back"`` adds the views between the ends in reverse order. ``"closed"``
            leads on from the last view to the first and spreads the views evenly over the whole
            way; a path that is already evenly closed, as an orbit is, stays as it is.
        num_views: how many cameras; by default 2 V - 2 there and back, V closed.

    Returns:
        Cameras without a repeated end: the view after the last is the first again.

    Raises:
        InvalidInputError: fewer than two views, or an unknown mode.
    """
    if len(cameras) < 2:
        raise InvalidInputError("cameras has 1 view; a loop needs at least 2.")
    count = len(cameras)
    if mode == "there-and-back":
        looped = join(cameras, cameras[list(range(count - 2, 0, -1))]) if count > 2 else cameras
        return looped if num_views is None else _closed(looped, num_views)
    if mode == "closed":
        return _closed(cameras, count if num_views is None else num_views)
    raise InvalidInputError(f"mode is {mode!r}; expected 'there-and-back' or 'closed'.")


def hold(cameras: Cameras, view: int, num_views: int) -> Cameras:
    """One camera of the path, standing still while time goes from 0 to 1.

    Args:
        cameras: the path.
        view: which; negative numbers count from the end.
        num_views: how many times.

    Raises:
        InvalidInputError: there is no such view, or ``num_views`` is less than 1.
    """
    _check_num_views(num_views)
    if not -len(cameras) <= view < len(cameras):
        raise InvalidInputError(
            f"view is {view}, but the path has {len(cameras)} cameras; give {-len(cameras)} to "
            f"{len(cameras) - 1}."
        )
    return with_even_times(cameras[[view % len(cameras)] * num_views])


def resample(cameras: Cameras, num_views: int) -> Cameras:
    """The same path with another number of views, ends kept, even in the index of the given ones.

    Positions, intrinsics and times are interpolated linearly between neighbours, rotations
    spherically. One view of many is the first.

    Raises:
        InvalidInputError: ``num_views`` is less than 1.
    """
    _check_num_views(num_views)
    ends = torch.linspace(0.0, len(cameras) - 1.0, num_views, dtype=torch.float64)
    return at_positions(cameras, ends)


def resample_by_arc_length(
    cameras: Cameras, num_views: int | None = None, *, rotation_weight: float | None = None
) -> Cameras:
    """The same path at an even speed, ends kept.

    Args:
        cameras: the path; where it pauses, the pause is lost.
        num_views: how many cameras; by default as many as before.
        rotation_weight: the distance that a turn of one radian counts as, in scene units; by
            default half the path's scale (on an orbit, its radius), or 1 if the camera never moves.

    Returns:
        Neighbours are evenly apart by sqrt(distance^2 + (weight * angle)^2), along the way. A path
        without any movement is resampled by index.

    Raises:
        InvalidInputError: ``num_views`` is less than 1, or ``rotation_weight`` negative.
    """
    num_views = len(cameras) if num_views is None else num_views
    _check_num_views(num_views)
    travelled = _travelled(step_lengths(cameras, rotation_weight=rotation_weight))
    wanted = torch.linspace(0.0, 1.0, num_views, dtype=torch.float64) * travelled[-1]
    return at_positions(cameras, _indices_at(wanted, travelled, len(cameras)))


def ease(cameras: Cameras, easing: Easing, num_views: int | None = None) -> Cameras:
    """The same path at a changing speed, ends kept; times stay evenly spread if there are any.

    Args:
        cameras: the path.
        easing: ``"linear"``, ``"ease-in"``, ``"ease-out"`` or ``"ease-in-out"``.
        num_views: how many cameras; by default as many as before.

    Raises:
        InvalidInputError: an unknown easing, or ``num_views`` less than 1.
    """
    num_views = len(cameras) if num_views is None else num_views
    _check_num_views(num_views)
    progress = torch.linspace(0.0, 1.0, num_views, dtype=torch.float64)
    moved = at_positions(cameras, eased(progress, easing) * (len(cameras) - 1))
    if cameras.times is None:
        return moved
    return Cameras(moved.c2w, moved.Ks_norm, resample(cameras, num_views).times)


def rebase(cameras: Cameras, reference: int = 0) -> Cameras:
    """Move the whole world so that one view stands at the origin, its axes the world's.

    Args:
        cameras: the path.
        reference: index of that view; negative ones count from the end.

    Returns:
        The path relative to the view, as the network sees it: rays are unchanged.
    """
    poses = cameras.c2w.cpu().double()
    relative = relative_c2w(poses, cameras[reference].c2w.cpu().double()[0])
    c2w = relative.to(cameras.dtype).to(cameras.device)
    return Cameras(c2w, cameras.Ks_norm, cameras.times)


def with_even_times(cameras: Cameras, first: float = 0.0, last: float = 1.0) -> Cameras:
    """The path with times spread evenly from ``first`` to ``last``, both in [0, 1] and included."""
    times = torch.linspace(first, last, len(cameras), dtype=torch.float64)
    return Cameras(cameras.c2w, cameras.Ks_norm, times)


def at_positions(cameras: Cameras, positions: Float[Tensor, " n"]) -> Cameras:
    """Views at fractional indices of a path: 2.25 lies a quarter of the way from view 2 to view 3.

    Args:
        cameras: the path.
        positions: in [0, V - 1]; what lies outside is moved to the nearer end.

    Returns:
        One camera per position. Whole numbers give the views themselves.
    """
    last = len(cameras) - 1
    positions = positions.cpu().double().clamp(0, last)
    below = positions.floor().long().clamp(max=max(last - 1, 0))
    above = (below + 1).clamp(max=last)
    share = positions - below
    poses = cameras.c2w.cpu().double()
    c2w = poses[below].clone()
    c2w[:, :3, :3] = slerp_rotations(poses[below, :3, :3], poses[above, :3, :3], share)
    c2w[:, :3, 3] = torch.lerp(poses[below, :3, 3], poses[above, :3, 3], share[:, None])
    # Exactly the given views where nothing lies between.
    c2w = torch.where((share == 0)[:, None, None], poses[below], c2w)
    c2w = torch.where((share == 1)[:, None, None], poses[above], c2w)
    Ks = cameras.Ks_norm.cpu().double()
    Ks_norm = torch.lerp(Ks[below], Ks[above], share[:, None, None])
    times = None
    if cameras.times is not None:
        given = cameras.times.cpu().double()
        times = torch.lerp(given[below], given[above], share).clamp(0, 1)
    return Cameras(c2w.to(cameras.dtype).to(cameras.device), Ks_norm, times)


def step_lengths(
    cameras: Cameras, *, closed: bool = False, rotation_weight: float | None = None
) -> Float[Tensor, " s"]:
    """How far apart neighbouring views are: sqrt(distance^2 + (rotation_weight * angle)^2).

    Args:
        cameras: the path.
        closed: add the step from the last view to the first.
        rotation_weight: see `resample_by_arc_length`.

    Returns:
        float64 on the CPU, in scene units.

    Raises:
        InvalidInputError: ``rotation_weight`` is negative.
    """
    if rotation_weight is None:
        rotation_weight = path_scale(cameras) / 2 or 1.0
    if not rotation_weight >= 0:
        raise InvalidInputError(f"rotation_weight is {rotation_weight}; expected 0 or more.")
    poses = cameras.c2w.cpu().double()
    if closed:
        poses = torch.cat([poses, poses[:1]])
    distances = (poses[1:, :3, 3] - poses[:-1, :3, 3]).norm(dim=-1)
    angles = rotation_angle(poses[:-1, :3, :3], poses[1:, :3, :3])
    return torch.hypot(distances, rotation_weight * angles)


def _closed(cameras: Cameras, num_views: int) -> Cameras:
    _check_num_views(num_views)
    round_trip = join(cameras, cameras[0])
    travelled = _travelled(step_lengths(cameras, closed=True))
    wanted = torch.arange(num_views, dtype=torch.float64) / num_views * travelled[-1]
    return at_positions(round_trip, _indices_at(wanted, travelled, len(round_trip)))


def _travelled(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def _indices_at(wanted: Tensor, travelled: Tensor, num_views: int) -> Tensor:
    """Fractional indices at which the wanted distances are reached."""
    total = float(travelled[-1])
    if total == 0.0:
        return torch.linspace(0.0, num_views - 1.0, len(wanted), dtype=torch.float64)
    after = torch.searchsorted(travelled, wanted, right=True).clamp(1, num_views - 1)
    start, end = travelled[after - 1], travelled[after]
    share = torch.where(end > start, (wanted - start) / (end - start), torch.ones_like(wanted))
    indices = after - 1 + share.clamp(0, 1)
    # Rounding must not move a view off its own place.
    whole = indices.round()
    return torch.where((indices - whole).abs() < 1e-6, whole, indices)


def _check_num_views(num_views: int) -> None:
    if num_views < 1:
        raise InvalidInputError(f"num_views is {num_views}; expected at least 1.")
