"""How good a trained network is on held-out procedural scenes: the ablations' figures in small.

Protocol, in the manner of the paper's Tables 5 and 10 (Sec. 5.4, App. G: quality of the generated
samples). Every scene has a seed from `HELD_OUT` on, the same for all networks, and so is its noise.

- ``views``: still scenes; view 0 given ("single_view"), or first, middle and last ("three_views").
- ``other_views``: three views of scenes of a family that no recipe trains on (strong textures, more
  objects): what LLFF is to the paper.
- ``clips``: camera and objects move; view 0 and the true motion strength given.
- ``motion``: hopping balls before a camera that stands. ``motion_error_px``: mean distance between
  the object's measured middle in the generated and in the true clip; ``still_error_px``: the same
  for a clip that stands still; ``generated_motion_px``: mean distance of the middle from its first
  place; ``spurious_motion_px``: that in 3D mode, where nothing should move; ``object_seen``: share
  of frames with anything to measure. Where nothing is seen, the object counts as not moved.

PSNR (dB), SSIM and a perceptual distance are means over the generated views, then over scenes. FID
and FVD of the paper need weights and many more clips.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genxd_core.autoencoder import Autoencoder
from genxd_core.errors import InvalidInputError
from genxd_core.evaluation.intervals import mean_interval
from genxd_core.evaluation.object_paths import hopping_scenes, near_path, object_path
from genxd_core.evaluation.random_features import PictureDistance, picture_distance
from genxd_core.lifting.losses import psnr, ssim
from genxd_core.model.motion_strength import gamma_to_motion_strength
from genxd_core.model.unet import GenXDUNet
from genxd_core.synthetic import FAMILIES, HELD_OUT, SyntheticClips, make_clips

from .sampling import generate

__all__ = ["PARTS", "evaluate_variant"]

PARTS = ("views", "other_views", "clips", "motion")
"""What can be measured; see the module."""

_FIRST_CLIP = HELD_OUT + 700_000
_LEAST_MOTION = 0.009  # gamma that counts as motion (App. I)
_FAMILY_4D = replace(FAMILIES["nano_4d"], paths=FAMILIES["nano_3d"].paths, still_share=0.0)

Rows = dict[str, list[float]]
"""Figures by name, one value a scene."""


def evaluate_variant(
    network: GenXDUNet,
    vae: Autoencoder,
    *,
    scenes: int = 32,
    seed: int = 0,
    steps: int = 25,
    guidance: float = 1.0,
    parts: Sequence[str] = PARTS,
    disentangled: bool = True,
    mode_4d: str = "4d",
    perceptual: Path | None = None,
    num_frames: int = 12,
    size: int = 64,
    batch: int = 8,
) -> dict[str, Any]:
    """Measure a network.

    Args:
        network: a `GenXDUNet` or a `CameraAttentionUNet`.
        vae: on the same device.
        scenes: held-out scenes of each part.
        seed: of the sampling noise; each scene adds its number.
        steps: of the sampler.
        guidance: scale; 1 = none.
        parts: some of `PARTS`.
        disentangled: False for a network trained without motion disentangling: its 3D views are
            then sampled through the temporal layers too.
        mode_4d: "3d" for a network whose temporal layers were never trained.
        perceptual: weights of a network for LPIPS; None takes the random-feature distance.
        num_frames: of each clip.
        size: of the pictures, px.
        batch: clips sampled at a time.

    Returns:
        ``settings``, ``seconds``, and ``figures``: by name ``mean``, ``low`` and ``high`` (95 %
        bootstrap interval over scenes) and ``by_scene``, in an order that is the same for all
        networks, so that `paired_interval` can compare them.

    Raises:
        InvalidInputError: an unknown part or mode, or too few scenes or frames.
        WeightsError: ``perceptual`` is no file that LPIPS can use.
    """
    settings = {
        **{"scenes": scenes, "seed": seed, "steps": steps, "guidance": guidance},
        **{"parts": list(parts), "disentangled": disentangled, "mode_4d": mode_4d},
        **{"perceptual": None if perceptual is None else Path(perceptual).name},
        **{"num_frames": num_frames, "size": size, "dtype": str(network.conv_in.weight.dtype)},
    }
    _check(parts, scenes, num_frames, mode_4d)
    distance_name, distance = picture_distance(perceptual)
    run = _Run(
        network=network,
        vae=vae,
        distance_name=distance_name,
        distance=distance,
        scenes=scenes,
        seed=seed,
        steps=steps,
        guidance=guidance,
        size=size,
        disentangled=disentangled,
        mode_4d=mode_4d,
        num_frames=num_frames,
        batch=batch,
    )
    began = time.perf_counter()
    rows: Rows = {}
    for part in parts:
        rows |= _MEASURES[part](run)
    return {
        "settings": settings,
        "seconds": round(time.perf_counter() - began, 1),
        "figures": {name: _summary(values) for name, values in rows.items()},
    }


def _check(parts: Sequence[str], scenes: int, num_frames: int, mode_4d: str) -> None:
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise InvalidInputError(f"parts is {list(parts)}, expected some of {', '.join(PARTS)}.")
    if scenes < 1 or num_frames < 4:
        raise InvalidInputError(
            f"scenes is {scenes} and num_frames {num_frames}; expected at least 1 scene, and 4 "
            "frames, of which 3 are given."
        )
    if mode_4d not in ("3d", "4d"):
        raise InvalidInputError(f"mode_4d is {mode_4d!r}, expected '4d' or '3d'.")


@dataclass(frozen=True)
class _Run:
    """A network and how it is sampled."""

    network: GenXDUNet
    vae: Autoencoder
    distance_name: str
    distance: PictureDistance
    scenes: int
    seed: int
    steps: int
    guidance: float
    size: int
    disentangled: bool
    mode_4d: str
    num_frames: int
    batch: int

    def clip(self, seed: int, family: Any) -> SyntheticClips:
        return make_clips([seed], family, num_frames=self.num_frames, size=self.size)

    def frames(
        self, clips: Sequence[SyntheticClips], given: list[int], mode: str = "3d"
    ) -> list[Tensor]:
        """Generated frames of every clip, from its true pictures at some positions."""
        out: list[Tensor] = []
        mode = self.mode_4d if mode == "4d" else mode
        for start in range(0, len(clips), self.batch):
            some = clips[start : start + self.batch]
            images = torch.cat([clip.images for clip in some])
            encoded = self.vae.encode(images[:, given].flatten(0, 1))
            encoded = encoded.unflatten(0, (len(some), len(given)))
            latents = encoded.new_zeros(len(some), self.num_frames, *encoded.shape[2:])
            latents[:, given] = encoded
            strengths = [gamma_to_motion_strength(float(clip.motion_strength[0])) for clip in some]
            sampled = generate(
                *(self.network, latents),
                torch.cat([clip.c2w for clip in some]),
                torch.cat([clip.Ks_norm for clip in some]),
                given,
                mode=mode,
                motion_strength=torch.tensor(strengths),
                steps=self.steps,
                guidance=self.guidance,
                generator=[
                    torch.Generator().manual_seed(self.seed + start + number)
                    for number in range(len(some))
                ],
                disentangled=self.disentangled,
            )
            # One by one: the decoder mixes neighbouring frames of what it is given.
            out += [(self.vae.decode(clip).cpu() / 2 + 0.5).clamp(0, 1) for clip in sampled]
        return out

    def quality(
        self, name: str, frames: list[Tensor], clips: Sequence[SyntheticClips], views: list[int]
    ) -> Rows:
        """PSNR, SSIM and distance of some views."""
        rows: Rows = {}
        for made, clip in zip(frames, clips, strict=True):
            pair = made[views], clip.images[0, views]
            found = {
                "psnr": psnr(*pair),
                "ssim": ssim(*pair, window="valid"),
                self.distance_name: self.distance(*pair),
            }
            for figure, values in found.items():
                rows.setdefault(f"{name}_{figure}", []).append(float(values.mean()))
        return rows

    @property
    def three(self) -> list[int]:
        return [0, (self.num_frames - 1) // 2, self.num_frames - 1]

    def without(self, given: list[int]) -> list[int]:
        return [view for view in range(self.num_frames) if view not in given]


def _views(run: _Run) -> Rows:
    clips = [run.clip(HELD_OUT + number, "nano_3d") for number in range(run.scenes)]
    rows: Rows = {}
    for name, given in (("single_view", [0]), ("three_views", run.three)):
        frames = run.frames(clips, given)
        rows |= run.quality(name, frames, clips, run.without(given))
    return rows


def _other_views(run: _Run) -> Rows:
    clips = [run.clip(HELD_OUT + number, "textured_3d") for number in range(run.scenes)]
    frames = run.frames(clips, run.three)
    return run.quality("other_three_views", frames, clips, run.without(run.three))


def _clips(run: _Run) -> Rows:
    clips: list[SyntheticClips] = []
    seed = _FIRST_CLIP
    while len(clips) < run.scenes:
        clip = run.clip(seed, _FAMILY_4D)
        if float(clip.motion_strength) >= _LEAST_MOTION:
            clips.append(clip)
        seed += 1
    return run.quality("clip", run.frames(clips, [0], "4d"), clips, run.without([0]))


def _motion(run: _Run) -> Rows:
    hops = hopping_scenes(run.scenes, num_frames=run.num_frames, size=run.size)
    clips = [hop.clip for hop in hops]
    rows: Rows = {}

    def note(**figures: float) -> None:
        for name, value in figures.items():
            rows.setdefault(name, []).append(value)

    moving, still = run.frames(clips, [0], "4d"), run.frames(clips, [0])
    for hop, made, made_3d in zip(hops, moving, still, strict=True):
        truth, empty = hop.clip.images[0], hop.empty
        near = near_path(truth, empty)
        path = object_path(truth, empty, near)
        ours, seen = _followed(made, empty, near)
        in_3d, _ = _followed(made_3d, empty, near)
        note(
            motion_error_px=_apart(ours, path),
            still_error_px=_apart(path[:1].expand_as(path), path),
            generated_motion_px=_apart(ours, ours[:1].expand_as(ours)),
            true_motion_px=_apart(path, path[:1].expand_as(path)),
            spurious_motion_px=_apart(in_3d, in_3d[:1].expand_as(in_3d)),
            object_seen=seen,
        )
    return rows | run.quality("still_camera", moving, clips, run.without([0]))


_MEASURES: dict[str, Callable[[_Run], Rows]] = {
    "views": _views,
    "other_views": _other_views,
    "clips": _clips,
    "motion": _motion,
}


def _followed(frames: Tensor, empty: Tensor, near: Tensor) -> tuple[Tensor, float]:
    """An object's path, at its first place where it is not seen, and the share of frames seen."""
    path = object_path(frames, empty, near)
    seen = path.abs().sum(dim=-1) > 0
    return torch.where(seen[:, None], path, path[:1]), float(seen.float().mean())


def _apart(a: Tensor, b: Tensor) -> float:
    """Mean distance of two paths over the frames that were generated, in pixels."""
    return float((a - b).norm(dim=-1)[1:].mean())


def _summary(values: list[float]) -> dict[str, Any]:
    found = mean_interval(values)
    mean, low, high = found.rounded()
    return {
        **{"mean": mean, "low": low, "high": high},
        "by_scene": [round(value, 5) for value in values],
    }
