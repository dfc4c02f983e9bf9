"""What cameras see of Gaussians, by closed forms and by laws."""

import math

import pytest
import torch

import genxd_core as gx
from genxd_core.errors import InvalidInputError
from genxd_core.lifting.rasterize import rasterize_tensors
from tests.core.lifting.splat_scenes import BACKENDS, one_splat, random_scene, scene_camera
from tests.support import assert_same_up_to, seeded

SIZE = {"width": 41, "height": 30}


def straight_camera(cx=0.5, cy=0.5, *, views=1):
    Ks_norm = torch.tensor([[1.0, 0, cx], [0, 1.3, cy], [0, 0, 1]], dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)
    return gx.Cameras(eye.repeat(views, 1, 1), Ks_norm.repeat(views, 1, 1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("cx", "cy"), [(0.5, 0.5), (0.31, 0.62), (0.8, 0.25)])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (53, 96)])
def test_a_splat_is_where_its_centre_is_projected(width, height, cx, cy, backend):
    """No half-pixel shift: pixel (i, j) has its centre at (j + 0.5, i + 0.5)."""
    camera = straight_camera(cx, cy)
    for u, v in ((0.5, 0.5), (0.41, 0.37), (0.63, 0.58)):
        depth = 2.0 + u
        splat = one_splat(((u - cx) * depth, (v - cy) / 1.3 * depth, depth), scale=0.05)
        shown = gx.rasterize(splat, camera, width=width, height=height, backend=backend).alpha[0, 0]
        columns = (torch.arange(width) + 0.5).double()
        rows = (torch.arange(height) + 0.5).double()
        centroid = torch.stack([(shown * columns).sum(), (shown * rows[:, None]).sum()])
        centroid = centroid / shown.sum()
        assert_same_up_to(centroid, torch.tensor([u * width, v * height]).double(), 0.05)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_splat_has_the_size_of_its_projection(backend):
    """A round Gaussian on the axis: variance (f s / z)^2 + 0.3 pixels in both directions."""
    camera = gx.Cameras(
        torch.eye(4, dtype=torch.float64)[None],
        torch.tensor([[[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]], dtype=torch.float64),
    )
    splat = one_splat((0.0, 0.0, 2.0), scale=0.1)
    shown = gx.rasterize(splat, camera, width=65, height=65, backend=backend).alpha[0, 0]
    variance = (65 * 0.1 / 2) ** 2 + 0.3
    distance = torch.arange(65).double() - 32
    expected = 0.8 * torch.exp(-(distance**2) / (2 * variance))
    expected[expected < 1 / 255] = 0
    assert_same_up_to(shown[32], expected, 1e-7)
    assert_same_up_to(shown[:, 32], expected, 1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearer_splats_cover_farther_ones(backend):
    far = one_splat((0.0, 0.0, 4.0), scale=0.4, opacity=0.6, rgb=0.2)
    near = one_splat((0.0, 0.0, 2.0), scale=0.2, opacity=0.5, rgb=0.9)
    both = gx.Gaussians.concatenate([far, near])
    found = gx.rasterize(both, straight_camera(), width=41, height=31, backend=backend)
    assert float(found.rgb[0, 0, 15, 20]) == pytest.approx(0.5 * 0.9 + 0.5 * 0.6 * 0.2)
    assert float(found.alpha[0, 0, 15, 20]) == pytest.approx(0.5 + 0.5 * 0.6)
    assert float(found.depth[0, 0, 15, 20]) == pytest.approx((0.5 * 2 + 0.3 * 4) / 0.8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_is_the_splats_z_wherever_it_shows_and_0_elsewhere(backend):
    splat = one_splat((0.3, 0.1, 3.0), scale=0.2)
    found = gx.rasterize(splat, straight_camera(), **SIZE, backend=backend)
    there = found.alpha > 0
    assert 0 < int(there.sum()) < there.numel()
    assert_same_up_to(found.depth, torch.where(there, 3.0, 0.0).double(), 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_depth_are_finite_where_nothing_is(backend):
    scene = random_scene(3)
    means = scene.means.clone().requires_grad_()
    splats = gx.Gaussians(means, scene.quats, scene.scales, scene.opacities, scene.sh)
    gx.rasterize(splats, scene_camera(), **SIZE, backend=backend).depth.sum().backward()
    assert torch.isfinite(means.grad).all()
    assert means.grad.abs().max() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_background_shows_through_what_is_not_covered(backend):
    scene, cameras = random_scene(30), scene_camera()[[0, 0]]
    black = gx.rasterize(scene, cameras, **SIZE, backend=backend)
    colours = torch.tensor([[1.0, 1, 1], [0.2, 0.4, 0.6]], dtype=torch.float64)
    found = gx.rasterize(scene, cameras, **SIZE, backend=backend, background=colours)
    expected = black.rgb + (1 - black.alpha) * colours[:, :, None, None]
    assert_same_up_to(found.rgb, expected, 1e-15)
    one = gx.rasterize(scene, cameras, **SIZE, backend=backend, background=(0.2, 0.4, 0.6))
    assert_same_up_to(one.rgb[1], found.rgb[1], 1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_are_blended_as_colours_are(backend):
    scene = random_scene(50)
    features = torch.cat([scene.rgb, 10 * torch.ones(50, 2, dtype=torch.float64)], 1)
    bright = gx.Gaussians.from_rgb(
        scene.means, scene.quats, scene.scales, scene.opacities, scene.rgb
    )
    found = gx.rasterize(bright, scene_camera(), **SIZE, backend=backend, features=features)
    assert_same_up_to(found.features[:, :3], found.rgb, 1e-12)
    assert_same_up_to(found.features[:, 3:], 10 * found.alpha.expand(-1, 2, -1, -1), 1e-12)
    plain = gx.rasterize(bright, scene_camera(), **SIZE, backend=backend)
    assert plain.features is None
    assert_same_up_to(plain.rgb, found.rgb, 1e-12)
    none = gx.rasterize(bright, scene_camera(), **SIZE, backend=backend, features=features[:, :0])
    assert none.features.shape == (1, 0, 30, 41)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_all_degrees_are_seen_along_their_directions(degree):
    """One splat, two cameras on opposite sides: odd functions change their sign."""
    sh = torch.zeros(1, 16, 3, dtype=torch.float64)
    sh[0, degree**2 + degree] = 0.2  # the function of z alone
    where = one_splat((0.0, 0.0, 0.0), scale=0.3)
    splat = gx.Gaussians(where.means, where.quats, where.scales, where.opacities, sh)
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[0, 2, 3] = -2.0  # sees it along +z
    c2w[1, :3, :3] = torch.diag(torch.tensor([1.0, -1, -1]))
    c2w[1, 2, 3] = 2.0  # along -z
    cameras = gx.Cameras(c2w, straight_camera(views=2).Ks_norm)
    found = gx.rasterize(splat, cameras, width=31, height=31, backend="torch")
    seen = (found.rgb / found.alpha)[:, 0, 15, 15]
    size = math.sqrt((2 * degree + 1) / (4 * math.pi)) * 0.2
    expected = torch.tensor([0.5 + size, 0.5 + (-1) ** degree * size], dtype=torch.float64)
    assert_same_up_to(seen, expected, 1e-7)


def hidden_scene(where):
    if where == "empty":
        return random_scene(3)[:0]
    inward = scene_camera().c2w[0, :3, 2]
    offset = {"behind": -6.0 * inward, "in the camera": -2.5 * inward}.get(where)
    if offset is None:
        offset = 500.0 * scene_camera().c2w[0, :3, 0]
    tiny = one_splat(tuple(offset.tolist()), scale=1e-3)
    return gx.Gaussians.concatenate([tiny, tiny])


@pytest.mark.parametrize("where", ["empty", "behind", "far to the side"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_where_nothing_is_in_view_there_is_only_background(backend, where):
    scene = hidden_scene(where)
    means = scene.means.clone().requires_grad_()
    found = rasterize_tensors(
        means,
        scene.quats,
        scene.scales,
        scene.opacities,
        scene.sh,
        viewmats=scene_camera().viewmats,
        Ks=scene_camera().Ks(41, 30),
        **SIZE,
        backend=backend,
        background=(0.1, 0.5, 0.9),
        features=torch.ones(len(scene), 2, dtype=torch.float64),
    )
    assert found.rgb[0, :, 3, 4].tolist() == pytest.approx([0.1, 0.5, 0.9])
    assert not found.alpha.any()
    assert not found.depth.any()
    assert not found.radii.any()
    assert found.features.shape == (1, 2, 30, 41)
    (found.rgb.sum() + found.depth.sum()).backward()
    assert not means.grad.any()
    assert found.means2d_gradients().shape == (1, len(scene), 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lies_behind_the_camera_changes_nothing(backend):
    scene = random_scene(40)
    behind = hidden_scene("behind")
    both = gx.Gaussians.concatenate([behind, scene])
    alone = gx.rasterize(scene, scene_camera(), **SIZE, backend=backend)
    found = gx.rasterize(both, scene_camera(), **SIZE, backend=backend)
    assert torch.equal(found.rgb, alone.rgb)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_clear_gaussians_are_0_and_finite(backend):
    scene = random_scene(10)
    opacities = scene.opacities.clone()
    opacities[::2] = 0.0
    opacities.requires_grad_()
    splats = gx.Gaussians(scene.means, scene.quats, scene.scales, opacities, scene.sh)
    gx.rasterize(splats, scene_camera(), **SIZE, backend=backend).rgb.sum().backward()
    assert not opacities.grad[::2].any()
    assert torch.isfinite(opacities.grad).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_densification_finds_gradients_and_radii_on_the_screen(backend):
    """Moving a centre to the right by a pixel moves the picture: the gradient says by how much."""
    splats = gx.Gaussians.concatenate(
        [one_splat((0.0, 0.0, 2.0), scale=0.1), one_splat((0.0, 0.0, -2.0), scale=0.1)]
    )
    camera = straight_camera()
    means = splats.means.clone().requires_grad_()
    found = rasterize_tensors(
        means,
        splats.quats,
        splats.scales,
        splats.opacities,
        splats.rgb,
        viewmats=camera.viewmats,
        Ks=camera.Ks(41, 30),
        **SIZE,
        backend=backend,
    )
    ramp = torch.arange(41, dtype=torch.float64)
    (found.alpha * ramp).sum().backward()
    gradients = found.means2d_gradients()
    # Not quite all: what falls below 1/255 at the rim is cut off, and the cut has no gradient.
    assert float(gradients[0, 0, 0]) == pytest.approx(float(found.alpha.detach().sum()), rel=0.05)
    assert not gradients[0, 1].any()
    assert found.means2d[0, 0].tolist() == pytest.approx([20.5, 15.0])
    # x is clamped nowhere, so the chain to the world is f / z.
    assert float(means.grad[0, 0]) == pytest.approx(float(gradients[0, 0, 0]) * 41 / 2)
    reach = math.sqrt(2 * math.log(0.8 * 255))
    sigma = math.sqrt((30 * 1.3 * 0.1 / 2) ** 2 + 0.3), math.sqrt((41 * 0.1 / 2) ** 2 + 0.3)
    assert float(found.radii[0, 0]) == pytest.approx(reach * max(sigma), abs=0.05)
    assert float(found.radii[0, 1]) == 0.0
    assert found.backend == backend


def test_plain_colours_and_constant_coefficients_are_the_same():
    scene, camera = random_scene(20), scene_camera()
    tensors = (scene.means, scene.quats, scene.scales, scene.opacities)
    view = {"viewmats": camera.viewmats, "Ks": camera.Ks(41, 30), **SIZE, "backend": "torch"}
    colours = 0.5 + 0.28209479177387814 * scene.sh[:, 0]
    first = rasterize_tensors(*tensors, scene.sh, **view)
    second = rasterize_tensors(*tensors, colours.clamp_min(0), **view)
    assert_same_up_to(first.rgb, second.rgb, 1e-14)


def test_every_view_is_drawn_on_its_own():
    scene = random_scene(30)
    cameras = gx.orbit(3, radius=3.0)
    together = gx.rasterize(scene, cameras, **SIZE, backend="torch")
    for number, camera in enumerate(cameras):
        alone = gx.rasterize(scene, camera, **SIZE, backend="torch")
        assert torch.equal(together.rgb[number], alone.rgb[0])


def test_it_runs_in_inference_mode_and_without_gradients():
    with torch.inference_mode():
        found = gx.rasterize(random_scene(10), scene_camera(), **SIZE)
    assert found.rgb.shape == (1, 3, 30, 41)
    assert not gx.rasterize(random_scene(10), scene_camera(), **SIZE).rgb.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width is 0; expected 1 to 16384"),
        ({"height": 100000}, "height is 100000"),
        ({"background": (1.0, 1.0)}, r"background has shape \(2,\).*\(1, 3\)"),
        ({"background": torch.ones(2, 3)}, r"background has shape \(2, 3\)"),
        ({"features": torch.ones(4, 2)}, r"features has shape \(4, 2\) for 5 Gaussians"),
        ({"features": torch.ones(5)}, r"features has shape \(5,\)"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        gx.rasterize(random_scene(5), scene_camera(), **{**SIZE, "backend": "torch", **options})


def test_a_ball_of_splats_looks_like_a_ball():
    """A shell of opaque splats around the origin: a disc whose depth is that of the sphere."""
    points = torch.randn(4000, 3, generator=seeded(), dtype=torch.float64)
    points = torch.nn.functional.normalize(points, dim=-1)
    count = len(points)
    shell = gx.Gaussians.from_rgb(
        points,
        torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        torch.full((count, 3), 0.03),
        torch.full((count,), 0.99),
        (points + 1) / 2,
    )
    found = gx.rasterize(
        shell, gx.orbit(1, radius=3.0).to(dtype=torch.float64), width=48, height=48
    )
    assert float(found.alpha[0, 0, 24, 24]) > 0.99
    assert float(found.alpha[0, 0, 1, 1]) == 0.0
    assert float(found.depth[0, 0, 24, 24]) == pytest.approx(2.0, abs=0.06)
    # The camera stands at +Y and looks at the point (0, 1, 0) of the sphere.
    assert_same_up_to(found.rgb[0, :, 24, 24], torch.tensor([0.5, 1.0, 0.5]), 0.06)
