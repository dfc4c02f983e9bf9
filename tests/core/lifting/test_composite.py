"""Compositing against the sum over all pixels and Gaussians, in values and in gradients."""

import dataclasses
import importlib

import pytest
import torch

from genxd_core.lifting.projection import project
from genxd_core.lifting.rasterize import rasterize_tensors
from tests.core.lifting.splat_scenes import BACKENDS, naive_picture, random_scene, scene_camera
from tests.support import assert_same_up_to, seeded

# Sizes that are no multiples of a tile, with depths and shapes of all kinds.
CASES = [(40, 36, 150), (67, 45, 400)]
TILES = [4, 8, 16]


def leaves(count, seed=0):
    """Means, quats, scales, opacities and three more values per Gaussian, all with gradients."""
    scene = random_scene(count, seed=seed)
    values = torch.rand(count, 3, generator=seeded(seed + 1), dtype=torch.float64)
    given = (scene.means, scene.quats, scene.scales, scene.opacities, values)
    return [tensor.clone().requires_grad_() for tensor in given]


def view(width, height, skew=0.0):
    camera = scene_camera(skew=skew)
    return {
        "viewmat": camera.viewmats[0],
        "K": camera.Ks(width, height)[0],
        "width": width,
        "height": height,
    }


def composite_with(backend, tensors, seen, tile_size=None):
    """(C + 2, H, W) like `naive_picture`, by one backend."""
    module = importlib.import_module(f"genxd_core.lifting.composite_{backend}")
    size = {"width": seen["width"], "height": seen["height"]}
    projection = project(*tensors[:4], seen["viewmat"], seen["K"], **size)
    depths = projection.depths[:, None]
    values = torch.cat([tensors[4], depths, torch.ones_like(depths)], 1)
    return module.composite(projection, tensors[3], values, **size, tile_size=tile_size)


def gradients(picture, tensors, seed=5):
    weights = torch.randn(picture.shape, generator=seeded(seed), dtype=torch.float64)
    return torch.autograd.grad((picture * weights.to(picture)).sum(), tensors)


@pytest.mark.parametrize("tile_size", TILES)
@pytest.mark.parametrize(("width", "height", "count"), CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_picture_and_gradients_are_those_of_the_naive_sum(backend, width, height, count, tile_size):
    seen = view(width, height)
    tensors = leaves(count)
    expected = naive_picture(*tensors, **seen)
    picture = composite_with(backend, tensors, seen, tile_size)
    assert float(expected[-1].detach().max()) > 0.99, "some pixels should be full"
    assert_same_up_to(
        picture.detach(), expected.detach(), 3e-14 * float(expected.detach().abs().max())
    )
    for actual, right in zip(
        gradients(picture, tensors), gradients(expected, tensors), strict=True
    ):
        assert_same_up_to(actual, right, 1e-13 * float(right.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_skewed_intrinsics_are_drawn_as_the_naive_sum_draws_them(backend):
    seen = view(40, 36, skew=0.2)
    tensors = leaves(100)
    expected = naive_picture(*tensors, **seen)
    picture = composite_with(backend, tensors, seen)
    assert_same_up_to(picture.detach(), expected.detach(), 1e-13)
    for actual, right in zip(
        gradients(picture, tensors), gradients(expected, tensors), strict=True
    ):
        assert_same_up_to(actual, right, 1e-13 * float(right.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compositing_passes_gradcheck(backend):
    """Without the projection: the hand-written backward alone."""
    module = importlib.import_module(f"genxd_core.lifting.composite_{backend}")
    seen = view(9, 7)
    tensors = leaves(8, seed=3)
    size = {"width": 9, "height": 7}
    with torch.no_grad():
        fixed = project(*tensors[:4], seen["viewmat"], seen["K"], **size)

    def drawn(means2d, conics, opacities, values):
        projection = dataclasses.replace(fixed, means2d=means2d, conics=conics)
        return module.composite(projection, opacities, values, **size)

    given = [fixed.means2d, fixed.conics, tensors[3], tensors[4]]
    given = [tensor.detach().clone().requires_grad_() for tensor in given]
    assert torch.autograd.gradcheck(drawn, given, eps=1e-7, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_everything_agree_with_central_differences(backend):
    scene = random_scene(80, seed=2, degree=2)
    tensors = [scene.means, scene.quats, scene.scales, scene.opacities, scene.sh]
    tensors = [tensor.clone() for tensor in tensors]
    features = torch.rand(80, 2, generator=seeded(), dtype=torch.float64)
    camera = scene_camera()
    mix = seeded(9)
    weights = torch.randn(7, 22, 26, generator=mix, dtype=torch.float64)

    def loss(*given):
        found = rasterize_tensors(
            *given[:5],
            viewmats=camera.viewmats,
            Ks=camera.Ks(26, 22),
            width=26,
            height=22,
            backend=backend,
            background=(0.2, 0.4, 0.6),
            features=given[5],
        )
        parts = [found.rgb[0], found.alpha[0], found.depth[0], found.features[0]]
        return (torch.cat(parts) * weights).sum()

    given = [*tensors, features]
    inputs = [tensor.clone().requires_grad_() for tensor in given]
    analytic = torch.autograd.grad(loss(*inputs), inputs)
    errors = []
    with torch.no_grad():
        for tensor, gradient in zip(given, analytic, strict=True):
            flat, largest = tensor.view(-1), float(gradient.abs().max())
            for place in torch.randperm(flat.numel(), generator=mix)[:20].tolist():
                kept = float(flat[place])
                sides = []
                for step in (1e-6, -1e-6):
                    flat[place] = kept + step
                    sides.append(float(loss(*given)))
                flat[place] = kept
                numeric = (sides[0] - sides[1]) / 2e-6
                errors.append(abs(numeric - float(gradient.reshape(-1)[place])) / largest)
    found = torch.tensor(errors)
    assert float(found.median()) < 1e-7
    # A pixel that crosses 1/255 within the step is off by more.
    assert float((found < 1e-5).double().mean()) > 0.97


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_agrees_with_float64(backend, count):
    seen = view(67, 45)
    tensors = leaves(300, seed=count)
    expected = composite_with("torch", tensors, seen)
    single = [tensor.detach().float().requires_grad_() for tensor in tensors]
    seen32 = {**seen, "viewmat": seen["viewmat"].float(), "K": seen["K"].float()}
    picture = composite_with(backend, single, seen32)
    assert picture.dtype == torch.float32
    assert_same_up_to(
        picture.detach(), expected.detach(), 2e-5 * float(expected.detach().abs().max())
    )
    for actual, right in zip(gradients(picture, single), gradients(expected, tensors), strict=True):
        assert_same_up_to(actual, right, 2e-5 * float(right.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_are_the_same_bit_for_bit_in_every_run(backend):
    seen = view(67, 45)
    seen32 = {**seen, "viewmat": seen["viewmat"].float(), "K": seen["K"].float()}
    single = [tensor.detach().float().requires_grad_() for tensor in leaves(400)]
    runs = []
    for _ in range(2):
        picture = composite_with(backend, single, seen32)
        runs.append([picture, *gradients(picture, single)])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_pixels_let_the_last_ten_thousandth_through(backend):
    """Ten opaque layers: the second would leave 1e-6 and is not drawn; gradients stop there too."""
    tensors = [
        torch.cat([torch.zeros(10, 2), torch.linspace(0, 1, 10)[:, None]], 1).double(),
        torch.tensor([[1.0, 0, 0, 0]]).double().expand(10, 4).clone(),
        torch.full((10, 3), 0.5).double(),
        torch.full((10,), 1.0).double(),
        torch.eye(10).double(),
    ]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    viewmat = torch.eye(4).double()
    viewmat[2, 3] = 2.0
    K = torch.tensor([[8.0, 0, 4.5], [0, 8, 4.5], [0, 0, 1]]).double()
    seen = {"viewmat": viewmat, "K": K, "width": 9, "height": 9}
    picture = composite_with(backend, tensors, seen)
    middle = picture[:, 4, 4]
    assert middle.detach()[[0, 1, -1]].tolist() == pytest.approx([0.999, 0.0, 0.999])
    (by_value,) = torch.autograd.grad(middle[:10].sum(), [tensors[4]])
    assert float(by_value[0, 0]) == pytest.approx(0.999)
    assert float(by_value[1:].abs().max()) == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_that_are_too_large_or_none_harm_no_others(backend):
    """A fit that diverges meets them; what cannot be drawn is left out."""
    tensors = [tensor.detach().float() for tensor in leaves(12)]
    tensors[0][0] = 1e30
    tensors[0][1] = float("nan")
    tensors[2][2] = 1e30
    tensors[2][3] = float("inf")
    tensors[1][4] = float("nan")
    tensors[3][5] = float("nan")
    tensors[2][6] = 1e7
    seen = view(40, 36)
    seen32 = {**seen, "viewmat": seen["viewmat"].float(), "K": seen["K"].float()}
    picture = composite_with(backend, tensors, seen32)
    assert torch.isfinite(picture[:, 0, 0]).all()
    expected = naive_picture(*(tensor.double()[6:] for tensor in tensors), **seen)
    assert_same_up_to(picture, expected, 1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_splats_that_cover_everything_are_drawn_in_every_tile(backend):
    seen = view(37, 29)
    tensors = [
        torch.tensor([[0.0, 0, 0]]).double(),
        torch.tensor([[1.0, 0, 0, 0]]).double(),
        torch.tensor([[50.0, 50, 50]]).double(),
        torch.tensor([0.5]).double(),
        torch.ones(1, 3).double(),
    ]
    picture = composite_with(backend, tensors, seen)
    assert_same_up_to(picture[-1], torch.full((29, 37), 0.5), 1e-2)
    assert_same_up_to(picture, naive_picture(*tensors, **seen), 1e-12)


def test_needles_keep_their_digits_in_float32():
    """Long and thin, where a determinant would be a small difference of large numbers."""
    tensors = [
        torch.tensor([[0.0, 0, 0]]).double(),
        torch.tensor([[0.9, 0, 0, 0.4]]).double(),
        torch.tensor([[1.5, 1e-4, 1e-4]]).double(),
        torch.tensor([0.9]).double(),
        torch.ones(1, 3).double(),
    ]
    seen = view(96, 96)
    size = {"width": 96, "height": 96}
    exact = project(*tensors[:4], seen["viewmat"], seen["K"], **size)
    single = [tensor.float() for tensor in tensors[:4]]
    rough = project(*single, seen["viewmat"].float(), seen["K"].float(), **size)
    relative = (rough.conics.double() - exact.conics) / exact.conics.abs().max()
    assert float(relative.abs().max()) < 1e-5
