"""Where a fit starts from: a visual hull, points, depth, or points spread before the cameras.

Dimension letters: v views, n points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError
from ..optional import require
from .point_cloud import PointCloud

__all__ = [
    "PLAIN",
    "Start",
    "check_masks",
    "from_depths",
    "from_frusta",
    "from_masks",
    "from_points",
    "in_view",
    "looked_at_distance",
    "meeting_point",
    "pixels_at",
    "typical_distance",
    "unproject",
]

PLAIN = 0.02
"""What differs less from the background's colour is bare background."""

_INSIDE = 0.5  # of a mask
_SHARES = (0.75, 0.5)  # of the cameras that see a point of an object, in the order they are tried
_COARSE = 48  # cells a side of the first look at where a hull may be
_PACKED = 0.6  # of the distance of neighbours
_LEAST_KEPT = 16  # points; fewer tell of cameras that do not fit the masks
_LEAST_SEEN = 0.02  # of points before one camera that another sees too
_DEPTHS = (0.5, 3.0, 100.0)  # near, middle and far, in distances of what the cameras look at
_FAR_SHARE = 0.6  # of the points of a scene, behind the middle
_REACHES = 2.0  # distance of a scene, where the cameras do not look to one point
_CENTRED = 3  # power of the share of cameras that see a point of an object
_MOSTLY = 0.5
_SPACING = 0.7  # of the distance of neighbours, points from depth


@dataclass(frozen=True)
class Start:
    """Round Gaussians to start from.

    Attributes:
        means: in scene units.
        scales: linear.
        rgb: in [0, 1].
        kind: where they came from, in a word.
        distance: of the scene from the cameras; ``None`` where the means tell it.
    """

    means: Float[Tensor, "n 3"]
    scales: Float[Tensor, " n"]
    rgb: Float[Tensor, "n 3"]
    kind: str
    distance: float | None = None

    def __len__(self) -> int:
        return len(self.means)

    def thinned(self, count: int, generator: torch.Generator) -> "Start":
        """At most ``count`` of them, drawn at random."""
        if len(self) <= count:
            return self
        index = torch.randperm(len(self), generator=generator)[:count].sort().values
        grown = self.scales[index] * (len(self) / count) ** (1 / 3)
        return Start(self.means[index], grown, self.rgb[index], self.kind, self.distance)


def from_masks(
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    masks: Float[Tensor, "v 1 h w"],
    count: int,
    generator: torch.Generator,
    names: Sequence[int] | None = None,
) -> Start:
    """Points spread evenly in the visual hull: where every mask that could see them has the object.

    Args:
        images: for the colours.
        cameras: of the images.
        masks: 1 = object.
        count: how many points.
        generator: on the CPU.
        names: numbers of the views for messages, where these are some of many.

    Raises:
        InvalidInputError: masks are empty or full, have no common volume, or a camera stands in it.
    """
    numbers = list(range(len(masks)) if names is None else names)
    _check_carving(masks, numbers)
    centre, _ = meeting_point(cameras)
    # Nothing farther out than the cameras themselves is seen by all.
    reach = float((cameras.centres - centre).norm(dim=-1).max())
    low, high, share = _box_of_hull(centre - reach, centre + reach, cameras, masks)
    stands_inside = _in_all_masks(cameras.centres, cameras, masks, own=True)
    if bool(stands_inside.any()):
        raise InvalidInputError(
            f"camera {numbers[int(stands_inside.nonzero()[0, 0])]} stands inside of the object "
            "that the masks outline; cameras must look at it from outside. Check the scale of the "
            "cameras, and that 1 in the masks means object."
        )
    kept, tried = [], 0
    num_kept = 0
    while num_kept < count and tried < 400 * count:
        points = low + (high - low) * torch.rand(4 * count, 3, generator=generator)
        tried += len(points)
        kept.append(points[_in_all_masks(points, cameras, masks, share)])
        num_kept += len(kept[-1])
    means = torch.cat(kept)
    if num_kept < min(count, _LEAST_KEPT):
        raise InvalidInputError(
            f"masks leave next to no common volume ({num_kept} of {tried} points); they are too "
            "thin, or do not belong to these cameras. Leave the masks out, or give points."
        )
    volume = float((high - low).prod()) * num_kept / tried
    means = means[:count]
    scales = torch.full((len(means),), _PACKED * (volume / len(means)) ** (1 / 3))
    return Start(means, scales, _colours_seen(means, images, cameras), "masks")


def _box_of_hull(
    low: Tensor, high: Tensor, cameras: Cameras, masks: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Corners of a box around the hull, and the share of the cameras that must see a point of it.

    An object is in most pictures; where few cameras see a place, their masks say little of it.
    """
    cells = _grid(low, high, _COARSE)
    for share in _SHARES:
        if bool(_in_all_masks(cells, cameras, masks, share).any()):
            break
    for _ in range(3):
        cells = _grid(low, high, _COARSE)
        inside = cells[_in_all_masks(cells, cameras, masks, share)]
        if len(inside) == 0:
            raise InvalidInputError(
                "masks have no common volume: no point of the scene lies within the masks of all "
                "the cameras that see it. Check that masks (1 = object) and cameras belong "
                "together, are in the same order and are not mirrored."
            )
        step = (high - low) / _COARSE
        low, high = inside.amin(0) - step, inside.amax(0) + step
    return low, high, share


def from_points(points: PointCloud, images: Float[Tensor, "v 3 h w"], cameras: Cameras) -> Start:
    """Points as they are, as large as the distance to their neighbours.

    Args:
        points: a cloud in the world of the cameras.
        images: for the colours, where the points have none.
        cameras: of the images.

    Raises:
        InvalidInputError: no point is in the picture of any camera.
        MissingDependencyError: scipy is not installed.
    """
    seen = _num_seen(points.xyz, cameras) > 0
    if not bool(seen.any()):
        raise InvalidInputError(
            f"points: none of the {len(points)} points is before any camera; points and cameras "
            "are not in the same world, or not of the same scale."
        )
    means = points.xyz[seen]
    rgb = _colours_seen(means, images, cameras) if points.rgb is None else points.rgb[seen]
    return Start(means, _neighbour_distances(means), rgb, "points")


def from_depths(
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    depths: Float[Tensor, "v 1 h w"],
    masks: Float[Tensor, "v 1 h w"] | None,
    count: int,
    generator: torch.Generator,
) -> Start:
    """Pixels drawn at random, at their depth.

    Args:
        images: for the colours.
        cameras: of the images.
        depths: z-depth in scene units, 0 where unknown.
        masks: 1 = object; pixels outside are left out.
        count: how many points.
        generator: on the CPU.

    Raises:
        InvalidInputError: no depth is known.
    """
    known = depths > 0
    if masks is not None:
        known &= masks > _INSIDE
    index = known.flatten().nonzero()[:, 0]
    if len(index) == 0:
        raise InvalidInputError(
            "depths has no value above 0 (within the masks), so nothing can start from it; give "
            "z-depth in scene units, or leave it out."
        )
    total = len(index)
    index = index[torch.randperm(total, generator=generator)[:count]]
    _, _, height, width = images.shape
    view = index // (height * width)
    row, column = index % (height * width) // width, index % width
    depth = depths.flatten()[index]
    means = unproject(cameras, view, (column + 0.5) / width, (row + 0.5) / height, depth)
    # As far from each other as pixels are, if they were spread over one picture.
    per_view = max(1.0, len(index) / len(images))
    pixels = (total / len(images) / per_view) ** 0.5
    scales = _SPACING * depth / (cameras.Ks_norm[view, 0, 0] * width) * max(pixels, 1.0)
    rgb = images.movedim(1, -1).reshape(-1, 3)[index]
    return Start(means, scales, rgb, "depth")


def from_frusta(
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    background: Float[Tensor, "3"],
    count: int,
    generator: torch.Generator,
) -> Start:
    """Points spread through what at least two cameras see, evenly in every picture.

    Where the pictures' borders are mostly bare background there is an object: points are before
    the cameras, the more the more cameras see them. Else there is a scene: two in five stand from
    half the distance of what the cameras look at to three times it, evenly in inverse depth, and
    the others behind those, to a hundred times, for what is far away (a sky, a wall). Cameras that
    do not look to one point have a multiple of the path's reach instead of that distance. Each
    point has the mean colour that the cameras see there.

    Raises:
        InvalidInputError: the cameras stand in one place, or none sees what another does.
    """
    reach = _reach(cameras)
    if reach < 1e-6 * max(1.0, float(cameras.centres.abs().max())):
        raise InvalidInputError(
            "cameras all stand in the same place, so their pictures tell nothing of depth. Give "
            "views from different places, or points or depth to start from."
        )
    unit = looked_at_distance(cameras) or _REACHES * reach
    near, middle, far = (factor * unit for factor in _DEPTHS)
    is_object = _bare_border(images, background) > _MOSTLY
    far_share = 0.0 if is_object else _FAR_SHARE
    kept: list[Tensor] = []
    tried = num_seen = num_kept = 0
    while num_kept < count and tried < 60 * count:
        draws = torch.rand(2 * count, 5, generator=generator)
        view = (draws[:, 0] * len(cameras)).long()
        close = 1 / torch.lerp(torch.tensor(1 / middle), torch.tensor(1 / near), draws[:, 3])
        distant = middle * (far / middle) ** draws[:, 3]
        depth = torch.where(draws[:, 4] < far_share, distant, close)
        points = unproject(cameras, view, draws[:, 1], draws[:, 2], depth)
        tried += len(points)
        seen = _num_seen(points, cameras)
        num_seen += int((seen >= 2).sum())
        wanted = seen >= 2
        if is_object:
            chance = ((seen / len(cameras)) ** _CENTRED).clamp_min(_LEAST_SEEN)
            wanted &= torch.rand(len(points), generator=generator) < chance
        kept.append(points[wanted])
        num_kept += len(kept[-1])
    if num_seen < max(_LEAST_KEPT, _LEAST_SEEN * tried):
        raise InvalidInputError(
            f"cameras do not overlap: of {tried} points before one of them, {num_seen} are seen by "
            "another too. Give cameras that look at the same things; check that the poses are "
            "camera-to-world with OpenCV axes."
        )
    means = torch.cat(kept)[:count]
    mean_depth = (means[:, None] - cameras.centres).norm(dim=-1).amin(1)
    scales = 0.5 * mean_depth * (1 / cameras.Ks_norm[:, 0, 0].mean()) * len(means) ** (-1 / 3)
    rgb = _colours_seen(means, images, cameras)
    return Start(means, scales, rgb, "frusta", unit)


def _bare_border(images: Float[Tensor, "v 3 h w"], background: Float[Tensor, "3"]) -> float:
    """The share of the pictures' border pixels that have the background's colour."""
    bare = (images - background[:, None, None]).abs().amax(1) <= PLAIN
    sides = (bare[:, 0], bare[:, -1], bare[:, :, 0], bare[:, :, -1])
    return float(torch.cat([side.flatten() for side in sides]).float().mean())


def meeting_point(cameras: Cameras) -> tuple[Float[Tensor, "3"], float]:
    """Where the optical axes come nearest to each other, and how far that is from the cameras.

    Returns:
        The point, and the median of its depths; the depth is not above 0 where it lies behind.
    """
    axes = cameras.c2w[:, :3, 2]
    across = torch.eye(3).to(axes) - axes[:, :, None] * axes[:, None]
    # A trace of the cameras' own middle keeps parallel axes solvable.
    matrix = across.sum(0) + 1e-6 * len(cameras) * torch.eye(3).to(axes)
    middle = cameras.centres.mean(0)
    offsets = (across @ (cameras.centres - middle)[:, :, None]).sum(0)
    point = middle + torch.linalg.solve(matrix, offsets)[:, 0]
    depths = ((point - cameras.centres) * axes).sum(-1)
    return point, float(depths.median())


def _reach(cameras: Cameras) -> float:
    return float((cameras.centres - cameras.centres.mean(0)).norm(dim=-1).max())


def looked_at_distance(cameras: Cameras) -> float | None:
    """How far away what the cameras look at is; ``None`` where they do not look at one point."""
    _, distance = meeting_point(cameras)
    return distance if 0 < distance < 30 * _reach(cameras) else None


def typical_distance(means: Float[Tensor, "n 3"], cameras: Cameras) -> float:
    """The median distance of points from cameras, of a thousand points at most."""
    sample = means[:: max(1, len(means) // 1000)]
    distances = (sample[:, None] - cameras.centres).norm(dim=-1)
    return max(float(distances.median()), 1e-9)


def check_masks(masks: Float[Tensor, "v 1 h w"]) -> None:
    """Refuse masks that outline nothing.

    Raises:
        InvalidInputError: all are empty, or all are full.
    """
    shares = (masks > _INSIDE).flatten(1).float().mean(1)
    if bool((shares == 0).all()):
        raise InvalidInputError(
            "masks are all empty, so there is no object to fit; 1 means object. Invert them, or "
            "leave them out."
        )
    if bool((shares == 1).all()):
        raise InvalidInputError(
            "masks are all full, so they outline nothing; 1 means object. Leave them out to fit a "
            "whole scene."
        )


def _check_carving(masks: Tensor, numbers: Sequence[int]) -> None:
    check_masks(masks)
    shares = (masks > _INSIDE).flatten(1).float().mean(1)
    if bool((shares == 0).any()):
        raise InvalidInputError(
            f"mask {numbers[int((shares == 0).nonzero()[0, 0])]} is empty while others are not: "
            "an object that this camera does not see cannot be carved. Leave out that view, or "
            "all masks."
        )


def _grid(low: Tensor, high: Tensor, cells: int) -> Float[Tensor, "n 3"]:
    steps = (torch.arange(cells) + 0.5) / cells
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1).view(-1, 3)
    return low + (high - low) * grid


def in_view(points: Tensor, cameras: Cameras, view: int) -> tuple[Tensor, Bool[Tensor, " n"]]:
    """(N, 2) places in [0, 1] of the picture, and whether they are in it, before the camera."""
    viewmat = cameras.viewmats[view]
    x, y, z = (points @ viewmat[:3, :3].T + viewmat[:3, 3]).unbind(-1)
    ahead = z > 1e-6
    z = torch.where(ahead, z, 1.0)
    (fx, skew, cx), (_, fy, cy), _ = cameras.Ks_norm[view].tolist()
    place = torch.stack([(fx * x + skew * y) / z + cx, fy * y / z + cy], -1)
    return place, ahead & ((place >= 0) & (place < 1)).all(-1)


def pixels_at(maps: Float[Tensor, "c h w"], place: Float[Tensor, "n 2"]) -> Float[Tensor, "n c"]:
    """What a picture has at places in [0, 1], from the nearest pixels."""
    _, height, width = maps.shape
    column = (place[:, 0] * width).long().clamp(0, width - 1)
    row = (place[:, 1] * height).long().clamp(0, height - 1)
    return maps[:, row, column].T


def _in_all_masks(
    points: Tensor, cameras: Cameras, masks: Tensor, share: float = 0.5, *, own: bool = False
) -> Bool[Tensor, " n"]:
    """Whether all masks that see a point have it, and at least two, this share of all, see it.

    With ``own`` point k is camera k's centre, whom its own picture cannot see.
    """
    fits = torch.ones(len(points), dtype=torch.bool)
    seen = torch.zeros(len(points), dtype=torch.long)
    for view in range(len(cameras)):
        place, there = in_view(points, cameras, view)
        if own:
            there[view] = False
        fits &= ~there | (pixels_at(masks[view], place)[:, 0] > _INSIDE)
        seen += there
    return fits & (seen >= max(2, int(share * len(cameras))))


def _num_seen(points: Tensor, cameras: Cameras) -> Int[Tensor, " n"]:
    seen = torch.zeros(len(points), dtype=torch.long)
    for view in range(len(cameras)):
        seen += in_view(points, cameras, view)[1]
    return seen


def _colours_seen(points: Tensor, images: Tensor, cameras: Cameras) -> Float[Tensor, "n 3"]:
    """The mean colour at each point's places in the pictures; grey where none sees it."""
    total = torch.zeros(len(points), 3)
    seen = torch.zeros(len(points), 1)
    for view in range(len(cameras)):
        place, there = in_view(points, cameras, view)
        total += pixels_at(images[view], place) * there[:, None]
        seen += there[:, None]
    return torch.where(seen > 0, total / seen.clamp_min(1), 0.5)


def unproject(
    cameras: Cameras, view: Tensor, x: Tensor, y: Tensor, depth: Tensor
) -> Float[Tensor, "n 3"]:
    """Places in [0, 1] of the pictures of ``view``, at z-depths, to the world."""
    rays = (
        torch.linalg.inv(cameras.Ks_norm)[view]
        @ torch.stack([x, y, torch.ones_like(x)], -1)[:, :, None]
    )
    local = rays[:, :, 0] * depth[:, None]
    c2w = cameras.c2w[view]
    means: Tensor = (c2w[:, :3, :3] @ local[:, :, None])[:, :, 0] + c2w[:, :3, 3]
    return means


def _neighbour_distances(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Root mean square distance to the three nearest other points, limited to common sizes."""
    if len(points) < 4:
        spread: Tensor = (points - points.mean(0)).norm(dim=-1).mean()
        return spread.clamp_min(1e-3).expand(len(points)).clone()
    spatial = require(
        "scipy.spatial", extra="lift", purpose="find the neighbours of points to start from"
    )
    numbers = points.double().numpy()
    distances, _ = spatial.cKDTree(numbers).query(numbers, k=4)
    found = torch.from_numpy(distances[:, 1:]).square().mean(1).sqrt().float()
    low, high = found.quantile(0.02), found.quantile(0.98)
    return found.clamp(max(float(low), 1e-6 * float(high), 1e-9), float(high) or 1e-3)
