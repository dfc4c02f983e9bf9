"""A finished run as a model folder in the released layout, in half precision."""

import json
import shutil
from functools import partial
from pathlib import Path

from safetensors.torch import load_file, save_file

from genxd_core.files import write_atomically, write_checksums

__all__ = ["SCHEDULER", "export_model"]

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


def export_model(unet: Path, vae: Path, out: Path) -> Path:
    """Write ``unet/ vae/ scheduler/`` and a file of checksums.

    Args:
        unet: folder with the averaged weights of a run (`trainer.loop.save_weights`).
        vae: folder of the finished VAE.
        out: the model folder.

    Returns:
        The list of checksums, ``SHA256SUMS``.
    """
    for name, source in (("unet", unet), ("vae", vae)):
        target = out / name / _FILE_NAME
        tensors = {key: value.half() for key, value in load_file(source / _FILE_NAME).items()}
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        meta = {"genxd_config": json.dumps(config)} if name == "unet" else {}
        write_atomically(target, partial(save_file, tensors, metadata=meta))
        shutil.copyfile(source / "config.json", out / name / "config.json")
    scheduler = out / "scheduler" / "scheduler_config.json"
    scheduler.parent.mkdir(parents=True, exist_ok=True)
    scheduler.write_text(json.dumps(SCHEDULER, indent=2) + "\n", encoding="utf-8")
    return write_checksums(out)
