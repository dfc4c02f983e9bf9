"""The filter of animation renders: even keypoints, kept and dropped objects."""

import inspect
from functools import cache

import pytest
import torch

from genxd_core import InvalidInputError
from genxd_core.curation.animation_filter import even_keypoints, measure_animation
from tests.core.curation.textured_clips import TexturedClip, textured_clip


@cache
def render(motion: str | None) -> tuple[TexturedClip, torch.Tensor]:
    """A ball before white with its depth alone, as a renderer gives it (seed 4 has one ball)."""
    clip = textured_clip(4, motion=motion, amount=0.12, num_frames=5)
    on = clip.ids == 1
    return clip, on


def measured(motion: str | None, **options):
    clip, on = render(motion)
    images = torch.where(on[:, None], clip.images, torch.ones_like(clip.images))
    return measure_animation(images, clip.depth * on, clip.cameras, **options)


def test_keypoints_are_on_an_even_grid_of_the_object():
    mask = torch.zeros(60, 80, dtype=torch.bool)
    mask[10:50, 20:60] = True
    found = even_keypoints(mask, count=100)
    assert len(found) == 100
    # 1600 pixels for 100 points: one every 4 pixels.
    assert found[:, 0].unique().diff().tolist() == [4.0] * 9
    assert found[:, 1].unique().diff().tolist() == [4.0] * 9
    assert len(even_keypoints(mask & False, count=100)) == 0
    small = mask & (torch.arange(80) < 22) & (torch.arange(60) < 13)[:, None]
    assert len(even_keypoints(small, count=100)) == 6


def test_object_that_moves_is_kept_with_the_generators_strength():
    found = measured("slide")
    truth = float(render("slide")[0].object_strength[0])
    assert truth > 0.012
    assert found.is_kept
    assert found.reason is None
    assert found.motion.strength == pytest.approx(truth, abs=0.002)
    assert set(found.tracks.object_id.tolist()) == {1}


def test_object_that_only_the_camera_moves_around_is_dropped():
    found = measured(None)
    assert not found.is_kept
    assert found.reason == "low_motion"
    assert found.motion.strength < 0.0045


def test_threshold_is_a_setting():
    assert measured("slide", threshold=0.5).reason == "low_motion"


def test_render_without_an_object_is_dropped():
    clip, _ = render(None)
    found = measure_animation(torch.ones_like(clip.images), clip.depth * 0, clip.cameras)
    assert (found.is_kept, found.reason) == (False, "no_object")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_keypoints": 0}, "num_keypoints is 0"),
        ({"masks": torch.ones(5, 4, 4, dtype=torch.bool)}, r"masks \(or depths\) have shape"),
    ],
)
def test_renders_that_cannot_be_measured_are_refused(changes, message):
    clip, on = render(None)
    measure = inspect.unwrap(measure_animation)
    with pytest.raises(InvalidInputError, match=message):
        measure(clip.images, clip.depth * on, clip.cameras, **changes)


def test_single_picture_is_refused():
    clip, _ = render(None)
    with pytest.raises(InvalidInputError, match="single frame"):
        measure_animation(clip.images[:1], clip.depth[:1], clip.cameras[:1])
