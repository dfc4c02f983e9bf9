"""The benchmark of moving fits measures paths in pixels, and against a scene at rest."""

import pytest
import torch

from benchmarks.fit_4d import FIRST_SCENE, on_moving_objects, path_error
from genxd_core import Gaussians
from genxd_core.synthetic import make_moving_object_views

pytestmark = pytest.mark.slow  # fits

SHAPE = {"size": 32, "num_times": 4, "num_views": 6}


@pytest.mark.parametrize("method", ["hexplane", "bases"])
def test_rows_are_of_every_scene(method):
    row = on_moving_objects(method, "test", [FIRST_SCENE, FIRST_SCENE + 1], "cpu", **SHAPE)
    assert row["scenes"] == len(row["by_scene"]) == 2
    assert row["psnr_db"] == pytest.approx(sum(row["by_scene"]) / 2, abs=0.01)
    assert row["pictures"] == 24
    assert row["seconds"] > row["static_seconds"] >= 0


def test_a_path_is_wrong_by_as_much_as_the_balls_have_moved():
    views = make_moving_object_views(FIRST_SCENE, size=64, num_times=4, num_views=4)
    seen = views.cameras[:1]
    depth = float((views.centres[0] - seen.centres).norm(dim=-1).mean())

    def balls(time: int) -> Gaussians:
        return Gaussians.from_rgb(
            views.centres[time],
            torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
            torch.full((2, 3), 0.05),
            torch.ones(2),
            torch.zeros(2, 3),
        )

    first = path_error(balls(0), views)
    # Of four times two are those of the first; the others are 0.29 off, up or down.
    pixels = 0.29 * 1.25 * 64 / depth
    assert first == pytest.approx(pixels / 2, rel=0.4)
