"""Held-out clips under a network in training: figures of generated views, the loss, and a sheet.

Everything is fixed by a seed, so that two steps of a run can be compared. Conditioned views are the
first one ("single") or the first, middle and last ("three"), as in the paper's tables.

Dimension letters: v views, h w latent pixels, H W pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genxd_core.autoencoder import Autoencoder
from genxd_core.cameras.cameras import Cameras
from genxd_core.cameras.rays import plucker_rays
from genxd_core.data.sample import SceneSample
from genxd_core.diffusion.guidance import guided, needs_unconditional
from genxd_core.diffusion.preconditioning import v_target
from genxd_core.diffusion.samplers import Denoiser, sample_euler
from genxd_core.diffusion.schedules import NoiseSchedule
from genxd_core.errors import InvalidInputError
from genxd_core.lifting.losses import psnr, ssim
from genxd_core.model.conditioning import Condition, mode_indicator
from genxd_core.model.unet import GenXDUNet
from genxd_core.pipeline import denoiser, v_prediction

from .validation_sheet import SheetRow, SheetSample, draw_sheet

__all__ = ["HELD_OUT_SIGMAS", "HeldOutClip", "ValidationResult", "ValidationSet", "validate"]

# About the 10th, 50th and 90th percentile of the noise levels that are trained on.
HELD_OUT_SIGMAS = (0.25, 2.0, 16.0)
_CONDITIONINGS = ("single", "three")


@dataclass(frozen=True, eq=False)
class HeldOutClip:
    """One clip that is never trained on.

    Attributes:
        name: for messages and the sheet.
        latents: clean, times the VAE's scaling factor; on the CPU.
        cameras: of the views.
        motion_strength: what the network takes.
        mode: "3d", "video" or "4d".
        images: the true views in [0, 1]; None where only latents are known.
    """

    name: str
    latents: Float[Tensor, "v 4 h w"]
    cameras: Cameras
    motion_strength: float
    mode: str
    images: Float[Tensor, "v 3 H W"] | None = None

    def __post_init__(self) -> None:
        mode_indicator(self.mode)
        counts = {"latents": len(self.latents), "cameras": len(self.cameras)}
        counts |= {} if self.images is None else {"images": len(self.images)}
        if len(set(counts.values())) > 1 or len(self.latents) < 2:
            told = ", ".join(f"{count} {what}" for what, count in counts.items())
            raise InvalidInputError(
                f"held-out clip {self.name} has {told}; expected the same number, at least 2."
            )


@dataclass(frozen=True)
class ValidationSet:
    """The clips that a run is watched with; the same ones at every step.

    Attributes:
        clips: in the order of the sheet.
    """

    clips: tuple[HeldOutClip, ...]

    @classmethod
    def from_samples(cls, samples: Sequence[SceneSample], vae: Autoencoder) -> "ValidationSet":
        """Encode samples once. Their kind is their mode.

        Args:
            samples: drawn of held-out scenes, of any sizes and numbers of views.
            vae: what the network is trained with.
        """
        return cls(
            tuple(
                HeldOutClip(
                    f"{sample.provenance.dataset}/{sample.provenance.scene_id}",
                    vae.encode(sample.images).cpu(),
                    sample.cameras,
                    sample.motion_strength,
                    sample.kind,
                    sample.images.cpu(),
                )
                for sample in samples
            )
        )

    @classmethod
    def from_latents(
        cls,
        latents: Float[Tensor, "b v 4 h w"],
        c2w: Float[Tensor, "b v 4 4"],
        Ks_norm: Float[Tensor, "b v 3 3"],
        motion_strength: Float[Tensor, "b"],
        mode: str,
        *,
        name: str = "clip",
    ) -> "ValidationSet":
        """Clips that are encoded already, of one mode.

        Args:
            latents: times the VAE's scaling factor.
            c2w: OpenCV camera-to-world poses.
            Ks_norm: normalised intrinsics.
            motion_strength: what the network takes.
            mode: "3d", "video" or "4d".
            name: of the clips; their numbers are appended.
        """
        return cls(
            tuple(
                HeldOutClip(
                    f"{name} {number}",
                    latents[number].float().cpu(),
                    Cameras(c2w[number].cpu(), Ks_norm[number].cpu()),
                    float(motion_strength[number]),
                    mode,
                )
                for number in range(len(latents))
            )
        )

    def __add__(self, other: "ValidationSet") -> "ValidationSet":
        return ValidationSet(self.clips + other.clips)

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True, eq=False)
class ValidationResult:
    """What a validation gives.

    Attributes:
        figures: ``psnr/<mode>_<conditioning>`` in dB and ``ssim/<mode>_<conditioning>`` over
            generated views, averaged over each clip, then over clips;
            ``latent_rmse/<mode>_<conditioning>`` likewise, in latents; ``loss/<mode>_sigma<s>``
            for each noise level and ``loss/<mode>``, their mean. psnr and ssim need the VAE.
        sheet: the first clips as one picture in [0, 1]; None without the VAE.
    """

    figures: dict[str, float]
    sheet: Float[Tensor, "3 H W"] | None


def validate(
    unet: GenXDUNet,
    samples: ValidationSet,
    *,
    vae: Autoencoder | None = None,
    conditioned: Sequence[str] = _CONDITIONINGS,
    steps: int = 25,
    guidance: float = 3.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
    sigmas: Sequence[float] = HELD_OUT_SIGMAS,
    sheet_samples: int = 8,
) -> ValidationResult:
    """Generate the views of held-out clips and compare them with the truth.

    The network's train and eval modes and the global random numbers are left as they were. With a
    sharded network every process has to call this with the same clips.

    Args:
        unet: the network, without a wrapper; its weights may be anything that its forward takes.
        samples: the clips. The truth of one without pictures is what the VAE makes of its latents.
        vae: for pictures; None compares latents alone.
        conditioned: any of "single" (the first view is given) and "three" (first, middle, last).
        steps: of the Euler sampler, on the released model's schedule.
        guidance: guidance scale; up to 1 there is none.
        seed: of the noise; a clip has the same noise for every conditioning and in every call.
        device: where to run; None for where the network lies.
        autocast: precision of the network's forward pass under autocast; None for that of its
            weights.
        sigmas: noise levels of the held-out loss, with the first view given.
        sheet_samples: clips on the sheet; 0 for no sheet.

    Raises:
        InvalidInputError: no clips, an unknown conditioning, clips of too few views for it, or an
            impossible number.
    """
    chosen = _positions_of(samples, conditioned)
    needs_unconditional(guidance)  # before anything is computed
    where = next(unet.parameters()).device if device is None else torch.device(device)
    runner = _Runner(unet, where, steps, guidance, autocast)
    figures, pages = _Figures(), list[SheetSample]()
    with _left_as_it_was(unet, where), torch.no_grad():
        for number, (clip, positions) in enumerate(zip(samples.clips, chosen, strict=True)):
            noise = torch.randn(
                clip.latents.shape, generator=torch.Generator().manual_seed(seed + number)
            )
            for sigma in sigmas:
                loss = runner.loss(clip, noise, sigma)
                figures.add(f"loss/{clip.mode}_sigma{sigma:g}", loss)
                figures.add(f"loss/{clip.mode}", loss)
            sampled = {name: runner.sample(clip, given, noise) for name, given in positions.items()}
            for name, latents in sampled.items():
                made = _generated(latents, positions[name])
                error = (latents - clip.latents).square()[made].mean().sqrt()
                figures.add(f"latent_rmse/{clip.mode}_{name}", float(error))
            if vae is not None:
                page = _pictures(clip, sampled, positions, vae)
                _compare(figures, clip.mode, page)
                pages += [page] if number < sheet_samples else []
    return ValidationResult(figures.means(), draw_sheet(pages) if pages else None)


class _Runner:
    """Samples with a network, and measures its loss, clip by clip."""

    def __init__(
        self,
        unet: GenXDUNet,
        device: torch.device,
        steps: int,
        guidance: float,
        autocast: torch.dtype | None,
    ) -> None:
        self.unet, self.device, self.guidance, self.precision = unet, device, guidance, autocast
        self.sigmas = NoiseSchedule().sigmas(steps).to(device)

    def loss(self, clip: HeldOutClip, noise: Tensor, sigma: float) -> float:
        """Mean squared error on v over the views that are not given."""
        level = torch.tensor(sigma, device=self.device)
        clean, noise = clip.latents.to(self.device), noise.to(self.device)
        noisy = clean + level * noise
        predicted = self._predict(self._condition(clip, (0,)))(noisy[None], level)[0]
        error = (predicted - v_target(clean, noise, level)).square()
        return float(error[_generated(clean, (0,))].mean())

    def sample(self, clip: HeldOutClip, given: tuple[int, ...], noise: Tensor) -> Tensor:
        """Latents of every view, on the CPU; those of given views are the clip's."""
        condition = self._condition(clip, given)
        start = noise.to(self.device)[None] * (self.sigmas[0] ** 2 + 1).sqrt()
        if needs_unconditional(self.guidance):
            both = self._predict(condition.without().joined(condition))
            predict = guided(both, self.guidance)
        else:
            predict = self._predict(condition)
        sampled = sample_euler(denoiser(predict), start, self.sigmas)[0].cpu()
        sampled[list(given)] = clip.latents[list(given)]
        return sampled

    def _predict(self, condition: Condition) -> Denoiser:
        """The network's v; autocast is around the network alone, not around cameras and steps."""
        predict, precision = v_prediction(self.unet, condition), self.precision
        if precision is None:
            return predict

        def in_precision(noisy: Tensor, sigma: Tensor) -> Tensor:
            with torch.autocast(self.device.type, dtype=precision):
                return predict(noisy, sigma)

        return in_precision

    def _condition(self, clip: HeldOutClip, given: tuple[int, ...]) -> Condition:
        mask = torch.zeros(1, len(clip.latents), dtype=torch.bool, device=self.device)
        mask[0, list(given)] = True
        height, width = clip.latents.shape[-2:]
        rays = plucker_rays(clip.cameras, height=height, width=width, reference=given[0])
        return Condition.build(
            clip.latents[None].to(self.device),
            mask,
            rays[None].to(self.device),
            mode=clip.mode,
            motion_strength=torch.tensor([clip.motion_strength], device=self.device),
            use_motion_embedding=self.unet.config.motion_condition,
        )


class _Figures:
    """Means of named values."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        return {name: sum(row) / len(row) for name, row in sorted(self.values.items())}


def _positions_of(
    samples: ValidationSet, conditioned: Sequence[str]
) -> list[dict[str, tuple[int, ...]]]:
    if not len(samples):
        raise InvalidInputError("samples is empty, expected at least one held-out clip.")
    if not conditioned or set(conditioned) - set(_CONDITIONINGS):
        raise InvalidInputError(
            f"conditioned is {list(conditioned)}, expected one or both of "
            f"{', '.join(map(repr, _CONDITIONINGS))}."
        )
    found = []
    for clip in samples.clips:
        views = len(clip.latents)
        if "three" in conditioned and views < 4:
            raise InvalidInputError(
                f"conditioned has 'three', but held-out clip {clip.name} has {views} views; "
                "expected at least 4, so that there is one to generate."
            )
        every = {"single": (0,), "three": (0, (views - 1) // 2, views - 1)}
        found.append({name: every[name] for name in conditioned})
    return found


def _generated(of: Tensor, given: tuple[int, ...]) -> list[int]:
    return [view for view in range(len(of)) if view not in given]


def _pictures(
    clip: HeldOutClip,
    sampled: Mapping[str, Tensor],
    positions: Mapping[str, tuple[int, ...]],
    vae: Autoencoder,
) -> SheetSample:
    def decoded(latents: Tensor) -> Tensor:
        return (vae.decode(latents).cpu() / 2 + 0.5).clamp(0, 1)

    truth = decoded(clip.latents) if clip.images is None else clip.images.float()
    rows = [SheetRow(name, decoded(sampled[name]), positions[name]) for name in sampled]
    return SheetSample(f"{clip.name} ({clip.mode})", rows, truth)


def _compare(figures: _Figures, mode: str, page: SheetSample) -> None:
    for row in page.rows:
        made = _generated(row.frames, row.given)
        frames, truth = row.frames[made], page.truth[made]
        figures.add(f"psnr/{mode}_{row.name}", float(psnr(frames, truth).mean()))
        figures.add(f"ssim/{mode}_{row.name}", float(ssim(frames, truth, window="valid").mean()))


@contextmanager
def _left_as_it_was(unet: GenXDUNet, device: torch.device) -> Iterator[None]:
    """Eval mode inside; afterwards each module's own mode, and the random numbers of before."""
    training = {module: module.training for module in unet.modules()}
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        unet.eval()
        try:
            yield
        finally:
            for module, mode in training.items():
                module.training = mode
