"""What a training run is made of. Combinations that cannot work are refused here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genxd_core.data.sampling import FrameSampling
from genxd_core.errors import InvalidInputError
from genxd_core.model.config import GenXDUNetConfig

__all__ = [
    "DataConfig",
    "EngineConfig",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "SourceConfig",
    "ValidationConfig",
]

Mode = Literal["3d", "video", "4d"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters instead of training all weights.

    Attributes:
        rank: of the adapters; 8 to 64 are typical.
        alpha: the adapters' output counts alpha / rank.
        dropout: share of an adapter's inputs that is left out in training.
    """

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _expect(self.rank >= 1, f"model.lora.rank is {self.rank}, expected at least 1.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network and where its weights come from.

    Attributes:
        unet: the network; None is that of the weights it starts from.
        start: "scratch"; "svd" (Sec. 5.1: multi-view and temporal layers both from SVD's temporal
            ones); or "weights" of a GenXD network.
        start_from: file or folder for the last two: SVD's ``unet``, or what
            `genxd_core.load_unet` reads, such as the ``unet`` of an earlier run.
        camera: Plücker "rays", or the paper's ablation (App. G): "cross_attention".
        lora: adapters; None trains all weights.
        frozen_dtype: of weights that are not trained (beside adapters).
        vae: folder of the VAE, for pictures that are encoded while training and for validation.
        gradient_checkpointing: trade time for memory.
        plain_attention: attention by plain matrix products (`trainer.attention`): faster on a CPU,
            for short clips of small pictures.
    """

    unet: GenXDUNetConfig | None = field(default_factory=GenXDUNetConfig)
    start: Literal["scratch", "svd", "weights"] = "scratch"
    start_from: Path | None = None
    camera: Literal["rays", "cross_attention"] = "rays"
    lora: LoraConfig | None = None
    frozen_dtype: Literal["fp32", "bf16"] = "fp32"
    vae: Path | None = None
    gradient_checkpointing: bool = False
    plain_attention: bool = False

    def __post_init__(self) -> None:
        _expect(
            self.unet is not None or self.start == "weights",
            f"model.unet is null and model.start is {self.start!r}; only trained weights tell "
            "their network, so set model.start=weights and model.start_from, or model.unet.",
        )
        _expect(
            self.camera == "rays" or self.lora is None,
            "model.camera is 'cross_attention' and model.lora is set; adapters go with 'rays' "
            "alone, so set model.lora=null.",
        )
        _expect(
            self.lora is None or self.start == "weights",
            f"model.lora is set and model.start is {self.start!r}; adapters need trained weights "
            "beneath, so set model.start=weights and model.start_from.",
        )
        _expect(
            self.frozen_dtype == "fp32" or self.lora is not None,
            f"model.frozen_dtype is {self.frozen_dtype!r} and nothing is frozen; set "
            "model.frozen_dtype=fp32, or model.lora.",
        )


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of clips.

    Attributes:
        name: unique; in logs, reports, and as the folder of its encoded clips.
        dataset: name of the adapter (`genxd_core.data.registry`).
        root: its folder; None for those that need none.
        options: of the adapter.
        weight: how often it is drawn, in any unit; 0 leaves it out.
        mode: how the network is run on it. A micro-batch has one mode.
        frames: which frames make a clip.
        scale: "none", or by "depth" (`genxd_core.data.sample.SamplePolicy`).
        held_out: scenes kept from training, for validation.
    """

    name: str
    dataset: str
    root: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    mode: Mode = "3d"
    frames: FrameSampling = field(default_factory=FrameSampling)
    scale: Literal["none", "depth"] = "none"
    held_out: int = 0

    def __post_init__(self) -> None:
        _expect(
            self.weight >= 0,
            f"data.sources.{self.name}.weight is {self.weight}, expected 0 or more.",
        )
        _expect(
            self.held_out >= 0,
            f"data.sources.{self.name}.held_out is {self.held_out}, expected 0 or more.",
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Clips and how they become batches.

    Attributes:
        sources: where clips come from.
        modes: sources of other modes are left out (the paper's ablations without 3D or 4D data).
        latents: folder of encoded clips (``trainer encode``); None encodes while training.
        size: of the pictures, square, in pixels.
        fit: centre "crop", "pad", or "either" with equal chance.
        views: frames of a clip; with several numbers each micro-batch draws one, and shorter clips
            come in larger numbers, so that the frames of a micro-batch stay as many.
        batch_size: clips of an optimiser step over all processes, counted at the longest clip.
        micro_batch: clips of a forward pass of one process; what remains is accumulated. Clips of
            one have one mode, so another number draws other batches.
        mode_block: micro-batches in a row that share mode and length. On several devices their
            number keeps all equally busy.
        workers: processes that read clips; 0 reads in the training process.
        max_broken: share of the drawn scenes that may be broken before training stops.
    """

    sources: tuple[SourceConfig, ...] = ()
    modes: tuple[Mode, ...] = ("3d", "video", "4d")
    latents: Path | None = None
    size: int = 256
    fit: Literal["crop", "pad", "either"] = "crop"
    views: tuple[int, ...] = (12,)
    batch_size: int = 128
    micro_batch: int = 1
    mode_block: int = 1
    workers: int = 4
    max_broken: float = 0.05

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        _expect(not twice, f"data.sources has the name {', '.join(twice)} twice; rename one.")
        _expect(
            bool(self.active_sources),
            f"data.sources has no source of a weight above 0 in data.modes {self.modes} (sources: "
            f"{', '.join(names) or 'none'}); give one, or widen data.modes.",
        )
        _expect(
            bool(self.views) and min(self.views) >= 2,
            f"data.views is {self.views}, expected numbers from 2 on.",
        )
        for name in ("batch_size", "micro_batch", "mode_block"):
            value = getattr(self, name)
            _expect(value >= 1, f"data.{name} is {value}, expected at least 1.")
        _expect(self.workers >= 0, f"data.workers is {self.workers}, expected 0 or more.")
        _expect(
            self.batch_size % self.micro_batch == 0,
            f"data.batch_size is {self.batch_size}, no multiple of data.micro_batch "
            f"({self.micro_batch}); change one of them.",
        )
        _expect(
            0 <= self.max_broken <= 1,
            f"data.max_broken is {self.max_broken}, expected a share from 0 to 1.",
        )

    @property
    def active_sources(self) -> tuple[SourceConfig, ...]:
        """Those that are drawn from."""
        return tuple(s for s in self.sources if s.weight > 0 and s.mode in self.modes)

    def accumulation(self, processes: int) -> int:
        """Micro-batches of one process in an optimiser step.

        Raises:
            InvalidInputError: the batch cannot be divided among the processes.
        """
        at_once = self.micro_batch * processes
        _expect(
            self.batch_size % at_once == 0,
            f"data.batch_size is {self.batch_size}, no multiple of data.micro_batch x processes "
            f"({self.micro_batch} x {processes}); change one of them.",
        )
        return self.batch_size // at_once


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Noise levels and conditioning during training (Sec. 4.1).

    Attributes:
        log_sigma_mean: sigma = exp(mean + std n), n ~ N(0, 1); SVD's numbers are 0.7 and 1.6.
        log_sigma_std: see above.
        drop_condition: probability of training the unconditional branch.
        drop_ids: the unconditional branch has its time ids zeroed too, as at sampling.
        multi_view_share: share of batches with several conditioned views instead of one.
        max_conditioned: the most views conditioned in multi-view mode.
        single_view: which view is given alone: the "first", or "any" (the first in half of them).
        disentangle_motion: False is the paper's ablation (Table 5): still scenes too pass through
            the temporal layers.
    """

    log_sigma_mean: float = 0.7
    log_sigma_std: float = 1.6
    drop_condition: float = 0.1
    drop_ids: bool = True
    multi_view_share: float = 0.5
    max_conditioned: int = 4
    single_view: Literal["first", "any"] = "any"
    disentangle_motion: bool = True

    def __post_init__(self) -> None:
        for name in ("drop_condition", "multi_view_share"):
            value = getattr(self, name)
            _expect(0.0 <= value <= 1.0, f"loss.{name} is {value}, expected 0 to 1.")
        _expect(
            self.max_conditioned >= 2,
            f"loss.max_conditioned is {self.max_conditioned}, expected at least 2.",
        )
        _expect(
            self.log_sigma_std > 0, f"loss.log_sigma_std is {self.log_sigma_std}, expected above 0."
        )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser, learning rate, averaging.

    Attributes:
        name: "adamw"; "adamw8bit" (its state in 8 bits; needs bitsandbytes and an NVIDIA GPU); or
            "muon" (with AdamW for norms, biases, first and last layers).
        lr: of AdamW, at its peak.
        muon_lr: of Muon, at its peak.
        schedule: after the warm-up "constant", or along a "cosine" to ``final_share`` of the peak.
        final_share: see above.
        warmup: steps.
        weight_decay: of AdamW.
        clip_norm: the gradient's largest norm.
        ema_half_life: steps after which a weight's share in the average has halved.
    """

    name: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    lr: float = 5e-5
    muon_lr: float = 0.02
    schedule: Literal["constant", "cosine"] = "constant"
    final_share: float = 0.0
    warmup: int = 1000
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema_half_life: float = 5000.0

    def __post_init__(self) -> None:
        for name in ("lr", "muon_lr", "clip_norm", "ema_half_life"):
            value = getattr(self, name)
            _expect(value > 0, f"optim.{name} is {value}, expected above 0.")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a run is computed, watched and kept.

    Attributes:
        steps: optimiser steps.
        seed: of everything.
        mixed_precision: "no", "fp16" or "bf16".
        sharding: "ddp" keeps the network whole on every device, "fsdp" divides it among them.
        log_every: steps between lines of the log.
        save_every: steps between checkpoints.
        keep_every: steps between averaged weights that are kept beside the last ones; 0 keeps none.
        trackers: "tensorboard" and "wandb", beside the run's own ``log.jsonl``.
        threads: CPU threads; 0 leaves PyTorch's choice.
    """

    steps: int = 500_000
    seed: int = 0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    sharding: Literal["ddp", "fsdp"] = "ddp"
    log_every: int = 50
    save_every: int = 1000
    keep_every: int = 0
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "save_every"):
            value = getattr(self, name)
            _expect(value >= 1, f"engine.{name} is {value}, expected at least 1.")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What is measured and drawn of scenes that are held out.

    Attributes:
        every: steps between; 0 never does.
        scenes: of each source that holds some out, at most.
        steps: sampling steps.
        guidance: guidance scale; 1 is none.
    """

    every: int = 0
    scenes: int = 2
    steps: int = 25
    guidance: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run of the UNet.

    Attributes:
        recipe: the recipe it comes from.
        out: folder of the run: checkpoints, logs, weights.
        model: the network and its start.
        data: clips and batches.
        loss: noise and conditioning.
        optim: optimiser and averaging.
        engine: how it is computed and kept.
        validation: what is measured meanwhile.
    """

    recipe: str
    out: Path
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        _expect(
            not (self.optim.name == "muon" and self.engine.sharding == "fsdp"),
            "optim.name is 'muon' and engine.sharding is 'fsdp'; Muon needs whole matrices, so set "
            "optim.name=adamw or engine.sharding=ddp.",
        )
        _expect(
            self.engine.mixed_precision != "fp16" or self.optim.name != "muon",
            "engine.mixed_precision is 'fp16' and optim.name is 'muon'; set "
            "engine.mixed_precision=bf16 or no.",
        )
        _expect(
            self.model.frozen_dtype == "fp32" or self.engine.mixed_precision != "no",
            f"model.frozen_dtype is {self.model.frozen_dtype!r} and engine.mixed_precision is "
            "'no', in which adapters and weights do not go together; set "
            "model.frozen_dtype=fp32, or engine.mixed_precision=bf16.",
        )
        if self.model.unet is not None:
            unit = 8 * self.model.unet.stride
            _expect(
                self.data.size % unit == 0,
                f"data.size is {self.data.size}, expected a multiple of {unit} (the VAE's 8 times "
                f"the network's {self.model.unet.stride}).",
            )
        _expect(
            self.validation.every == 0 or any(s.held_out for s in self.data.active_sources),
            f"validation.every is {self.validation.every} and no source holds scenes out; set "
            "data.sources.NAME.held_out, or validation.every=0.",
        )
        _expect(
            self.validation.every == 0
            or (self.model.camera == "rays" and self.loss.disentangle_motion),
            f"validation.every is {self.validation.every}, but validation samples as the full "
            "method does, and this run is an ablation of it; set validation.every=0 and use "
            "trainer.evaluate_variant afterwards.",
        )
        _expect(
            self.model.start == "scratch" or self.model.start_from is not None,
            f"model.start is {self.model.start!r} and model.start_from is not set; give the file "
            "or folder of those weights.",
        )


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidInputError(message)
