"""The loss on hand-made tensors, and what of the batch it depends on."""

import pytest
import torch

from genxd_core.cameras.cameras import Cameras
from genxd_core.cameras.rays import plucker_rays
from genxd_core.diffusion.preconditioning import c_in, denoised_from_v, timestep_of, v_target
from genxd_core.model.unet import GenXDUNet
from genxd_core.synthetic.camera_paths import sample_path
from tests.support import assert_same_up_to, seeded
from tests.trainer.support import TINY
from trainer.config import LossConfig
from trainer.step import Batch, batch_loss, batched_rays, draw_conditioned_views

INTRINSICS = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])


def make_batch(mode="3d", size=3, views=6):
    return Batch(
        latents=torch.randn(size, views, 4, 2, 2, generator=seeded(1)),
        c2w=torch.stack([sample_path(i, {"orbit": 1.0}, views) for i in range(size)]),
        Ks_norm=INTRINSICS.expand(size, views, 3, 3),
        motion_strength=torch.linspace(0.1, 0.9, size),
        mode=mode,
    )


class Recorder(torch.nn.Module):
    """Stands in for the network: keeps what it was given and returns what it was told."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, sample, timestep, **given):
        self.sample, self.timestep, self.given = sample, timestep, given
        return self.answer(sample, timestep)


def test_v_form_equals_edms_weighted_error():
    sigma = torch.tensor([0.3, 2.0, 40.0])
    z, eps, v = torch.randn(3, 3, 5, generator=seeded())
    noisy = z + sigma[:, None] * eps
    edm = (1 + sigma**2) / sigma**2 * (denoised_from_v(v, noisy, sigma) - z).square().mean(dim=1)
    plain = (v - v_target(z, eps, sigma)).square().mean(dim=1)
    assert_same_up_to(edm, plain, 1e-4)


def test_true_v_denoises_exactly():
    sigma = torch.tensor([0.01, 1.0, 100.0])
    z, eps = torch.randn(2, 3, 7, generator=seeded())
    noisy = z + sigma[:, None] * eps
    assert_same_up_to(denoised_from_v(v_target(z, eps, sigma), noisy, sigma), z, 1e-3)


def test_loss_of_a_silent_network_is_the_targets_mean_square():
    network = Recorder(lambda sample, _: torch.zeros_like(sample[:, :, :4]))
    batch, config = make_batch(), LossConfig(drop_condition=0.0, multi_view_share=0.0)
    loss, _ = batch_loss(network, batch, config, seeded(5))
    mask = network.sample[:, :, 14, 0, 0] > 0.5
    sigma = (4 * network.timestep).exp()
    # Noise is what the input holds beyond the clean latents.
    noisy = network.sample[:, :, :4] / c_in(sigma)[:, None, None, None, None]
    noise = (noisy - batch.latents) / sigma[:, None, None, None, None]
    square = v_target(batch.latents, noise, sigma).square().mean(dim=(2, 3, 4))
    expected = torch.stack([square[i][~mask[i]].mean() for i in range(len(mask))]).mean()
    assert_same_up_to(loss, expected, 1e-4)


def test_conditioned_frames_enter_clean_and_do_not_count():
    batch, config = make_batch(), LossConfig(drop_condition=0.0, multi_view_share=1.0)
    losses = []
    for wrong in (0.0, 100.0):
        network = Recorder(
            lambda sample, _, wrong=wrong: wrong * sample[:, :, 14:15].expand(-1, -1, 4, -1, -1)
        )
        losses.append(batch_loss(network, batch, config, seeded(3))[0])
        mask = network.sample[:, :, 14, 0, 0] > 0.5
        assert torch.equal(network.sample[:, :, :4][mask], batch.latents[mask])
    assert torch.equal(losses[0], losses[1])


def test_dropped_condition_keeps_the_mask_alone():
    network = Recorder(lambda sample, _: torch.zeros_like(sample[:, :, :4]))
    batch_loss(network, make_batch("4d"), LossConfig(drop_condition=1.0), seeded())
    mask = network.sample[:, :, 14, 0, 0] > 0.5
    assert mask.any()
    assert float(network.sample[:, :, :4][mask].abs().max()) == 0.0
    assert float(network.sample[:, :, 8:14].abs().max()) == 0.0
    assert float(network.given["added_time_ids"].abs().max()) == 0.0
    assert float(network.given["motion_ids"].abs().max()) == 0.0


@pytest.mark.parametrize(("mode", "number"), [("3d", 0), ("video", 1), ("4d", 2)])
def test_mode_and_strength_reach_the_network(mode, number):
    network = Recorder(lambda sample, _: torch.zeros_like(sample[:, :, :4]))
    batch = make_batch(mode)
    batch_loss(network, batch, LossConfig(drop_condition=0.0), seeded())
    assert network.given["indicator"] == (number,) * 3
    assert torch.equal(network.given["motion_ids"], batch.motion_strength)
    assert (float(network.sample[:, :, 8:14].abs().max()) == 0.0) == (mode == "video")


def test_noise_levels_are_log_normal():
    config = LossConfig(log_sigma_mean=0.7, log_sigma_std=1.6)
    network = Recorder(lambda sample, _: torch.zeros_like(sample[:, :, :4]))
    rng, logs = seeded(), []
    for _ in range(300):
        batch_loss(network, make_batch(size=8, views=2), config, rng)
        logs.append(4 * network.timestep)
    drawn = torch.cat(logs)
    assert float(drawn.mean()) == pytest.approx(0.7, abs=0.1)
    assert float(drawn.std()) == pytest.approx(1.6, abs=0.1)


def test_timestep_is_a_quarter_of_the_log():
    assert_same_up_to(timestep_of(torch.tensor([1.0])), torch.tensor([0.0]), 0.0)


def test_rays_of_a_batch_equal_those_of_its_paths():
    batch = make_batch()
    reference = torch.tensor([0, 3, 5])
    rays = batched_rays(batch.c2w, batch.Ks_norm, reference, (2, 2))
    for row, index in enumerate(reference.tolist()):
        cameras = Cameras(batch.c2w[row], batch.Ks_norm[row])
        expected = plucker_rays(cameras, height=2, width=2, reference=index)
        assert_same_up_to(rays[row], expected, 1e-5)


def test_conditioned_views_are_unique_and_leave_something_to_generate():
    rng, counts = seeded(), set()
    for _ in range(200):
        order = draw_conditioned_views(4, 6, LossConfig(), rng)
        counts.add(order.shape[1])
        assert all(len(set(row)) == len(row) < 6 for row in order.tolist())
    assert counts == {1, 2, 3, 4}


def test_first_view_alone_may_be_given():
    config = LossConfig(multi_view_share=0.0, single_view="first")
    assert torch.equal(draw_conditioned_views(4, 6, config, seeded()), torch.zeros(4, 1).long())
    anywhere = draw_conditioned_views(64, 6, LossConfig(multi_view_share=0.0), seeded())
    assert set(anywhere.flatten().tolist()) == set(range(6))
    assert 24 <= int((anywhere == 0).sum()) <= 52  # half of them, and a sixth of the others


def test_ids_may_outlive_a_dropped_condition():
    network = Recorder(lambda sample, _: torch.zeros_like(sample[:, :, :4]))
    config = LossConfig(drop_condition=1.0, drop_ids=False)
    batch_loss(network, make_batch("4d"), config, seeded())
    assert float(network.sample[:, :, 8:14].abs().max()) == 0.0
    assert torch.equal(network.given["added_time_ids"][0, 0], torch.tensor([0.0, 1.0]))


def test_still_scenes_pass_the_temporal_layers_without_disentangling():
    network = Recorder(lambda sample, _: torch.zeros_like(sample[:, :, :4]))
    config = LossConfig(drop_condition=0.0, disentangle_motion=False)
    batch_loss(network, make_batch("3d"), config, seeded())
    assert network.given["indicator"] == (2, 2, 2)
    assert float(network.given["motion_ids"].abs().max()) == 0.0


@pytest.mark.parametrize(("mode", "moves"), [("3d", False), ("4d", True), ("video", True)])
def test_gradients_reach_temporal_layers_from_moving_clips_alone(mode, moves):
    unet = GenXDUNet(TINY)
    batch = make_batch(mode, size=1, views=3)
    batch_loss(unet, batch, LossConfig(drop_condition=0.0), seeded())[0].backward()
    reached = {name for name, value in unet.named_parameters() if value.grad is not None}
    temporal = {name for name in dict(unet.named_parameters()) if "temporal" in name}
    spatial = {name for name in dict(unet.named_parameters()) if "spatial_res_block" in name}
    assert temporal
    assert (temporal <= reached) if moves else not (temporal & reached)
    assert spatial <= reached
