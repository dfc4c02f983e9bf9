"""What a training run is made of. Combinations that cannot work are refused here."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from genxd_core.errors import InvalidInputError
from genxd_core.model.config import GenXDUNetConfig

__all__ = ["LossConfig", "MixEntry", "RunConfig"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Noise levels and conditioning during training.

    Attributes:
        log_sigma_mean: sigma = exp(mean + std n), n ~ N(0, 1); SVD's numbers are 0.7 and 1.6.
        log_sigma_std: see above.
        drop_condition: probability of training the unconditional branch.
        multi_view_share: share of batches with several conditioned views instead of one.
        max_conditioned: the most views conditioned in multi-view mode.
    """

    log_sigma_mean: float = 0.7
    log_sigma_std: float = 1.6
    drop_condition: float = 0.1
    multi_view_share: float = 0.4
    max_conditioned: int = 4

    def __post_init__(self) -> None:
        for name in ("drop_condition", "multi_view_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidInputError(f"loss.{name} is {getattr(self, name)}, expected 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class MixEntry:
    """One source of micro-batches; a micro-batch has one mode (3D and 4D are never mixed in it).

    Attributes:
        family: prefix of the shard names.
        mode: "3d", "video" or "4d".
        weight: how often it is drawn, in any unit.
    """

    family: str
    mode: str
    weight: float


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run of the UNet.

    Attributes:
        shards: folder of encoded shards; new ones are picked up while training.
        out: folder of the run: checkpoints, logs, weights.
        unet: the network.
        loss: noise and conditioning.
        mix: where batches come from.
        steps: optimiser steps.
        frames_per_step: frames in a micro-batch: clips x frames per clip.
        clip_lengths: frames per clip; each micro-batch draws one.
        optimizer: "adamw", or "muon" (with AdamW for norms, biases, first and last layers).
        peak_lr: of AdamW after the warm-up; falls along a cosine to ``final_lr_share`` of it.
        muon_lr: likewise, of Muon.
        final_lr_share: of the peak, at the last step.
        warmup: steps.
        weight_decay: of AdamW.
        accumulate: micro-batches a step.
        clip_norm: the gradient's largest norm.
        ema_half_life: steps after which a weight's share in the average has halved.
        gradient_checkpointing: trade time for memory.
        mixed_precision: "no", "fp16" or "bf16".
        plain_attention: attention by plain matrix products (`trainer.attention`): faster on a CPU,
            for short clips of small pictures.
        init_from: weights to start from: a file or folder that `genxd_core.load_unet` reads.
        seed: of everything.
        log_every: steps between log lines.
        save_every: steps between checkpoints.
    """

    shards: Path
    out: Path
    unet: GenXDUNetConfig
    loss: LossConfig = field(default_factory=LossConfig)
    mix: tuple[MixEntry, ...] = ()
    steps: int = 1000
    frames_per_step: int = 72
    clip_lengths: tuple[int, ...] = (12,)
    optimizer: str = "adamw"
    peak_lr: float = 5e-5
    muon_lr: float = 0.02
    final_lr_share: float = 0.0
    warmup: int = 100
    weight_decay: float = 1e-2
    accumulate: int = 1
    clip_norm: float = 1.0
    ema_half_life: float = 500.0
    gradient_checkpointing: bool = False
    mixed_precision: str = "no"
    plain_attention: bool = False
    init_from: Path | None = None
    seed: int = 0
    log_every: int = 25
    save_every: int = 250

    def __post_init__(self) -> None:
        if not self.mix or sum(entry.weight for entry in self.mix) <= 0:
            raise InvalidInputError("mix is empty, expected at least one source of batches.")
        if self.frames_per_step < max(self.clip_lengths):
            raise InvalidInputError(
                f"frames_per_step is {self.frames_per_step}, expected at least the longest of "
                f"clip_lengths {self.clip_lengths}."
            )
        if self.optimizer not in ("adamw", "muon"):
            raise InvalidInputError(f"optimizer is {self.optimizer!r}, expected 'adamw' or 'muon'.")
        if self.mixed_precision not in ("no", "fp16", "bf16"):
            raise InvalidInputError(
                f"mixed_precision is {self.mixed_precision!r}, expected 'no', 'fp16' or 'bf16'."
            )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record of the run."""
        values = asdict(self)
        values["unet"] = self.unet.to_dict()
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
