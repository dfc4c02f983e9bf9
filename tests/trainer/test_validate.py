"""Validation: figures against networks whose answers are known, and against the pipeline."""

import itertools
import math
import shutil

import pytest
import torch

import genxd_core as gx
from genxd_core.autoencoder import Autoencoder
from genxd_core.data.sample import Provenance, SceneSample
from genxd_core.errors import InvalidInputError
from genxd_core.lifting.losses import psnr, ssim
from genxd_core.model.motion_strength import gamma_to_motion_strength
from tests.nodes.scenes import mini_unet
from tests.support import REFERENCE, assert_same_up_to, seeded
from trainer.validate import HeldOutClip, ValidationSet, validate
from trainer.validation_sheet import SheetRow, SheetSample, draw_sheet

VIEWS = 5


class Oracle(gx.GenXDUNet):
    """Knows the clean latents, up to ``offset``; notes how it was called."""

    def __init__(self, clean, offset=0.0):
        super().__init__(mini_unet().config)
        self.clean, self.offset = clean, offset
        self.calls = []

    def forward(self, sample, timestep, **options):
        self.calls.append({"training": self.training, **options})
        torch.rand(3)  # a network may draw what it wants
        sigma = torch.exp(4 * timestep).reshape(-1, 1, 1, 1, 1)
        scaled = sample[:, :, :4]  # z / sqrt(sigma^2 + 1)
        root = (sigma**2 + 1).sqrt()
        # clean = z / (sigma^2 + 1) - sigma v / sqrt(sigma^2 + 1), solved for v.
        return (scaled - (self.clean + self.offset) * root) / sigma


def latents(seed=0):
    return 0.5 * torch.randn(VIEWS, 4, 4, 4, generator=seeded(seed))


def clip(mode="3d", seed=0, **changes):
    values = {
        "name": f"clip-{seed}",
        "latents": latents(seed),
        "cameras": gx.sway(VIEWS),
        "motion_strength": 0.0 if mode == "3d" else 2.0,
        "mode": mode,
    }
    return HeldOutClip(**(values | changes))


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "vae"
    folder.mkdir()
    shutil.copy(REFERENCE / "vae_tiny.safetensors", folder / "diffusion_pytorch_model.safetensors")
    shutil.copy(REFERENCE / "vae_tiny_config.json", folder / "config.json")
    return Autoencoder.from_pretrained(folder)


def test_network_that_knows_the_truth_has_perfect_figures(vae):
    result = validate(Oracle(latents()), ValidationSet((clip("4d"),)), vae=vae, steps=4)
    names = [f"{figure}/4d_{given}" for given in ("single", "three") for figure in ("psnr", "ssim")]
    for name in names:  # 100 dB is what equal pictures are given
        assert result.figures[name] == pytest.approx(100.0 if "psnr" in name else 1.0, abs=1e-4)
    assert result.figures["latent_rmse/4d_single"] < 1e-5
    assert result.figures["loss/4d"] < 1e-8


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_constant_error_is_measured_as_it_is(guidance):
    """Both branches of guidance are off by the same, so that it changes nothing."""
    samples = ValidationSet((clip(),))
    sigmas = (0.5, 4.0)
    result = validate(Oracle(latents(), 0.1), samples, steps=3, guidance=guidance, sigmas=sigmas)
    # An error d of the clean latents is one of d sqrt(sigma^2 + 1) / sigma on v.
    losses = {sigma: 0.1**2 * (sigma**2 + 1) / sigma**2 for sigma in sigmas}
    expected = {
        "latent_rmse/3d_single": 0.1,
        "latent_rmse/3d_three": 0.1,
        "loss/3d": sum(losses.values()) / 2,
        "loss/3d_sigma0.5": losses[0.5],
        "loss/3d_sigma4": losses[4.0],
    }
    assert result.figures == {k: pytest.approx(v, rel=1e-4) for k, v in expected.items()}
    assert result.sheet is None


@pytest.mark.parametrize(
    ("name", "given", "guidance"), [("single", [0], 1.0), ("three", [0, 2, 4], 2.5)]
)
def test_pictures_are_those_of_the_pipeline(vae, name, given, guidance):
    images = torch.rand(VIEWS, 3, 32, 32, generator=seeded(2))
    sample = SceneSample(images, gx.sway(VIEWS), "4d", 0.02, None, provenance())
    unet = mini_unet()
    settings = {"steps": 3, "guidance": guidance, "seed": 7}
    samples = ValidationSet.from_samples([sample], vae)
    result = validate(unet, samples, vae=vae, conditioned=[name], **settings)
    out = gx.GenXDPipeline(unet, vae)(
        images[given],
        given,
        sample.cameras,
        mode="4d",
        motion_strength=gamma_to_motion_strength(0.02),
        num_inference_steps=3,
        guidance_scale=guidance,
        latents=torch.randn(VIEWS, 4, 4, 4, generator=seeded(7)),
    )
    made = [view for view in range(VIEWS) if view not in given]
    for figure, measure in (
        ("psnr", psnr(out.frames[made], images[made])),
        ("ssim", ssim(out.frames[made], images[made], window="valid")),
    ):
        expected = float(measure.mean())
        assert result.figures[f"{figure}/4d_{name}"] == pytest.approx(expected, rel=1e-4)


def provenance():
    return Provenance("somewhere", "scene-1", tuple(range(VIEWS)), ("x",) * VIEWS)


def test_samples_are_encoded_once_with_what_they_say_of_themselves(vae):
    images = torch.rand(VIEWS, 3, 32, 32, generator=seeded(2))
    samples = [
        SceneSample(images, gx.sway(VIEWS), "4d", 0.02, None, provenance()),
        SceneSample(images, gx.sway(VIEWS), "3d", 0.0, None, provenance()),
    ]
    moving, still = ValidationSet.from_samples(samples, vae).clips
    assert (moving.name, moving.mode, still.mode) == ("somewhere/scene-1", "4d", "3d")
    assert (moving.motion_strength, still.motion_strength) == (gamma_to_motion_strength(0.02), 0.0)
    assert torch.equal(moving.latents, vae.encode(images))
    assert torch.equal(moving.images, images)


def test_encoded_clips_are_taken_as_they_are():
    path = gx.sway(VIEWS)
    both = torch.stack([latents(1), latents(2)])
    samples = ValidationSet.from_latents(
        both,
        torch.stack([path.c2w] * 2),
        torch.stack([path.Ks_norm] * 2),
        torch.tensor([1.0, 2.0]),
        "video",
    )
    assert [c.name for c in samples.clips] == ["clip 0", "clip 1"]
    assert [c.motion_strength for c in samples.clips] == [1.0, 2.0]
    assert torch.equal(samples.clips[1].latents, both[1])
    assert len(samples + ValidationSet((clip(),))) == 3


def test_modes_have_figures_of_their_own_and_clips_are_averaged():
    first, second = clip("3d", 0), clip("3d", 1)
    network = Oracle(latents(0))  # perfect for the first clip, and for the one that moves
    options = {"steps": 2, "conditioned": ["single"]}
    figures = validate(network, ValidationSet((first, second, clip("4d", 0))), **options).figures
    alone = validate(network, ValidationSet((second,)), seed=1, **options).figures
    for name in ("latent_rmse/3d_single", "loss/3d_sigma2"):
        assert figures[name] == pytest.approx(alone[name] / 2, rel=1e-4)
    assert figures["latent_rmse/4d_single"] < 1e-5


def test_network_is_told_mode_motion_and_rays():
    network = Oracle(latents())
    validate(network, ValidationSet((clip("4d"),)), steps=1, guidance=1.0, conditioned=["single"])
    for call in network.calls:
        assert call["indicator"] == (2,)
        assert call["motion_ids"].tolist() == [2.0]
        assert call["added_time_ids"].tolist() == [[[0.0, 1.0]] * VIEWS]


@pytest.mark.slow
def test_same_seed_gives_the_same_figures_and_another_does_not():
    samples = ValidationSet((clip(),))
    unet = mini_unet()
    first, again, other = (validate(unet, samples, steps=2, seed=s).figures for s in (3, 3, 4))
    assert first == again
    assert first["loss/3d"] != other["loss/3d"]


def test_training_state_is_left_as_it_was():
    network = Oracle(latents())
    network.train()
    network.mid_block.eval()
    modes = [module.training for module in network.modules()]
    torch.manual_seed(11)
    expected = torch.random.get_rng_state()
    validate(network, ValidationSet((clip(),)), steps=2)
    assert not any(call["training"] for call in network.calls)
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), expected)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_training_state_is_left_as_it_was_by_an_error():
    class Broken(Oracle):
        def forward(self, sample, timestep, **options):
            torch.rand(3)
            raise ArithmeticError

    network = Broken(latents()).train()
    expected = torch.random.get_rng_state()
    with pytest.raises(ArithmeticError):
        validate(network, ValidationSet((clip(),)), steps=2)
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), expected)


def test_half_precision_forward_keeps_everything_else_in_float32():
    samples = ValidationSet((clip("4d"),))
    options = {"steps": 2, "guidance": 2.0}
    unet = mini_unet()
    single = validate(unet, samples, **options).figures
    half = validate(unet, samples, autocast=torch.bfloat16, **options).figures
    assert single != half
    assert all(math.isclose(half[name], value, rel_tol=0.05) for name, value in single.items())


@pytest.mark.parametrize(
    ("clips", "changes", "message"),
    [
        ((), {}, "samples is empty"),
        (("3d",), {"conditioned": []}, r"conditioned is \[\], expected one or both"),
        (("3d",), {"conditioned": ["two"]}, r"conditioned is \['two'\]"),
        (("3d",), {"guidance": -1.0}, "guidance_scale is -1.0"),
        (("3d",), {"steps": 0}, "num_inference_steps is 0"),
    ],
)
def test_impossible_validations_are_refused(clips, changes, message):
    samples = ValidationSet(tuple(clip(mode) for mode in clips))
    with pytest.raises(InvalidInputError, match=message):
        validate(mini_unet(), samples, **changes)


def test_three_given_views_need_a_fourth_to_generate():
    short = clip(latents=latents()[:3], cameras=gx.sway(3))
    with pytest.raises(InvalidInputError, match="held-out clip clip-0 has 3 views; expected at l"):
        validate(mini_unet(), ValidationSet((short,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "5d"}, "mode is '5d'"),
        ({"cameras": gx.sway(4)}, "clip-0 has 5 latents, 4 cameras; expected the same number"),
        ({"images": torch.rand(2, 3, 32, 32)}, "has 5 latents, 5 cameras, 2 images"),
        ({"latents": latents()[:1], "cameras": gx.sway(1)}, "has 1 latents, 1 cameras"),
    ],
)
def test_clip_that_does_not_hold_together_is_refused(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        clip(**changes)


# ---- the sheet ----------------------------------------------------------------------------------


def coloured(views, size=(32, 32), shade=0.0):
    """A colour of its own for every view."""
    levels = torch.arange(views) / views
    colours = torch.stack([levels, 1 - levels, torch.full((views,), shade)], dim=1)
    return colours[:, :, None, None].expand(-1, -1, *size)


def shown(sheet, frames):
    """Which frames of one colour are on a sheet."""
    colours = set(map(tuple, (sheet.flatten(1).T * 255).round().int().tolist()))
    return [
        view
        for view, frame in enumerate(frames)
        if tuple((frame[:, 0, 0] * 255).round().int().tolist()) in colours
    ]


@pytest.mark.slow
def test_sheet_shows_every_conditioning_and_the_truth():
    single, three, truth = (coloured(5, shade=shade) for shade in (0.0, 0.4, 0.8))
    rows = [SheetRow("single", single, (0,)), SheetRow("three", three, (0, 2, 4))]
    sheet = draw_sheet([SheetSample("scene", rows, truth)])
    for frames in (single, three, truth):
        assert shown(sheet, frames) == [0, 1, 2, 3, 4]
    # Frames of 32 pixels are enlarged to 128: five beside each other, three below each other.
    assert sheet.shape[1] > 3 * 128
    assert 5 * 128 < sheet.shape[2] < 6 * 128


def test_sheet_of_a_long_clip_shows_the_given_views_and_evenly_spaced_others():
    frames = coloured(40)
    rows = [SheetRow("three", frames, (0, 19, 39))]
    found = shown(draw_sheet([SheetSample("scene", rows, frames)]), frames)
    assert len(found) == 12
    assert {0, 19, 39} <= set(found)
    assert max(b - a for a, b in itertools.pairwise(found)) <= 6


def test_sheet_takes_clips_of_several_sizes():
    samples = [
        SheetSample(
            "wide", [SheetRow("single", coloured(4, (32, 64)), (0,))], coloured(4, (32, 64))
        ),
        SheetSample(
            "large", [SheetRow("single", coloured(2, (512, 320)), (0,))], coloured(2, (512, 320))
        ),
    ]
    alone = [draw_sheet([sample]) for sample in samples]
    sheet = draw_sheet(samples)
    assert sheet.shape[1] == sum(one.shape[1] for one in alone)
    assert sheet.shape[2] == max(one.shape[2] for one in alone)
    assert_same_up_to(sheet[:, : alone[0].shape[1], : alone[0].shape[2]], alone[0], 0.0)
    assert alone[1].shape[2] < 2 * 160 + 40  # 512 x 320 is reduced to 256 x 160


def test_sheet_has_as_many_clips_as_asked_for(vae):
    samples = ValidationSet((clip("3d", 0), clip("3d", 1)))
    options = {"vae": vae, "steps": 1, "guidance": 1.0, "conditioned": ["single"]}
    network = Oracle(latents())
    one, two = (validate(network, samples, sheet_samples=n, **options).sheet for n in (1, 2))
    assert two.shape[1] == 2 * one.shape[1]
    assert torch.equal(two[:, : one.shape[1]], one)
    assert validate(network, samples, sheet_samples=0, **options).sheet is None
