"""Scenes in which some things move: rigid bases, what stands still, what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from genxd_core import (
    RECIPES_BASES,
    Cameras,
    InvalidInputError,
    fit_motion_bases,
    load_gaussians_4d,
    render_views,
    save_gaussians_4d,
)
from genxd_core.lifting.gaussians_4d import FreeValues
from genxd_core.lifting.losses import psnr
from genxd_core.lifting.motion_bases import MotionBases, cluster_means, orthonormal
from genxd_core.synthetic import HELD_OUT, SyntheticClips, make_clips, make_moving_object_views
from tests.support import seeded

pytestmark = pytest.mark.slow  # fits

TEST = RECIPES_BASES["test"]
SHORT = replace(
    TEST,
    static=replace(TEST.static, iterations=10, num_gaussians=300),
    moving=replace(TEST.moving, iterations=10, num_gaussians=100, max_gaussians=100),
)
SIZE = 40


@pytest.fixture(scope="module")
def clip() -> SyntheticClips:
    """A ball hops before a moving camera."""
    return make_clips([HELD_OUT + 5], "nano_4d", num_frames=24, size=SIZE)


@pytest.fixture(scope="module")
def masks(clip) -> Tensor:
    heights = clip.object_center[0, :, :, 2]
    moves = [index + 1 for index, h in enumerate(heights.T) if float(h.max() - h.min()) > 1e-3]
    return torch.isin(clip.ids[0], torch.tensor(moves)).float()[:, None]


def scene(clip: SyntheticClips, masks: Tensor, **changed: Any) -> Any:
    given: dict[str, Any] = {
        "images": clip.images[0],
        "cameras": clip.cameras(0),
        "masks": masks,
        "depths": clip.depth[0][:, None],
        "recipe": SHORT,
    }
    return fit_motion_bases(**(given | changed))


@pytest.fixture(scope="module")
def fitted(clip, masks):
    return scene(clip, masks, recipe="test", held_out=range(2, 24, 4))


def test_a_video_with_depth_beats_a_scene_at_rest_on_frames_it_never_saw(clip, fitted):
    unseen = torch.arange(2, 24, 4)
    drawn = render_views(
        fitted.static.gaussians,
        clip.cameras(0)[unseen],
        width=SIZE,
        height=SIZE,
        background=(1.0, 1.0, 1.0),
    )
    still = float(psnr(drawn.rgb.clamp(0, 1), clip.images[0][unseen]).mean())
    assert fitted.start == "depth"
    assert fitted.metrics["held_out_psnr"] > still + 3
    assert fitted.metrics["held_out_psnr"] > 26


def test_what_stands_still_stays_where_it_is(fitted):
    moving = int(fitted.metrics["num_moving"])
    first, later = fitted.gaussians.at(0.0), fitted.gaussians.at(0.5)
    assert torch.equal(first.means[moving:], later.means[moving:])
    # It hops, with +Z up.
    rise = (later.means - first.means)[:moving, 2].median()
    assert rise > 0.05


def test_a_video_without_depth_places_what_moves_beside_what_stands(clip, masks):
    # What is at rest must have been found, to tell of depth.
    settled = replace(SHORT, static=replace(TEST.static, iterations=100, num_gaussians=1000))
    result = scene(clip, masks, depths=None, recipe=settled)
    moving = int(result.metrics["num_moving"])
    centres = clip.object_center[0]
    moved = int((centres[..., 2].amax(0) - centres[..., 2].amin(0)).argmax())
    truth = (centres[:, moved] - clip.c2w[0, :, :3, 3]).norm(dim=-1).mean()
    ours = (result.gaussians.at(0.0).means[:moving] - clip.c2w[0, 0, :3, 3]).norm(dim=-1).mean()
    assert 0.5 < float(ours / truth) < 2


def test_objects_before_a_plain_background_need_no_static_stage():
    views = make_moving_object_views(HELD_OUT + 1, size=48, num_times=12, num_views=8)
    result = fit_motion_bases(
        views.images,
        views.cameras,
        views.masks,
        plain_background=True,
        recipe="test",
        held_out=views.held_out,
    )
    assert result.static is None
    assert result.start == "masks"
    assert result.metrics["held_out_psnr"] > 20


def test_the_same_seed_gives_the_same(clip, masks):
    first, again = scene(clip, masks), scene(clip, masks)
    assert torch.equal(first.gaussians.at(0.7).means, again.gaussians.at(0.7).means)


@pytest.mark.parametrize("last", [4, 14])
def test_stopping_keeps_the_best_so_far(clip, masks, last):
    stopped = scene(clip, masks, progress=lambda step, total, preview=None: step < last)
    assert stopped.cancelled
    assert stopped.metrics["iterations"] == last
    assert stopped.gaussians.at(1.0).means.isfinite().all()


def test_files_keep_bases(fitted, tmp_path):
    again = load_gaussians_4d(save_gaussians_4d(fitted.gaussians, tmp_path / "a.safetensors"))
    for time in (0.0, 0.31, 1.0):
        assert torch.allclose(again.at(time).means, fitted.gaussians.at(time).means, atol=1e-6)


def test_bases_start_still_and_move_rigidly():
    means = torch.randn(60, 3, generator=seeded(0))
    bases = MotionBases.around(means, times=[0.0, 0.5, 1.0], num_bases=3)
    with torch.no_grad():
        bases.turns.add_(0.3 * torch.randn(bases.turns.shape, generator=seeded(1)))
        bases.weights.copy_(bases.weights[:1].expand(60, -1))  # one body
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(60, 1)
    values = FreeValues(means, quats, torch.zeros(60, 3), torch.zeros(60))
    moved = bases(values, 0.5)
    assert torch.allclose(torch.pdist(moved.means), torch.pdist(means), atol=1e-4)
    middle = bases(values, 0.25).means
    assert not torch.allclose(middle, moved.means, atol=1e-3)
    rotations = orthonormal(bases.turns.reshape(-1, 6))
    identity = torch.eye(3).expand(len(rotations), 3, 3)
    assert torch.allclose(rotations @ rotations.mT, identity, atol=1e-5)
    assert bases.acceleration().item() > 0


def test_gradients_of_turns_are_finite_at_rest():
    means = torch.randn(20, 3, generator=seeded(0))
    bases = MotionBases(num_moving=20, times=[0.0, 1.0], num_bases=2)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(20, 1)
    moved = bases(FreeValues(means, quats, torch.zeros(20, 3), torch.zeros(20)), 1.0)
    (moved.means.square().sum() + moved.quats.square().sum()).backward()
    gradients = [value.grad for value in bases.parameters() if value.grad is not None]
    assert len(gradients) == 3
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_clusters_come_nearer_to_the_points():
    centres = torch.tensor([[0.0, 0, 0], [5, 0, 0], [0, 5, 0]])
    points = (centres[:, None] + 0.1 * torch.randn(3, 40, 3, generator=seeded(0))).view(-1, 3)
    found = cluster_means(points, 3, seeded(3))
    spread = torch.cdist(points, found).amin(1).mean()
    assert spread < torch.cdist(points, points[:1]).mean() / 2


REFUSED: dict[str, tuple[Any, str]] = {
    "empty": (lambda c, m: {"masks": torch.zeros_like(m)}, "masks are all empty"),
    "full": (lambda c, m: {"masks": torch.ones_like(m)}, "masks are all full"),
    "times": (
        lambda c, m: {"cameras": Cameras(c.c2w[0], c.Ks_norm[0])},
        "cameras have no times",
    ),
    "recipe": (lambda c, m: {"recipe": "fast"}, "recipe is 'fast'"),
    "masks": (lambda c, m: {"masks": m[:3]}, "masks has shape"),
    "no depth at all": (
        lambda c, m: {"depths": None, "plain_background": True},
        "nothing tells how far away",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(clip, masks, name):
    change, message = REFUSED[name]
    with pytest.raises(InvalidInputError, match=message):
        scene(clip, **({"masks": masks} | change(clip, masks)))


def test_masks_may_be_empty_at_some_times(clip, masks):
    hidden = masks.clone()
    hidden[10:12] = 0
    assert scene(clip, hidden).gaussians.at(0.5).means.isfinite().all()
