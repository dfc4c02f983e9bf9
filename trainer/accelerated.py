"""Devices, precision and sharding of a run, through accelerate."""

import os
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import FullyShardedDataParallelPlugin

from genxd_core.errors import InvalidInputError
from genxd_core.optional import require

from .config import RunConfig
from .settings import to_record

__all__ = ["check_blocks", "make_accelerator"]

_WRAPPED = ["MVTemporalResBlock", "MVTemporalTransformer"]


def make_accelerator(config: RunConfig) -> Accelerator:
    """The processes of a run, which ``accelerate launch`` or ``torchrun`` started; alone if none.

    Raises:
        MissingDependencyError: a tracker is not installed.
        InvalidInputError: the device or the process cannot have that precision, or the run is
            sharded over one process.
    """
    instead = "Or set engine.trackers=[]: log.jsonl has the same figures."
    if "tensorboard" in config.engine.trackers:
        require("tensorboard", extra="train", purpose="write TensorBoard files", instead=instead)
    if "wandb" in config.engine.trackers:
        require("wandb", extra="wandb", purpose="report to W&B", instead=instead)
    # Temporal layers rest in batches of still scenes, and so get no gradients there.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    try:
        accelerator = Accelerator(
            cpu=_several_on_cpus(),
            mixed_precision=config.engine.mixed_precision,
            log_with=list(config.engine.trackers) or None,
            project_dir=config.out,
            kwargs_handlers=handlers,
            fsdp_plugin=_fsdp() if config.engine.sharding == "fsdp" else None,
        )
    except ValueError as error:
        # accelerate keeps the first run's choice for the whole process.
        raise InvalidInputError(
            f"engine.mixed_precision is {config.engine.mixed_precision!r}, which cannot be had "
            f"here ({error}). After a run in another precision start a new process."
        ) from error
    if config.engine.sharding == "fsdp" and accelerator.num_processes == 1:
        raise InvalidInputError(
            "engine.sharding is 'fsdp' with one process; set engine.sharding=ddp, or start "
            "several with accelerate launch."
        )
    return accelerator


def _several_on_cpus() -> bool:
    """Whether several processes were started where there is no GPU.

    Unless told, accelerate would have each of them train alone, into one folder.
    """
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()


def _fsdp() -> FullyShardedDataParallelPlugin:
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=_WRAPPED,
        cpu_ram_efficient_loading=False,
    )


def check_blocks(config: RunConfig, processes: int) -> None:
    """Refuse shards of layers that some processes run and others skip.

    Raises:
        InvalidInputError: the processes would run different modes at a time under FSDP.
    """
    if config.engine.sharding == "fsdp" and config.data.mode_block % processes:
        raise InvalidInputError(
            f"data.mode_block is {config.data.mode_block} with {processes} processes under FSDP, "
            f"which must all run the same mode; set data.mode_block={processes}."
        )


def start_trackers(accelerator: Accelerator, config: RunConfig) -> None:
    """Open the trackers, with the run's settings beside the figures."""
    if config.engine.trackers:
        accelerator.init_trackers("genxd", config=_flat(to_record(config)))


def _flat(record: Any, at: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, as trackers take them."""
    if isinstance(record, (dict, list)):
        items = record.items() if isinstance(record, dict) else enumerate(record)
        out: dict[str, Any] = {}
        for key, value in items:
            out |= _flat(value, f"{at}.{key}" if at else str(key))
        return out
    return {at: record if isinstance(record, (bool, int, float)) else str(record)}


def seed_step(config: RunConfig, step: int, rank: int) -> None:
    """PyTorch's own generators at the start of a step: a run that goes on draws what it would."""
    torch.manual_seed((config.engine.seed * 1_000_003 + step) * 1009 + rank)
