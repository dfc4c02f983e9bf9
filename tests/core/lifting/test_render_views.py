"""Views drawn one after another: the same pictures as at once, over time, and their depth."""

import pytest
import torch

import genxd_core as gx
from genxd_core import InvalidInputError
from tests.core.lifting.splat_scenes import one_splat, random_scene
from tests.support import assert_same_up_to

SIZE = {"width": 30, "height": 24, "backend": "torch"}


def path(views=3, aspect=30 / 24):
    return gx.orbit(views, radius=3.0, aspect=aspect).to(dtype=torch.float64)


@pytest.mark.parametrize("background", [None, (1.0, 0.5, 0.0), torch.eye(3)])
def test_pictures_are_those_that_are_drawn_at_once(background):
    scene = random_scene(40, degree=1)
    drawn = gx.render_views(scene, path(), background=background, **SIZE)
    expected = gx.rasterize(scene, path(), background=background, **SIZE)
    for name in ("rgb", "alpha", "depth"):
        assert_same_up_to(getattr(drawn, name), getattr(expected, name), 1e-7)
    assert drawn.features is None


def test_views_can_be_had_one_by_one():
    scene, seen = random_scene(40), []
    views = gx.draw_views(scene, path(), progress=lambda *step: seen.append(step[:2]), **SIZE)
    expected = gx.render_views(scene, path(), **SIZE)
    assert seen == []
    for view, drawn in enumerate(views):
        assert seen == [(number + 1, 3) for number in range(view + 1)]
        assert torch.is_grad_enabled()
        for name in ("rgb", "alpha", "depth"):
            assert torch.equal(getattr(drawn, name)[0], getattr(expected, name)[view])
    with pytest.raises(InvalidInputError, match="gaussians has 1 scenes for 3 cameras"):
        gx.draw_views([scene], path(), **SIZE)


def test_one_scene_for_each_camera_is_time():
    scenes = [random_scene(5 + number, seed=number) for number in range(3)]
    drawn = gx.render_views(scenes, path(), **SIZE)
    for view, scene in enumerate(scenes):
        alone = gx.rasterize(scene, path()[view], **SIZE)
        assert torch.equal(drawn.rgb[view], alone.rgb[0])


def test_scenes_without_a_camera_are_refused():
    with pytest.raises(InvalidInputError, match="gaussians has 2 scenes for 3 cameras; give one"):
        gx.render_views([random_scene(1)] * 2, path(), **SIZE)
    with pytest.raises(InvalidInputError, match="gaussians has 1 scenes for 3 cameras"):
        gx.render_views([random_scene(1)], path(), **SIZE)


def test_backgrounds_that_do_not_fit_are_refused_before_drawing():
    with pytest.raises(InvalidInputError, match=r"background has shape \(2, 3\); expected \(3,\)"):
        gx.render_views(random_scene(1), path(), background=torch.zeros(2, 3), **SIZE)


def test_no_history_is_kept_for_gradients():
    scene = random_scene(5)
    leaf = gx.Gaussians(
        scene.means.clone().requires_grad_(),
        scene.quats,
        scene.scales,
        scene.opacities,
        scene.sh,
    )
    drawn = gx.render_views(leaf, path(), **SIZE)
    assert not drawn.rgb.requires_grad


def test_progress_gets_every_picture_and_may_stop():
    told = []

    def progress(step, total, preview=None):
        told.append((step, total, preview.clone()))
        return step < 2

    with pytest.raises(gx.Cancelled, match="after step 2 of 3"):
        gx.render_views(random_scene(9), path(), progress=progress, **SIZE)
    expected = gx.rasterize(random_scene(9), path(), **SIZE).rgb
    assert [entry[:2] for entry in told] == [(1, 3), (2, 3)]
    assert_same_up_to(torch.stack([entry[2] for entry in told]), expected[:2], 1e-12)


# ---- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aspect", "given", "size"),
    [
        (1.0, (512, 0), (512, 512)),
        (16 / 9, (512, 0), (512, 288)),
        (0.75, (0, 512), (384, 512)),
        (1.5, (300, 200), (300, 200)),
        (1.5, (300, 201), (300, 201)),
        (50.0, (20, 0), (20, 1)),
    ],
)
def test_size_follows_from_the_cameras(aspect, given, size):
    assert gx.picture_size(path(aspect=aspect), *given) == size


def test_sizes_that_would_stretch_are_refused():
    with pytest.raises(InvalidInputError, match="width is 0 and height is 0; give at least one"):
        gx.picture_size(path())
    with pytest.raises(
        InvalidInputError,
        match=r"camera 0 is for pictures of width / height 1\.500, but this one's is 1\.000, .*"
        "width of 300 and a height of 200",
    ):
        gx.picture_size(path(aspect=1.5), 300, 300)
    first, last = path(1, aspect=1.5), path(1, aspect=1.0)
    both = gx.Cameras(torch.cat([first.c2w, last.c2w]), torch.cat([first.Ks_norm, last.Ks_norm]))
    with pytest.raises(
        InvalidInputError, match=r"camera 1 is for pictures of width / height 1\.000"
    ):
        gx.picture_size(both, 300)


# ---- depth --------------------------------------------------------------------------------------


def test_depth_picture_is_white_near_dark_far_and_black_where_nothing_is():
    depth = torch.zeros(2, 1, 20, 20)
    depth[0, 0, :10] = 2.0
    depth[1, 0, :10], depth[1, 0, 10:15] = 4.0, 3.0
    picture = gx.depth_picture(depth, (depth > 0).float())
    assert picture.shape == (2, 3, 20, 20)
    levels = picture[:, 0]
    assert float(levels[0, 0, 0]) == 1.0
    assert float(levels[1, 0, 0]) == pytest.approx(0.15)
    assert float(levels[1, 12, 0]) == pytest.approx((1 + 0.15) / 2)
    assert float(levels[0, 15:].max()) == float(levels[1, 15:].max()) == 0.0
    assert torch.equal(picture[:, 0], picture[:, 2])


def test_a_single_far_splat_does_not_set_the_range():
    depth = torch.linspace(2.0, 3.0, 10_000).reshape(1, 1, 100, 100)
    alpha = torch.ones_like(depth)
    plain = gx.depth_picture(depth, alpha)
    depth[0, 0, 50, 50] = 1000.0
    assert_same_up_to(gx.depth_picture(depth, alpha)[..., :40, :], plain[..., :40, :], 1e-3)


def test_depth_of_one_distance_and_of_nothing():
    there = torch.full((1, 1, 4, 4), 2.0)
    assert torch.equal(gx.depth_picture(there, torch.ones_like(there)), torch.ones(1, 3, 4, 4))
    nothing = torch.zeros(1, 1, 4, 4)
    assert torch.equal(gx.depth_picture(nothing, nothing), torch.zeros(1, 3, 4, 4))


def test_faint_rims_are_drawn_faintly():
    drawn = gx.render_views(one_splat((0, 0, 0), scale=0.3), path(1), **SIZE)
    levels = gx.depth_picture(drawn.depth, drawn.alpha)[:, :1]
    assert_same_up_to(levels, torch.where(drawn.depth > 0, drawn.alpha, 0.0), 1e-9)
