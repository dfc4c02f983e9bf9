"""The random-feature distance: a distance, the same for a seed, and what it is made of."""

import pytest
import torch
from safetensors.torch import save_file

from genxd_core.errors import InvalidInputError
from genxd_core.evaluation.random_features import RandomFeatures, picture_distance
from genxd_core.lifting.backbones import BACKBONES
from genxd_core.lifting.losses import check_pair
from tests.support import assert_same_up_to, seeded


def pictures(count=2, size=24, seed=0):
    coarse = torch.rand(count, 3, 4, 4, generator=seeded(seed))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="nearest")


def test_equal_pictures_are_at_no_distance_and_sides_may_be_swapped():
    distance, a, b = RandomFeatures(), pictures(), pictures(seed=1)
    assert distance(a, a).tolist() == [0.0, 0.0]
    assert_same_up_to(distance(a, b), distance(b, a), 1e-6)
    assert float(distance(a, b).min()) > 0.1


def test_distance_is_of_every_picture_by_itself():
    distance, a, b = RandomFeatures(), pictures(3), pictures(3, seed=1)
    assert_same_up_to(distance(a, b)[1:2], distance(a[1:2], b[1:2]), 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_more_damage_is_farther(seed):
    distance, a = RandomFeatures(seed), pictures()
    noise = torch.randn(a.shape, generator=seeded(5))
    for damage in (
        lambda amount: a + 0.15 * amount * noise,
        lambda amount: a.roll(2 * amount, dims=-1),
        lambda amount: a * (1 - 0.2 * amount),
    ):
        found = torch.stack([distance(a, damage(amount).clamp(0, 1)) for amount in (0, 1, 2)])
        assert bool((found.diff(dim=0) > 0).all())


def test_seed_decides():
    a, b = pictures(), pictures(seed=1)
    assert torch.equal(RandomFeatures(4)(a, b), RandomFeatures(4)(a, b))
    assert not torch.equal(RandomFeatures(4)(a, b), RandomFeatures(5)(a, b))


def test_one_layer_by_hand():
    distance = RandomFeatures(widths=(2,))
    ((weight, bias),) = distance.layers
    a, b = pictures(1, 4), pictures(1, 4, seed=1)

    def unit(picture, row, column):
        total = bias.double().clone()
        for y in range(3):
            for x in range(3):
                at = (row + y - 1, column + x - 1)
                if 0 <= min(at) and max(at) < 4:
                    value = (picture[0, :, at[0], at[1]].double() - 0.5) / 0.25
                    total += weight[:, :, y, x].double() @ value
        total = total.clamp_min(0)
        return total / total.norm().clamp_min(1e-10)

    places = [(row, column) for row in range(4) for column in range(4)]
    expected = sum(float((unit(a, *p) - unit(b, *p)).square().sum()) for p in places) / 16
    assert float(distance(a, b)) == pytest.approx(expected, abs=1e-5)


def test_wrong_pictures_are_refused():
    with pytest.raises(InvalidInputError, match="4 x 24 pixels; expected at least 8 x 8"):
        RandomFeatures()(pictures()[..., :4], pictures()[..., :4])
    with pytest.raises(InvalidInputError, match="have shapes"):
        RandomFeatures()(pictures(1), pictures(2))


def test_without_weights_the_name_is_plain():
    name, distance = picture_distance()
    assert name == "random_feature_distance"
    assert isinstance(distance, RandomFeatures)


def test_with_weights_it_is_lpips(tmp_path):
    shapes = BACKBONES["alex"].shapes
    state = {key: 0.05 * torch.randn(shape, generator=seeded()) for key, shape in shapes.items()}
    save_file(state, tmp_path / "alexnet.safetensors")
    name, distance = picture_distance(tmp_path / "alexnet.safetensors")
    assert name == "lpips_alex"
    a, b = pictures(size=40), pictures(size=40, seed=1)
    check_pair(a, b)
    assert distance(a, a).tolist() == [0.0, 0.0]
    assert float(distance(a, b).min()) > 0
