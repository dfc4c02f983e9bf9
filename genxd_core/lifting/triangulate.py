"""Points of a scene from pictures whose cameras are known: what a fit may start from.

The paper starts from the points of the input views for the baseline and of all generated views
with GenXD (App. H). The work is done by pycolmap in a child process: a crash of native code ends
the child alone, and the host never loads it.
"""

import importlib.util
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.conventions import SHAPE_TOLERANCE, picture_aspect
from ..cameras.rotations import rotation_to_quat
from ..child_process import run_worker
from ..errors import InvalidInputError, MissingDependencyError
from ..media import frame_names
from ..optional import require
from ..pictures import check_pictures, to_pil
from ..progress import Progress
from .point_cloud import PointCloud

__all__ = ["FEWEST_POINTS", "triangulate_points"]

FEWEST_POINTS = 20
"""With fewer points a fit has nothing to start from."""

_WORKER = Path(__file__).resolve().with_name("triangulate_worker.py")
_ALL_PAIRS_UP_TO = 60
_NEIGHBOURS = 10
# Small pictures are enlarged: twice, to at least the first and at most the second side.
_ENLARGED_SIDES = (256, 640)
_LARGEST_ERROR = 2.0  # pixels of the enlarged pictures
_PAIRS_PER_STEP = 50
_ON_ANY = "Start from masks, depth or points spread in the cameras' view instead."


def triangulate_points(
    images: Shaped[Tensor, "..."],
    cameras: Cameras,
    *,
    masks: Shaped[Tensor, "..."] | None = None,
    max_points: int | None = None,
    seed: int = 0,
    num_threads: int = 1,
    progress: Progress | None = None,
    time_limit: float = 600.0,
) -> PointCloud:
    """Points that at least two pictures show, where their given cameras put them (App. H).

    SIFT features are matched between all pairs of up to 60 views, of more between neighbours in
    order and in space; matches that contradict the cameras are left out. Poses and intrinsics are
    taken as they are. The same input and seed give the same points.

    Args:
        images: (V, 3, H, W) in [0, 1]; from 64 pixels a side on, small ones are enlarged first.
        cameras: one for each picture.
        masks: (V, 1, H, W), 1 = object; only points on it are looked for. ``None``: everywhere.
        max_points: at most so many are kept, drawn at random; ``None``: all.
        seed: of that draw and of pycolmap.
        num_threads: of pycolmap; the points do not depend on it.
        progress: called several times a second, also between two steps, so that it can stop the
            work; without pictures.
        time_limit: in seconds.

    Raises:
        InvalidInputError: fewer than two views, shapes that do not belong together, fewer than
            `FEWEST_POINTS` points found, the limit was reached, or pycolmap failed.
        MissingDependencyError: pycolmap is not installed.
        Cancelled: the callback asked to stop; the child has ended.
    """
    _check(images, cameras, masks, max_points, num_threads, time_limit)
    if importlib.util.find_spec("pycolmap") is None:
        require(
            "pycolmap",
            extra="lift",
            purpose="find points that several pictures show",
            instead=_ON_ANY,
        )
    with tempfile.TemporaryDirectory(prefix="genxd-points-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        steps = _write_job(folder, images, cameras, masks, seed=seed, num_threads=num_threads)
        _run(folder, steps, progress, time_limit)
        with np.load(folder / "points.npz", allow_pickle=False) as table:
            xyz, rgb = torch.from_numpy(table["xyz"]), torch.from_numpy(table["rgb"])
    return _kept(xyz.float(), rgb.float() / 255, max_points, seed, masked=masks is not None)


def _check(
    images: Tensor,
    cameras: Cameras,
    masks: Tensor | None,
    max_points: int | None,
    num_threads: int,
    time_limit: float,
) -> None:
    check_pictures(images, "images")
    if len(images) != len(cameras):
        raise InvalidInputError(
            f"images has {len(images)} pictures for {len(cameras)} cameras; give one camera for "
            "each picture."
        )
    if len(images) < 2:
        raise InvalidInputError(
            f"images has one picture; a point's distance needs at least two views of it. {_ON_ANY}"
        )
    if masks is not None and masks.shape != (len(images), 1, *images.shape[2:]):
        raise InvalidInputError(
            f"masks has shape {tuple(masks.shape)}; expected "
            f"{(len(images), 1, *images.shape[2:])}, one for each picture, of its size."
        )
    aspect = images.shape[3] / images.shape[2]
    shape = picture_aspect(cameras) / aspect
    worst = float(shape[(shape.log().abs()).argmax()])
    if abs(worst - 1.0) > SHAPE_TOLERANCE:
        raise InvalidInputError(
            f"cameras do not belong to pictures of this shape (pixels would be {worst:.3g} times "
            "as high as wide); fit the cameras together with the pictures."
        )
    for name, value in (("num_threads", num_threads), ("time_limit", time_limit)):
        if not value > 0:
            raise InvalidInputError(f"{name} is {value}; expected more than 0.")
    if max_points is not None and max_points < FEWEST_POINTS:
        raise InvalidInputError(
            f"max_points is {max_points}; expected at least {FEWEST_POINTS}, or None for all."
        )


def view_pairs(cameras: Cameras) -> list[tuple[int, int]]:
    """Which pictures are compared: all pairs of a few; neighbours in order and space of many."""
    count = len(cameras)
    if count <= _ALL_PAIRS_UP_TO:
        return [(first, second) for first in range(count) for second in range(first + 1, count)]
    steps = {*range(1, _NEIGHBOURS + 1), *(1 << power for power in range(count.bit_length()))}
    pairs = {(i, i + step) for step in steps for i in range(count - step)}
    centres = cameras.centres.double().cpu()
    near = torch.cdist(centres, centres).argsort(dim=1, stable=True)[:, : _NEIGHBOURS + 1]
    pairs |= {(min(i, j), max(i, j)) for i, row in enumerate(near.tolist()) for j in row if i != j}
    return sorted(pairs)


def _write_job(
    folder: Path,
    images: Tensor,
    cameras: Cameras,
    masks: Tensor | None,
    *,
    seed: int,
    num_threads: int,
) -> int:
    """What the worker reads; pictures are written one by one. Returns the number of its steps."""
    width, height = _enlarged_size(images.shape[3], images.shape[2])
    names = frame_names(len(images))
    for kind in ("images", "masks", "model"):
        (folder / kind).mkdir()
    for view, name in enumerate(names):
        picture = to_pil(images[view])
        resized = picture.resize((width, height), Image.Resampling.BICUBIC)
        resized.save(folder / "images" / name, compress_level=1)
        if masks is not None:
            levels = (masks[view, 0].detach().cpu() > 0.5).to(torch.uint8) * 255
            mask = Image.fromarray(levels.numpy()).resize((width, height), Image.Resampling.NEAREST)
            mask.save(folder / "masks" / f"{name}.png", compress_level=1)
    exact = cameras.to(device="cpu", dtype=torch.float64)
    Ks = exact.Ks(width, height)
    params = [[float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])] for K in Ks]
    _write_model(folder / "model", exact.viewmats, params, names, (width, height))
    pairs = view_pairs(cameras)
    parts = [pairs[i : i + _PAIRS_PER_STEP] for i in range(0, len(pairs), _PAIRS_PER_STEP)]
    job = {
        "names": names,
        "params": [",".join(map(repr, numbers)) for numbers in params],
        "projections": (Ks @ exact.viewmats[:, :3]).tolist(),
        "pairs": parts,
        "masked": masks is not None,
        "max_error": _LARGEST_ERROR,
        "seed": seed % (1 << 31),
        "threads": num_threads,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return len(names) + len(parts) + 1


def _enlarged_size(width: int, height: int) -> tuple[int, int]:
    longer = max(width, height)
    least, most = _ENLARGED_SIDES
    factor = max(1.0, max(least, min(2 * longer, most)) / longer)
    return round(width * factor), round(height * factor)


def _write_model(
    folder: Path,
    viewmats: Tensor,
    params: list[list[float]],
    names: list[str],
    size: tuple[int, int],
) -> None:
    """A COLMAP model with a camera for each view, as the worker's database has them."""
    quats = rotation_to_quat(viewmats[:, :3, :3]).tolist()
    translations = viewmats[:, :3, 3].tolist()
    cameras = [
        f"{view + 1} PINHOLE {size[0]} {size[1]} {' '.join(map(repr, numbers))}\n"
        for view, numbers in enumerate(params)
    ]
    views = [
        f"{view + 1} {' '.join(map(repr, quats[view] + translations[view]))} {view + 1} {name}\n\n"
        for view, name in enumerate(names)
    ]
    for stem, lines in {"cameras": cameras, "images": views, "points3D": []}.items():
        (folder / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")


def _run(folder: Path, steps: int, progress: Progress | None, time_limit: float) -> None:
    end = run_worker(_WORKER, folder, steps, progress=progress, time_limit=time_limit)
    if end.timed_out:
        raise InvalidInputError(
            f"time_limit of {time_limit:g} s was reached after step {end.done} of {steps} of "
            "looking for points; give it more time, fewer or smaller pictures."
        )
    if "missing" in end.last:
        raise MissingDependencyError(
            f"pycolmap is installed and cannot be imported ({end.told}). Install it again "
            f"with: pip install --force-reinstall pycolmap. {_ON_ANY}"
        )
    if end.failed:
        raise InvalidInputError(
            f"images: no points were found, because pycolmap stopped (status {end.status}: "
            f"{end.told}). {_ON_ANY}"
        )


def _kept(
    xyz: Tensor, rgb: Tensor, max_points: int | None, seed: int, *, masked: bool
) -> PointCloud:
    finite = xyz.isfinite().all(dim=1)
    xyz, rgb = xyz[finite], rgb[finite]
    if len(xyz) < FEWEST_POINTS:
        on = " on the masks" if masked else ""
        raise InvalidInputError(
            f"images show only {len(xyz)} points{on} that agree between views and with the "
            f"cameras; a start needs {FEWEST_POINTS}. Look whether pictures and cameras belong "
            "together; give more, larger or nearer views, or start from masks, depth or points "
            "spread in the cameras' view instead."
        )
    if max_points is not None and len(xyz) > max_points:
        draw = torch.randperm(len(xyz), generator=torch.Generator().manual_seed(seed))
        picked = draw[:max_points].sort().values
        xyz, rgb = xyz[picked], rgb[picked]
    return PointCloud(xyz, rgb)
