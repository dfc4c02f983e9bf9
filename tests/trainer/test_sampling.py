"""Sampling beside the library's pipeline, and what each variant is told."""

import pytest
import torch

from genxd_core.autoencoder import Autoencoder
from genxd_core.cameras.cameras import Cameras
from genxd_core.errors import InvalidInputError
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.unet import GenXDUNet
from genxd_core.pipeline import GenXDPipeline
from genxd_core.synthetic.camera_paths import sample_path
from tests.support import assert_same_up_to, seeded
from trainer.camera_attention import CameraAttentionUNet, camera_vector
from trainer.sampling import entangled, generate

TINY = GenXDUNetConfig.with_widths((32, 32), (2, 1))
VIEWS = 4
K_NORM = torch.tensor([[1.1, 0.0, 0.5], [0.0, 1.1, 0.5], [0.0, 0.0, 1.0]])


class _Latents(Autoencoder):
    """Stands in for a VAE: nothing is encoded or decoded here."""

    latent_channels = 4

    def __init__(self):
        pass


def clips(count=2):
    return (
        torch.randn(count, VIEWS, 4, 4, 4, generator=seeded(5)),
        torch.stack([sample_path(i, {"orbit": 1.0}, VIEWS) for i in range(count)]),
        K_NORM.expand(count, VIEWS, 3, 3),
    )


def network(kind=GenXDUNet):
    torch.manual_seed(0)
    return kind(TINY).eval().requires_grad_(False)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize(("mode", "conditioned"), [("3d", [0]), ("4d", [3, 0]), ("video", [-1])])
def test_plain_network_gives_what_the_pipeline_gives(mode, conditioned, guidance):
    unet = network()
    latents, c2w, Ks_norm = clips(1)
    options = {"mode": mode, "motion_strength": 0.7}
    ours = generate(
        *(unet, latents, c2w, Ks_norm, conditioned),
        **options,
        steps=5,
        guidance=guidance,
        generator=seeded(9),
    )
    expected = GenXDPipeline(unet, _Latents()).sample(
        latents[0, conditioned],
        conditioned,
        Cameras(c2w[0], Ks_norm[0]),
        noise=torch.randn(VIEWS, 4, 4, 4, generator=seeded(9)),
        **options,
        num_inference_steps=5,
        guidance_scale=guidance,
    )
    assert_same_up_to(ours[0], expected, 1e-4)
    assert torch.equal(ours[0, conditioned], latents[0, conditioned])


@pytest.mark.parametrize("kind", [GenXDUNet, CameraAttentionUNet])
def test_clip_does_not_depend_on_its_neighbours_in_the_batch(kind):
    unet = network(kind)
    strengths = torch.tensor([0.2, 1.4])
    both = generate(
        *(unet, *clips(2), [0]),
        mode="4d",
        motion_strength=strengths,
        steps=3,
        guidance=2.0,
        generator=[seeded(1), seeded(2)],
    )
    second = [part[1:] for part in clips(2)]
    alone = generate(
        *(unet, *second, [0]),
        mode="4d",
        motion_strength=1.4,
        steps=3,
        guidance=2.0,
        generator=seeded(2),
    )
    assert_same_up_to(both[1:], alone, 1e-3)


class Recorder(torch.nn.Module):
    """Keeps what it is told and predicts nothing."""

    def __init__(self):
        super().__init__()
        self.conv_in = torch.nn.Conv2d(15, 4, 1)
        self.given = []

    def forward(self, sample, timestep, **given):
        self.given.append((sample, given))
        return torch.zeros_like(sample[:, :, :4])


class CameraRecorder(Recorder, CameraAttentionUNet):
    """The same for the variant with camera attention."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.conv_in = torch.nn.Conv2d(15, 4, 1)
        self.given = []


@pytest.mark.parametrize(
    ("mode", "expected", "strength"), [("3d", 2, 0.0), ("video", 1, 0.8), ("4d", 2, 0.8)]
)
def test_without_disentangling_a_still_scene_is_a_clip_of_strength_0(mode, expected, strength):
    recorder = Recorder()
    recorder.__class__ = type("R", (Recorder, GenXDUNet), {})
    generate(
        *(recorder, *clips(2), [0]),
        mode=mode,
        motion_strength=0.8,
        steps=1,
        disentangled=False,
    )
    _, given = recorder.given[0]
    assert given["indicator"] == (expected, expected)
    assert given["motion_ids"].tolist() == pytest.approx([strength, strength])
    assert entangled(mode, torch.tensor([0.8]))[0] == ("video" if mode == "video" else "4d")


def test_camera_attention_is_told_cameras_in_both_branches_and_rays_in_one():
    recorder = CameraRecorder()
    latents, c2w, Ks_norm = clips(2)
    generate(recorder, latents, c2w, Ks_norm, [2, 0], steps=1, guidance=2.0)
    sample, given = recorder.given[0]
    expected = camera_vector(c2w, Ks_norm, torch.tensor([2, 2]))
    assert torch.equal(given["cameras"], expected.repeat(2, 1, 1))
    assert float(sample[:2, :, 8:14].abs().max()) == 0.0
    assert float(sample[2:, :, 8:14].abs().amax(dim=(2, 3, 4)).min()) > 0.0


def test_positions_outside_the_clip_are_refused():
    with pytest.raises(InvalidInputError, match="positions from 0 to 3"):
        generate(network(), *clips(1), [4], steps=1)
