"""The object motion field: how far keypoints are from where they would be if they stood (Eq. 3-4).

A keypoint of frame i is lifted to the world by its depth and seen from camera j. What stands still
is found there; what moves is found elsewhere, by the displacement.

Dimension letters: t frames, n samples.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ..cameras.cameras import Cameras
from ..errors import InvalidInputError
from .point_tracks import PointTracks
from .subpixel import depth_at, inside

__all__ = ["MotionField", "motion_field"]

_NEAR = 1e-2  # of the depth in camera i: what would come nearer to camera j has no place there


@dataclass(frozen=True)
class MotionField:
    """Displacements of keypoints of frame i in the picture of camera j = i + 1.

    Attributes:
        frame_i: of each sample.
        object_id: of each sample.
        xy_still: where it would be found in frame j if it stood still, (u_ij, v_ij), in pixels; it
            may lie outside of the frame.
        xy_j: where it was found there, in pixels.
        displacement: their difference (Eq. 4), x as a fraction of the width, y of the height.
        without_depth: tracks left out because the depth there is unknown.
        behind_camera: tracks left out because what stands there would be behind camera j.
        height: of the frames in pixels.
        width: of the frames in pixels.
    """

    frame_i: Int[Tensor, " n"]
    object_id: Int[Tensor, " n"]
    xy_still: Float[Tensor, "n 2"]
    xy_j: Float[Tensor, "n 2"]
    displacement: Float[Tensor, "n 2"]
    without_depth: int
    behind_camera: int
    height: int
    width: int

    @property
    def outside(self) -> int:
        """Samples that would be outside of frame j if they stood still; they count all the same."""
        within = inside(self.xy_still, height=self.height, width=self.width)
        return int((~within).sum())

    def of(self, chosen: Bool[Tensor, " n"]) -> "MotionField":
        """Some of the samples."""
        return MotionField(
            self.frame_i[chosen],
            self.object_id[chosen],
            self.xy_still[chosen],
            self.xy_j[chosen],
            self.displacement[chosen],
            self.without_depth,
            self.behind_camera,
            self.height,
            self.width,
        )

    def __len__(self) -> int:
        return len(self.frame_i)


def motion_field(
    tracks: PointTracks, depths: Float[Tensor, "t h w"], cameras: Cameras
) -> MotionField:
    """Take the camera's motion out of tracks (Eq. 3-4).

    Args:
        tracks: of a clip; only those that are kept are used.
        depths: z-depth of its frames in the units of the cameras, 0 where it is unknown.
        cameras: of its frames.

    Raises:
        InvalidInputError: depths or cameras of other frames, or depths that none are.
    """
    _check(tracks, depths, cameras)
    kept = tracks.kept
    i, object_id = tracks.frame_i[kept], tracks.object_id[kept]
    xy_i, xy_j = tracks.xy_i[kept].double(), tracks.xy_j[kept].double()
    depth = torch.zeros(len(i), dtype=torch.float64)
    for frame in i.unique().tolist():
        here = i == frame
        depth[here] = depth_at(depths[frame].detach().cpu().double(), xy_i[here])

    cameras = cameras.to("cpu", torch.float64)
    Ks, c2w = cameras.Ks(tracks.width, tracks.height), cameras.c2w
    rays = torch.linalg.solve(Ks[i], _homogeneous(xy_i)[:, :, None])
    world = c2w[i, :3, :3] @ (rays * depth[:, None, None]) + c2w[i, :3, 3:]
    in_j = cameras.viewmats[i + 1, :3, :3] @ world + cameras.viewmats[i + 1, :3, 3:]
    seen = Ks[i + 1] @ in_j
    known, ahead = depth > 0, in_j[:, 2, 0] > _NEAR * depth
    good = known & ahead
    xy_still = seen[good, :2, 0] / seen[good, 2:, 0]
    size = torch.tensor([tracks.width, tracks.height], dtype=torch.float64)
    return MotionField(
        frame_i=i[good],
        object_id=object_id[good],
        xy_still=xy_still,
        xy_j=xy_j[good],
        displacement=(xy_j[good] - xy_still) / size,
        without_depth=int((~known).sum()),
        behind_camera=int((known & ~ahead).sum()),
        height=tracks.height,
        width=tracks.width,
    )


def _homogeneous(xy: Tensor) -> Float[Tensor, "n 3"]:
    return torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1)


def _check(tracks: PointTracks, depths: Shaped[Tensor, "..."], cameras: Cameras) -> None:
    frames = len(tracks.shares)
    expected = (frames, tracks.height, tracks.width)
    if tuple(depths.shape) != expected:
        raise InvalidInputError(
            f"depths has shape {tuple(depths.shape)}; expected {expected}, a map for each frame "
            "that was tracked and of its size."
        )
    if len(cameras) != frames:
        raise InvalidInputError(
            f"cameras are {len(cameras)} for {frames} tracked frames; give one a frame."
        )
    known = depths.detach().nan_to_num(nan=0.0, posinf=0.0)
    if float(known.min()) < 0:
        raise InvalidInputError(
            "depths holds negative numbers; expected z-depth in the units of the cameras, and 0 "
            "where it is unknown."
        )
