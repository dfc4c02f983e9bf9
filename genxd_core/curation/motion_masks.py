"""What moves by itself, told without any learned weights: flow that no camera explains.

Between two frames, everything that stands still obeys one fundamental matrix (or one homography,
where the camera only turns or the scene is mostly flat), fitted robustly to a dense Lucas-Kanade
flow. What lies far from it moves. Objects that move along the epipolar lines, such as a car ahead
of a camera that follows it, are overlooked, and so is what stands still now and moves later; what
stands out of a flat scene may be taken for moving.

Dimension letters: t frames, n points, m models.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from ..errors import InvalidInputError
from ..pictures import check_pictures
from ..progress import Progress, report
from .dense_flow import dense_flow
from .movable_masks import MovableMasks, of_one_object

__all__ = ["MotionSegmenter", "two_view_residual"]

_POINTS = 1500
_DRAWS = 400
_INLIER_PX = 1.0
_FLAT = 0.75  # a homography is enough where it explains so much of what a fundamental matrix does
_ROUGH = 6.0  # median distances
_TINY = 1e-9


class MotionSegmenter:
    """Masks of flow that does not fit the camera's motion; always of low confidence.

    Args:
        gap: frames between those that are compared; both directions are looked at.
        threshold_at_400: distance from the fitted model, in pixels of a picture 400 pixels wide,
            above which something moves.
        working_side: longer side of the pictures that flow is computed on, at most.
        seed: of the robust fit.
    """

    name = "motion"
    version = "1"
    licence = ""
    needs = ()

    def __init__(
        self,
        *,
        gap: int = 1,
        threshold_at_400: float = 1.5,
        working_side: int = 320,
        seed: int = 0,
    ) -> None:
        if gap < 1:
            raise InvalidInputError(f"gap is {gap}; expected at least 1 frame.")
        if not threshold_at_400 > 0:
            raise InvalidInputError(f"threshold_at_400 is {threshold_at_400}; expected over 0 px.")
        self.gap, self.threshold, self.seed = gap, threshold_at_400, seed
        self.working_side = working_side

    def available(self) -> str | None:
        """Always ``None``: it needs nothing."""
        return None

    def segment(
        self, images: Shaped[Tensor, "..."], *, progress: Progress | None = None
    ) -> MovableMasks:
        """Find what moves between near frames; a clip of one frame has nothing that does.

        Raises:
            InvalidInputError: no pictures.
        """
        check_pictures(images, "images")
        size = (images.shape[2], images.shape[3])
        scale = min(1.0, self.working_side / max(size))
        small = (max(16, round(size[0] * scale)), max(16, round(size[1] * scale)))
        grey = images.detach().float().cpu().mean(1, keepdim=True)
        grey = F.interpolate(grey, small, mode="bilinear", antialias=True)
        masks = torch.zeros(len(images), 1, *size, dtype=torch.bool)
        for index in range(len(images)):
            others = [j for j in (index - self.gap, index + self.gap) if 0 <= j < len(images)]
            if others:
                moving = torch.stack([self._moving(grey, index, j) for j in others]).amax(0)
                masks[index] = F.interpolate(_cleaned(moving), size, mode="nearest")[0] > 0
            report(progress, index + 1, len(images))
        return of_one_object(
            masks, name="", low_confidence=True, provider=f"{self.name} {self.version}"
        )

    def _moving(self, grey: Tensor, first: int, second: int) -> Tensor:
        pair = grey[first : first + 1], grey[second : second + 1]
        flow, back = dense_flow(*pair), dense_flow(*pair[::-1])
        residual, sure = two_view_residual(flow, back, seed=self.seed)
        if not bool(sure.any()):
            return torch.zeros(1, 1, *residual.shape)
        # Where the flow itself is rough, only what stands out of that counts.
        rough = _ROUGH * float(residual[sure].median())
        threshold = max(self.threshold * grey.shape[3] / 400, rough)
        return ((residual > threshold) & sure).float()[None, None]


def two_view_residual(
    flow: Float[Tensor, "1 2 h w"], back: Float[Tensor, "1 2 h w"], *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """How far each pixel's flow is from what a camera in a still scene can cause.

    Args:
        flow: of the first picture to the second, pixels.
        back: of the second to the first.
        seed: of the robust fit.

    Returns:
        Distances (H, W) in pixels, and where the flow agrees with the one back (H, W).
    """
    height, width = flow.shape[2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    start = torch.stack([x, y], -1).double().view(-1, 2)
    end = start + flow[0].double().permute(1, 2, 0).reshape(-1, 2)
    inside = ((end >= 0) & (end < torch.tensor([width, height]))).all(1)
    grid = (end / torch.tensor([width, height]) * 2 - 1).float()[None, None]
    returned = F.grid_sample(back, grid, align_corners=False, padding_mode="border")[0, :, 0].T
    closed = (end - start + returned.double()).norm(dim=1)
    sure = inside & (closed < 1.0 + 0.1 * (end - start).norm(dim=1))
    if int(sure.sum()) < 16:
        return torch.zeros(height, width), torch.zeros(height, width, dtype=torch.bool)
    rng = torch.Generator().manual_seed(seed)
    candidates = sure.nonzero()[:, 0]
    picked = candidates[torch.randperm(len(candidates), generator=rng)[:_POINTS]]
    away = _robust_residual(start, end, picked, rng)
    return away.float().view(height, width), sure.view(height, width)


def _robust_residual(
    start: Float[Tensor, "n 2"], end: Float[Tensor, "n 2"], picked: Tensor, rng: torch.Generator
) -> Float[Tensor, " n"]:
    """Distances of all points from the model that most of the picked ones agree on."""
    middle, spread = start.mean(0), start.std()
    a, b = (start - middle) / spread, (end - middle) / spread
    pa, pb = a[picked], b[picked]
    found = []
    for fit, distance, least in ((_fundamental, _sampson, 8), (_homography, _transfer, 4)):
        draws = torch.stack(
            [torch.randperm(len(picked), generator=rng)[:least] for _ in range(_DRAWS)]
        )
        models = fit(pa[draws], pb[draws])
        off = distance(models, pa, pb) * spread
        counts = (off < _INLIER_PX).sum(1)
        best = int(counts.argmax())
        near = off[best] < _INLIER_PX
        if int(near.sum()) >= least:
            models = torch.cat([models[best : best + 1], fit(pa[None, near], pb[None, near])])
            refined = distance(models, pa, pb) * spread
            best = int((refined < _INLIER_PX).sum(1).argmax())
        else:
            models, best = models[best : best + 1], 0
        inliers = int((distance(models[best : best + 1], pa, pb) * spread < _INLIER_PX).sum())
        found.append((inliers, distance(models[best : best + 1], a, b)[0] * spread))
    # In a flat scene one fundamental matrix fits the ground and any one shift of an object with it;
    # a homography has no such lines along which motion hides.
    return found[1][1] if found[1][0] >= _FLAT * found[0][0] else found[0][1]


def _fundamental(a: Float[Tensor, "m n 2"], b: Float[Tensor, "m n 2"]) -> Float[Tensor, "m 3 3"]:
    """Matrices F with ``b^T F a = 0`` by the eight-point method, of rank 2."""
    one = torch.ones_like(a[..., :1])
    first, second = torch.cat([a, one], -1), torch.cat([b, one], -1)
    rows = (second[..., :, None] * first[..., None, :]).flatten(-2)
    F_full = _null_vector(rows).view(-1, 3, 3)
    u, s, vh = torch.linalg.svd(F_full)
    s = s * s.new_tensor([1.0, 1.0, 0.0])
    models: Tensor = u * s[:, None] @ vh
    return models


def _homography(a: Float[Tensor, "m n 2"], b: Float[Tensor, "m n 2"]) -> Float[Tensor, "m 3 3"]:
    """Matrices H that take a to b, by the direct linear method."""
    one, zero = torch.ones_like(a[..., :1]), torch.zeros_like(a)
    first = torch.cat([a, one], -1)
    gap = torch.cat([zero, zero[..., :1]], -1)
    across = torch.cat([first, gap, -b[..., :1] * first], -1)
    down = torch.cat([gap, first, -b[..., 1:] * first], -1)
    return _null_vector(torch.cat([across, down], -2)).view(-1, 3, 3)


def _null_vector(rows: Float[Tensor, "m k 9"]) -> Float[Tensor, "m 9"]:
    vectors: Tensor = torch.linalg.eigh(rows.transpose(-1, -2) @ rows).eigenvectors
    return vectors[..., 0]


def _sampson(models: Tensor, a: Tensor, b: Tensor) -> Float[Tensor, "m n"]:
    one = torch.ones_like(a[:, :1])
    first, second = torch.cat([a, one], 1), torch.cat([b, one], 1)
    line_b, line_a = first @ models.transpose(1, 2), second @ models
    slope = (line_b[..., :2] ** 2).sum(-1) + (line_a[..., :2] ** 2).sum(-1)
    distances: Tensor = (second * line_b).sum(-1).abs() / slope.clamp_min(_TINY).sqrt()
    return distances


def _transfer(models: Tensor, a: Tensor, b: Tensor) -> Float[Tensor, "m n"]:
    moved = torch.cat([a, torch.ones_like(a[:, :1])], 1) @ models.transpose(1, 2)
    scale = moved[..., 2:]
    scale = torch.where(scale.abs() < _TINY, _TINY, scale)
    distances: Tensor = (moved[..., :2] / scale - b).norm(dim=-1)
    return distances


def _cleaned(mask: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    """Specks removed, then gaps closed."""
    share = F.avg_pool2d(mask, 5, 1, 2, count_include_pad=False)
    kept = ((share > 0.6) & (mask > 0)).float()
    grown = F.max_pool2d(kept, 9, 1, 4)
    return 1.0 - F.max_pool2d(1.0 - grown, 5, 1, 2)
