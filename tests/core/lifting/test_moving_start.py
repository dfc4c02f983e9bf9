"""Where what moves starts, and its path, by the masks of one moving camera."""

import pytest
import torch

from genxd_core import Cameras, Gaussians, InvalidInputError, orbit
from genxd_core.lifting.fit_inputs import FitInputs, check_fit_inputs
from genxd_core.lifting.moving_start import moving_start
from tests.support import seeded

SIZE, FRAMES = 48, 6


def film(*, empty: int | None = None, depths: bool = False) -> tuple[FitInputs, torch.Tensor]:
    """A square before moving cameras, and its true middle at every time."""
    around = orbit(FRAMES, radius=3.0, elevation_deg=30.0, azimuth_range_deg=(0.0, 40.0)).to(
        "cpu", torch.float32
    )
    cameras = Cameras(around.c2w, around.Ks_norm, torch.linspace(0, 1, FRAMES))
    along = torch.linspace(-0.5, 0.5, FRAMES)
    middles = torch.stack([along, 0.3 * along, torch.zeros(FRAMES)], 1)
    images = torch.rand(FRAMES, 3, SIZE, SIZE, generator=seeded(2))
    masks, maps = torch.zeros(FRAMES, 1, SIZE, SIZE), torch.zeros(FRAMES, 1, SIZE, SIZE)
    for view in range(FRAMES):
        local = cameras.viewmats[view][:3, :3] @ middles[view] + cameras.viewmats[view][:3, 3]
        x, y, _ = (cameras.Ks(SIZE, SIZE)[view] @ local / local[2]).tolist()
        half = 4 if view == 2 else 3  # most of it is seen in the third frame
        if view != empty:
            rows, columns = slice(round(y) - half, round(y) + half), round(x)
            masks[view, 0, rows, columns - half : columns + half] = 1
        maps[view] = local[2]
    inputs = check_fit_inputs(
        images,
        cameras,
        masks=masks,
        depths=maps if depths else None,
        background=(1, 1, 1),
        held_out=(),
    )
    return inputs, middles


def floor() -> Gaussians:
    xy = torch.rand(4000, 2, generator=seeded(3)) * 4 - 2
    means = torch.cat([xy, torch.zeros(len(xy), 1)], 1)
    count = len(means)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1)
    ones = torch.ones(count)
    return Gaussians.from_rgb(means, quats, torch.full((count, 3), 0.02), ones, means * 0 + 0.5)


def test_with_depth_the_path_is_the_true_one():
    inputs, middles = film(depths=True)
    start, path = moving_start(inputs, None, 50, seeded(0))
    assert path is not None
    assert start.kind == "depth"
    assert not path.guessed
    torch.testing.assert_close(path.offsets, middles - middles[2], rtol=0, atol=0.06)
    torch.testing.assert_close(start.means.mean(0), middles[2], rtol=0, atol=0.08)


def test_without_depth_it_follows_what_stands_around():
    inputs, middles = film()
    start, path = moving_start(inputs, floor(), 50, seeded(0))
    assert path is not None
    assert path.guessed
    error = (path.offsets - (middles - middles[2])).norm(dim=-1)
    assert float(error.max()) < 0.15
    assert float((start.means.mean(0) - middles[2]).norm()) < 0.4


def test_where_it_is_out_of_sight_it_goes_straight_on():
    inputs, _ = film(empty=4, depths=True)
    _, path = moving_start(inputs, None, 50, seeded(0))
    assert path is not None
    assert path is not None
    torch.testing.assert_close(path.offsets[4], (path.offsets[3] + path.offsets[5]) / 2)


def test_with_nothing_around_and_no_depth_it_is_refused():
    inputs, _ = film()
    with pytest.raises(InvalidInputError, match="nothing tells how far away it is"):
        moving_start(inputs, None, 50, seeded(0))
