"""Where what moves in a scene starts from, and which way it goes, by its masks.

Dimension letters: t times, n Gaussians.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError
from .fit_inputs import FitInputs
from .gaussians import Gaussians
from .start import Start, from_depths, from_masks, unproject

__all__ = ["INSIDE", "MaskPath", "moving_start"]

INSIDE = 0.5
"""What a mask has where something moves."""

_LEAST_AROUND = 4  # views of one time, to carve what moves out of its masks
_NEARER_HALF = 0.3  # quantile of the depths at rest around what moves, without depth of its own
_LEAST_DEPTH = 1e-6
_VISIBLE = 0.1  # opacity
_MARGIN = 0.25  # around a mask, as a share of its size
_SMOOTHED = 2  # times before and after, for depths that are guessed


@dataclass(frozen=True)
class MaskPath:
    """Where the middle of what moves goes.

    Attributes:
        offsets: from where it starts, at each time, in scene units.
        rays: unit directions from the camera of each time.
        distances: along them, in scene units.
        guessed: whether no depth told them, but what stands around.
    """

    offsets: Float[Tensor, "t 3"]
    rays: Float[Tensor, "t 3"]
    distances: Float[Tensor, " t"]
    guessed: bool


def moving_start(
    inputs: FitInputs, resting: Gaussians | None, count: int, generator: torch.Generator
) -> tuple[Start, MaskPath | None]:
    """Gaussians of what moves, at the time when most of it is seen, and their path over the times.

    They are in the common volume of the masks where at least four views are of that time, else at
    their depth, else at the depth of what stands around the mask. In the last two cases the path
    is that of the mask's middle at such a depth.

    Args:
        inputs: with masks and times.
        resting: what does not move, or ``None``.
        count: how many Gaussians.
        generator: on the CPU.

    Returns:
        The Gaussians, and their path over the different times of the training views; ``None``
        where views from around tell it all.

    Raises:
        InvalidInputError: nothing tells how far away they are.
    """
    assert inputs.masks is not None
    assert inputs.cameras.times is not None
    index = torch.tensor(inputs.training)
    times, masks = inputs.cameras.times[index], inputs.masks[index]
    area = masks.flatten(1).sum(1)
    moments = times.unique()
    # The mean over a time's views: a time with more of them does not win by that.
    sizes = torch.stack([area[times == moment].mean() for moment in moments])
    reference = int(sizes.argmax())
    at = index[times == moments[reference]]
    if len(at) >= _LEAST_AROUND:
        images, cameras, seen = _still(inputs, at)
        return from_masks(images, cameras, seen, count, generator, at.tolist()), None
    largest = torch.stack(
        [index[times == moment][area[times == moment].argmax()] for moment in moments]
    )
    there = (inputs.masks[largest] > INSIDE).flatten(1).any(1)
    own = [_own_depth(inputs, int(view)) if seen else None for view, seen in _pairs(largest, there)]
    known = own[reference] is not None
    depths = torch.full((len(moments),), float("nan"))
    for moment in there.nonzero()[:, 0].tolist():
        depth = own[moment] if known else _depth_around(inputs, int(largest[moment]), resting)
        depths[moment] = float("nan") if depth is None else depth
    told = depths if known else _smoothed(depths)
    path = _path(inputs, largest, told, reference, guessed=not known)
    images, cameras, seen = _still(inputs, at)
    if known and inputs.depths is not None:
        return from_depths(images, cameras, inputs.depths[at], seen, count, generator), path
    view = largest[reference : reference + 1]
    images, cameras, seen = _still(inputs, view)
    flat = torch.full_like(seen, float(told[reference]))
    return from_depths(images, cameras, flat, seen, count, generator), path


def _pairs(views: Tensor, there: Tensor) -> list[tuple[int, bool]]:
    return list(zip(views.tolist(), there.tolist(), strict=True))


def _still(inputs: FitInputs, index: Tensor) -> tuple[Tensor, Cameras, Tensor]:
    assert inputs.masks is not None
    cameras = inputs.cameras[index]
    still = Cameras(cameras.c2w, cameras.Ks_norm)
    return inputs.images[index], still, inputs.masks[index]


def _own_depth(inputs: FitInputs, view: int) -> float | None:
    """The median of the known depths within the mask."""
    if inputs.depths is None or inputs.masks is None:
        return None
    depths = inputs.depths[view][inputs.masks[view] > INSIDE]
    depths = depths[depths > 0]
    return float(depths.median()) if len(depths) else None


def _depth_around(inputs: FitInputs, view: int, resting: Gaussians | None) -> float | None:
    """How far away is what is at rest around the mask, its nearer part."""
    assert inputs.masks is not None
    if resting is None:
        raise InvalidInputError(
            "masks tell the outline of what moves, but nothing tells how far away it is: there are "
            f"less than {_LEAST_AROUND} views of any time, no depths, and nothing at rest around "
            "it. Give depths, views from more sides, or switch plain_background off."
        )
    mask, camera = inputs.masks[view, 0], inputs.cameras[view]
    rows, columns = (mask > INSIDE).nonzero().unbind(-1)
    height, width = mask.shape
    viewmat, K = camera.viewmats[0], camera.Ks(width, height)[0]
    local = resting.means @ viewmat[:3, :3].T + viewmat[:3, 3]
    ahead = local[:, 2] > _LEAST_DEPTH
    place = (local @ K.T)[:, :2] / local[:, 2:].clamp_min(_LEAST_DEPTH)
    low = torch.stack([columns.min(), rows.min()]).float()
    high = torch.stack([columns.max(), rows.max()]).float() + 1
    margin = _MARGIN * (high - low)
    around = ahead & ((place > low - margin) & (place < high + margin)).all(1)
    around &= resting.opacities > _VISIBLE
    depths = local[around if bool(around.any()) else ahead, 2]
    return float(depths.quantile(_NEARER_HALF)) if len(depths) else None


def _smoothed(depths: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    """The median over a few times, of those that are known.

    Raises:
        InvalidInputError: none is.
    """
    if bool(depths.isnan().all()):
        raise InvalidInputError(
            "nothing at rest stands before the cameras that see what moves, so nothing tells how "
            "far away that is; give depths."
        )
    found, last = [], len(depths) - 1
    for moment in range(len(depths)):
        # As many after as before: a path that comes nearer would else be cut short at its ends.
        reach = min(_SMOOTHED, moment, last - moment)
        found.append(depths[moment - reach : moment + reach + 1].nanmedian())
    return torch.stack(found).nan_to_num(nan=float(depths.nanmedian()))


def _path(
    inputs: FitInputs, views: Tensor, depths: Float[Tensor, " t"], reference: int, *, guessed: bool
) -> MaskPath:
    """Where the middles of the masks are, from where it is at one time; straight on in gaps."""
    assert inputs.masks is not None
    places: list[Tensor] = []
    for view, depth in zip(views.tolist(), depths, strict=True):
        mask = inputs.masks[view, 0] > INSIDE
        if not bool(mask.any()) or bool(depth.isnan()):
            places.append(torch.full((3,), float("nan")))
            continue
        height, width = mask.shape
        middle = mask.nonzero().float().mean(0) + 0.5
        x, y = middle[1:] / width, middle[:1] / height
        camera = inputs.cameras[view]
        places.append(unproject(camera, torch.zeros(1, dtype=torch.long), x, y, depth[None])[0])
    found = torch.stack(places)
    known = (~found[:, 0].isnan()).nonzero()[:, 0].tolist()
    for moment in range(len(found)):
        if moment not in known:
            found[moment] = _between(found, known, moment)
    away = found - inputs.cameras.centres[views]
    distances = away.norm(dim=-1).clamp_min(_LEAST_DEPTH)
    offsets = found - found[reference]
    return MaskPath(offsets, away / distances[:, None], distances, guessed)


def _between(found: Tensor, known: list[int], moment: int) -> Tensor:
    before = max((place for place in known if place < moment), default=known[0])
    after = min((place for place in known if place > moment), default=known[-1])
    share = (moment - before) / (after - before) if after > before else 0.0
    return torch.lerp(found[before], found[after], min(1.0, max(0.0, share)))
