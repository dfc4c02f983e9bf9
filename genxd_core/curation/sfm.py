"""Cameras of a clip by structure from motion on its still parts, with pycolmap (Sec. 3.1).

The paper uses Particle-SfM; here masks say what may move, SIFT features are taken of the rest, and
COLMAP's global mapper (its incremental one second) makes the model, in a child process.
"""

import importlib.util
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.conventions import SHAPE_TOLERANCE, picture_aspect
from ..child_process import run_worker
from ..errors import InvalidInputError, MissingDependencyError
from ..lifting.point_cloud import PointCloud
from ..media import frame_names, image_size, load_image
from ..optional import require
from ..pictures import check_pictures, to_pil
from ..progress import Progress
from .sfm_result import Mapper, MapperTry, SfmResult, SparseDepth
from .sfm_windows import WindowModel, join_windows, load_window, one_model_of, windows_of

__all__ = ["CameraModel", "SfmFailedError", "SfmSettings", "estimate_cameras"]

CameraModel = Literal["SIMPLE_PINHOLE", "SIMPLE_RADIAL"]

_WORKER = Path(__file__).resolve().with_name("sfm_worker.py")
_FEWEST_FRAMES = 3
_PAIRS_PER_STEP = 50
_SHORTEST_TRACK, _LARGEST_ERROR_PX = 3, 2.0
_SAME_LENS = 1e-3


class SfmFailedError(InvalidInputError):
    """Structure from motion came to no end: out of time, or pycolmap stopped.

    A clip that it finds no cameras for is no failure; see `genxd_core.curation.sfm_result.judge`.
    """


@dataclass(frozen=True, kw_only=True)
class SfmSettings:
    """Settings of `estimate_cameras`.

    Attributes:
        mappers: in the order in which they are tried. The next one runs where the one before left
            frames out or found few points; the model with more frames, then points, is taken.
        sure_points_per_frame: with fewer points for each frame a model is doubtful.
        max_features: SIFT keypoints of a frame.
        max_side: larger pictures are reduced to it, pixels.
        all_pairs_below: clips of fewer frames are matched frame by frame with all others.
        overlap: of longer ones, with so many next frames and those 2, 4, 8, ... later.
        window: frames of one model; longer clips are joined of several.
        window_overlap: frames that neighbouring windows share.
        seed: of all random choices.
        num_threads: of pycolmap; leave it at 1 where clips run side by side. With 1, repeated runs
            are identical; with more they differ by rounding.
        time_limit: of all work on a clip, seconds.

    Raises:
        InvalidInputError: a value that cannot be.
    """

    mappers: tuple[Mapper, ...] = ("global", "incremental")
    sure_points_per_frame: int = 50
    max_features: int = 3000
    max_side: int = 960
    all_pairs_below: int = 40
    overlap: int = 10
    window: int = 120
    window_overlap: int = 24
    seed: int = 0
    num_threads: int = 1
    time_limit: float = 1800.0

    def __post_init__(self) -> None:
        known = get_args(Mapper)
        if not self.mappers or not set(self.mappers) <= set(known):
            raise InvalidInputError(
                f"mappers is {self.mappers!r}; expected one or both of {', '.join(known)}."
            )
        for name, least in (
            *(("sure_points_per_frame", 0), ("max_features", 1), ("max_side", 32)),
            *(("all_pairs_below", 0), ("overlap", 1), ("num_threads", 1)),
        ):
            if not getattr(self, name) >= least:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)}; expected at least {least}."
                )
        if not self.time_limit > 0:
            raise InvalidInputError(f"time_limit is {self.time_limit}; expected more than 0 s.")
        windows_of(1, self.window, self.window_overlap)


def estimate_cameras(
    images: Shaped[Tensor, "..."] | Sequence[str | Path],
    *,
    masks: Shaped[Tensor, "..."] | None = None,
    Ks_norm: Shaped[Tensor, "..."] | None = None,
    camera_model: CameraModel = "SIMPLE_PINHOLE",
    settings: SfmSettings | None = None,
    progress: Progress | None = None,
) -> SfmResult:
    """Find a clip's cameras, points and sparse depth from its still parts alone (Sec. 3.1).

    All frames share one lens. The same input, seed and pycolmap give the same result. A clip
    without cameras is a result too: `judge` says what is wrong with it.

    Args:
        images: frames in their order: (T, 3, H, W) in [0, 1], or picture files of one size.
        masks: (T, 1, h, w), 1 = may move and is left out; of the pictures' shape, in any size.
            ``None`` takes everything for still, which is wrong by 20 degrees where much moves.
        Ks_norm: known intrinsics of a pinhole, (3, 3) or the same for each frame; they stay as
            they are. ``None``: the focal length is estimated, the principal point is the middle.
        camera_model: "SIMPLE_PINHOLE" for rendered or undistorted pictures, "SIMPLE_RADIAL" for
            phones and other real lenses; see `SfmResult.undistorted`.
        settings: `SfmSettings` by default.
        progress: called several times a second, also between two steps; without pictures.

    Raises:
        InvalidInputError: pictures, masks or intrinsics that do not belong together.
        SfmFailedError: the limit of time was reached, or pycolmap stopped.
        MissingDependencyError: pycolmap is not installed.
        Cancelled: the callback asked to stop; the child has ended.
    """
    start = time.monotonic()
    settings = SfmSettings() if settings is None else settings
    clip = _Clip(images, masks, Ks_norm, camera_model, settings)
    if clip.frames < _FEWEST_FRAMES:
        return SfmResult(frames=clip.frames, size=clip.size, seed=settings.seed)
    if importlib.util.find_spec("pycolmap") is None:
        require("pycolmap", extra="curate", purpose="find the cameras of a clip")
    with tempfile.TemporaryDirectory(prefix="genxd-sfm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        steps = clip.write_job(folder)
        _run(folder, steps, progress, settings.time_limit)
        told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        models = [
            None if window["mapper"] is None else load_window(folder / f"window_{number}.npz")
            for number, window in enumerate(told["windows"])
        ]
    told["seconds"]["all"] = time.monotonic() - start
    return _result(clip, told, models)


# ---- the job ------------------------------------------------------------------------------------


class _Clip:
    """The checked input, and the job made of it."""

    def __init__(
        self,
        images: Tensor | Sequence[str | Path],
        masks: Tensor | None,
        Ks_norm: Tensor | None,
        camera_model: CameraModel,
        settings: SfmSettings,
    ) -> None:
        self.images, self.masks, self.settings = images, masks, settings
        self.frames = len(images)
        self.size = _size_of(images)
        longer = max(self.size)
        self.scale = min(1.0, settings.max_side / longer)
        width, height = (max(1, round(side * self.scale)) for side in self.size)
        self.work_size = (width, height)
        self.camera_model, self.K_norm = camera_model, _one_lens(Ks_norm, self.frames, self.size)
        self.mask_share: tuple[float, ...] = ()
        if camera_model not in get_args(CameraModel):
            raise InvalidInputError(
                f"camera_model is {camera_model!r}; expected one of "
                f"{', '.join(get_args(CameraModel))}."
            )
        if self.K_norm is not None and camera_model != "SIMPLE_PINHOLE":
            raise InvalidInputError(
                f"camera_model is {camera_model!r}, but Ks_norm are those of a pinhole; leave one "
                "of them out, or undistort the pictures first."
            )
        if masks is not None:
            _check_masks(masks, self.frames, self.size)

    def write_job(self, folder: Path) -> int:
        """What the worker reads; pictures are written one by one. Returns the number of steps."""
        names = frame_names(self.frames)
        (folder / "images").mkdir()
        (folder / "masks").mkdir()
        self.mask_share = tuple(self._write(folder, index) for index in range(self.frames))
        pairs = frame_pairs(self.frames, self.settings)
        parts = [pairs[i : i + _PAIRS_PER_STEP] for i in range(0, len(pairs), _PAIRS_PER_STEP)]
        windows = windows_of(self.frames, self.settings.window, self.settings.window_overlap)
        job = {
            "names": names,
            "camera_model": self.camera_model if self.K_norm is None else "PINHOLE",
            "params": self._params(),
            "known": self.K_norm is not None,
            "distorted": self.camera_model == "SIMPLE_RADIAL",
            "masked": self.masks is not None,
            "pairs": parts,
            "windows": windows,
            "mappers": self.settings.mappers,
            "sure_points_per_frame": self.settings.sure_points_per_frame,
            "max_features": self.settings.max_features,
            "seed": self.settings.seed % (1 << 31),
            "threads": self.settings.num_threads,
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        return len(names) + len(parts) + len(windows) + 2

    def _params(self) -> str:
        if self.K_norm is None:
            return ""
        (width, height), K = self.work_size, self.K_norm.double()
        numbers = (K[0, 0] * width, K[1, 1] * height, K[0, 2] * width, K[1, 2] * height)
        return ",".join(repr(float(number)) for number in numbers)

    def _write(self, folder: Path, index: int) -> float:
        """One picture and its mask; returns the part that is masked."""
        name = frame_names(self.frames)[index]
        picture = self._picture(index)
        if picture.size != self.work_size:
            picture = picture.resize(self.work_size, Image.Resampling.LANCZOS)
        picture.save(folder / "images" / name, compress_level=1)
        if self.masks is None:
            return 0.0
        # Every pixel that holds a part of something that may move is left out.
        mask = (self.masks[index : index + 1].detach().cpu().float() > 0.5).float()
        may_move = F.adaptive_max_pool2d(mask, (self.work_size[1], self.work_size[0]))[0, 0] > 0
        still = Image.fromarray(((~may_move).to(torch.uint8) * 255).numpy())
        still.save(folder / "masks" / f"{name}.png", compress_level=1)
        return float(may_move.float().mean())

    def _picture(self, index: int) -> Image.Image:
        if isinstance(self.images, Tensor):
            return to_pil(self.images[index])
        loaded = load_image(self.images[index])
        if loaded.alpha is None:
            return to_pil(loaded.image)
        return to_pil(loaded.image * loaded.alpha + (1.0 - loaded.alpha))


def frame_pairs(frames: int, settings: SfmSettings) -> list[tuple[int, int]]:
    """Which frames are compared: all of a short clip; of a long one those that follow each other.

    Args:
        frames: of the clip.
        settings: ``all_pairs_below``, ``overlap`` and ``window`` of them.
    """
    if frames < settings.all_pairs_below:
        steps = set(range(1, frames))
    else:
        steps = {*range(1, settings.overlap + 1)}
        steps |= {1 << power for power in range(min(settings.window, frames).bit_length())}
    most = min(settings.window, frames)
    return sorted((i, i + step) for step in steps if step < most for i in range(frames - step))


def _size_of(images: Tensor | Sequence[str | Path]) -> tuple[int, int]:
    if isinstance(images, Tensor):
        check_pictures(images, "images")
        return images.shape[3], images.shape[2]
    if isinstance(images, (str, bytes)) or len(images) == 0:
        raise InvalidInputError(
            f"images is {images!r:.60}; expected a (T, 3, H, W) tensor or a list of picture files."
        )
    size = image_size(images[0])
    for file in images[1:]:
        other = image_size(file)
        if other != size:
            raise InvalidInputError(
                f"images: {file} has {other[0]} x {other[1]} pixels, the first picture "
                f"{size[0]} x {size[1]}; give the frames of one clip."
            )
    return size


def _one_lens(Ks_norm: Tensor | None, frames: int, size: tuple[int, int]) -> Tensor | None:
    if Ks_norm is None:
        return None
    Ks = Ks_norm[None] if Ks_norm.ndim == 2 else Ks_norm
    if Ks.ndim != 3 or Ks.shape[1:] != (3, 3) or len(Ks) not in (1, frames):
        raise InvalidInputError(
            f"Ks_norm has shape {tuple(Ks_norm.shape)}; expected (3, 3), or ({frames}, 3, 3): one "
            "for each picture."
        )
    cameras = Cameras(torch.eye(4).repeat(len(Ks), 1, 1), Ks.detach().cpu())
    if float((cameras.Ks_norm - cameras.Ks_norm[:1]).abs().max()) > _SAME_LENS:
        raise InvalidInputError(
            "Ks_norm change along the clip; all frames share one lens here. Give clips without "
            "zoom, or leave Ks_norm out."
        )
    shape = float(picture_aspect(cameras)[0]) / (size[0] / size[1])
    if abs(shape - 1.0) > SHAPE_TOLERANCE:
        raise InvalidInputError(
            f"Ks_norm do not belong to pictures of this shape (pixels would be {shape:.3g} times "
            "as high as wide); fit the cameras together with the pictures."
        )
    return cameras.Ks_norm[0]


def _check_masks(masks: Tensor, frames: int, size: tuple[int, int]) -> None:
    if masks.ndim != 4 or masks.shape[1] != 1 or len(masks) != frames or 0 in masks.shape:
        raise InvalidInputError(
            f"masks has shape {tuple(masks.shape)}; expected ({frames}, 1, H, W), one for each "
            "picture."
        )
    shape = masks.shape[3] / masks.shape[2] / (size[0] / size[1])
    if abs(shape - 1.0) > SHAPE_TOLERANCE:
        raise InvalidInputError(
            f"masks have {masks.shape[3]} x {masks.shape[2]} pixels, another shape than the "
            f"pictures ({size[0]} x {size[1]}); give masks of the pictures' shape."
        )


def _run(folder: Path, steps: int, progress: Progress | None, time_limit: float) -> None:
    end = run_worker(_WORKER, folder, steps, progress=progress, time_limit=time_limit)
    if end.timed_out:
        raise SfmFailedError(
            f"time_limit of {time_limit:g} s was reached after step {end.done} of {steps} of "
            "looking for cameras; give it more time, fewer or smaller pictures."
        )
    if "missing" in end.last:
        raise MissingDependencyError(
            f"pycolmap is installed and cannot be imported ({end.told}). Install it again "
            "with: pip install --force-reinstall pycolmap."
        )
    if end.failed:
        raise SfmFailedError(
            f"images: no cameras were found, because pycolmap stopped after step {end.done} of "
            f"{steps} (status {end.status}: {end.told}). Try other settings, such as another "
            "mapper, or leave this clip out."
        )


# ---- the result ---------------------------------------------------------------------------------


def _result(clip: _Clip, told: dict[str, Any], models: list[WindowModel | None]) -> SfmResult:
    known = SfmResult(
        frames=clip.frames,
        size=clip.size,
        tries=_tries(told["windows"], clip.frames, clip.settings),
        mask_share=clip.mask_share,
        seconds=told["seconds"],
        seed=clip.settings.seed,
        version=told["version"],
    )
    chain, joins = join_windows(models)
    if not chain:
        return replace(known, joins=tuple(joins))
    model = one_model_of(chain)
    frames = model.frames.tolist()
    size = torch.tensor([*clip.work_size, 1.0], dtype=torch.float64)
    times = model.frames.double() / (clip.frames - 1)
    cameras = Cameras.from_w2c(model.w2c, model.Ks / size[:, None], times)
    distorted = clip.camera_model == "SIMPLE_RADIAL"
    first = next(window["mapper"] for window in told["windows"] if window["mapper"] is not None)
    return replace(
        known,
        joins=tuple(joins),
        registered=tuple(frames),
        cameras=cameras.to(dtype=torch.float32),
        distortion=tuple({"k1": k1} if distorted else {} for k1 in model.k1.tolist()),
        points=PointCloud(model.xyz.float(), model.rgb.float()) if len(model.xyz) else None,
        sparse_depth=_sparse_depth(model, clip),
        reprojection_error_px=_mean_error(model),
        triangulated_fraction=len(model.seen) / max(1, sum(told["keypoints"][f] for f in frames)),
        mapper=first,
    )


def _tries(
    windows: list[dict[str, Any]], frames: int, settings: SfmSettings
) -> tuple[MapperTry, ...]:
    spans = windows_of(frames, settings.window, settings.window_overlap)
    return tuple(
        MapperTry(
            mapper=one["mapper"],
            window=number,
            frames=spans[number][1] - spans[number][0],
            registered=one["registered"],
            points=one["points"],
            reprojection_error_px=one["error"],
            models=one["models"],
            seconds=one["seconds"],
            chosen=one["mapper"] == window["mapper"],
        )
        for number, window in enumerate(windows)
        for one in window["tries"]
    )


def _sparse_depth(model: WindowModel, clip: _Clip) -> tuple[SparseDepth, ...]:
    row = model.seen[:, 1]
    depths = model.depths
    good = (model.length[row] >= _SHORTEST_TRACK) & (model.error[row] <= _LARGEST_ERROR_PX)
    good &= depths > 0
    back = torch.tensor([own / work for own, work in zip(clip.size, clip.work_size, strict=True)])
    return tuple(
        SparseDepth((model.places[kept] * back).float(), depths[kept].float())
        for frame in model.frames.tolist()
        for kept in [good & (model.seen[:, 0] == frame)]
    )


def _mean_error(model: WindowModel) -> float | None:
    if not len(model.error):
        return None
    weight = model.length.double()
    return float((model.error * weight).sum() / weight.sum())
