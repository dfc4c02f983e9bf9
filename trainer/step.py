"""One micro-batch to a loss: EDM v-prediction on the frames that are not conditioned."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from genxd_core.cameras.rays import camera_rays
from genxd_core.diffusion.preconditioning import c_in, timestep_of, v_target
from genxd_core.model.conditioning import Condition, network_input
from genxd_core.model.unet import GenXDUNet

from .camera_attention import camera_vector
from .config import LossConfig

__all__ = ["Batch", "batch_loss", "batched_rays", "draw_conditioned_views", "entangled"]


@dataclass(frozen=True)
class Batch:
    """Clips of one mode.

    Attributes:
        latents: clean latents, scaled by the VAE's factor.
        c2w: camera poses.
        Ks_norm: normalised intrinsics.
        motion_strength: what the network takes, per clip.
        mode: "3d", "video" or "4d".
    """

    latents: Float[Tensor, "b v 4 h w"]
    c2w: Float[Tensor, "b v 4 4"]
    Ks_norm: Float[Tensor, "b v 3 3"]
    motion_strength: Float[Tensor, "b"]
    mode: str

    def to(self, device: torch.device | str) -> "Batch":
        """The same clips on another device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if name != "mode"}
        return Batch(**tensors, mode=self.mode)


def batch_loss(
    unet: GenXDUNet,
    batch: Batch,
    config: LossConfig,
    rng: torch.Generator,
    *,
    camera: str = "rays",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one micro-batch (Sec. 4.1; EDM with SVD's log-normal noise levels).

    Conditioned frames enter clean, and their prediction does not count. The squared error on v
    equals EDM's weighted error on the denoised latents.

    Args:
        unet: the network, or a wrapper that is called the same way.
        batch: the clips.
        config: noise levels, number of conditioned views, dropping of the condition.
        rng: CPU generator of every random choice.
        camera: how the network is told of cameras (``model.camera``).

    Returns:
        The loss, and figures to log.
    """
    latents = batch.latents
    size, views = latents.shape[:2]
    order = draw_conditioned_views(size, views, config, rng)
    mask = torch.zeros(size, views, dtype=torch.bool)
    mask[torch.arange(size)[:, None], order] = True
    mask = mask.to(latents.device)
    rays = batched_rays(batch.c2w, batch.Ks_norm, order[:, 0], latents.shape[-2:])
    mode, strength = batch.mode, batch.motion_strength
    if not config.disentangle_motion:
        mode, strength = entangled(mode, strength)
    condition = Condition.build(latents, mask, rays, mode=mode, motion_strength=strength)
    condition = _dropped(condition, config, rng)

    log_sigma = config.log_sigma_mean + config.log_sigma_std * torch.randn(size, generator=rng)
    sigma = log_sigma.exp().to(latents.device)
    noise = torch.randn(latents.shape, generator=rng).to(latents.device)
    level = sigma[:, None, None, None, None]
    noisy = latents + level * noise
    predicted = unet(
        network_input(noisy * c_in(level), condition),
        timestep_of(sigma),
        added_time_ids=condition.added_time_ids,
        indicator=condition.indicator,
        motion_ids=condition.motion_ids,
        **_camera_embedding(batch, order[:, 0], camera),
    )
    error = (predicted.float() - v_target(latents, noise, sigma)).square().mean(dim=(2, 3, 4))
    target_frames = (~mask).float()
    per_clip = (error * target_frames).sum(dim=1) / target_frames.sum(dim=1)
    return per_clip.mean(), {"loss": per_clip.detach().mean()}


def entangled(mode: str, motion_strength: Float[Tensor, "b"]) -> tuple[str, Float[Tensor, "b"]]:
    """Mode and strength of clips for "w.o. motion disentangle" (Sec. 5.4, Table 5).

    Without it all data pass the temporal layers: a still scene is a 4D clip of strength 0. For
    training and sampling alike.

    Args:
        mode: "3d", "video" or "4d".
        motion_strength: what the network takes; without effect on still scenes.
    """
    return ("4d", torch.zeros_like(motion_strength)) if mode == "3d" else (mode, motion_strength)


def _camera_embedding(batch: Batch, reference: Tensor, camera: str) -> dict[str, Tensor]:
    """What a network with camera attention takes beside the rest."""
    if camera == "rays":
        return {}
    return {"cameras": camera_vector(batch.c2w, batch.Ks_norm, reference)}


def _dropped(condition: Condition, config: LossConfig, rng: torch.Generator) -> Condition:
    """The condition with some clips' made that of the unconditional branch."""
    dropped = torch.rand(len(condition.mask), generator=rng) < config.drop_condition
    without = condition.without(dropped.to(condition.mask.device))
    if config.drop_ids:
        return without
    return replace(without, added_time_ids=condition.added_time_ids)


def draw_conditioned_views(
    size: int, views: int, config: LossConfig, rng: torch.Generator
) -> Tensor:
    """Positions (size, k) of the conditioned views, the reference view first.

    All clips of a micro-batch have the same number of them: one, or, for ``multi_view_share`` of
    the batches, between two and ``max_conditioned``. Half of the latter are first, middle and
    last view (Sec. 5.1), the others any.
    """
    single = bool(torch.rand((), generator=rng) >= config.multi_view_share) or views < 3
    if single:
        if config.single_view == "first":
            return torch.zeros(size, 1, dtype=torch.long)
        first = torch.randint(views, (size, 1), generator=rng)
        # The first view is what most users condition on.
        return torch.where(torch.rand(size, 1, generator=rng) < 0.5, 0, first)
    if bool(torch.rand((), generator=rng) < 0.5) and views >= 4:
        return torch.tensor([0, (views - 1) // 2, views - 1]).expand(size, 3)
    count = int(torch.randint(2, min(config.max_conditioned, views - 1) + 1, (), generator=rng))
    return torch.rand(size, views, generator=rng).argsort(dim=1)[:, :count]


def batched_rays(
    c2w: Float[Tensor, "b v 4 4"],
    Ks_norm: Float[Tensor, "b v 3 3"],
    reference: Tensor,
    size: tuple[int, int] | torch.Size,
) -> Float[Tensor, "b v 6 h w"]:
    """Plücker rays of a batch of paths, each relative to its own reference view."""
    origin = c2w[torch.arange(len(c2w)), reference]
    relative = torch.linalg.inv(origin)[:, None] @ c2w
    centers, directions = camera_rays(
        relative.flatten(0, 1), Ks_norm.flatten(0, 1), height=size[0], width=size[1]
    )
    moments = torch.linalg.cross(centers[:, :, None, None].expand_as(directions), directions, dim=1)
    return torch.cat([directions, moments], dim=1).reshape(*c2w.shape[:2], 6, *size)
