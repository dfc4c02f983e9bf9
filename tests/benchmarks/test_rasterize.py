"""The benchmark of rasterisers draws the same scene with every backend."""

import pytest
import torch

from benchmarks.rasterize import _holds, _line, compare, scene
from genxd_core.lifting.backends import backend_status


def test_all_backends_agree_on_the_scene():
    backends = [status.name for status in backend_status("cpu") if status.usable]
    row = compare(300, 24, backends, "cpu", runs=1)
    for backend in backends:
        assert row[backend]["forward_ms"] > 0
        assert row[backend]["with_gradients_ms"] > 0
        assert row[backend]["apart"]["picture"] < 1e-4
        assert row[backend]["apart"]["gradient"] < 1e-3
        assert _holds(row, backend)
        assert backend in _line(row, backend)


def test_mean_opacity_is_a_half():
    opacities = scene(2000, "cpu")[3]
    assert float(opacities.detach().mean()) == pytest.approx(0.5, abs=0.02)
    assert opacities.dtype == torch.float32
