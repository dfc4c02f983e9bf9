"""A training sample: a clip of fitted pictures with its cameras, and where it comes from."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.conventions import scale_cameras
from ..errors import InvalidInputError
from ..fitting import FitMode, FittedViews, fit_masks, fit_views
from ..model.motion_strength import gamma_to_motion_strength
from .sampling import DrawnFrames, FrameSampling, draw_frames
from .scene import BrokenSceneError, Scene, SceneKind

__all__ = ["Provenance", "SamplePolicy", "SceneSample", "draw_sample", "scene_scale", "take_frames"]

ScalePolicy = Literal["none", "depth"]
_MEDIAN_DEPTH = 2.0  # of the reference view, after scaling by depth


@dataclass(frozen=True)
class Provenance:
    """Where a sample comes from.

    Attributes:
        dataset: name of the dataset or source.
        scene_id: of the scene.
        frames: positions of the frames in it.
        names: of their pictures.
    """

    dataset: str
    scene_id: str
    frames: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SceneSample:
    """V pictures of a scene, ready for the VAE.

    Attributes:
        images: in [0, 1], all of one size; transparent ones composited on white.
        cameras: of the fitted pictures; ``times`` in [0, 1] where time passes.
        kind: "3d" or "4d".
        gamma: measured strength between neighbouring frames of the sample; 0 for still scenes.
        masks: 1 = object, 0 where padded; None where the dataset has none.
        provenance: where it comes from.
    """

    images: Float[Tensor, "v 3 h w"]
    cameras: Cameras
    kind: SceneKind
    gamma: float
    masks: Float[Tensor, "v 1 h w"] | None
    provenance: Provenance

    @property
    def motion_strength(self) -> float:
        """What the network takes (`gamma_to_motion_strength`)."""
        return gamma_to_motion_strength(self.gamma)


@dataclass(frozen=True, kw_only=True)
class SamplePolicy:
    """How samples are made of scenes.

    Attributes:
        size: (height, width) in pixels, or one number for a square.
        fit: "crop" (centre), "pad", or "either" with equal chance (Sec. 5.1, the third stage).
        frames: which frames are drawn.
        scale: "none" keeps the dataset's units (what released weights expect); "depth" divides
            positions by the median depth at the first frame and multiplies by 2, so that an orbit
            of radius 2 and a street get like scales.
    """

    size: int | tuple[int, int] = 256
    fit: Literal["crop", "pad", "either"] = "crop"
    frames: FrameSampling = field(default_factory=FrameSampling)
    scale: ScalePolicy = "none"

    def __post_init__(self) -> None:
        if self.fit not in ("crop", "pad", "either"):
            raise InvalidInputError(f"fit is {self.fit!r}, expected 'crop', 'pad' or 'either'.")
        if self.scale not in ("none", "depth"):
            raise InvalidInputError(f"scale is {self.scale!r}, expected 'none' or 'depth'.")


def draw_sample(
    scene: Scene, dataset: str, views: int, policy: SamplePolicy, rng: torch.Generator
) -> SceneSample:
    """Draw a clip of a scene; a function of the scene, the policy and ``rng`` alone.

    Args:
        scene: what an adapter read.
        dataset: name for the provenance.
        views: frames of the clip.
        policy: size, fit, frames, scale.
        rng: CPU generator of every random choice.

    Raises:
        BrokenSceneError: too few frames, a picture or mask that cannot be read, a moving clip of
            unknown strength, or no depth to scale by.
    """
    where = f"scene {scene.scene_id}"
    drawn = draw_frames(
        len(scene.cameras),
        views,
        scene.kind,
        policy.frames,
        rng,
        ordered=scene.ordered,
        where=where,
    )
    pad = policy.fit == "pad" or (
        policy.fit == "either" and float(torch.rand((), generator=rng)) < 0.5
    )
    return take_frames(scene, dataset, drawn, policy, "pad" if pad else "crop")


def take_frames(
    scene: Scene, dataset: str, drawn: DrawnFrames, policy: SamplePolicy, fit: FitMode
) -> SceneSample:
    """The sample of given frames; as `draw_sample`, without chance."""
    images, Ks_norm, masks = [], [], []
    cameras = scene.cameras[list(drawn.indices)].to(dtype=torch.float32)
    for place, index in enumerate(drawn.indices):
        K_norm = cameras.Ks_norm[place : place + 1]
        try:
            fitted, mask = _read_frame(scene, index, K_norm, policy, fit)
        except BrokenSceneError:
            raise
        except InvalidInputError as error:
            raise BrokenSceneError(f"scene {scene.scene_id}: {error}") from error
        assert fitted.Ks_norm is not None
        images.append(fitted.images)
        Ks_norm.append(fitted.Ks_norm)
        if mask is not None:
            masks.append(mask)
    scaled = scale_cameras(
        Cameras(cameras.c2w, torch.cat(Ks_norm), cameras.times),
        scene_scale(
            f"scene {scene.scene_id}",
            drawn.indices[0],
            _reference_depth(scene, drawn.indices[0], policy.scale),
        ),
    )
    return SceneSample(
        torch.cat(images),
        scaled,
        scene.kind,
        _gamma(scene, drawn.stride),
        torch.cat(masks) if masks else None,
        Provenance(
            dataset, scene.scene_id, drawn.indices, tuple(scene.names[i] for i in drawn.indices)
        ),
    )


def _read_frame(
    scene: Scene, index: int, K_norm: Tensor, policy: SamplePolicy, fit: FitMode
) -> tuple[FittedViews, Tensor | None]:
    """One picture, fitted, with its mask (1, 1, h, w) if the scene has masks."""
    read = scene.pictures[index]()
    alpha = None if read.alpha is None else read.alpha[None]
    fitted = fit_views(read.image[None], K_norm, policy.size, mode=fit, alpha=alpha)
    if scene.masks is None:
        return fitted, None
    return fitted, fit_masks(scene.masks[index]()[None], fitted.record)


def scene_scale(where: str, reference: int, depth: float | None) -> float:
    """What camera positions are multiplied by, so that a depth becomes 2.

    Args:
        where: names the scene in the message.
        reference: the frame whose depth it is, for the message.
        depth: median z-depth of the reference frame; None keeps the dataset's units.

    Raises:
        BrokenSceneError: the depth is not known.
    """
    if depth is None:
        return 1.0
    if not depth > 0:
        raise BrokenSceneError(
            f"{where} has no depth at frame {reference} to scale by; use scale 'none' for this "
            "dataset."
        )
    return _MEDIAN_DEPTH / depth


def _reference_depth(scene: Scene, reference: int, policy: ScalePolicy) -> float | None:
    if policy == "none":
        return None
    return math.nan if scene.view_depths is None else float(scene.view_depths[reference])


def _gamma(scene: Scene, stride: int) -> float:
    if scene.kind == "3d":
        return 0.0
    if scene.motion is None:
        raise BrokenSceneError(
            f"scene {scene.scene_id} moves and has no measured motion strength; run the curation "
            "on it first, which writes clip.json beside its frames."
        )
    return scene.motion.gamma_at(stride)
