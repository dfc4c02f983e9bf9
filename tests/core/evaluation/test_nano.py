"""The figures of genxd-nano: each measure on pictures whose answer is known, and an oracle."""

import pytest
import torch
from scipy.stats import spearmanr

from genxd_core.evaluation import nano
from genxd_core.evaluation.nano import Settings
from genxd_core.evaluation.rank import spearman
from genxd_core.pipeline import GenXDPipeline
from genxd_core.synthetic import HELD_OUT, make_clips
from tests.support import seeded


class _Exact:
    """A VAE that loses nothing."""

    def encode(self, images):
        return images * 2 - 1

    def decode(self, latents):
        return latents


class Oracle(GenXDPipeline):
    """Answers with the truth: the scene's number comes with the noise's seed."""

    def __init__(self):
        self.vae = _Exact()

    def __call__(self, images, indices, cameras, *, generator, **_):
        clip = make_clips(
            [HELD_OUT + generator.initial_seed()], "nano_3d", c2w=cameras.c2w[None].clone()
        )
        assert torch.equal(clip.images[0, indices], images)
        return type("Out", (), {"frames": clip.images[0]})


class Repeater(Oracle):
    """Answers with the first given picture, whatever was asked."""

    def __call__(self, images, indices, cameras, **_):
        return type("Out", (), {"frames": images[:1].expand(len(cameras), -1, -1, -1)})


def figures(pipeline):
    return nano._Runner(pipeline, Settings(scenes=3, motion_scenes=2, training_clips=2))


@pytest.mark.parametrize("seed", range(3))
def test_spearman_is_scipys(seed):
    a, b = torch.rand(8, generator=seeded(seed)), torch.rand(8, generator=seeded(seed + 9))
    b[3] = b[5]  # a tie
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-5)


@pytest.mark.slow
def test_an_oracle_is_perfect_and_sees_both_sides():
    views = nano._view_figures(figures(Oracle()))
    assert views["single_view"] == views["three_views"] == views["vae_ceiling"] == 100.0
    assert views["gain_of_three_views"] == 0.0
    assert views["gain_over_best_baseline"] == pytest.approx(100 - views["repeat_input"])
    reversal = nano._reversal_figures(figures(Oracle()))
    assert reversal["nearer_to_own_side"] == 1.0
    left, right = reversal["mean_shift_px"]
    assert left * right < 0


def test_repeating_the_input_gains_nothing_over_itself():
    views = nano._view_figures(figures(Repeater()))
    assert views["single_view"] == views["repeat_input"]
    assert views["gain_over_best_baseline"] <= 0
    reversal = nano._reversal_figures(figures(Repeater()))
    assert reversal["opposite_shift_share"] == 0.0


@pytest.mark.parametrize("step", [-3, 0, 2])
def test_horizontal_shift_is_how_far_pictures_move(step):
    row = torch.rand(1, 3, 32, 64, generator=seeded())
    frames = torch.cat([row.roll(step * i, dims=-1) for i in range(3)])
    assert nano._horizontal_shift(frames) == pytest.approx(step)


def test_height_is_how_far_an_object_rises():
    empty = torch.full((3, 32, 32), 0.4)
    frames = empty.repeat(3, 1, 1, 1)
    for frame, top in zip(frames, (20, 12, 18), strict=True):
        frame[:, top : top + 6, 10:16] = 1.0
    assert nano._height(frames, empty) == pytest.approx(8.0, abs=1e-4)
    assert nano._height(frames[:1], empty) == 0.0


def test_ball_scenes_hold_balls_alone_and_nothing_when_emptied():
    for clip, empty in nano._ball_scenes(2):
        assert bool((clip.ids[0, 0] > 0).any())
        still = clip.ids[0, 0] == 0
        assert torch.allclose(clip.images[0, 0][:, still], empty[:, still], atol=0.6)
        assert not torch.allclose(clip.images[0, 0], empty)
