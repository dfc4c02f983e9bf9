"""A finished run as a model folder in the released layout, in half precision."""

import hashlib
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from .files import write_atomically

__all__ = ["SCHEDULER", "export_model", "sha256"]

_FILE_NAME = "diffusion_pytorch_model.safetensors"

# SVD's scheduler, as the released model has it.
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "interpolation_type": "linear",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "steps_offset": 1,
}


def export_model(unet: Path, vae: Path, out: Path) -> dict[str, str]:
    """Write ``unet/ vae/ scheduler/`` and a file of checksums.

    Args:
        unet: folder with the averaged weights of a run (`trainer.loop.save_weights`).
        vae: folder of the finished VAE.
        out: the model folder.

    Returns:
        SHA-256 of each weights file, by its path within ``out``.
    """
    sums: dict[str, str] = {}
    for name, source in (("unet", unet), ("vae", vae)):
        target = out / name / _FILE_NAME
        tensors = {key: value.half() for key, value in load_file(source / _FILE_NAME).items()}
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        meta = {"genxd_config": json.dumps(config)} if name == "unet" else {}
        write_atomically(target, lambda p, t=tensors, m=meta: save_file(t, p, metadata=m))
        shutil.copyfile(source / "config.json", out / name / "config.json")
        sums[f"{name}/{_FILE_NAME}"] = sha256(target)
    scheduler = out / "scheduler" / "scheduler_config.json"
    scheduler.parent.mkdir(parents=True, exist_ok=True)
    scheduler.write_text(json.dumps(SCHEDULER, indent=2) + "\n", encoding="utf-8")
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    (out / "SHA256SUMS").write_text(lines, encoding="utf-8")
    return sums


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
