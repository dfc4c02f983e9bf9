"""The training loop: draw, forward and backward, clip, check, step, average, log, save."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from genxd_core.autoencoder import Autoencoder
from genxd_core.errors import InvalidInputError
from genxd_core.files import write_atomically
from genxd_core.model.unet import GenXDUNet

from . import run_state
from .accelerated import check_blocks, make_accelerator, seed_step, start_trackers
from .broken import BrokenScenes
from .checkpoint import check_same_run, load_checkpoint, remove_unfinished, save_checkpoint
from .config import RunConfig
from .data import MicroBatch, MicroBatches, load_micro_batches, seeded_rng
from .ema import WeightAverage
from .metrics_log import RunLog
from .network import build_network, with_known_unet
from .optim import build_optimizers, set_rates, share_of_peak
from .provenance import Origin
from .step import Batch, batch_loss
from .stopping import StopRequest
from .validation_run import Validation
from .weights_folder import origin_of_start, save_weights

__all__ = ["NonFiniteLossError", "TrainingRun", "train"]

_log = logging.getLogger(__name__)


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite; the batch is saved, and the last checkpoint is whole."""


def train(config: RunConfig, *, resume: bool = False) -> Path:
    """Train; returns the folder of the averaged weights.

    Args:
        config: of the run.
        resume: go on from the folder's checkpoint if there is one.

    Raises:
        InvalidInputError: what is asked for cannot work, or the folder holds a run and ``resume``
            is not set, or one of another configuration.
        NonFiniteLossError: see there.
    """
    run = TrainingRun(config, resume=resume)
    run.go()
    return config.out / "unet"


class TrainingRun:
    """One process's part of a run.

    Args:
        config: of the run.
        resume: see `train`.
    """

    def __init__(self, config: RunConfig, *, resume: bool = False) -> None:
        self.state_file = config.out / "state.pt"
        if self.state_file.exists() and not resume:
            raise InvalidInputError(
                f"out is {config.out}, which holds a run; go on with it by --resume, or choose "
                "another folder."
            )
        known = config.out / "unet" if self.state_file.exists() else None
        config = replace(config, model=with_known_unet(config.model, known))
        self.config = config
        if config.engine.threads:
            torch.set_num_threads(config.engine.threads)
        self.batches = MicroBatches(config.data, config.engine.seed)
        self.accelerator = make_accelerator(config)
        check_blocks(config, self.accelerator.num_processes)
        self.accumulate = config.data.accumulation(self.accelerator.num_processes)
        self.vae = self._load_vae()
        torch.manual_seed(config.engine.seed)
        network, self.origin = self._start()
        optimizers = build_optimizers(network, config)
        self.model, *self.optimizers = self.accelerator.prepare(network, *optimizers)
        self.network = self.accelerator.unwrap_model(self.model)
        self.average = WeightAverage(self.network, config.optim.ema_half_life)
        self.step = self._resume()
        if self.accelerator.is_main_process:
            check_same_run(config)
            remove_unfinished(config.out)
        self.broken = BrokenScenes(config, self.accelerator.process_index)
        self.validation = Validation(config, self.vae)

    def _load_vae(self) -> Autoencoder | None:
        folder = self.config.model.vae
        if folder is None:
            if self.config.data.latents is None:
                raise InvalidInputError(
                    "model.vae is not set, and pictures are encoded while training; give the "
                    "folder of the VAE, or set data.latents to clips that trainer encode made."
                )
            return None
        half = self.config.engine.mixed_precision
        dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[half]
        return Autoencoder.from_pretrained(folder, dtype=dtype, device=self.accelerator.device)

    def _start(self) -> tuple[GenXDUNet, Origin]:
        """The network at the run's start, and what its weights come from."""
        model = self.config.model
        if self.state_file.exists() and model.lora is None:
            # What the run started from may be gone by now.
            model = replace(model, start="scratch", start_from=None)
            return build_network(model), load_checkpoint(self.state_file)["origin"]
        return build_network(model), origin_of_start(model)

    # ---- the loop -------------------------------------------------------------------------------

    def go(self) -> None:
        """Train to the last step, or until asked to stop."""
        start_trackers(self.accelerator, self.config)
        log = RunLog(self.config.out, self.accelerator, self.step)
        engine = self.config.engine
        loader, logged = self._loader(), self.step
        pending = _Pending()
        with StopRequest() as stop, self._bar() as bar:
            while self.step < engine.steps:
                norm = self._one_step(loader, log, pending)
                self.step += 1
                bar.update(1)
                if self.step % engine.log_every == 0:
                    figures = {"grad_norm": norm, "lr": self.optimizers[0].param_groups[0]["lr"]}
                    row = log.write(self.step, self.step - logged, figures)
                    logged = self.step
                    bar.set_postfix(_short(row))
                if self._is_due(self.config.validation.every):
                    self._validate(log)
                stopping = self._all_agree(stop.asked)
                if self._is_due(engine.save_every) or stopping or self.step == engine.steps:
                    self._check(pending)
                    self._save()
                if stopping:
                    _log.warning("stopped at step %d; go on with --resume", self.step)
                    break
        self.accelerator.end_training()

    def _one_step(self, loader: Iterator[MicroBatch], log: RunLog, pending: "_Pending") -> Tensor:
        """One optimiser step; returns the gradient's norm."""
        rank = self.accelerator.process_index
        seed_step(self.config, self.step, rank)
        set_rates(self.optimizers, share_of_peak(self.step, self.config))
        for place in range(self.accumulate):
            began = time.perf_counter()
            micro = next(loader)
            waited = time.perf_counter() - began
            self.broken.note(micro)
            with self._syncing(last=place == self.accumulate - 1):
                loss = self._loss(micro)
                self.accelerator.backward(loss / self.accumulate)
            clips = micro.c2w.shape[:2].numel() / max(self.config.data.views)
            log.add(micro.mode, loss, clips, waited)
            # The last step's loss is there by now, so that looking at it does not wait.
            self._check(pending)
            pending.add(micro.number, loss)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        norm = self.accelerator.clip_grad_norm_(trained, self.config.optim.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average.update(self.network, self.step + 1)
        assert norm is not None
        return run_state.full(norm)

    def _loss(self, micro: MicroBatch) -> Tensor:
        rng = seeded_rng(self.config.engine.seed, "noise", micro.number)
        # Mixed precision is in the prepared model's forward pass alone.
        batch, camera = self._to_batch(micro), self.config.model.camera
        loss, _ = batch_loss(self.model, batch, self.config.loss, rng, camera=camera)
        return loss

    def _to_batch(self, micro: MicroBatch) -> Batch:
        device = self.accelerator.device
        latents = micro.latents
        if latents is None:
            assert micro.pixels is not None
            assert self.vae is not None
            pixels = micro.pixels.to(device, non_blocking=True)
            latents = self.vae.encode(pixels.flatten(0, 1).float() / 255)
            latents = latents.unflatten(0, pixels.shape[:2])
        return Batch(latents, micro.c2w, micro.Ks_norm, micro.motion_strength, micro.mode).to(
            device
        )

    def _loader(self) -> Iterator[MicroBatch]:
        at_once = self.accumulate * self.accelerator.num_processes
        return load_micro_batches(
            self.batches,
            first=self.step * at_once,
            last=self.config.engine.steps * at_once,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def _syncing(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients are exchanged once a step, with the last micro-batch."""
        return contextlib.nullcontext() if last else self.accelerator.no_sync(self.model)

    def _bar(self) -> "tqdm[Any]":
        return tqdm(
            total=self.config.engine.steps,
            initial=self.step,
            unit="step",
            disable=not self.accelerator.is_main_process,
        )

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _all_agree(self, asked: bool) -> bool:
        """Whether to stop: several processes decide it together, at the steps that are logged."""
        if self.accelerator.num_processes == 1:
            return asked
        if not self._is_due(self.config.engine.log_every):
            return False
        flag = torch.tensor(float(asked), device=self.accelerator.device)
        return float(self.accelerator.reduce(flag, "sum")) > 0

    # ---- what goes wrong ------------------------------------------------------------------------

    def _check(self, pending: "_Pending") -> None:
        """Stop if a loss that was noted before is not finite."""
        for number, loss in pending.take():
            if not math.isfinite(float(loss)):
                file = self._save_batch(number)
                raise NonFiniteLossError(
                    f"the loss is {float(loss)} at step {self.step}, micro-batch {number}; the "
                    f"batch is in {file}, and the last checkpoint is from before. Look at its "
                    "scenes, lower optim.lr, or train with engine.mixed_precision=bf16."
                )

    def _save_batch(self, number: int) -> Path:
        micro = self.batches[number]
        file = self.config.out / f"bad_batch_{number}.safetensors"
        names = ("pixels", "latents", "c2w", "Ks_norm", "motion_strength")
        tensors = {n: getattr(micro, n) for n in names if getattr(micro, n) is not None}
        scenes = [[p.dataset, p.scene_id, list(p.frames)] for p in micro.provenance]
        meta = {"mode": micro.mode, "scenes": json.dumps(scenes)}
        write_atomically(file, partial(save_file, tensors, metadata=meta))
        return file

    # ---- what is kept ---------------------------------------------------------------------------

    def _save(self) -> None:
        """Write the checkpoint and the averaged weights; all processes take part."""
        raw = [optimizer.optimizer for optimizer in self.optimizers]
        scaler = self.accelerator.scaler
        average = {n: run_state.full(v) for n, v in self.average.values.items()}
        state = {
            "step": self.step,
            "origin": self.origin,
            "network": run_state.parameters(self.network),
            "optimizers": run_state.optimizer_states(self.network, raw),
            "average": average,
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        if self.accelerator.is_main_process:
            save_checkpoint(self.state_file, state)
            save_weights(self.config, self.network, average, self.step, self.origin)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        if not self.state_file.exists():
            return 0
        check_same_run(self.config)
        state = load_checkpoint(self.state_file)
        run_state.load_parameters(self.network, state["network"])
        raw = [optimizer.optimizer for optimizer in self.optimizers]
        run_state.load_optimizers(self.network, raw, state["optimizers"])
        own = self.average.values
        average = {n: run_state.shared_as(v, own[n]) for n, v in state["average"].items()}
        self.average.load_state_dict(average)
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        _log.info("going on from step %d of %s", state["step"], self.state_file)
        return int(state["step"])

    def _validate(self, log: RunLog) -> None:
        alone = self.config.engine.sharding == "ddp"
        if self.accelerator.is_main_process or not alone:
            with self.average.swapped(self.network):
                figures = self.validation.run(self.network, self.step, self.accelerator)
            log.note({"step": self.step, **figures})
        self.accelerator.wait_for_everyone()


class _Pending:
    """Losses that are still being computed, to be looked at a step later."""

    def __init__(self) -> None:
        self._losses: list[tuple[int, Tensor]] = []

    def add(self, number: int, loss: Tensor) -> None:
        self._losses.append((number, loss.detach()))

    def take(self) -> list[tuple[int, Tensor]]:
        losses, self._losses = self._losses, []
        return losses


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """What of a line fits beside the bar."""
    short = {name: f"{row[name]:.3g}" for name in row if name.startswith("loss")}
    clips, memory = row["clips_per_second"], row["memory_gib"]
    return {**short, "clips/s": f"{clips:.3g}", "GiB": f"{memory:.1f}"}
