"""Pictures and a camera path to frames, without ComfyUI.

Everything here is put together from the other modules: conditioning (Sec. 4.1 of the paper), the
noise schedule, guidance, a sampler and the VAE.

Dimension letters: b branches of guidance, k given pictures, v views, h w latent pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Shaped
from PIL import Image
from torch import Tensor

from .autoencoder import ENCODED_AT_ONCE, Autoencoder, draw_noise
from .cameras.cameras import Cameras
from .cameras.rays import plucker_rays
from .diffusion.guidance import guided, needs_unconditional
from .diffusion.preconditioning import denoised_from_v, timestep_of
from .diffusion.samplers import Denoiser, Sampler, SamplerStep, StepCallback, sample_euler
from .diffusion.schedules import NoiseSchedule
from .errors import InvalidInputError, WeightsError
from .latent_preview import LatentPreview
from .model.conditioning import Condition, check_indices, network_input
from .model.unet import GenXDUNet
from .model.weights import load_unet
from .pipeline_inputs import (
    PipelineInputs,
    check_device,
    check_dtype,
    check_inputs,
    check_motion_strength,
)
from .progress import Progress, report

__all__ = ["GenXDOutput", "GenXDPipeline"]

_NETWORK_CHANNELS = 15  # 4 latent, 4 zero, 6 of rays, 1 of the mask
_LATENT_CHANNELS = 4
_ADDED_IDS = 2


@dataclass(frozen=True)
class GenXDOutput:
    """What a run gives.

    Attributes:
        frames: every view, the given ones decoded from their latents, float32 in [0, 1].
        latents: times the VAE's scaling factor, float32; those of given views are exactly the
            encoded pictures.
    """

    frames: Float[Tensor, "v 3 H W"]
    latents: Float[Tensor, "v 4 h w"]


class GenXDPipeline:
    """Generates the views of a camera path from one or more given pictures.

    Args:
        unet: the network; its precision and device are the pipeline's.
        vae: on the same device.
        schedule: the model's range of noise levels.
        sampler: one of `samplers.SAMPLERS`; Euler is the released model's.

    Raises:
        WeightsError: the network and the VAE do not belong together.
    """

    def __init__(
        self,
        unet: GenXDUNet,
        vae: Autoencoder,
        schedule: NoiseSchedule | None = None,
        *,
        sampler: Sampler = sample_euler,
    ) -> None:
        config = unet.config
        for name, value, expected in (
            ("in_channels", config.in_channels, _NETWORK_CHANNELS),
            ("out_channels", config.out_channels, _LATENT_CHANNELS),
            ("added ids", config.num_added_ids, _ADDED_IDS),
            ("the VAE's latent_channels", vae.latent_channels, _LATENT_CHANNELS),
        ):
            if value != expected:
                raise WeightsError(
                    f"the model has {value} for {name}, the pipeline needs {expected}; are these "
                    "the UNet and the VAE of one GenXD model?"
                )
        self.unet = unet
        self.vae = vae
        self.schedule = schedule or NoiseSchedule()
        self.sampler = sampler

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> "GenXDPipeline":
        """Load a folder in the released layout: ``unet/``, ``vae/`` and ``scheduler/``.

        Args:
            path: the folder.
            dtype: of the network: float32, float16 or bfloat16. Cameras, noise levels and latents
                stay in float32; for the VAE see `Autoencoder`.
            device: where everything runs.

        Raises:
            WeightsError: a part is missing, damaged or of another model.
            InvalidInputError: there is no such device, or the precision is none of the three.
            MissingDependencyError: diffusers is not installed.
        """
        folder = Path(path)
        check_dtype(dtype)
        where = check_device(device)
        if not folder.is_dir():
            problem = "is a file" if folder.exists() else "does not exist"
            raise WeightsError(
                f"{folder} {problem}; give the folder of a model, with unet/, vae/ and scheduler/ "
                "in it."
            )
        # The largest part comes last, so that a mistake shows early.
        schedule = NoiseSchedule.from_json(folder / "scheduler" / "scheduler_config.json")
        vae = Autoencoder.from_pretrained(folder, dtype=dtype, device=where)
        return cls(load_unet(folder, dtype=dtype, device=where), vae, schedule)

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        weight: Tensor = self.unet.conv_in.weight
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        weight: Tensor = self.unet.conv_in.weight
        return weight.dtype

    @property
    def size_multiple(self) -> int:
        """What heights and widths in pixels must be multiples of (64 for the released model)."""
        return self.vae.factor * self.unet.config.stride

    @torch.no_grad()
    def __call__(
        self,
        images: Shaped[Tensor, "..."] | Sequence[Tensor | Image.Image],
        cond_indices: Sequence[int],
        cameras: Cameras,
        *,
        mode: str = "3d",
        motion_strength: float = 0.0,
        num_inference_steps: int = 25,
        guidance_scale: float = 3.0,
        generator: torch.Generator | None = None,
        latents: Shaped[Tensor, "..."] | None = None,
        video: Shaped[Tensor, "..."] | Sequence[Tensor | Image.Image] | None = None,
        strength: float = 1.0,
        use_motion_embedding: bool = True,
        decode_chunk_size: int | None = None,
        progress: Progress | None = None,
    ) -> GenXDOutput:
        """Generate every view of a path.

        Args:
            images: the given pictures, (K, 3, H, W) in [0, 1], or a list of PIL pictures and
                (3, H, W) tensors; sides are multiples of `size_multiple` (see `fit_views`).
            cond_indices: which view of the path each picture is; negative numbers count from the
                end. The first listed is the reference view, in whose frame the network sees the
                cameras.
            cameras: V cameras, with intrinsics for pictures of this shape.
            mode: "3d" (a still scene), "4d" (moving camera and scene) or "video" (moving scene;
                the cameras are ignored).
            motion_strength: how much moves, 0 (still) to 50; see `gamma_to_motion_strength`.
                Without effect in 3D mode.
            num_inference_steps: steps of the sampler; 25 in the released pipeline.
            guidance_scale: how strongly to follow the condition; 3 is usual. Up to 1 there is no
                guidance and the unconditional branch is not computed.
            generator: for noise; drawn on its own device in float32. None for the global one.
            latents: unit noise to start from, (V, 4, h, w) or (1, V, 4, h, w), instead of drawing.
            video: V frames to start from instead of pure noise (SDEdit), as ``images``. A sample of
                their posterior is drawn, before the start noise.
            strength: with ``video``, the share of the steps that is run, in (0, 1].
            use_motion_embedding: False passes the motion strength with the added ids, for networks
                trained so.
            decode_chunk_size: frames decoded at a time; None for all. Fewer need less memory and
                change the result.
            progress: called after every chunk of encoded frames, step and chunk of decoded frames;
                the preview of a step is a (V, 3, h, w) picture in [0, 1] of the frames as expected
                so far, on the pipeline's device.

        Raises:
            InvalidInputError: an argument cannot be used; the message names it.
            Cancelled: ``progress`` asked to stop; it takes effect within one step.
        """
        inputs = check_inputs(
            images,
            cond_indices,
            cameras,
            mode=mode,
            motion_strength=motion_strength,
            latents=latents,
            video=video,
            strength=strength,
            use_motion_embedding=use_motion_embedding,
            decode_chunk_size=decode_chunk_size,
            size_multiple=self.size_multiple,
            factor=self.vae.factor,
            has_motion_embedding=self.unet.config.motion_condition,
        )
        sigmas = self.schedule.sigmas(num_inference_steps, strength=strength).to(self.device)
        needs_unconditional(guidance_scale)  # before anything is computed
        parts = _ProgressParts(progress, inputs, len(sigmas) - 1)

        encoded = self.vae.encode(inputs.images, progress=parts.of_images())
        condition = self._condition(
            encoded,
            inputs.indices,
            inputs.cameras,
            mode=inputs.mode,
            motion_strength=inputs.motion_strength,
            use_motion_embedding=inputs.use_motion_embedding,
        )
        start = self._start(inputs, sigmas, generator, parts)
        on_step = parts.of_sampler(LatentPreview.fit(encoded, inputs.images))
        pinned = self._sampled(condition, start, sigmas, guidance_scale, on_step)
        decoded = self.vae.decode(
            pinned, frames_per_chunk=decode_chunk_size, progress=parts.of_decoder()
        )
        return GenXDOutput((decoded / 2 + 0.5).clamp(0, 1), pinned)

    @torch.no_grad()
    def sample(
        self,
        encoded: Float[Tensor, "k 4 h w"],
        cond_indices: Sequence[int],
        cameras: Cameras,
        *,
        noise: Float[Tensor, "v 4 h w"],
        mode: str = "3d",
        motion_strength: float = 0.0,
        num_inference_steps: int = 25,
        guidance_scale: float = 3.0,
        video: Float[Tensor, "v 4 h w"] | None = None,
        strength: float = 1.0,
        use_motion_embedding: bool = True,
        on_step: StepCallback | None = None,
    ) -> Float[Tensor, "v 4 h w"]:
        """Latents of a path from latents of some of its views: a run without the VAE.

        Args:
            encoded: scaled latents of the given views, encoded or sampled before.
            cond_indices: their positions; the first is the reference view.
            cameras: of all views.
            noise: unit noise to start from.
            mode: as in a run, like all that follow.
            motion_strength: as there.
            num_inference_steps: as there.
            guidance_scale: as there.
            video: scaled latents of every view, to start from instead of pure noise.
            strength: with ``video``, the share of the steps that is run, in (0, 1].
            use_motion_embedding: as there.
            on_step: called after every step; it may raise to stop.

        Returns:
            float32 on the pipeline's device, those of given views unchanged.

        Raises:
            InvalidInputError: the indices, the mode or a number cannot be used.
        """
        check_motion_strength(motion_strength)
        condition = self._condition(
            encoded.to(self.device, torch.float32),
            check_indices(list(cond_indices), len(cameras)),
            cameras,
            mode=mode,
            motion_strength=motion_strength,
            use_motion_embedding=use_motion_embedding,
        )
        sigmas = self.schedule.sigmas(num_inference_steps, strength=strength).to(self.device)
        start = _noised(video, noise, sigmas[0])
        return self._sampled(condition, start, sigmas, guidance_scale, on_step)

    def _condition(
        self,
        encoded: Tensor,
        indices: Sequence[int],
        cameras: Cameras,
        *,
        mode: str,
        motion_strength: float,
        use_motion_embedding: bool,
    ) -> Condition:
        """What the network is told of the conditional branch."""
        views, size = len(cameras), encoded.shape[-2:]
        positions = torch.tensor(indices, device=self.device)
        mask = torch.zeros(1, views, dtype=torch.bool, device=self.device)
        mask[0, positions] = True
        clean = encoded.new_zeros(1, views, *encoded.shape[1:])
        clean[0, positions] = encoded
        rays = plucker_rays(cameras, height=size[0], width=size[1], reference=indices[0])
        return Condition.build(
            clean,
            mask,
            rays[None].to(self.device),
            mode=mode,
            motion_strength=torch.tensor([motion_strength], device=self.device),
            use_motion_embedding=use_motion_embedding,
        )

    def _sampled(
        self,
        condition: Condition,
        start: Tensor,
        sigmas: Tensor,
        guidance_scale: float,
        on_step: StepCallback | None,
    ) -> Float[Tensor, "v 4 h w"]:
        if needs_unconditional(guidance_scale):
            both = v_prediction(self.unet, condition.without().joined(condition))
            predict = guided(both, guidance_scale)
        else:
            predict = v_prediction(self.unet, condition)
        sampled = self.sampler(denoiser(predict), start[None], sigmas, on_step=on_step)[0]
        self._refuse_overflow(sampled)
        return _pinned(sampled, condition.latents[0], condition.mask[0])

    def _start(
        self,
        inputs: PipelineInputs,
        sigmas: Tensor,
        generator: torch.Generator | None,
        parts: "_ProgressParts",
    ) -> Float[Tensor, "v 4 h w"]:
        clean = None
        if inputs.video is not None:
            clean = self.vae.encode(
                inputs.video, sample=True, generator=generator, progress=parts.of_video()
            )
        if inputs.noise is None:
            noise = draw_noise(inputs.latent_shape, generator, self.device)
        else:
            noise = inputs.noise.to(self.device)
        return _noised(clean, noise, sigmas[0])

    def _refuse_overflow(self, latents: Tensor) -> None:
        if bool(torch.isfinite(latents).all()):
            return
        if self.dtype == torch.float32:
            raise WeightsError(
                "the network gave infinite or undefined numbers in float32; its weights are "
                "damaged or do not belong to this configuration."
            )
        raise InvalidInputError(
            f"dtype is {self.dtype}, in which the network's numbers overflowed; load the pipeline "
            "with dtype=torch.bfloat16 or torch.float32."
        )


def _noised(clean: Tensor | None, noise: Tensor, sigma: Tensor) -> Tensor:
    """Where sampling starts: from noise alone, or from a video with noise on it (SDEdit)."""
    noise = noise.to(sigma.device)
    if clean is None:
        return noise * (sigma**2 + 1).sqrt()
    return clean.to(sigma.device) + noise * sigma


def v_prediction(unet: GenXDUNet, condition: Condition, **further: Tensor) -> Denoiser:
    """What the network predicts for latents, once for every branch of a condition.

    Noise levels, rays and latents are float32; only what enters the network is cast.

    Args:
        unet: the network.
        condition: of b clips, or of k branches of b / k clips, one branch behind the other.
        further: what a variant of the network takes besides, for as many clips.

    Returns:
        A function of noisy latents (b / k, V, 4, h, w) and sigma that gives v, float32
        (b, V, 4, h, w).
    """
    rows = len(condition.indicator)
    dtype = unet.conv_in.weight.dtype

    def predict(noisy: Tensor, sigma: Tensor) -> Tensor:
        # Divided, as the released scheduler does: times c_in rounds differently.
        scaled = (noisy / (sigma**2 + 1).sqrt()).repeat(rows // len(noisy), 1, 1, 1, 1)
        v: Tensor = unet(
            network_input(scaled, condition).to(dtype),
            timestep_of(sigma),
            added_time_ids=condition.added_time_ids,
            indicator=condition.indicator,
            motion_ids=condition.motion_ids,
            **further,
        )
        return v.float()

    return predict


def denoiser(predict: Denoiser) -> Denoiser:
    """The clean latents that a prediction of v stands for."""

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        return denoised_from_v(predict(noisy, sigma), noisy, sigma)

    return denoise


def _pinned(
    sampled: Float[Tensor, "v 4 h w"], clean: Float[Tensor, "v 4 h w"], mask: Bool[Tensor, "v"]
) -> Float[Tensor, "v 4 h w"]:
    return torch.where(mask[:, None, None, None], clean, sampled)


class _ProgressParts:
    """One count of steps for a run that encodes, samples and decodes."""

    def __init__(self, progress: Progress | None, inputs: PipelineInputs, steps: int) -> None:
        views = len(inputs.cameras)
        self._progress = progress
        self._images = _chunks(len(inputs.images), ENCODED_AT_ONCE)
        self._video = 0 if inputs.video is None else _chunks(views, ENCODED_AT_ONCE)
        self._steps = steps
        decoded = _chunks(views, inputs.decode_chunk_size or views)
        self._total = self._images + self._video + steps + decoded

    def of_images(self) -> Progress | None:
        return self._after(0)

    def of_video(self) -> Progress | None:
        return self._after(self._images)

    def of_decoder(self) -> Progress | None:
        return self._after(self._images + self._video + self._steps)

    def of_sampler(self, preview: LatentPreview) -> StepCallback | None:
        part = self._after(self._images + self._video)
        if part is None:
            return None

        def on_step(step: SamplerStep) -> None:
            part(step.number, step.total, preview(step.denoised[0]))

        return on_step

    def _after(self, before: int) -> Progress | None:
        progress, whole = self._progress, self._total
        if progress is None:
            return None

        def part(step: int, total: int, preview: Tensor | None = None) -> None:
            report(progress, before + step, whole, preview)

        return part


def _chunks(frames: int, at_once: int) -> int:
    return -(-frames // at_once)
