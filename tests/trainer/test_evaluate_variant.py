"""Figures of variants on answers that are known, and of a tiny network."""

import pytest
import torch

from genxd_core.autoencoder import Autoencoder
from genxd_core.errors import InvalidInputError
from genxd_core.evaluation.object_paths import near_path, object_path
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.unet import GenXDUNet
from genxd_core.synthetic import HELD_OUT, make_clips
from trainer import evaluate_variant as module
from trainer.camera_attention import CameraAttentionUNet
from trainer.evaluate_variant import evaluate_variant

TINY = GenXDUNetConfig.with_widths((32, 32), (2, 1))
SMALL = {"scenes": 2, "num_frames": 4, "size": 32, "steps": 1}


class Pixels(Autoencoder):
    """Latents that are pictures: nothing is lost."""

    def __init__(self):
        pass

    def encode(self, images):
        return torch.cat([images, images[:, :1]], dim=1)

    def decode(self, latents):
        return latents[:, :3] * 2 - 1


def network(kind=GenXDUNet):
    torch.manual_seed(0)
    return kind(TINY).eval().requires_grad_(False)


@pytest.fixture
def told(monkeypatch):
    """Generation that repeats the reference view, and what it was asked for."""
    calls = []

    def repeat(network, latents, c2w, Ks_norm, conditioned, **options):
        calls.append((latents, conditioned, options))
        out = latents[:, conditioned[:1]].expand(-1, latents.shape[1], -1, -1, -1).clone()
        out[:, conditioned] = latents[:, conditioned]
        return out

    monkeypatch.setattr(module, "generate", repeat)
    return calls


def means(found):
    return {name: figure["mean"] for name, figure in found["figures"].items()}


def test_repeated_view_has_its_own_figures(told):
    found = evaluate_variant(network(), Pixels(), **SMALL, parts=["views"])
    clips = make_clips([HELD_OUT, HELD_OUT + 1], "nano_3d", num_frames=4, size=32).images
    error = (clips[:, :1] - clips)[:, 1:].square().mean(dim=(2, 3, 4))
    expected = (-10 * error.log10()).mean(dim=1)
    figure = found["figures"]["single_view_psnr"]
    assert figure["by_scene"] == pytest.approx(expected.tolist(), abs=1e-3)
    assert figure["mean"] == pytest.approx(float(expected.mean()), abs=1e-3)
    assert figure["low"] <= figure["mean"] <= figure["high"]
    third = -10 * (clips[:, 0] - clips[:, 2]).square().mean(dim=(1, 2, 3)).log10()
    three = found["figures"]["three_views_psnr"]["by_scene"]
    assert three == pytest.approx(third.tolist(), abs=1e-3)
    assert [call[1] for call in told] == [[0], [0, 1, 3]]


def test_clip_that_stands_still_has_the_error_of_one(told):
    found = means(evaluate_variant(network(), Pixels(), **SMALL, parts=["motion"]))
    assert found["motion_error_px"] == pytest.approx(found["still_error_px"], abs=1e-3)
    assert found["true_motion_px"] == pytest.approx(found["still_error_px"], abs=1e-3)
    assert found["still_error_px"] > 0.5
    assert found["generated_motion_px"] == pytest.approx(0.0, abs=1e-3)
    assert found["spurious_motion_px"] == pytest.approx(0.0, abs=1e-3)
    assert found["object_seen"] == 1.0


def test_truth_has_no_motion_error(monkeypatch):
    monkeypatch.setattr(module._Run, "frames", lambda _, clips, *__: [c.images[0] for c in clips])
    found = means(evaluate_variant(network(), Pixels(), **SMALL, parts=["motion", "clips"]))
    assert found["motion_error_px"] == 0.0
    assert found["spurious_motion_px"] == pytest.approx(found["true_motion_px"])
    assert found["clip_psnr"] == 100.0
    assert found["clip_ssim"] == pytest.approx(1.0)
    assert found["clip_random_feature_distance"] == 0.0


def test_object_that_vanishes_counts_as_not_moved():
    empty = torch.full((3, 16, 16), 0.3)
    frames = empty.repeat(3, 1, 1, 1)
    frames[0, :, 4:8, 4:8] = frames[1, :, 6:10, 4:8] = 1.0
    path, seen = module._followed(frames, empty, near_path(frames, empty))
    assert path.tolist() == [[6.0, 6.0], [6.0, 8.0], [6.0, 6.0]]
    assert seen == pytest.approx(2 / 3)
    assert object_path(frames, empty)[2].tolist() == [0.0, 0.0]


def test_modes_and_strengths_are_those_of_the_protocol(told):
    options = {**SMALL, "mode_4d": "4d", "disentangled": False}
    evaluate_variant(network(), Pixels(), **options, parts=["clips", "motion"])
    assert [call[2]["mode"] for call in told] == ["4d", "4d", "3d"]
    assert all(call[2]["disentangled"] is False for call in told)
    assert float(told[0][2]["motion_strength"].min()) > 0.2
    seeds = [generator.initial_seed() for generator in told[0][2]["generator"]]
    assert seeds == [0, 1]
    told.clear()
    evaluate_variant(network(), Pixels(), **SMALL, mode_4d="3d", parts=["clips"])
    assert told[0][2]["mode"] == "3d"


def test_only_given_views_reach_the_network(told):
    evaluate_variant(network(), Pixels(), **SMALL, parts=["other_views"])
    latents, given, _ = told[0]
    assert given == [0, 1, 3]
    assert not latents[:, 2].any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [GenXDUNet, CameraAttentionUNet])
def test_tiny_network_has_all_figures_and_the_same_again(kind):
    class Halves(Pixels):
        def encode(self, images):
            small = torch.nn.functional.avg_pool2d(images, 8)
            return torch.cat([small, small[:, :1]], dim=1)

        def decode(self, latents):
            return torch.nn.functional.interpolate(latents[:, :3], scale_factor=8.0) * 2 - 1

    options = {**SMALL, "scenes": 3}
    found = evaluate_variant(network(kind), Halves(), **options, batch=2)
    again = evaluate_variant(network(kind), Halves(), **options, batch=2)
    assert found["figures"] == again["figures"]
    names = {"single_view", "three_views", "other_three_views", "clip", "still_camera"}
    for name in names:
        assert 3 < found["figures"][f"{name}_psnr"]["mean"] < 40
    assert all(len(figure["by_scene"]) == 3 for figure in found["figures"].values())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"parts": ["views", "sound"]}, "expected some of views, other_views, clips, motion"),
        ({"scenes": 0}, "scenes is 0"),
        ({"num_frames": 3}, "num_frames 3"),
        ({"mode_4d": "video"}, "mode_4d is 'video'"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, match):
    with pytest.raises(InvalidInputError, match=match):
        evaluate_variant(network(), Pixels(), **options)
