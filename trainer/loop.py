"""The training loop: draw, forward and backward, clip, check, step, average, log, save."""

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor

from genxd_core.errors import InvalidInputError
from genxd_core.files import write_atomically
from genxd_core.model.unet import GenXDUNet
from genxd_core.model.weights import load_unet

from .attention import plain_attention
from .checkpoint import load_checkpoint, save_checkpoint
from .config import RunConfig
from .data import ClipStore, draw_batch
from .ema import WeightAverage
from .optim import cosine, muon_and_adam, set_rates
from .step import batch_loss

__all__ = ["train"]

_log = logging.getLogger(__name__)


def train(config: RunConfig) -> Path:
    """Train, or go on with a run that was stopped; returns the folder of the averaged weights."""
    torch.manual_seed(config.seed)
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    unet = _build_network(config).to(accelerator.device)
    unet.enable_gradient_checkpointing(config.gradient_checkpointing)
    optimizers = build_optimizers(unet, config)
    average = WeightAverage(unet, config.ema_half_life)
    rng = torch.Generator().manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    state_file = config.out / "state.pt"
    _record_run(config)
    start = _resume(state_file, unet, optimizers, average, rng)
    model, *optimizers = accelerator.prepare(unet, *optimizers)
    store = ClipStore(config.shards)
    store.expect([entry.family for entry in config.mix])

    meter = _Meter(config)
    for step in range(start, config.steps):
        share = cosine(step, config.steps, warmup=config.warmup, last=config.final_lr_share)
        set_rates(optimizers, share)
        for _ in range(config.accumulate):
            batch = draw_batch(store, config, rng).to(accelerator.device)
            # Mixed precision is in the prepared model's forward pass alone.
            loss, figures = batch_loss(model, batch, config.loss, rng)
            accelerator.backward(loss / config.accumulate)
            value = meter.add(batch.mode, figures)
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss is {value} at step {step}; nothing was saved")
        norm = accelerator.clip_grad_norm_(unet.parameters(), config.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average.update(unet, step + 1)
        if (step + 1) % config.log_every == 0:
            meter.write(step + 1, float(norm))
            store.refresh()
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            _save(state_file, step + 1, unet, optimizers, average, rng)
            save_weights(config, average.values, step + 1)
    return config.out / "unet"


def build_optimizers(unet: GenXDUNet, config: RunConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of a run, with their peak learning rates."""
    if config.optimizer == "muon":
        return muon_and_adam(
            unet.named_parameters(),
            ends=("conv_in", "conv_out"),
            muon_lr=config.muon_lr,
            adam_lr=config.peak_lr,
            weight_decay=config.weight_decay,
            muon_dtype=torch.bfloat16 if config.mixed_precision == "bf16" else None,
        )
    adam = torch.optim.AdamW(unet.parameters(), lr=config.peak_lr, weight_decay=config.weight_decay)
    adam.param_groups[0]["peak_lr"] = config.peak_lr
    return [adam]


def save_weights(config: RunConfig, values: dict[str, Tensor], step: int) -> None:
    """Write averaged weights in the released layout: ``unet/config.json`` and safetensors."""
    folder = config.out / "unet"
    folder.mkdir(parents=True, exist_ok=True)
    meta = {"genxd_config": json.dumps(config.unet.to_dict()), "steps": str(step)}
    path = folder / "diffusion_pytorch_model.safetensors"
    write_atomically(path, lambda p: save_file(values, p, metadata=meta))
    write_atomically(folder / "config.json", config.unet.to_json)


def _build_network(config: RunConfig) -> GenXDUNet:
    attention = plain_attention if config.plain_attention else None
    unet = GenXDUNet(config.unet, attention=attention)
    if config.init_from is None:
        soften_start_(unet)
        return unet
    source = load_unet(config.init_from)
    if source.config != config.unet:
        raise InvalidInputError(
            f"init_from is {config.init_from}, a network of another configuration than unet: "
            f"{source.config}, expected {config.unet}."
        )
    unet.load_state_dict(source.state_dict())
    return unet


@torch.no_grad()
def soften_start_(unet: GenXDUNet) -> None:
    """Start every residual branch at zero, and the fusion half way: training from scratch.

    SVD's start (fusion at sigmoid(5)) presumes temporal layers that already work.
    """
    for name, parameter in unet.named_parameters():
        if (
            name.endswith(("res_block.conv2.weight", "proj_out.weight"))
            or name == "conv_out.weight"
        ):
            parameter.zero_()
        if name.endswith("time_mixer.gamma"):
            parameter.zero_()


# What may change when a run goes on: how long it takes, and how it is watched and computed.
_MAY_CHANGE = ("steps", "log_every", "save_every", "mixed_precision", "plain_attention", "shards")


def _record_run(config: RunConfig) -> None:
    """Write ``run.json``, unless the folder holds another run."""
    file = config.out / "run.json"
    record = json.loads(json.dumps(config.to_dict()))
    if (config.out / "state.pt").exists() and file.exists():
        earlier = json.loads(file.read_text(encoding="utf-8"))
        for name, value in record.items():
            if name in earlier and name not in _MAY_CHANGE and earlier[name] != value:
                raise InvalidInputError(
                    f"out is {config.out}, which holds a run with {name} {earlier[name]!r}, not "
                    f"{value!r}; go on with that, or choose another folder."
                )
    write_atomically(file, lambda p: p.write_text(json.dumps(record, indent=2), encoding="utf-8"))


def _save(
    path: Path,
    step: int,
    unet: GenXDUNet,
    optimizers: list[torch.optim.Optimizer],
    average: WeightAverage,
    rng: torch.Generator,
) -> None:
    state = {
        "step": step,
        "unet": unet.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "average": average.values,
        "rng": rng.get_state(),
    }
    save_checkpoint(path, state)


def _resume(
    path: Path,
    unet: GenXDUNet,
    optimizers: list[torch.optim.Optimizer],
    average: WeightAverage,
    rng: torch.Generator,
) -> int:
    if not path.exists():
        return 0
    state = load_checkpoint(path)
    unet.load_state_dict(state["unet"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    average.values = state["average"]
    rng.set_state(state["rng"])
    _log.info("going on from step %d of %s", state["step"], path)
    return int(state["step"])


class _Meter:
    """Sums figures per mode between two log lines."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.file = config.out / "log.jsonl"
        self.began = time.perf_counter()
        self.sums: dict[str, tuple[float, int]] = {}

    def add(self, mode: str, figures: dict[str, Tensor]) -> float:
        """Count one micro-batch, and return its loss."""
        total, count = self.sums.get(mode, (0.0, 0))
        value = float(figures["loss"])
        self.sums[mode] = (total + value, count + 1)
        return value

    def write(self, step: int, norm: float) -> None:
        seconds = (time.perf_counter() - self.began) / self.config.log_every
        row: dict[str, Any] = {"step": step, "seconds_per_step": round(seconds, 3)}
        row["eta_minutes"] = round((self.config.steps - step) * seconds / 60, 1)
        row["grad_norm"] = round(norm, 4)
        row |= {f"loss_{k}": round(t / n, 5) for k, (t, n) in sorted(self.sums.items())}
        with self.file.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        _log.info("%s", row)
        self.sums, self.began = {}, time.perf_counter()
