import pytest
import torch

from genxd_core.latent_preview import LatentPreview
from tests.support import assert_same_up_to, seeded


def test_preview_recovers_colours_that_are_linear_in_the_latents():
    latents = torch.randn(2, 4, 16, 16, generator=seeded())
    weights = 0.05 * torch.randn(3, 4, generator=seeded(1))
    colours = torch.einsum("kchw,rc->krhw", latents, weights) + 0.5
    images = torch.nn.functional.interpolate(colours, scale_factor=8, mode="nearest")
    preview = LatentPreview.fit(latents, images)
    assert_same_up_to(preview(latents), colours.clamp(0, 1), 0.01)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_preview_of_a_plain_picture_is_finite_and_plain(value):
    """All latents alike: nothing can be learnt but the colour."""
    latents = torch.ones(1, 4, 8, 8) * 0.2
    preview = LatentPreview.fit(latents, torch.full((1, 3, 64, 64), value))
    assert_same_up_to(preview(latents), torch.full((1, 3, 8, 8), value), 0.01)


def test_preview_stays_in_range_for_latents_far_from_those_seen():
    latents = torch.randn(1, 4, 8, 8, generator=seeded())
    preview = LatentPreview.fit(latents, torch.rand(1, 3, 64, 64, generator=seeded(1)))
    far = preview(1e3 * latents)
    assert 0 <= far.min() <= far.max() <= 1
