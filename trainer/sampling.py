"""Sampling for evaluation while and after training: plain networks and the variants of Sec. 5.4.

What a network of the library gives here is what `genxd_core.GenXDPipeline` gives, for several
clips at once and from latents to latents.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from genxd_core.autoencoder import draw_noise
from genxd_core.diffusion.guidance import guided, needs_unconditional
from genxd_core.diffusion.samplers import sample_euler
from genxd_core.diffusion.schedules import NoiseSchedule
from genxd_core.model.conditioning import Condition, check_indices
from genxd_core.model.unet import GenXDUNet
from genxd_core.pipeline import denoiser, v_prediction

from .camera_attention import CameraAttentionUNet, camera_vector
from .step import batched_rays, entangled

__all__ = ["entangled", "generate"]


@torch.no_grad()
def generate(
    network: GenXDUNet,
    latents: Float[Tensor, "b v 4 h w"],
    c2w: Float[Tensor, "b v 4 4"],
    Ks_norm: Float[Tensor, "b v 3 3"],
    conditioned: Sequence[int],
    *,
    mode: str = "3d",
    motion_strength: float | Float[Tensor, "b"] = 0.0,
    steps: int = 25,
    guidance: float = 1.0,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    disentangled: bool = True,
    schedule: NoiseSchedule | None = None,
) -> Float[Tensor, "b v 4 h w"]:
    """Sample clips with Euler steps along the library's schedule.

    Args:
        network: a `GenXDUNet` or a `CameraAttentionUNet`; its precision and device are used.
        latents: clean ones, scaled by the VAE's factor; only those of given views are used.
        c2w: camera-to-world poses, OpenCV axes.
        Ks_norm: normalised intrinsics.
        conditioned: positions of the given views, the reference view first; the same in every
            clip. Negative ones count from the end.
        mode: "3d", "video" or "4d".
        motion_strength: what the network takes, one for all or one a clip.
        steps: of the sampler.
        guidance: scale; up to 1 there is none.
        generator: of the noise; or one a clip, so that a clip's noise does not depend on its
            neighbours in the batch.
        disentangled: False for a network that was trained without motion disentangling (see
            `entangled`).
        schedule: range of noise levels; None for the released model's.

    Returns:
        float32 on the network's device, given views unchanged.

    Raises:
        InvalidInputError: positions, mode, steps or guidance that cannot be used.
    """
    device = network.conv_in.weight.device
    batch, views = latents.shape[:2]
    indices = check_indices(list(conditioned), views)
    strength = torch.as_tensor(motion_strength, dtype=torch.float32).expand(batch).to(device)
    if not disentangled:
        mode, strength = entangled(mode, strength)
    latents, c2w, Ks_norm = (t.to(device, torch.float32) for t in (latents, c2w, Ks_norm))
    reference = torch.full((batch,), indices[0])
    mask = torch.zeros(batch, views, dtype=torch.bool, device=device)
    mask[:, list(indices)] = True
    rays = batched_rays(c2w, Ks_norm, reference, latents.shape[-2:])
    condition = Condition.build(latents, mask, rays, mode=mode, motion_strength=strength)
    further = {}
    if isinstance(network, CameraAttentionUNet):
        branches = 2 if needs_unconditional(guidance) else 1
        further["cameras"] = camera_vector(c2w, Ks_norm, reference).repeat(branches, 1, 1)
    sigmas = (schedule or NoiseSchedule()).sigmas(steps).to(device)
    if needs_unconditional(guidance):
        both = v_prediction(network, condition.without().joined(condition), **further)
        predict = guided(both, guidance)
    else:
        predict = v_prediction(network, condition, **further)

    noise = _noise(tuple(latents.shape), generator, device)
    sampled = sample_euler(denoiser(predict), noise * (sigmas[0] ** 2 + 1).sqrt(), sigmas)
    return torch.where(mask[:, :, None, None, None], condition.latents, sampled)


def _noise(
    shape: tuple[int, ...],
    generator: torch.Generator | Sequence[torch.Generator] | None,
    device: torch.device,
) -> Tensor:
    if generator is None or isinstance(generator, torch.Generator):
        return draw_noise(shape, generator, device)
    return torch.stack([draw_noise(shape[1:], own, device) for own in generator])
