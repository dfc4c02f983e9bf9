"""Long clips: models of overlapping windows of frames, brought into one world.

Each window's model has a world and a unit of its own. Where two windows share frames, rotations
come from the cameras' rotations (their centres alone say little on a short or straight path), the
scale from the depths of keypoints that both triangulated, the shift from the centres; each is a
median or a trimmed mean, so that single bad frames and points do not count.

Dimension letters: f frames, n points, k observations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..cameras.rotations import invert_rigid, rotation_angle
from ..errors import InvalidInputError
from .sfm_result import WindowJoin

__all__ = ["WindowModel", "join_windows", "load_window", "one_model_of", "windows_of"]

_FEWEST_SHARED_FRAMES = 3
_FEWEST_SHARED_POINTS = 20
_LARGEST_SHIFT = 0.1
_LARGEST_ROTATION_DEG = 5.0
_TRIMMED_AT = 3.0  # times the median angle
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class WindowModel:
    """A model of some frames, in float64.

    Attributes:
        frames: indices in the clip, ascending.
        w2c: world to camera, OpenCV axes.
        Ks: intrinsics in pixels of the pictures as they were worked on.
        k1: radial distortion of each frame's lens; 0 for none.
        xyz: points.
        rgb: their colours in [0, 1].
        error: their mean reprojection errors, pixels.
        length: number of frames that show them.
        seen: observations: frame, row of the point, number of the keypoint in its frame.
        places: where they are, pixels.
    """

    frames: Int64[Tensor, " f"]
    w2c: Float[Tensor, "f 4 4"]
    Ks: Float[Tensor, "f 3 3"]
    k1: Float[Tensor, " f"]
    xyz: Float[Tensor, "n 3"]
    rgb: Float[Tensor, "n 3"]
    error: Float[Tensor, " n"]
    length: Int64[Tensor, " n"]
    seen: Int64[Tensor, "k 3"]
    places: Float[Tensor, "k 2"]

    @property
    def centres(self) -> Float[Tensor, "f 3"]:
        """Positions of the cameras."""
        return invert_rigid(self.w2c)[:, :3, 3]

    @property
    def depths(self) -> Float[Tensor, " k"]:
        """z-depth of each observation in its frame."""
        rows = torch.searchsorted(self.frames, self.seen[:, 0].contiguous())
        third = self.w2c[rows, 2]
        return (third[:, :3] * self.xyz[self.seen[:, 1]]).sum(1) + third[:, 3]

    def moved(self, scale: float, rotation: Tensor, shift: Tensor) -> "WindowModel":
        """The same model after ``x -> scale * rotation @ x + shift``."""
        c2w = invert_rigid(self.w2c)
        c2w[:, :3, :3] = rotation @ c2w[:, :3, :3]
        c2w[:, :3, 3] = scale * c2w[:, :3, 3] @ rotation.T + shift
        xyz = scale * self.xyz @ rotation.T + shift
        return replace(self, w2c=invert_rigid(c2w), xyz=xyz)


def load_window(path: Path) -> WindowModel:
    """Read what the worker saved of a window."""
    with np.load(path, allow_pickle=False) as table:
        read = {name: torch.from_numpy(table[name]) for name in table.files}
    count = len(read["frames"])
    w2c = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    w2c[:, :3] = read["w2c"]
    return WindowModel(
        frames=read["frames"],
        w2c=w2c,
        Ks=read["K"].expand(count, 3, 3),
        k1=read["k1"].expand(count),
        xyz=read["xyz"],
        rgb=read["rgb"].double() / 255,
        error=read["error"],
        length=read["length"],
        seen=read["seen"],
        places=read["places"],
    )


def windows_of(frames: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """First frame of each window and the one after its last; the last window is as long as all.

    Args:
        frames: of the clip.
        window: frames of each.
        overlap: frames that neighbours share at least.

    Raises:
        InvalidInputError: an overlap of less than 3 frames, or of more than half a window.
    """
    if not _FEWEST_SHARED_FRAMES <= overlap <= window // 2:
        raise InvalidInputError(
            f"window_overlap is {overlap} of windows of {window} frames; expected at least "
            f"{_FEWEST_SHARED_FRAMES} and at most {window // 2}."
        )
    if frames <= window:
        return [(0, frames)]
    count = math.ceil((frames - overlap) / (window - overlap))
    firsts = [min(index * (window - overlap), frames - window) for index in range(count)]
    return [(first, first + window) for first in firsts]


def join_windows(
    models: Sequence[WindowModel | None],
) -> tuple[list[WindowModel], list[WindowJoin]]:
    """Models in the world of the first of them; a chain that breaks leaves its longest part.

    Args:
        models: one for each window in their order; ``None`` where it came to none.

    Returns:
        The models that belong together, and how each fitted to the one before it.
    """
    chains, joins = list[list[WindowModel]](), list[WindowJoin]()
    before: WindowModel | None = None
    for number, model in enumerate(models):
        if model is None:
            before = None
            continue
        if before is None:
            chains.append([model])
        else:
            placed, join = _join(before, model, number)
            joins.append(join)
            if join.joined:
                model = placed
                chains[-1].append(model)
            else:
                chains.append([model])
        before = model
    return max(chains, key=_frames_in, default=[]), joins


def _frames_in(chain: Sequence[WindowModel]) -> int:
    return len({frame for model in chain for frame in model.frames.tolist()})


def _join(target: WindowModel, model: WindowModel, number: int) -> tuple[WindowModel, WindowJoin]:
    shared = sorted(set(target.frames.tolist()) & set(model.frames.tolist()))
    ratios = _depth_ratios(target, model)
    told = {"window": number, "shared_frames": len(shared), "shared_points": len(ratios)}
    if len(shared) < _FEWEST_SHARED_FRAMES:
        far = {"scale": 1.0, "shift": math.inf, "rotation_deg": math.inf}
        return model, WindowJoin(**told, **far, joined=False)  # type: ignore[arg-type]
    wanted, given = _poses(target, shared), _poses(model, shared)
    rotation = _mean_rotation(wanted[:, :3, :3] @ given[:, :3, :3].transpose(1, 2))
    scale = _scale(ratios, wanted[:, :3, 3], given[:, :3, 3])
    shift = (wanted[:, :3, 3] - scale * given[:, :3, 3] @ rotation.T).median(0).values
    placed = model.moved(scale, rotation, shift)
    after = _poses(placed, shared)
    away = float((after[:, :3, 3] - wanted[:, :3, 3]).norm(dim=1).median())
    turned = float(rotation_angle(after[:, :3, :3], wanted[:, :3, :3]).median().rad2deg())
    both = torch.cat([target.centres, placed.centres])
    apart = away / max(float(torch.cdist(both, both).max()), _TINY)
    near = apart <= _LARGEST_SHIFT and turned <= _LARGEST_ROTATION_DEG
    return placed, WindowJoin(
        window=number,
        shared_frames=len(shared),
        shared_points=len(ratios),
        scale=scale,
        shift=apart,
        rotation_deg=turned,
        joined=near,
    )


def _poses(model: WindowModel, frames: list[int]) -> Tensor:
    rows = torch.searchsorted(model.frames, torch.tensor(frames))
    return invert_rigid(model.w2c[rows])


def _depth_ratios(target: WindowModel, model: WindowModel) -> Tensor:
    """Depth in ``target`` over depth in ``model`` of keypoints that both triangulated."""
    keypoints = 1 + max(
        int(one.seen[:, 2].max()) if len(one.seen) else 0 for one in (target, model)
    )
    keys = [one.seen[:, 0] * keypoints + one.seen[:, 2] for one in (target, model)]
    _, wanted, given = np.intersect1d(keys[0].numpy(), keys[1].numpy(), return_indices=True)
    first, second = target.depths[wanted], model.depths[given]
    ahead = (first > _TINY) & (second > _TINY)
    return first[ahead] / second[ahead]


def _scale(ratios: Tensor, wanted: Tensor, given: Tensor) -> float:
    if len(ratios) >= _FEWEST_SHARED_POINTS:
        return float(ratios.median())
    pairs = torch.triu_indices(len(wanted), len(wanted), 1)
    between = [(centres[pairs[0]] - centres[pairs[1]]).norm(dim=1) for centres in (wanted, given)]
    long = between[1] > _TINY
    return float((between[0][long] / between[1][long]).median()) if bool(long.any()) else 1.0


def _mean_rotation(rotations: Float[Tensor, "f 3 3"]) -> Float[Tensor, "3 3"]:
    """Mean of those near to the one that is nearest to all."""
    angles = rotation_angle(*torch.broadcast_tensors(rotations[:, None], rotations[None]))
    middle = int(angles.sum(1).argmin())
    near = angles[middle] <= _TRIMMED_AT * angles[middle].median() + _TINY
    u, _, vh = torch.linalg.svd(rotations[near].mean(0))
    flip = torch.ones(3, dtype=u.dtype)
    flip[2] = torch.linalg.det(u @ vh).sign()
    mean: Tensor = u * flip @ vh
    return mean


def one_model_of(models: Sequence[WindowModel]) -> WindowModel:
    """One model of several in the same world; a frame of two windows is taken of the nearer one."""
    if len(models) == 1:
        return models[0]
    frames = torch.cat([model.frames for model in models]).unique()
    middles = [float(model.frames.double().mean()) for model in models]
    owner = {
        frame: min(
            (index for index, model in enumerate(models) if frame in model.frames),
            key=lambda index: abs(middles[index] - frame),
        )
        for frame in frames.tolist()
    }
    parts = [
        _restricted(model, [frame for frame, of in owner.items() if of == index], offset)
        for index, (model, offset) in enumerate(zip(models, _offsets(models), strict=True))
    ]
    order = torch.cat([part.frames for part in parts]).argsort()
    joined = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("xyz", "rgb", "error", "length", "seen", "places")
    }
    joined |= {
        name: torch.cat([getattr(part, name) for part in parts])[order]
        for name in ("frames", "w2c", "Ks", "k1")
    }
    return WindowModel(**joined)


def _offsets(models: Sequence[WindowModel]) -> list[int]:
    """Where each model's points begin when they stand one after another."""
    return [sum(len(model.xyz) for model in models[:index]) for index in range(len(models))]


def _restricted(model: WindowModel, frames: list[int], offset: int) -> WindowModel:
    """The cameras and observations of some frames; all points, numbered from ``offset`` on."""
    kept = torch.isin(model.frames, torch.tensor(frames, dtype=torch.long))
    seen = torch.isin(model.seen[:, 0], torch.tensor(frames, dtype=torch.long))
    return replace(
        model,
        frames=model.frames[kept],
        w2c=model.w2c[kept],
        Ks=model.Ks[kept],
        k1=model.k1[kept],
        seen=model.seen[seen] + torch.tensor([0, offset, 0]),
        places=model.places[seen],
    )
