"""Views to Gaussians: how good, from which starts, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from genxd_core import (
    RECIPES,
    Cameras,
    Densify,
    InvalidInputError,
    PointCloud,
    fit_gaussians,
    load_perceptual,
    rasterize,
)
from genxd_core.lifting.comparison import held_out_views
from genxd_core.lifting.recipes import adjusted_recipe
from genxd_core.lifting.start import from_depths, from_frusta, from_masks
from genxd_core.synthetic import (
    FAMILIES,
    HELD_OUT,
    Family,
    ObjectViews,
    make_clips,
    make_object_views,
)
from tests.backbones import save_random_backbone
from tests.support import seeded

SHORT = replace(RECIPES["test"], iterations=30, num_gaussians=300)


@pytest.fixture(scope="module")
def views() -> ObjectViews:
    return make_object_views(HELD_OUT + 1, size=64)


@pytest.fixture(scope="module")
def few() -> ObjectViews:
    return make_object_views(HELD_OUT + 2, size=32, num_training=6, num_held_out=2)


def fit(views: ObjectViews, **options: Any) -> Any:
    given = {"recipe": SHORT, "masks": views.masks, "held_out": views.held_out, **options}
    return fit_gaussians(views.images, views.cameras, **given)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_the_test_recipe_reaches_25_db_on_views_it_never_saw(views, backend):
    result = fit(views, recipe="test", backend=backend)

    assert result.metrics["held_out_psnr"] > 25
    assert result.metrics["held_out_psnr"] > _psnr_of_nothing(views) + 10
    assert len(result.history) == 200
    assert result.start == "masks"


def _psnr_of_nothing(views: ObjectViews) -> float:
    truth = views.images[views.held_out]
    return float(-10 * (1 - truth).square().mean((1, 2, 3)).log10().mean())


def test_a_seed_gives_the_same_gaussians(few):
    first, again, other = fit(few), fit(few), fit(few, seed=1)

    assert torch.equal(first.gaussians.means, again.gaussians.means)
    assert torch.equal(first.gaussians.sh, again.gaussians.sh)
    assert not torch.equal(first.gaussians.means, other.gaussians.means)


@pytest.mark.parametrize("start", ["masks", "points", "depth", "frusta"])
def test_the_loss_falls_from_every_start(few, start):
    cloud = PointCloud(0.5 * torch.randn(200, 3, generator=seeded(0)))
    masks = few.masks if start == "masks" else None

    result = fit(few, start=start, points=cloud, depths=few.depths, masks=masks)

    losses = [step.loss for step in result.history]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])
    assert result.start == start


@pytest.mark.parametrize("kind", ["gradient", "squeeze"])
def test_single_view_lowers_the_perceptual_distance(few, kind, tmp_path):
    model = load_perceptual(save_random_backbone(tmp_path / "squeeze.safetensors"))
    recipe = replace(RECIPES["single_view"], iterations=40, num_gaussians=300)
    view = few.held_out[0]

    def distance(result: Any) -> float:
        size = {"width": 32, "height": 32, "background": (1, 1, 1)}
        picture = rasterize(result.gaussians, few.cameras[view], **size).rgb.clamp(0, 1)
        return float(model(picture, few.images[view : view + 1]))

    perceptual = model if kind == "squeeze" else "gradient"
    first = fit(few, recipe=replace(recipe, iterations=1), perceptual=perceptual)
    last = fit(few, recipe=recipe, perceptual=perceptual)

    assert distance(last) < 0.8 * distance(first)


def test_few_view_learns_colours_by_direction_and_outlives_a_reset(few):
    density = Densify(start=20, stop=90, every=20, reset_every=40)
    recipe = replace(RECIPES["few_view"], lpips=0, iterations=120, num_gaussians=300)
    recipe = replace(recipe, max_gaussians=600, sh_every=30, densify=density)

    result = fit(few, recipe=recipe)

    assert result.gaussians.degree == 1
    assert result.gaussians.sh[:, 1:].abs().max() > 0
    assert result.metrics["held_out_psnr"] > _psnr_of_nothing(few) + 5


def test_densification_adds_up_to_the_limit(few):
    demo = RECIPES["demo"]
    recipe = replace(demo, iterations=260, num_gaussians=200, max_gaussians=400)

    result = fit(few, recipe=recipe)

    assert 200 < result.metrics["num_gaussians"] <= 400


def test_stopping_keeps_what_is_there(few):
    result = fit(few, progress=lambda step, total, preview=None: step < 12)

    assert result.cancelled
    assert result.metrics["iterations"] == 12
    assert len(result.gaussians) == 300


def test_previews_and_steps_are_reported(few):
    seen: list[Tensor] = []
    steps: list[int] = []

    def progress(step: int, total: int, preview: Tensor | None = None) -> None:
        assert total == 30
        if preview is not None:
            seen.append(preview)

    fit(few, progress=progress, on_step=lambda step: steps.append(step.iteration))

    assert steps == list(range(1, 31))
    assert seen[0].shape == (3, 32, 32)


def test_masks_that_outline_nothing_are_refused_whatever_the_start(few):
    points = PointCloud(torch.rand(50, 3, generator=seeded(0)), torch.rand(50, 3))
    for share, message in ((0.0, "masks are all empty"), (1.0, "masks are all full")):
        with pytest.raises(InvalidInputError, match=message):
            fit(few, masks=torch.full_like(few.masks, share), points=points)


def test_what_is_ignored_teaches_nothing(few):
    """A picture that is wrong where it is ignored gives the same Gaussians as the right one."""
    ignore = torch.zeros_like(few.masks)
    ignore[..., :12] = 1
    wrong = torch.where(ignore > 0, 0.5 * few.images, few.images)
    given = {
        "recipe": replace(SHORT, l1=1.0, ssim=0.0),
        "ignore": ignore,
        "points": PointCloud(
            0.5 * torch.randn(200, 3, generator=seeded(0)), torch.full((200, 3), 0.5)
        ),
    }
    right = fit_gaussians(few.images, few.cameras, **given)
    other = fit_gaussians(wrong, few.cameras, **given)
    assert torch.equal(right.gaussians.means, other.gaussians.means)
    with pytest.raises(InvalidInputError, match="ignore covers all"):
        fit_gaussians(few.images, few.cameras, recipe=SHORT, ignore=torch.ones_like(ignore))


def test_pictures_of_one_colour_are_refused(few):
    with pytest.raises(InvalidInputError, match="one colour and nothing else"):
        fit_gaussians(torch.ones_like(few.images), few.cameras, recipe=SHORT)


def test_it_works_in_inference_mode(few):
    with torch.inference_mode():
        result = fit(few)
    assert result.history[-1].loss < result.history[0].loss


def test_starts_lie_where_the_objects_are(views):
    generator = seeded(0)
    training = slice(views.num_training)
    cameras = views.cameras[training]
    hull = from_masks(views.images[training], cameras, views.masks[training], 500, generator)
    depth = from_depths(
        views.images[training], cameras, views.depths[training], None, 500, generator
    )
    spread = from_frusta(views.images[training], cameras, torch.ones(3), 500, generator)

    assert hull.means.norm(dim=-1).max() < 1.1
    assert depth.means.norm(dim=-1).max() < 1.1
    assert len(hull) == len(depth) == len(spread) == 500


def _orbit() -> tuple[Tensor, Cameras]:
    """A scene under a sky from 33 cameras of an orbit."""
    family = Family(scenes=FAMILIES["nano_3d"].scenes, paths={"orbit": 1.0})
    clips = make_clips([HELD_OUT + 1], family, num_frames=33, size=32)
    return clips.images[0], clips.cameras(0)


def test_an_object_is_looked_for_where_all_look_and_a_scene_far_away_too(views):
    cameras = views.cameras[: views.num_training]
    white = torch.ones(3)
    around = from_frusta(views.images[: len(cameras)], cameras, white, 500, seeded(0)).means
    images, path = _orbit()
    scene = from_frusta(images, path, white, 500, seeded(0))

    middle = cameras.centres.mean(0)
    radius = (cameras.centres - middle).norm(dim=-1).mean()
    assert ((around - middle).norm(dim=-1) < radius).float().mean() > 0.8
    assert scene.distance is not None
    far = (scene.means - path.centres.mean(0)).norm(dim=-1) > 3 * scene.distance
    assert 0.4 < far.float().mean() < 0.8


def test_cameras_between_those_of_a_scene_see_it_too():
    images, path = _orbit()
    between = list(range(1, len(path), 2))
    recipe = replace(RECIPES["demo"], iterations=150, num_gaussians=2000, max_gaussians=4000)
    result = fit_gaussians(images, path, recipe=recipe, held_out=between)
    assert result.start == "frusta"
    assert result.metrics["held_out_psnr"] > 27


def _away(cameras: Cameras) -> Cameras:
    """Each camera turned about its own y axis, to look outward."""
    turned = cameras.c2w.clone()
    turned[:, :3, 0] *= -1
    turned[:, :3, 2] *= -1
    return Cameras(turned, cameras.Ks_norm)


def _back_to_back(views: ObjectViews) -> dict[str, Any]:
    pair = [0, 3]
    return {"images": views.images[pair], "cameras": _away(views.cameras[pair]), "masks": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: {"images": v.images[:3]}, "3 pictures for 8 cameras"),
        (lambda v: {"images": v.images[:1], "cameras": v.cameras[:1], "masks": None}, "at least 2"),
        (lambda v: {"images": v.images * float("nan")}, "of view 0 holds NaN"),
        (lambda v: {"masks": torch.zeros_like(v.masks)}, "masks are all empty"),
        (lambda v: {"masks": torch.ones_like(v.masks)}, "masks are all full"),
        (lambda v: _back_to_back(v), "cameras do not overlap"),
        (lambda v: {"cameras": _away(v.cameras)}, "no common volume"),
        (lambda v: {"masks": v.masks[:, :, :5]}, "expected \\(8, 1, 32, 32\\)"),
        (lambda v: {"recipe": "quick"}, "recipe is 'quick'"),
        (lambda v: {"recipe": "single_view"}, "perceptual is missing"),
        (lambda v: {"start": "points"}, "no points came"),
        (lambda v: {"start": "middle"}, "start is 'middle'"),
        (lambda v: {"background": (2, 0, 0)}, "background is"),
        (lambda v: {"held_out": [9]}, "held_out names view 9"),
        (lambda v: {"held_out": range(7)}, "1 of 8 views are left"),
    ],
)
def test_bad_input_is_named(few, change, message):
    given = {"images": few.images, "cameras": few.cameras, "masks": few.masks, "recipe": SHORT}
    given |= change(few)
    with pytest.raises(InvalidInputError, match=message):
        fit_gaussians(given.pop("images"), given.pop("cameras"), **given)


def test_a_recipe_is_adjusted_in_what_is_given_alone():
    assert adjusted_recipe("few_view") == RECIPES["few_view"]
    changed = adjusted_recipe("demo", num_gaussians=50_000, lpips=0.1)
    assert changed == replace(
        RECIPES["demo"], num_gaussians=50_000, max_gaussians=50_000, lpips=0.1
    )
    with pytest.raises(InvalidInputError, match="sh_degree of the recipe is 4"):
        adjusted_recipe("demo", sh_degree=4)


def test_every_degree_is_reached_in_few_iterations(few):
    recipe = adjusted_recipe("test", iterations=12, num_gaussians=100, sh_degree=2)
    assert recipe.sh_every == 4
    sh = fit(few, recipe=recipe).gaussians.sh
    assert all(float(sh[:, at].abs().max()) > 0 for at in (1, 4))


@pytest.mark.parametrize(
    ("views", "every", "expected"), [(15, 3, [1, 4, 7, 10, 13]), (3, 8, []), (9, 0, [])]
)
def test_one_view_in_so_many_is_held_out(views, every, expected):
    assert held_out_views(views, every) == expected


def test_too_many_held_out_views_are_refused():
    with pytest.raises(InvalidInputError, match="hold_out_every is 1, which leaves 0 of 6"):
        held_out_views(6, 1)
    with pytest.raises(InvalidInputError, match="hold_out_every is -2"):
        held_out_views(6, -2)
