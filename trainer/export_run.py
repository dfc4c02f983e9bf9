"""From a run's folder to weights that others use: a model folder, one file, a LoRA for ComfyUI."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from genxd_core.errors import InvalidInputError
from genxd_core.model.unet import GenXDUNet
from genxd_core.model.weights import load_unet

from .export import Precision, export_lora, export_model, export_single_file
from .lora import add_lora, load_lora_state, merged_state
from .provenance import Origin, provenance
from .weights_folder import LORA_FILE, WEIGHTS_FILE

__all__ = ["ExportJob", "export_run"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """What is made of a run; at least one of ``out``, ``file`` and ``lora`` is given.

    Attributes:
        run: folder of the run, or one of the weights in it (``unet``, ``unet_0050000``).
        out: model folder in the released layout.
        vae: folder of the VAE for ``out``; "none" leaves it out.
        file: the network as one .safetensors, for GenXD Load Model.
        lora: the adapters alone, for ComfyUI's LoRA loaders (of a run with adapters).
        base: the weights beneath the adapters, where they lie elsewhere by now.
        precision: of the weights.
        origin: what the training started from, where its weights do not say: "released" for the
            released ones. It decides which terms the files tell of.
    """

    run: Path
    out: Path | None = None
    vae: str | None = None
    file: Path | None = None
    lora: Path | None = None
    base: Path | None = None
    precision: Precision = "fp16"
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if self.out is None and self.file is None and self.lora is None:
            raise InvalidInputError(
                "nothing to export to; give --out (a model folder), --file or --lora."
            )
        if self.out is not None and self.vae is None:
            raise InvalidInputError(
                "out is given without a VAE; give its folder as --vae, or --vae none to leave it "
                "out."
            )


def export_run(job: ExportJob) -> list[Path]:
    """Write what a job asks for; returns the files and folders.

    Raises:
        InvalidInputError: the folder holds no run, or a LoRA is asked of one without adapters.
        WeightsError: the weights beneath adapters are missing or others.
    """
    folder = _weights_folder(job.run)
    if (folder / LORA_FILE).is_file():
        return _export_adapters(job, folder)
    if job.lora is not None:
        raise InvalidInputError(
            f"lora is given, but {folder} has no adapters; this run trained all weights. Use "
            "--file or --out."
        )
    return _export_network(job, folder / WEIGHTS_FILE, _metadata(folder / WEIGHTS_FILE, job))


def _export_network(job: ExportJob, weights: Path, metadata: dict[str, str]) -> list[Path]:
    made = []
    if job.out is not None:
        assert job.vae is not None
        export_model(weights, job.vae, job.out, dtype=job.precision, metadata=metadata)
        made.append(job.out)
    if job.file is not None:
        made.append(export_single_file(weights, job.file, dtype=job.precision, metadata=metadata))
    for path in made:
        _log.info("wrote %s", path)
    return made


def _export_adapters(job: ExportJob, folder: Path) -> list[Path]:
    metadata = _metadata(folder / LORA_FILE, job)
    network = _adapted(folder, metadata, job)
    for name in ("lora", "start_from"):  # of the run's own file; the path is nobody else's business
        metadata.pop(name)
    made = []
    if job.lora is not None:
        made.append(export_lora(network, job.lora, dtype=job.precision, metadata=metadata))
        _log.info("wrote %s", job.lora)
    if job.out is None and job.file is None:
        return made
    with TemporaryDirectory(prefix="genxd-merged-") as name:
        merged = Path(name) / WEIGHTS_FILE
        config = {"genxd_config": json.dumps(network.config.to_dict())}
        save_file(merged_state(network), merged, metadata={**metadata, **config})
        return made + _export_network(job, merged, metadata)


def _adapted(folder: Path, metadata: dict[str, str], job: ExportJob) -> GenXDUNet:
    base = job.base or Path(metadata["start_from"])
    if not base.exists():
        raise InvalidInputError(
            f"the adapters in {folder} belong to the weights {base}, which are not there; give "
            "where they lie now as --base."
        )
    network = load_unet(base)
    lora: dict[str, Any] = json.loads(metadata["lora"])
    add_lora(network, rank=lora["rank"], alpha=lora["alpha"])
    load_lora_state(network, load_file(folder / LORA_FILE))
    return network


def _weights_folder(run: Path) -> Path:
    for folder in (run, run / "unet"):
        if (folder / WEIGHTS_FILE).is_file() or (folder / LORA_FILE).is_file():
            return folder
    raise InvalidInputError(
        f"run is {run}, which holds no trained weights (unet/{WEIGHTS_FILE} or unet/{LORA_FILE}); "
        "give the folder that trainer train wrote to, after its first checkpoint."
    )


def _metadata(file: Path, job: ExportJob) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        metadata: dict[str, str] = dict(opened.metadata() or {})
    metadata.pop("genxd_config", None)
    if job.origin is not None:
        steps = int(metadata.get("steps", 0))
        told = provenance(origin=job.origin, recipe=metadata.get("recipe", ""), steps=steps)
        metadata = {k: v for k, v in metadata.items() if k != "license"} | told
    return metadata
