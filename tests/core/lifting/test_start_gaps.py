"""Points where none is known: on the plane of those around, and nowhere else."""

import torch

from genxd_core import Cameras, orbit
from genxd_core.lifting.start import Start, in_view
from genxd_core.lifting.start_gaps import with_gaps_filled
from tests.support import seeded

BLUE, WHITE = torch.tensor([0.2, 0.3, 0.8]), torch.ones(3)


def ground(cameras: Cameras) -> Start:
    """Points on the ground under the cameras, on one side of the world's middle alone."""
    xy = torch.rand(3000, 2, generator=seeded(1)) * 3 - 1.5
    means = torch.cat([xy, torch.zeros(len(xy), 1)], 1)[xy[:, 0] < 0.1]
    size = torch.full((len(means),), 0.02)
    return Start(means, size, BLUE.expand(len(means), 3).clone(), "points")


def looking_down() -> Cameras:
    return orbit(4, radius=2.0, elevation_deg=60.0, azimuth_range_deg=(0.0, 90.0)).to(
        "cpu", torch.float32
    )


def filled(wanted: torch.Tensor | None = None, colour: torch.Tensor = BLUE) -> tuple[Start, Start]:
    cameras = looking_down()
    start = ground(cameras)
    images = colour[:, None, None].expand(len(cameras), 3, 60, 60).clone()
    return start, with_gaps_filled(start, images, cameras, WHITE, wanted, seeded(0))


def test_gaps_are_filled_on_the_plane_of_what_is_known():
    start, found = filled()
    added = found.means[len(start) :]
    assert torch.equal(found.means[: len(start)], start.means)
    assert len(added) > 500
    on_the_other_side = added[added[:, 0] > 0.2]
    assert len(on_the_other_side) > 300
    assert float(added[:, 2].abs().quantile(0.9)) < 0.1
    assert torch.allclose(found.rgb[len(start) :], BLUE)


def test_afterwards_every_part_of_every_picture_has_a_point():
    cells = 24
    start, found = filled()
    for view in range(4):
        covered = []
        for means in (start.means, found.means):
            place, there = in_view(means, looking_down(), view)
            cell = (place[there] * cells).long()
            covered.append(len((cell[:, 0] * cells + cell[:, 1]).unique()))
        assert covered[0] < 0.8 * cells**2
        assert covered[1] == cells**2


def test_what_is_not_of_interest_and_bare_background_stay_empty():
    left = torch.zeros(4, 1, 60, 60)
    left[..., :30] = 1
    start, found = filled(wanted=left)
    _, everything = filled()
    assert 0 < len(found) - len(start) < len(everything) - len(start)
    start, found = filled(colour=WHITE)
    assert len(found) == len(start)
