"""What structure from motion finds out about a clip, and how it is judged (Sec. 3.1).

That all frames are registered with a small error says nothing about whether the cameras are right:
only the masks of what moves do. What can be told from a model is told by `judge`.

Dimension letters: n observations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from jaxtyping import Float, Shaped
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.undistort import distort, undistort_images
from ..data.clip_file import RejectReason
from ..errors import InvalidInputError
from ..lifting.point_cloud import PointCloud

__all__ = [
    "Mapper",
    "MapperTry",
    "SfmResult",
    "SfmThresholds",
    "SparseDepth",
    "WindowJoin",
    "explain",
    "judge",
]

Mapper = Literal["global", "incremental"]

_INVERSE_ROUNDS = 30


@dataclass(frozen=True, eq=False)
class SparseDepth:
    """Depths that the model knows in one frame: points in at least 3 frames, within 2 pixels.

    Attributes:
        places: x right and y down where the point was observed, in pixels of the given pictures;
            the first pixel's middle is (0.5, 0.5).
        depth: along the optical axis (z), in the model's unit.
    """

    places: Float[Tensor, "n 2"]
    depth: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.depth)


@dataclass(frozen=True, kw_only=True)
class MapperTry:
    """What one mapper made of one window of frames.

    Attributes:
        mapper: its name.
        window: number of the window.
        frames: of the window.
        registered: frames with a camera in its largest model; 0 where there is none.
        points: of that model.
        reprojection_error_px: mean over its points; ``None`` without a model.
        models: that it came to.
        seconds: that it took.
        chosen: whether its model was taken.
    """

    mapper: Mapper
    window: int
    frames: int
    registered: int
    points: int
    reprojection_error_px: float | None
    models: int
    seconds: float
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class WindowJoin:
    """How well one window of a long clip fits to those before it.

    Attributes:
        window: number of the window that was moved.
        shared_frames: registered in both.
        shared_points: observations with a point in both, which gave the scale.
        scale: that it was multiplied by.
        shift: median distance of the centres of the shared frames after it, as a fraction of the
            diameter of both paths.
        rotation_deg: median angle between the rotations of the shared frames after it.
        joined: whether it was near enough to be used.
    """

    window: int
    shared_frames: int
    shared_points: int
    scale: float
    shift: float
    rotation_deg: float
    joined: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class SfmResult:
    """Cameras and points of a clip, in a unit of length that nothing fixes.

    Attributes:
        frames: that were given.
        size: (width, height) of the given pictures.
        registered: indices of the frames with a camera, ascending.
        cameras: of these frames, OpenCV axes, with times index / (frames - 1); ``None`` without a
            model. Intrinsics are those of the lens: with ``distortion`` see `undistorted`.
        distortion: of each of these frames, coefficients by name as
            `genxd_core.cameras.undistort` takes them; empty mappings for pinholes.
        points: of the model; ``None`` where there are none.
        sparse_depth: one for each registered frame.
        reprojection_error_px: mean over the points' observations, in pixels of the pictures as
            they were worked on (at most `SfmSettings.max_side` wide or high).
        triangulated_fraction: keypoints of registered frames that became points, in [0, 1].
        mapper: whose model it is; that of the first window of a long clip.
        tries: every mapper that ran, with what it came to.
        joins: of the windows of a long clip.
        mask_share: of each given frame, the part that was masked, in [0, 1].
        seconds: by stage: features, matching, calibration, mapping, all.
        seed: of all random choices.
        version: of pycolmap; empty if it was not needed.
    """

    frames: int
    size: tuple[int, int]
    registered: tuple[int, ...] = ()
    cameras: Cameras | None = None
    distortion: tuple[Mapping[str, float], ...] = ()
    points: PointCloud | None = None
    sparse_depth: tuple[SparseDepth, ...] = ()
    reprojection_error_px: float | None = None
    triangulated_fraction: float | None = None
    mapper: Mapper | None = None
    tries: tuple[MapperTry, ...] = ()
    joins: tuple[WindowJoin, ...] = ()
    mask_share: tuple[float, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    version: str = ""

    @property
    def registration_ratio(self) -> float:
        """Frames with a camera as a share of those given."""
        return len(self.registered) / max(1, self.frames)

    @property
    def models(self) -> int:
        """Models of the mappers whose model was taken; more than windows: the clip fell apart."""
        return sum(one.models for one in self.tries if one.chosen)

    @property
    def focal_norm(self) -> float | None:
        """Median focal length as a fraction of the pictures' smaller side."""
        if self.cameras is None:
            return None
        focal_px = self.cameras.Ks_norm[:, 0, 0].median() * self.size[0]
        return float(focal_px) / min(self.size)

    def undistorted(
        self, images: Shaped[Tensor, "..."]
    ) -> tuple[Float[Tensor, "r 3 h w"], "SfmResult"]:
        """Pictures that pinhole cameras would have taken, and the result that belongs to them.

        Everything that works with `Cameras` takes pinholes. Masks and depth maps must go through
        `genxd_core.cameras.undistort_images` in the same way (with these ``cameras`` and this
        ``distortion``).

        Args:
            images: the given frames, or the registered ones alone; (T, 3, H, W) in [0, 1].

        Returns:
            The registered frames, and the result with pinhole cameras, no distortion and moved
            places of its sparse depth. A result without distortion stays as it is.

        Raises:
            InvalidInputError: another number or size of pictures, or a lens that folds the picture
                over itself.
        """
        pictures = self._registered_of(images)
        if self.cameras is None or not any(self.distortion):
            return pictures, self
        lens = self.cameras
        pictures, pinholes = undistort_images(pictures, lens.Ks_norm, self.distortion)
        moved = tuple(
            replace(depth, places=_without_lens(depth.places, before, after, lens_of))
            for depth, before, after, lens_of in zip(
                self.sparse_depth,
                lens.Ks(*self.size),
                Cameras(lens.c2w, pinholes).Ks(*self.size),
                self.distortion,
                strict=True,
            )
        )
        cameras = Cameras(lens.c2w, pinholes, lens.times)
        plain: tuple[Mapping[str, float], ...] = tuple({} for _ in self.distortion)
        return pictures, replace(self, cameras=cameras, distortion=plain, sparse_depth=moved)

    def _registered_of(self, images: Tensor) -> Tensor:
        width, height = self.size
        count = len(images)
        fits = images.shape[1:] == (3, height, width)
        if not fits or count not in (self.frames, len(self.registered)):
            raise InvalidInputError(
                f"images has shape {tuple(images.shape)}; expected the {self.frames} pictures that "
                f"the cameras were estimated of, ({self.frames}, 3, {height}, {width})."
            )
        return images[list(self.registered)] if count == self.frames else images


def _without_lens(places: Tensor, lens: Tensor, pinhole: Tensor, of: Mapping[str, float]) -> Tensor:
    """Where a pinhole shows what a lens shows at ``places``, pixels."""
    seen = (places - lens[:2, 2]) / lens[[0, 1], [0, 1]]
    straight = seen
    # The lens moves points little: what it adds is taken away until that agrees with itself.
    for _ in range(_INVERSE_ROUNDS):
        straight = straight + seen - distort(straight, of)
    return straight * pinhole[[0, 1], [0, 1]] + pinhole[:2, 2]


@dataclass(frozen=True, kw_only=True)
class SfmThresholds:
    """When a clip is rejected; the paper is silent on all of them.

    Attributes:
        min_frames: a clip needs so many; the default is a training sample's.
        max_mask_share: a frame counts as covered above this part of it.
        min_registered: share of the frames that must have a camera.
        min_triangulated: least triangulated fraction. A camera that only turns gets a full but
            meaningless model with one of about 0.04; good clips have more than 0.4.
        max_reprojection_error_px: largest mean error.
    """

    min_frames: int = 12
    max_mask_share: float = 0.9
    min_registered: float = 1.0
    min_triangulated: float = 0.15
    max_reprojection_error_px: float = 1.5


def judge(result: SfmResult, thresholds: SfmThresholds | None = None) -> RejectReason | None:
    """Why a clip's cameras are not to be used; ``None`` where nothing speaks against them.

    Args:
        result: of `estimate_cameras`.
        thresholds: `SfmThresholds` by default.

    Returns:
        The first of too_few_frames, mask_covers_frame, no_reconstruction, low_triangulation,
        partial_registration and high_reprojection_error that holds. `explain` puts it in words.
    """
    limits = SfmThresholds() if thresholds is None else thresholds
    if result.frames < limits.min_frames:
        return "too_few_frames"
    if _is_covered(result, limits):
        return "mask_covers_frame"
    if result.cameras is None:
        return "no_reconstruction"
    fraction, error = result.triangulated_fraction, result.reprojection_error_px
    if fraction is None or not fraction >= limits.min_triangulated:
        return "low_triangulation"
    if result.registration_ratio < limits.min_registered:
        return "partial_registration"
    if error is None or not error <= limits.max_reprojection_error_px:
        return "high_reprojection_error"
    return None


def explain(
    reason: RejectReason, result: SfmResult, thresholds: SfmThresholds | None = None
) -> str:
    """A plain sentence on one of the reasons of `judge`.

    Raises:
        InvalidInputError: a reason that `judge` does not give.
    """
    limits = SfmThresholds() if thresholds is None else thresholds
    covered = _covered(result, limits)
    sentences = {
        "too_few_frames": f"The clip has {result.frames} frames; {limits.min_frames} are needed.",
        "mask_covers_frame": (
            f"What may move covers more than {limits.max_mask_share:.0%} of {len(covered)} of "
            f"{result.frames} frames; too little is left to tell the camera's motion from."
        ),
        "no_reconstruction": (
            "No model of the still parts was found; the camera may stand still, or the pictures "
            "show too little structure."
        ),
        "low_triangulation": (
            f"Only {result.triangulated_fraction or 0.0:.0%} of the keypoints became points "
            f"(at least {limits.min_triangulated:.0%} are expected); a camera that turns on the "
            "spot looks like this, and its model means nothing."
        ),
        "partial_registration": (
            f"Only {len(result.registered)} of {result.frames} frames got a camera "
            f"(at least {limits.min_registered:.0%} must)."
        ),
        "high_reprojection_error": (
            f"The points lie {result.reprojection_error_px or 0.0:.2f} pixels beside where they "
            f"were seen on average; {limits.max_reprojection_error_px:g} are allowed."
        ),
    }
    if reason not in sentences:
        raise InvalidInputError(
            f"reason is {reason!r}; expected one of structure from motion: {', '.join(sentences)}."
        )
    return sentences[reason]


def _covered(result: SfmResult, limits: SfmThresholds) -> list[int]:
    return [frame for frame, share in enumerate(result.mask_share) if share > limits.max_mask_share]


def _is_covered(result: SfmResult, limits: SfmThresholds) -> bool:
    """Half of the frames are covered, or a frame without a camera is."""
    covered = _covered(result, limits)
    lost = set(range(result.frames)) - set(result.registered)
    return 2 * len(covered) >= max(1, result.frames) or bool(lost & set(covered))
