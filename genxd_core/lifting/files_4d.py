"""Moving Gaussians as files: one that keeps the model, and a sequence that every viewer reads.

The model is a ``.safetensors`` file whose metadata holds ``genxd_splat4d``: a JSON object with
``version``, the motion's ``kind`` and ``config``, and the ``rotation`` to the scene's world; its
tensors are named ``canonical.*`` and ``motion.*``. The sequence is a folder of ``frame_0000.ply``
and so on, with the same Gaussians in the same order in each, and a ``manifest.json``.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..cameras.cameras import Cameras
from ..cameras.io import save_cameras
from ..errors import InvalidInputError, WeightsError
from ..files import write_atomically
from ..model.weights import read_safetensors
from ..progress import Progress, report
from .gaussians import Gaussians
from .gaussians_4d import Gaussians4D, Motion
from .hexplane import HexPlaneField
from .motion_bases import MotionBases
from .ply import save_ply

__all__ = ["export_sequence", "load_gaussians_4d", "save_gaussians_4d"]

VERSION = 1
_KEY = "genxd_splat4d"
_MOTIONS: dict[str, type[Motion]] = {
    HexPlaneField.kind: HexPlaneField,
    MotionBases.kind: MotionBases,
}
_CANONICAL = ("means", "quats", "scales", "opacities", "sh")
_MANIFEST, _CAMERAS = "manifest.json", "cameras.json"
_MOST_FRAMES = 10_000


def save_gaussians_4d(gaussians: Gaussians4D, path: str | Path) -> Path:
    """Write Gaussians and motion so that they can be read and fitted on; whole or not at all.

    Args:
        gaussians: of `fit_gaussians_4d` or `fit_motion_bases`.
        path: of the file, which ends in .safetensors; its folder is made.

    Returns:
        The path.

    Raises:
        InvalidInputError: the name ends otherwise, or a value is not finite.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise InvalidInputError(f"path is {path}; expected a name that ends in .safetensors.")
    tensors: dict[str, Tensor] = {
        f"canonical.{name}": getattr(gaussians.canonical, name) for name in _CANONICAL
    }
    tensors |= {f"motion.{name}": value for name, value in gaussians.motion.state_dict().items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    wrong = next((name for name, value in tensors.items() if not value.isfinite().all()), None)
    if wrong is not None:
        raise InvalidInputError(
            f"gaussians holds NaN or infinite numbers in {wrong}, so {path} is not written; the "
            "fit that made them has diverged."
        )
    about = {
        "version": VERSION,
        "kind": gaussians.motion.kind,
        "config": gaussians.motion.config(),
        "rotation": gaussians.rotation.tolist(),
    }
    write_atomically(
        path, lambda unfinished: save_file(tensors, unfinished, {_KEY: json.dumps(about)})
    )
    return path


def load_gaussians_4d(path: str | Path) -> Gaussians4D:
    """Read what `save_gaussians_4d` wrote, on the CPU.

    Raises:
        InvalidInputError: there is no such file, it holds something else, it is of another
            version, or it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInputError(f"{path} does not exist, or is no file; give a 4D .safetensors.")
    try:
        tensors, metadata = read_safetensors(path)
    except WeightsError as error:
        raise InvalidInputError(str(error)) from error
    about = _about(metadata, path)
    try:
        parts = {name: tensors[f"canonical.{name}"].clone() for name in _CANONICAL}
        canonical = Gaussians(**parts)
        # Without memory: sizes come from the file, and are held against its tensors first.
        with torch.device("meta"):
            motion = _MOTIONS[about["kind"]](**about["config"])
        own = {
            name.removeprefix("motion."): value.clone()
            for name, value in tensors.items()
            if name.startswith("motion.")
        }
        motion.load_state_dict(own, assign=True)
        rotation = torch.tensor(about["rotation"], dtype=torch.float64).view(3, 3)
        if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-4):
            raise ValueError("its rotation is none")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"{path} is damaged: its tensors and its description do not belong together ({error})."
        ) from error
    return Gaussians4D(canonical, motion.requires_grad_(False), rotation)


def _about(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    if _KEY not in metadata:
        raise InvalidInputError(
            f"{path} holds no moving Gaussians (no {_KEY} in its metadata); give a file that was "
            "written by GenXD Save 4D or save_gaussians_4d."
        )
    try:
        about = json.loads(metadata[_KEY])
        version = about["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} is damaged: its description cannot be read.") from error
    if version != VERSION:
        raise InvalidInputError(
            f"{path} is a 4D file of version {version}; this release reads version {VERSION}. Use "
            "the release that wrote it, or write it again."
        )
    if about.get("kind") not in _MOTIONS:
        raise InvalidInputError(
            f"{path} has motion of the kind {about.get('kind')!r}; expected one of "
            f"{', '.join(map(repr, _MOTIONS))}."
        )
    return dict(about)


def export_sequence(
    gaussians: Gaussians4D,
    folder: str | Path,
    *,
    num_frames: int,
    fps: float,
    cameras: Cameras | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a folder of one ``.ply`` a frame and a manifest; the folder is whole or not there.

    Args:
        gaussians: at even times from 0 to 1.
        folder: must not exist.
        num_frames: at least 2.
        fps: frames a second at which they are meant to be played.
        cameras: to keep with them.
        progress: called after each frame.

    Returns:
        The folder.

    Raises:
        InvalidInputError: the folder exists, or a number is out of range.
        Cancelled: ``progress`` returned ``False``; nothing is left.
    """
    folder = Path(folder)
    if not 2 <= num_frames <= _MOST_FRAMES:
        raise InvalidInputError(f"num_frames is {num_frames}; expected 2 to {_MOST_FRAMES}.")
    if not 0 < fps <= 1000:
        raise InvalidInputError(f"fps is {fps}; expected above 0 and at most 1000.")
    if folder.exists():
        raise InvalidInputError(f"{folder} exists already; give another folder, or remove it.")
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    names = [f"frame_{frame:04d}.ply" for frame in range(num_frames)]
    times = [frame / (num_frames - 1) for frame in range(num_frames)]
    unfinished.mkdir(parents=True)
    try:
        for frame, (name, time) in enumerate(zip(names, times, strict=True)):
            save_ply(gaussians.at(time), unfinished / name)
            report(progress, frame + 1, num_frames)
        manifest = {
            "version": VERSION,
            "fps": fps,
            "num_frames": num_frames,
            "num_gaussians": len(gaussians),
            "axes": "OpenCV: x right, y down, z forward",
            "units": "scene",
            "frames": [
                {"file": name, "time": time} for name, time in zip(names, times, strict=True)
            ],
            "cameras": None if cameras is None else _CAMERAS,
        }
        if cameras is not None:
            save_cameras(cameras, unfinished / _CAMERAS)
        text = json.dumps(manifest, indent=1) + "\n"
        (unfinished / _MANIFEST).write_text(text, encoding="utf-8")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
