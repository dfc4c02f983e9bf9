"""2-D tracks: where points of what moves are seen in each picture, for fits to follow (App. E).

After Shape of Motion (Wang et al. 2024): where a point is seen at one time, the Gaussians drawn
there tell where it is at another, and that place is compared with the track's.

Dimension letters: v pictures, p tracks, n Gaussians.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError

__all__ = ["TrackFollower", "Tracks", "load_tracks"]

_SEEN = 0.5  # of a visibility
_LEAST_COVER = 1e-3
_LEAST_DEPTH = 1e-3
_NAMES = ("tracks", "visibility")


@dataclass(frozen=True)
class Tracks:
    """Points followed through pictures.

    Attributes:
        places: of each track in each picture: x right and y down, in [0, 1] of width and height.
        visible: from 0 to 1; above a half it is seen there.
    """

    places: Float[Tensor, "v p 2"]
    visible: Float[Tensor, "v p"]

    @classmethod
    def from_pixels(cls, places: Tensor, visible: Tensor, *, width: int, height: int) -> "Tracks":
        """Tracks as point trackers give them.

        Args:
            places: (V, P, 2) x and y in pixels of the pictures; the first pixel's middle is 0.5.
            visible: (V, P), or (V, 1) for all; bool or 0 to 1.
            width: of the pictures that were tracked.
            height: of them.

        Raises:
            InvalidInputError: shapes that do not fit, or numbers that are not finite.
        """
        if places.ndim != 3 or places.shape[2] != 2 or 0 in places.shape:
            raise InvalidInputError(
                f"tracks has shape {tuple(places.shape)}; expected (pictures, tracks, 2): x and y "
                "in pixels."
            )
        if visible.ndim != 2 or visible.shape not in (places.shape[:2], (len(places), 1)):
            raise InvalidInputError(
                f"visibility has shape {tuple(visible.shape)}; expected {tuple(places.shape[:2])}, "
                "one value for each picture and track."
            )
        placed = places.detach().float().cpu() / torch.tensor([width, height])
        seen = visible.detach().float().cpu().expand(places.shape[:2]).clamp(0, 1)
        if not bool(placed[seen > _SEEN].isfinite().all()) or not bool(seen.isfinite().all()):
            raise InvalidInputError("tracks hold NaN or infinite places where they are visible.")
        return cls(placed.nan_to_num(), seen)


def load_tracks(path: str | Path, *, width: int, height: int) -> Tracks:
    """Read tracks from a ``.npz`` with ``tracks`` (V, P, 2) in pixels and ``visibility`` (V, P).

    Args:
        path: of the file.
        width: of the pictures that were tracked.
        height: of them.

    Raises:
        InvalidInputError: there is no such file, it is damaged, or holds something else.
    """
    path = Path(path)
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it holds one array")
        with archive as found:
            missing = [name for name in _NAMES if name not in found.files]
            if missing:
                raise InvalidInputError(
                    f"tracks {path} has no array {' and no '.join(missing)}; expected tracks "
                    "(pictures, tracks, 2) in pixels and visibility (pictures, tracks)."
                )
            arrays = [torch.from_numpy(found[name].astype(np.float32)) for name in _NAMES]
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"tracks {path} cannot be read ({error}); give a .npz with tracks and visibility."
        ) from error
    return Tracks.from_pixels(*arrays, width=width, height=height)


class TrackFollower:
    """Chooses another picture for each that is fitted, and compares where tracks are in it.

    Args:
        tracks: one row for each picture of the fit.
        cameras: one for each picture, with times.
        training: pictures that may be looked at.
        means_at: centres of all Gaussians at a time, with gradients.
        seed: of the choice.
        device: of the fit.

    Raises:
        InvalidInputError: the tracks are of another number of pictures, or no track is seen in two
            of those that are fitted.
    """

    def __init__(
        self,
        tracks: Tracks,
        cameras: Cameras,
        training: Sequence[int],
        means_at: Callable[[float], Float[Tensor, "n 3"]],
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        if len(tracks.places) != len(cameras):
            raise InvalidInputError(
                f"tracks are of {len(tracks.places)} pictures, but there are {len(cameras)} "
                "images; give one row of tracks for each of them."
            )
        assert cameras.times is not None
        self._times = cameras.times.tolist()
        self._generator = torch.Generator().manual_seed(seed)
        self._means_at = means_at
        placed = cameras.to(device, torch.float32)
        self._viewmats, self._Ks = placed.viewmats, placed.Ks_norm
        self._places = tracks.places.to(device)
        seen = tracks.visible > _SEEN
        seen &= ((tracks.places >= 0) & (tracks.places < 1)).all(-1)
        self._seen = seen.to(device)
        shared = seen.long() @ seen.long().T
        self._others = {
            view: [u for u in training if shared[view, u] and self._times[u] != self._times[view]]
            for view in training
        }
        if not any(self._others.values()):
            raise InvalidInputError(
                "tracks: none is visible in two pictures of different times that are fitted; check "
                "that tracks and images belong together and are in the same order."
            )
        self._target: int | None = None

    def features(self, view: int) -> Float[Tensor, "n 3"]:
        """Where all Gaussians are at the time of the picture that this one is compared with."""
        others = self._others[view]
        if not others:
            self._target = None
            return self._means_at(self._times[view])
        chosen = int(torch.randint(len(others), (), generator=self._generator))
        self._target = others[chosen]
        return self._means_at(self._times[self._target])

    def loss(
        self, view: int, cover: Float[Tensor, "1 1 h w"], drawn: Float[Tensor, "1 3 h w"]
    ) -> Float[Tensor, ""]:
        """Mean distance of the tracks' places from where the Gaussians drawn there go.

        Args:
            view: the picture that was drawn.
            cover: how much of each pixel is of Gaussians that move.
            drawn: the features of these, as they were blended.
        """
        if self._target is None:
            return drawn.new_zeros(())
        both = self._seen[view] & self._seen[self._target]
        here, there = self._places[view, both], self._places[self._target, both]
        grid = (2 * here - 1)[None, None]
        covered = _sampled(cover, grid)
        points = _sampled(drawn, grid) / covered.clamp_min(_LEAST_COVER)
        viewmat = self._viewmats[self._target]
        local = points @ viewmat[:3, :3].T + viewmat[:3, 3]
        flat = local @ self._Ks[self._target].T
        ahead = (local[:, 2:] > _LEAST_DEPTH) & (covered > _SEEN)
        went = flat[:, :2] / local[:, 2:].clamp_min(_LEAST_DEPTH)
        # Far out of the picture a wrong depth counts no more than it must.
        away = torch.where(ahead, (went - there).abs(), 0.0).clamp_max(1.0)
        return away.sum() / max(1, len(here))


def _sampled(maps: Float[Tensor, "1 c h w"], grid: Tensor) -> Float[Tensor, "p c"]:
    return F.grid_sample(maps, grid, align_corners=False, padding_mode="border")[0, :, 0].T
