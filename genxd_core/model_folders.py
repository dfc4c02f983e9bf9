"""Where models lie on this machine, and finding one by name.

A model is a folder in the released layout: ``unet/``, ``vae/`` and ``scheduler/``. The networks
of perceptual models are single files in the folder ``perceptual`` beside them.
"""

import os
from pathlib import Path

from .assets import NANO
from .errors import WeightsError
from .files import TENSOR_SUFFIXES

__all__ = [
    "NANO_NAME",
    "PERCEPTUAL",
    "PERCEPTUAL_FILES",
    "find_models",
    "find_perceptual",
    "model_folders",
    "perceptual_folders",
    "resolve_model",
    "resolve_perceptual",
]

NANO_NAME = "genxd-nano"
PERCEPTUAL = "perceptual"  # the folder's name
# By network, as torchvision publishes them; other names do as well.
PERCEPTUAL_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
_ENVIRONMENT = "GENXD_MODELS"


def model_folders() -> list[Path]:
    """Folders that are searched for models, in order; the first is where downloads go.

    The one that the variable GENXD_MODELS names, ``models/genxd`` of the ComfyUI that this package
    is installed into or that COMFYUI_PATH names, and ``models/genxd`` in the current folder.
    """
    folders = []
    if os.environ.get(_ENVIRONMENT):
        folders.append(Path(os.environ[_ENVIRONMENT]))
    roots = [parent.parent for parent in Path(__file__).parents if parent.name == "custom_nodes"]
    if os.environ.get("COMFYUI_PATH"):
        roots.append(Path(os.environ["COMFYUI_PATH"]))
    roots.append(Path.cwd())
    folders += [root / "models" / "genxd" for root in roots]
    return list(dict.fromkeys(folder.absolute() for folder in folders))


def find_models() -> dict[str, Path]:
    """Every model by its name: the embedded one, then those in `model_folders`."""
    found = {NANO_NAME: NANO} if _is_model(NANO) else {}
    for folder in model_folders():
        if not folder.is_dir():
            continue
        for path in sorted({file.parent.parent for file in folder.rglob("unet/config.json")}):
            found.setdefault(path.relative_to(folder).as_posix() if path != folder else ".", path)
    return found


def resolve_model(name: str | Path) -> Path:
    """The folder of a model.

    Args:
        name: a folder, or the name of one in `model_folders`; ``genxd-nano`` is the embedded model.

    Raises:
        WeightsError: there is no such model; the message lists those that there are.
    """
    if str(name) == NANO_NAME:
        path = NANO
    else:
        path = Path(name)
        path = path if path.exists() else find_models().get(str(name), path)
    if path.exists():
        return path
    known = ", ".join(find_models()) or "none"
    raise WeightsError(
        f"weights {str(name)!r}: there is no such folder, and no such model in "
        f"{' or '.join(str(folder) for folder in model_folders())}. Models found: {known}. "
        "`genxd download` fetches the released one."
    )


def perceptual_folders() -> list[Path]:
    """Folders that are searched for networks of perceptual models, in order."""
    return [folder / PERCEPTUAL for folder in model_folders()]


def find_perceptual() -> dict[str, Path]:
    """Files in `perceptual_folders` by their names, with "/" on every platform."""
    found: dict[str, Path] = {}
    for folder in perceptual_folders():
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.suffix.lower() in TENSOR_SUFFIXES and path.is_file():
                found.setdefault(path.relative_to(folder).as_posix(), path)
    return found


def resolve_perceptual(name: str | Path) -> Path:
    """The file of a perceptual model's network.

    Args:
        name: a file, or the name of one in `perceptual_folders`.

    Raises:
        WeightsError: there is no such file; the message says which one to put where, and what
            needs none.
    """
    path = Path(name)
    path = path if path.is_file() else find_perceptual().get(path.as_posix(), path)
    if path.is_file():
        return path
    known = ", ".join(find_perceptual()) or "none"
    raise WeightsError(
        f"perceptual model {str(name)!r}: there is no such file, and none of that name in "
        f"{' or '.join(str(folder) for folder in perceptual_folders())}. Files found: {known}. "
        f"Put one of torchvision's files there ({', '.join(PERCEPTUAL_FILES.values())}), or choose "
        '"gradient", which needs no weights.'
    )


def _is_model(folder: Path) -> bool:
    return (folder / "unet" / "config.json").is_file()
