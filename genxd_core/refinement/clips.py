"""Several videos one after the other in one batch: found by their times, refined one by one.

Dimension letters: v frames of all videos together, c h w of a latent.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError
from ..long_paths.sampling import GenerateGroup
from ..long_paths.store import PathStore, StorePart
from ..progress import Progress, part_of
from .sampling import RefinedLatents, refine_latents
from .windows import RefinePlan

__all__ = ["frames_per_clip", "refine_clips"]


def frames_per_clip(cameras: Cameras) -> int:
    """How many frames each clip has: a new one begins wherever time falls back.

    Args:
        cameras: one for each frame; without times all are one clip.

    Raises:
        InvalidInputError: the clips are not of one length.
    """
    if cameras.times is None:
        return len(cameras)
    times: list[float] = cameras.times.tolist()
    back = [place for place in range(1, len(times)) if times[place] < times[place - 1]]
    starts = [0, *back, len(times)]
    lengths = [end - start for start, end in itertools.pairwise(starts)]
    if len(set(lengths)) > 1:
        raise InvalidInputError(
            f"cameras have times that fall back after {', '.join(map(str, starts[1:-1]))} frames: "
            f"clips of {', '.join(map(str, lengths))} frames. Give clips of one length, or cameras "
            "whose times rise for a single video."
        )
    return lengths[0]


def refine_clips(
    plan: RefinePlan,
    cameras: Cameras,
    video: Float[Tensor, "v c h w"],
    generate: GenerateGroup,
    *,
    steps: int,
    seed: int,
    noise: Float[Tensor, "v c h w"] | None = None,
    store: PathStore | None = None,
    key: str = "",
    progress: Progress | None = None,
) -> RefinedLatents:
    """Denoise one clip after another, each as `refine_latents` does.

    Args:
        plan: of one clip; all have its length.
        cameras: one for each frame of all clips.
        video: latents of all clips, clip after clip.
        generate: as for `refine_latents`, like all that follow.
        steps: as there.
        seed: as there; every clip has noise of its own from it.
        noise: as there, for all clips.
        store: as there.
        key: as there, for all clips together.
        progress: one count over all clips.

    Raises:
        InvalidInputError: a seed out of range.
        WeightsError: the network's numbers are not finite.
        Cancelled: as `refine_latents`; clips that were not reached are as they were.
    """
    length, latents = plan.num_frames, video.float().cpu().clone()
    refined = torch.zeros(len(video), dtype=torch.bool)
    of_one = steps * len(plan.pending)
    for clip in range(len(video) // length):
        frames = slice(clip * length, (clip + 1) * length)
        out = refine_latents(
            plan,
            cameras[list(range(frames.start, frames.stop))],
            video[frames],
            generate,
            steps=steps,
            seed=seed,
            noise=None if noise is None else noise[frames],
            # The first is named as a video by itself is.
            name=f"clip {clip} " if clip else "",
            store=None if store is None else StorePart(store, clip),
            key=key,
            progress=part_of(progress, clip * of_one, len(video) // length * of_one),
        )
        latents[frames], refined[frames] = out.latents, out.refined
        if out.cancelled:
            return RefinedLatents(latents, refined, cancelled=True)
    return RefinedLatents(latents, refined, cancelled=False)
