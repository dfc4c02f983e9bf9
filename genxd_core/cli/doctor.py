"""``genxd doctor``: what is installed, what is active, what is missing, and why."""

import importlib
import importlib.metadata
import platform
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["OPTIONAL", "Doctor", "Finding"]

State = Literal["ok", "missing", "problem"]

# By extra: module to import, package to install, what it enables.
OPTIONAL: dict[str, tuple[tuple[str, str, str], ...]] = {
    "pipeline": (
        ("diffusers", "diffusers", "the VAE outside ComfyUI"),
        ("accelerate", "accelerate", "loading without a second copy in memory"),
        ("av", "av", "reading and writing video"),
    ),
    "cli": (
        ("tyro", "tyro", "this command line"),
        ("tqdm", "tqdm", "progress bars"),
    ),
    "lift": (
        ("numba", "numba", "fast fitting of 3D and 4D scenes on the CPU"),
        ("scipy", "scipy", "spline paths, nearest neighbours"),
    ),
    "cuda": (("gsplat", "gsplat", "fitting of 3D and 4D scenes on an NVIDIA GPU"),),
    "curate": (
        ("pycolmap", "pycolmap", "points that several pictures show, camera poses from video"),
        ("cv2", "opencv-python-headless", "features and flow"),
        ("ray", "ray", "curating many clips at once"),
    ),
    "eval": (("torchmetrics", "torchmetrics", "FID and FVD"),),
}
_CORE = ("torch", "numpy", "einops", "jaxtyping", "PIL", "safetensors")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: "ok", "missing" (optional, or not set up) or "problem" (should work and does not).
        what: what was looked at.
        told: version, place or reason.
    """

    state: State
    what: str
    told: str


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Tell what is installed, what is active, what is missing, and why.

    The exit status is 1 where something that should work does not.
    """

    def run(self) -> int:
        """Print the report and return the exit status."""
        problems = 0
        for title, findings in (
            ("Installation", _installation()),
            ("Devices", _devices()),
            ("Optional packages", _optional()),
            ("Rasteriser of Gaussians", _rasteriser()),
            ("Models", _models()),
            ("Perceptual models", _perceptual()),
        ):
            print(title)
            for finding in findings:
                problems += finding.state == "problem"
                print(f"  {finding.state:<8} {finding.what:<24} {finding.told}")
        print("No problems." if not problems else f"{problems} problem(s), see above.")
        return 1 if problems else 0


def _installation() -> Iterator[Finding]:
    from .. import __version__

    yield Finding("ok", "genxd", f"{__version__} in {Path(__file__).parent.parent}")
    yield Finding("ok", "python", f"{sys.version.split()[0]} on {platform.platform()}")
    for module in _CORE:
        version, error = _import(module, "pillow" if module == "PIL" else module)
        yield Finding("problem" if error else "ok", module, error or version)


def _devices() -> Iterator[Finding]:
    import torch

    from .devices import choose_device, choose_dtype

    device = choose_device("auto")
    active = f"{device}, {str(choose_dtype('auto', device)).removeprefix('torch.')}"
    yield Finding("ok", "active", active)
    yield Finding("ok", "cpu", f"{torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            memory = f"{card.total_memory / 2**30:.1f} GiB"
            yield Finding("ok", f"cuda:{number}", f"{card.name}, {memory}")
    elif torch.version.cuda:
        yield Finding("missing", "cuda", "torch is built for CUDA but finds no GPU or driver")
    else:
        yield Finding("missing", "cuda", "this build of torch has no CUDA")
    if torch.backends.mps.is_available():
        yield Finding("ok", "mps", "Apple's GPU")


def _optional() -> Iterator[Finding]:
    import torch

    for packages in OPTIONAL.values():
        for module, package, purpose in packages:
            # Without a GPU, importing it could set off a compiler.
            left_alone = module == "gsplat" and not torch.cuda.is_available()
            version, error = _version(package) if left_alone else _import(module, package)
            if not error:
                yield Finding("ok", package, f"{version}: {purpose}")
            elif error == _NOT_INSTALLED:
                told = f"for {purpose}: pip install {package}"
                yield Finding("missing", package, told)
            else:
                yield Finding("problem", package, f"is installed and fails ({error}): {purpose}")


def _rasteriser() -> Iterator[Finding]:
    from ..lifting.backends import active_backend, backend_status
    from .devices import choose_device

    device = choose_device("auto")
    active = active_backend(device)
    yield Finding("ok", "active", f"{active.name} on {device}: {active.reason}")
    for status in backend_status(device):
        if status.name != active.name:
            state: State = "ok" if status.usable else "missing"
            yield Finding(state, status.name, status.reason)


def _models() -> Iterator[Finding]:
    from ..assets import NANO
    from ..model_folders import NANO_NAME, find_models, model_folders

    found = find_models()
    yield _embedded(NANO, NANO_NAME)
    for name, path in found.items():
        if name != NANO_NAME:
            yield _model(name, path)
    for folder in model_folders():
        state = "is searched" if folder.is_dir() else "does not exist"
        yield Finding("ok" if folder.is_dir() else "missing", "models/genxd", f"{folder} {state}")
    if set(found) <= {NANO_NAME}:
        yield Finding("missing", "released weights", "`genxd download` fetches them")


def _perceptual() -> Iterator[Finding]:
    from ..model_folders import PERCEPTUAL_FILES, find_perceptual, perceptual_folders

    found = find_perceptual()
    for name, path in found.items():
        yield Finding("ok", name, f"{path}, {path.stat().st_size / 1e6:.0f} MB")
    if not found:
        told = f"for LPIPS: {PERCEPTUAL_FILES['alex']} of torchvision in {perceptual_folders()[0]}"
        yield Finding("missing", "weights", f'{told}; "gradient" needs none')


def _embedded(folder: Path, name: str) -> Finding:
    from ..errors import WeightsError
    from ..files import read_checksums, sha256_of

    if not (folder / "unet" / "config.json").is_file():
        return Finding("problem", name, f"the built-in model is not in {folder}; install again")
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        return Finding("problem", name, f"{sums} is missing, so the files cannot be verified")
    wrong = []
    try:
        expected_of = read_checksums(sums)
    except WeightsError as error:
        return Finding("problem", name, str(error))
    for path, expected in expected_of.items():
        file = folder / path
        if not file.is_file():
            wrong.append(f"{path} is missing")
        elif sha256_of(file) != expected:
            wrong.append(f"{path} is damaged")
    if wrong:
        return Finding("problem", name, f"{'; '.join(wrong)}; install again")
    return Finding("ok", name, f"built in, SHA-256 of every file right: {folder}")


def _model(name: str, path: Path) -> Finding:
    parts = {
        "unet": path / "unet" / "diffusion_pytorch_model.safetensors",
        "vae": path / "vae" / "diffusion_pytorch_model.safetensors",
        "scheduler": path / "scheduler" / "scheduler_config.json",
    }
    lacking = [part for part, file in parts.items() if not file.is_file()]
    if lacking:
        return Finding("problem", name, f"{path} lacks {', '.join(lacking)}")
    size = sum(file.stat().st_size for file in parts.values())
    return Finding("ok", name, f"{path}, {size / 1e9:.2f} GB")


_NOT_INSTALLED = "not installed"


def _version(package: str) -> tuple[str, str]:
    """Version, or that there is none; nothing is imported."""
    try:
        return importlib.metadata.version(package), ""
    except importlib.metadata.PackageNotFoundError:
        return "", _NOT_INSTALLED


def _import(module: str, package: str) -> tuple[str, str]:
    """Version and, where it cannot be imported, the reason."""
    version, _ = _version(package)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            return version, _NOT_INSTALLED
        return version, f"it needs {error.name}, which is not installed"
    except Exception as error:
        reason = " ".join(str(error).split())
        return version, f"{type(error).__name__}: {reason:.120}"
    return version or "installed", ""
