"""Dense depth in the units of the cameras, from relative depth and sparse points (Sec. 3.2, Eq. 2).

A network's depth is known up to a scale and a shift, in z or, for many networks, in 1/z; the points
of the reconstruction tell which. As printed, Eq. 2 cannot recover a shift: if d_sfm = a d_rel + b,
its alpha is a + b / median(d_rel) and its beta 0. So the default is a robust affine fit, and the
printed one a setting.

Dimension letters: t frames, n points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..data.clip_file import RejectReason
from ..errors import InvalidInputError
from .robust_fit import paper_fit, robust_line, robust_plane, robust_scale
from .subpixel import bilinear_at, inside

__all__ = [
    "AlignedClip",
    "AlignedDepth",
    "Alignment",
    "DepthKind",
    "align_clip",
    "align_depth",
    "plane_depth",
]

DepthKind = Literal["depth", "disparity", "metric"]
Alignment = Literal["robust", "paper"]

_INLIER = 0.1  # of the depth of a point
_LEAST_POINTS = 30  # under which a frame takes the scale and shift of its clip
_FARTHEST = 3.0  # times the farthest point; the least depth that a plane gives is a third likewise
_LEAST_FIT = 3  # points; fewer fit any line or plane


@dataclass(frozen=True)
class AlignedDepth:
    """A frame's depth in the units of the cameras.

    Attributes:
        depth: z-depth, 0 where it is unknown: the relative depth is, or what comes out lies at or
            behind the camera.
        scale: a of ``a d_rel + b``, which is z, or 1/z for disparity; ``None`` without a line.
        shift: b of it.
        inliers: share of the points whose depth it tells up to a tenth.
        residuals: quartiles (25, 50, 75 %) of the relative errors ``|d - d_sfm| / d_sfm``.
        count: points that it was held against.
        source: "frame": fitted to its own points; "clip": with the scale and shift of the clip;
            "plane": no relative depth, a plane through the points.
        reason: "alignment_failed" where nothing sensible was found, else ``None``.
    """

    depth: Float[Tensor, "h w"]
    scale: float | None
    shift: float | None
    inliers: float
    residuals: tuple[float, float, float]
    count: int
    source: Literal["frame", "clip", "plane"]
    reason: RejectReason | None = None

    @property
    def is_low_confidence(self) -> bool:
        """Whether what stands out of the scene, such as an object, may have a wrong depth."""
        return self.source == "plane" or self.reason is not None


@dataclass(frozen=True)
class AlignedClip:
    """The frames of a clip, aligned.

    Attributes:
        frames: one for each frame.
        scale: median over the frames that were fitted to their own points; ``None`` without one.
        shift: likewise.
        reason: "alignment_failed" where no frame could be fitted, else ``None``.
    """

    frames: tuple[AlignedDepth, ...]
    scale: float | None
    shift: float | None
    reason: RejectReason | None

    @property
    def depths(self) -> Float[Tensor, "t h w"]:
        """z-depth of all frames, 0 where it is unknown."""
        return torch.stack([frame.depth for frame in self.frames])

    @property
    def borrowed(self) -> list[int]:
        """Frames that took the scale and shift of the clip."""
        return [index for index, frame in enumerate(self.frames) if frame.source == "clip"]


def align_depth(
    relative: Float[Tensor, "h w"],
    kind: DepthKind,
    sparse_xy: Float[Tensor, "n 2"],
    sparse_depth: Float[Tensor, " n"],
    *,
    alignment: Alignment = "robust",
) -> AlignedDepth:
    """Align one frame's relative depth with the depths of points (Eq. 2).

    Args:
        relative: depth of a network, NaN or infinite where it is unknown.
        kind: "depth": z up to scale and shift; "disparity": 1/z up to scale and shift, so large is
            near, and it is fitted to 1/d_sfm; "metric": z up to scale.
        sparse_xy: where points were *observed*, in pixels of ``relative``; the first pixel's centre
            is (0.5, 0.5). Points outside of the frame do not count.
        sparse_depth: their z-depth in this frame's camera.
        alignment: "robust", an affine fit (Geman-McClure) that outliers do not move, or "paper",
            Eq. 2 as printed, in 1/z for disparity.

    Raises:
        InvalidInputError: an unknown option, a shape that does not fit, or a depth that none is.
    """
    _check_options(kind, alignment)
    relative = _as_map(relative, "relative")
    points = _points(relative, sparse_xy, sparse_depth)
    line = _fit(points, kind, alignment)
    if line is None:
        return _failed(relative, len(points.depth), "frame")
    farthest = float(points.depth.max())
    return _aligned(relative, points, line, kind, farthest, "frame")


def align_clip(
    relative: Float[Tensor, "t h w"],
    kind: DepthKind,
    sparse_xy: Sequence[Tensor],
    sparse_depth: Sequence[Tensor],
    *,
    alignment: Alignment = "robust",
    least_points: int = _LEAST_POINTS,
) -> AlignedClip:
    """Align every frame by its own points; frames with too few take the median line of the others.

    Args:
        relative: as for `align_depth`, one map a frame.
        kind: as for `align_depth`.
        sparse_xy: (N, 2) for each frame.
        sparse_depth: (N,) for each frame.
        alignment: as for `align_depth`.
        least_points: a frame with fewer, or that cannot be fitted, takes the clip's line.

    Raises:
        InvalidInputError: as for `align_depth`; the number of frames differs.
    """
    _check_options(kind, alignment)
    if not len(relative) == len(sparse_xy) == len(sparse_depth) > 0:
        raise InvalidInputError(
            f"relative has {len(relative)} frames, sparse_xy {len(sparse_xy)} and sparse_depth "
            f"{len(sparse_depth)}; give one entry a frame, empty ones where no point was seen."
        )
    maps = [_as_map(frame, "relative") for frame in relative]
    points = [_points(*one) for one in zip(maps, sparse_xy, sparse_depth, strict=True)]
    lines = [
        _fit(one, kind, alignment) if len(one.depth) >= least_points else None for one in points
    ]
    found = torch.tensor([line for line in lines if line], dtype=torch.float64)
    if len(found) == 0:
        failed = [_failed(m, len(p.depth), "frame") for m, p in zip(maps, points, strict=True)]
        return AlignedClip(tuple(failed), None, None, "alignment_failed")
    scale, shift = found.quantile(0.5, dim=0).tolist()
    farthest = max(float(one.depth.max()) for one in points if len(one.depth))
    frames = [
        _aligned(m, p, line or (scale, shift), kind, farthest, "frame" if line else "clip")
        for m, p, line in zip(maps, points, lines, strict=True)
    ]
    return AlignedClip(tuple(frames), scale, shift, None)


def plane_depth(
    sparse_xy: Float[Tensor, "n 2"],
    sparse_depth: Float[Tensor, " n"],
    height: int,
    width: int,
) -> AlignedDepth:
    """Depth without a network: a plane through the points, low in confidence.

    A plane of the world is linear in 1/z over the picture, so that is what is fitted, robustly. It
    tells the depth of a floor or a wall and of what stands near it.

    Args:
        sparse_xy: where points were observed, in pixels.
        sparse_depth: their z-depth.
        height: of the frame.
        width: of the frame.

    Raises:
        InvalidInputError: a shape that does not fit, or a depth that none is.
    """
    if height < 1 or width < 1:
        raise InvalidInputError(f"height and width are {height} and {width}; expected at least 1.")
    empty = torch.zeros(height, width, dtype=torch.float64)
    points = _points(empty, sparse_xy, sparse_depth)
    size = torch.tensor([width, height], dtype=torch.float64)
    plane = robust_plane(points.xy / size, 1.0 / points.depth)
    if plane is None:
        return _failed(empty, len(points.depth), "plane")
    y, x = torch.meshgrid(
        (torch.arange(height, dtype=torch.float64) + 0.5) / height,
        (torch.arange(width, dtype=torch.float64) + 0.5) / width,
        indexing="ij",
    )
    inverse = plane[0] * x + plane[1] * y + plane[2]
    low, high = (float(end) for end in (1.0 / points.depth).aminmax())
    depth = 1.0 / inverse.clamp(low / _FARTHEST, high * _FARTHEST)
    return _described(depth, points, None, "plane")


# ---- points and maps ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Points:
    """Points inside of a frame, with what the network says there."""

    xy: Float[Tensor, "n 2"]
    depth: Float[Tensor, " n"]
    relative: Float[Tensor, " n"]


def _points(relative: Tensor, xy: Tensor, depth: Tensor) -> _Points:
    if xy.ndim != 2 or xy.shape[1] != 2 or depth.shape != xy.shape[:1]:
        raise InvalidInputError(
            f"sparse_xy has shape {tuple(xy.shape)} and sparse_depth {tuple(depth.shape)}; "
            "expected (N, 2) and (N,), one depth a point."
        )
    xy, depth = xy.detach().cpu().double(), depth.detach().cpu().double()
    if not bool((depth.isfinite() & (depth > 0)).all()) or not bool(xy.isfinite().all()):
        raise InvalidInputError(
            "sparse_depth or sparse_xy holds NaN, infinite numbers or depths that are not positive;"
            " leave out points behind the camera."
        )
    height, width = relative.shape
    told = bilinear_at(relative, xy)
    used = inside(xy, height=height, width=width) & told.isfinite()
    return _Points(xy[used], depth[used], told[used])


def _as_map(relative: Shaped[Tensor, "..."], name: str) -> Float[Tensor, "h w"]:
    if relative.ndim != 2 or 0 in relative.shape:
        raise InvalidInputError(
            f"{name} has shape {tuple(relative.shape)}; expected (H, W) for one frame. For a clip "
            "take align_clip."
        )
    values = relative.detach().cpu().double()
    return values.masked_fill(~values.isfinite(), torch.nan)


def _check_options(kind: str, alignment: str) -> None:
    for name, value, known in (
        ("kind", kind, get_args(DepthKind)),
        ("alignment", alignment, get_args(Alignment)),
    ):
        if value not in known:
            raise InvalidInputError(f"{name} is {value!r}, expected one of {', '.join(known)}.")


# ---- lines --------------------------------------------------------------------------------------


def _fit(points: _Points, kind: DepthKind, alignment: Alignment) -> tuple[float, float] | None:
    """Scale and shift; None where they are not to be had or the depth would run backwards."""
    if len(points.depth) < _LEAST_FIT:
        return None
    target = 1.0 / points.depth if kind == "disparity" else points.depth
    fit: Callable[[Tensor, Tensor], tuple[float, float] | None] = robust_line
    if alignment == "paper":
        fit = paper_fit
    elif kind == "metric":
        fit = robust_scale
    line = fit(points.relative, target)
    return line if line is not None and line[0] > 0 else None


def _aligned(
    relative: Tensor,
    points: _Points,
    line: tuple[float, float],
    kind: DepthKind,
    farthest: float,
    source: Literal["frame", "clip"],
) -> AlignedDepth:
    def to_depth(values: Tensor) -> Tensor:
        straight = line[0] * values + line[1]
        if kind == "disparity":
            return 1.0 / straight.clamp_min(1.0 / (_FARTHEST * farthest))
        return straight.clamp_min(0.0)

    depth = to_depth(relative).nan_to_num(nan=0.0)
    told = replace(points, relative=to_depth(points.relative))
    return replace(_described(depth, told, told.relative, source), scale=line[0], shift=line[1])


def _described(
    depth: Tensor,
    points: _Points,
    told: Tensor | None,
    source: Literal["frame", "clip", "plane"],
) -> AlignedDepth:
    """A result with how well it agrees with the points."""
    told = bilinear_at(depth, points.xy) if told is None else told
    errors = (told - points.depth).abs() / points.depth
    inliers, quartiles = 0.0, (0.0, 0.0, 0.0)
    if len(errors):
        inliers = float((errors <= _INLIER).double().mean())
        low, middle, high = errors.quantile(torch.tensor([0.25, 0.5, 0.75]).double()).tolist()
        quartiles = (low, middle, high)
    count = len(points.depth)
    return AlignedDepth(depth.float(), None, None, inliers, quartiles, count, source)


def _failed(relative: Tensor, count: int, source: Literal["frame", "plane"]) -> AlignedDepth:
    unknown = torch.zeros(relative.shape)
    nan = (torch.nan,) * 3
    return AlignedDepth(unknown, None, None, 0.0, nan, count, source, "alignment_failed")
