"""Which frames a clip takes of a scene."""

import pytest

from genxd_core.data.sampling import FrameSampling, draw_frames
from genxd_core.data.scene import BrokenSceneError, MeasuredMotion
from genxd_core.errors import InvalidInputError
from tests.support import seeded


def drawn(count, views, kind="3d", *, ordered=True, seed=0, **settings):
    rng = seeded(seed)
    return draw_frames(count, views, kind, FrameSampling(**settings), rng, ordered=ordered)


def test_frames_keep_one_stride_and_stay_inside():
    strides = set()
    for seed in range(50):
        clip = drawn(30, 6, strides=(1, 2, 5), seed=seed, reverse=0.0)
        gaps = {b - a for a, b in zip(clip.indices, clip.indices[1:], strict=False)}
        assert gaps == {clip.stride}
        assert clip.indices[0] >= 0
        assert clip.indices[-1] < 30
        strides.add(clip.stride)
    assert strides == {1, 2, 5}


def test_moving_clips_never_run_backwards():
    assert drawn(6, 6, kind="3d", reverse=1.0).indices == (5, 4, 3, 2, 1, 0)
    assert drawn(6, 6, kind="4d", reverse=1.0).indices == (0, 1, 2, 3, 4, 5)


def test_clip_may_have_to_begin_at_the_first_frame():
    assert {drawn(30, 6, kind="4d", start="first", seed=s).indices[0] for s in range(10)} == {0}


def test_scene_too_short_for_the_strides_is_taken_as_wide_as_it_allows():
    assert drawn(8, 4, strides=(5,), reverse=0.0, start="first").stride == 2


def test_views_without_an_order_come_in_any():
    clips = [drawn(12, 5, ordered=False, seed=s).indices for s in range(20)]
    assert all(len(set(clip)) == 5 for clip in clips)
    assert any(list(clip) != sorted(clip) for clip in clips)


def test_same_seed_draws_the_same_frames():
    assert drawn(100, 8, strides=(1, 2, 3), seed=7) == drawn(100, 8, strides=(1, 2, 3), seed=7)


def test_scene_with_too_few_frames_is_broken():
    with pytest.raises(BrokenSceneError, match="the scene has 3 frames, expected at least 4"):
        drawn(3, 4)


def test_strength_grows_with_the_gap():
    assert MeasuredMotion(0.02, stride=2).gamma_at(3) == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"strides": ()}, "strides are"), ({"reverse": 2.0}, "reverse is 2.0")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        FrameSampling(**settings)
