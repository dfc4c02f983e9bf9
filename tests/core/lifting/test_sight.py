"""What hardly any camera sees is no part of an object that masks outline."""

import torch

from genxd_core import fit_gaussians
from genxd_core.lifting.sight import seen_by_half
from genxd_core.lifting.start import from_masks
from genxd_core.synthetic import HELD_OUT, make_moving_object_views
from tests.support import seeded


def test_half_of_the_cameras_must_see_it():
    views = make_moving_object_views(HELD_OUT, size=16, num_times=2, num_views=6)
    cameras = views.cameras[torch.arange(6)]
    behind_one = cameras.c2w[0, :3, 3] + 0.5 * cameras.c2w[0, :3, 2]
    means = torch.stack([torch.zeros(3), behind_one, torch.full((3,), 50.0)])
    assert seen_by_half(means, cameras).tolist() == [True, False, False]
    moved = [means if view < 3 else means.roll(1, 0) for view in range(6)]
    assert seen_by_half(moved, cameras).tolist() == [True, True, False]


def test_few_cameras_leave_nothing_beside_the_object():
    """Three of six cameras see cones beside it, in which all of their masks are."""
    views = make_moving_object_views(HELD_OUT, size=32, num_times=2, num_views=6)
    first = torch.arange(6)
    images, masks, cameras = views.images[first], views.masks[first], views.cameras[first]
    start = from_masks(images, cameras, masks, 500, seeded(0))
    assert float(start.means.norm(dim=-1).max()) < 1.2
    found = fit_gaussians(images, cameras, masks=masks, recipe="test").gaussians
    solid = found.means[found.opacities > 0.1]
    assert float(solid.norm(dim=-1).quantile(0.999)) < 1.2
