import math

import numpy as np
import pytest
import torch

from genxd_core.errors import InvalidInputError
from genxd_core.lifting.sh import (
    colours_seen_from,
    degree_of,
    rgb_to_sh0,
    rotate_sh,
    sh0_to_rgb,
    sh_basis,
)
from tests.core.cameras.builders import random_rotations
from tests.support import assert_same_up_to, seeded


def directions(count=50, seed=0):
    vectors = torch.randn(count, 3, generator=seeded(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


def by_definition(where):
    """Real harmonics with the Condon-Shortley phase, from Legendre's polynomials and angles."""
    x, y, z = where.numpy().T
    azimuth = np.arctan2(y, x)
    functions = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            m = abs(order)
            legendre = np.polynomial.legendre.Legendre.basis(degree)
            derivative = legendre.deriv(m)(z) if m else legendre(z)
            associated = (-1) ** m * (1 - z * z) ** (m / 2) * derivative
            norm = (2 * degree + 1) / (4 * math.pi)
            norm *= math.factorial(degree - m) / math.factorial(degree + m)
            turning = np.sin(m * azimuth) if order < 0 else np.cos(m * azimuth)
            factor = math.sqrt(norm) * (math.sqrt(2) if m else 1.0)
            functions.append(factor * associated * turning)
    return torch.from_numpy(np.stack(functions, -1))


def test_basis_is_the_textbooks_to_degree_3():
    where = directions()
    assert_same_up_to(sh_basis(where, 3), by_definition(where), 1e-14)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_lower_degrees_are_the_first_functions(degree):
    where = directions()
    count = (degree + 1) ** 2
    assert torch.equal(sh_basis(where, degree), sh_basis(where, 3)[:, :count])


def test_constants_are_those_of_3dgs_files():
    basis = sh_basis(torch.eye(3, dtype=torch.float64), 1)
    assert basis[0].tolist() == pytest.approx([0.28209479177387814, 0, 0, -0.4886025119029199])
    assert basis[1].tolist() == pytest.approx([0.28209479177387814, -0.4886025119029199, 0, 0])
    assert basis[2].tolist() == pytest.approx([0.28209479177387814, 0, 0.4886025119029199, 0])


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_rotated_coefficients_show_the_rotated_function(degree):
    sh = torch.randn(7, (degree + 1) ** 2, 3, generator=seeded(), dtype=torch.float64)
    where = directions()
    for turn in random_rotations(3):
        before = torch.einsum("dk,nkc->ndc", sh_basis(where, degree), sh)
        after = torch.einsum("dk,nkc->ndc", sh_basis(where @ turn.T, degree), rotate_sh(sh, turn))
        assert_same_up_to(after, before, 1e-13)


def test_rotations_of_coefficients_compose():
    sh = torch.randn(5, 16, 3, generator=seeded(), dtype=torch.float64)
    first, second = random_rotations(2)
    stepwise = rotate_sh(rotate_sh(sh, first), second)
    assert_same_up_to(stepwise, rotate_sh(sh, second @ first), 1e-13)


def test_colours_are_seen_along_the_direction_from_the_camera():
    """Degree 1 grows with z: what lies beyond the camera in +Z is brighter than what is behind."""
    sh = torch.zeros(2, 4, 3, dtype=torch.float64)
    sh[:, 2] = 0.3
    means = torch.tensor([[0.0, 0, 5], [0, 0, -1]], dtype=torch.float64)
    seen = colours_seen_from(sh, means, torch.tensor([0.0, 0, 2], dtype=torch.float64))
    step = 0.4886025119029199 * 0.3
    assert_same_up_to(seen[:, 0], torch.tensor([0.5 + step, 0.5 - step]).double(), 1e-7)


def test_colours_below_zero_are_black():
    sh = torch.full((1, 1, 3), -10.0)
    seen = colours_seen_from(sh, torch.ones(1, 3), torch.zeros(3))
    assert torch.equal(seen, torch.zeros(1, 3))


def test_base_colour_goes_there_and_back():
    rgb = torch.rand(9, 3, generator=seeded())
    assert_same_up_to(sh0_to_rgb(rgb_to_sh0(rgb)), rgb, 1e-6)


@pytest.mark.parametrize("count", [0, 2, 3, 8, 15, 17, 25])
def test_other_numbers_of_coefficients_are_refused(count):
    with pytest.raises(InvalidInputError, match=f"sh has {count} coefficients; expected"):
        degree_of(count)
