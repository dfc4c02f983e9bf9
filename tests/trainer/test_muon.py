"""Muon: its iterations, its steps, and that it finds a minimum."""

import torch

from tests.support import seeded
from trainer.muon import Muon, orthogonalised


def test_orthogonalised_matrix_has_nearly_equal_singular_values():
    for shape in ((8, 20), (20, 8)):
        for dtype in (None, torch.bfloat16):
            out = orthogonalised(torch.randn(shape, generator=seeded()), dtype=dtype)
            values = torch.linalg.svdvals(out)
            assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_muon_treats_every_weight_as_if_it_were_alone():
    shapes = [(4, 6), (4, 2, 3), (6, 4), (4, 6)]
    starts = [torch.randn(shape, generator=seeded(i)) for i, shape in enumerate(shapes)]

    def stepped(values):
        parameters = [torch.nn.Parameter(value.clone()) for value in values]
        optimizer = Muon(parameters, lr=0.1)
        sum(parameter.pow(3).sum() for parameter in parameters).backward()
        optimizer.step()
        return [parameter.detach() for parameter in parameters]

    alone = [stepped([start])[0] for start in starts]
    for together, one in zip(stepped(starts), alone, strict=True):
        torch.testing.assert_close(together, one)


def test_muon_finds_a_minimum():
    target = torch.randn(4, 6, generator=seeded())
    weight = torch.nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon([weight], lr=0.1)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    assert float((weight - target).detach().abs().max()) < 0.05
