"""The project's own procedural scenes as a dataset, rendered when they are asked for.

Nothing is on disk. A scene is a seed of a family of `genxd_core.synthetic`; its name is the seed,
with zeros in front. Cameras have OpenCV axes in a world with +Z up, where objects of half a unit or
so stand on a floor at height 0. Masks, depths and motion strengths are exact.
"""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...cameras.cameras import Cameras
from ...errors import InvalidInputError
from ...media import LoadedImage, frame_names
from ...synthetic import FAMILIES, HELD_OUT, SyntheticClips, make_clips
from ...synthetic.motion import motion_strength
from ..layouts import unknown_scene
from ..scene import MeasuredMotion, Scene, SceneKind

__all__ = ["SyntheticScenes"]

_DIGITS = 8
_STRIDES = (1, 2)  # at which strengths are measured, as in rendered shards


class SyntheticScenes:
    """Scenes of one family.

    Attributes:
        name: "synthetic".
        kind: "4d" where the family has a motion, else "3d".
        has_depth: True.
        family: name in `FAMILIES`.
    """

    name: str = "synthetic"
    kind: SceneKind
    has_depth: bool = True

    def __init__(
        self,
        root: Path | None = None,
        *,
        family: str,
        scenes: int,
        first_seed: int = 0,
        num_frames: int = 12,
        size: int = 64,
        supersample: int = 2,
        held_out: bool = False,
    ) -> None:
        """Choose the scenes; nothing is rendered yet.

        Args:
            root: not used; other datasets have one.
            family: name in `FAMILIES`.
            scenes: how many.
            first_seed: of the first scene; others follow.
            num_frames: of each scene.
            size: of the pictures, in pixels.
            supersample: rays a side averaged in each pixel.
            held_out: True lets in the seeds from `HELD_OUT` on, which are for evaluation alone.

        Raises:
            InvalidInputError: an unknown family, a number that is not positive, or seeds that are
                held out.
        """
        if family not in FAMILIES:
            raise InvalidInputError(f"family is {family!r}, expected one of {sorted(FAMILIES)}.")
        if min(scenes, num_frames, size, supersample) < 1 or first_seed < 0:
            raise InvalidInputError(
                f"scenes ({scenes}), num_frames ({num_frames}), size ({size}) and supersample "
                f"({supersample}) must be at least 1, and first_seed ({first_seed}) at least 0."
            )
        if first_seed + scenes > HELD_OUT and not held_out:
            raise InvalidInputError(
                f"first_seed is {first_seed} for {scenes} scenes; seeds from {HELD_OUT} on are for "
                "evaluation alone. Choose smaller ones, or say held_out=True."
            )
        self.family = family
        self.kind = "3d" if FAMILIES[family].motion is None else "4d"
        self._seeds = range(first_seed, first_seed + scenes)
        self._num_frames, self._size, self._supersample = num_frames, size, supersample

    @property
    def scene_ids(self) -> tuple[str, ...]:
        """All seeds, sorted."""
        return tuple(map(self._name, self._seeds))

    def scene(self, scene_id: str) -> Scene:
        """Render a scene; its pictures live as long as the scene does.

        Raises:
            InvalidInputError: the dataset has no such seed.
        """
        seed = int(scene_id) if scene_id.isascii() and scene_id.isdigit() else -1
        if seed not in self._seeds:
            first, last = self._name(self._seeds[0]), self._name(self._seeds[-1])
            raise unknown_scene(scene_id, self.name, f"the seeds {first} to {last}")
        clip = make_clips(
            [seed],
            self.family,
            num_frames=self._num_frames,
            size=self._size,
            supersample=self._supersample,
        )
        moves = self.kind == "4d"
        cameras = clip.cameras(0)
        # Rounded, as in a file: fitting pictures to a size cuts what is between two levels.
        levels = (clip.images[0] * 255).round() / 255
        return Scene(
            self._name(seed),
            self.kind,
            cameras if moves else Cameras(cameras.c2w, cameras.Ks_norm),
            [partial(LoadedImage, image, None) for image in levels],
            frame_names(len(cameras)),
            masks=[partial(_mask, ids) for ids in clip.ids[0]],
            motion=_motion(clip) if moves else None,
            view_depths=torch.stack([_median(depth) for depth in clip.depth[0]]),
        )

    def _name(self, seed: int) -> str:
        return f"{seed:0{max(_DIGITS, len(str(self._seeds[-1])))}d}"


def _mask(ids: Int[Tensor, "h w"]) -> Float[Tensor, "1 h w"]:
    return (ids > 0).float()[None]


def _median(depth: Float[Tensor, "h w"]) -> Float[Tensor, ""]:
    """Of all but the sky; NaN where there is nothing else."""
    seen = depth[depth > 0]
    return seen.median() if len(seen) else depth.new_tensor(torch.nan)


def _motion(clip: SyntheticClips) -> MeasuredMotion:
    """The clip's exact strengths (Sec. 3.3, Eq. 3-4)."""
    gammas = {stride: _gamma(clip, stride) for stride in _STRIDES if stride < clip.images.shape[1]}
    return MeasuredMotion(gammas.get(1, 0.0), 1, gammas)


def _gamma(clip: SyntheticClips, stride: int) -> float:
    """Strength between every ``stride``-th frame; known to be 0 when nothing moves."""
    turned = bool((clip.object_yaw != clip.object_yaw[:, :1]).any())
    if not turned and bool((clip.object_center == clip.object_center[:, :1]).all()):
        return 0.0
    pick = slice(None, None, stride)
    strengths = motion_strength(
        clip.depth[:, pick],
        clip.ids[:, pick],
        clip.object_center[:, pick],
        clip.object_yaw[:, pick],
        clip.c2w[:, pick],
        clip.Ks_norm[:, pick],
    )
    return float(strengths.amax())
