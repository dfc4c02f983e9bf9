"""All datasets by name; an adapter's module is loaded when its dataset is opened."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError
from .scene import SceneDataset

__all__ = ["DATASETS", "open_dataset"]

DATASETS: Mapping[str, tuple[str, str]] = {
    "acid": ("realestate", "ACID"),
    "camvid": ("camvid", "CamVid"),
    "captures": ("captures", "Captures"),
    "co3d": ("co3d", "Co3D"),
    "gso": ("gso", "GSO"),
    "mvimgnet": ("mvimgnet", "MVImgNet"),
    "objaverse": ("objaverse", "Objaverse"),
    "objaverse_animation": ("objaverse_animation", "ObjaverseAnimation"),
    "realestate10k": ("realestate", "RealEstate10K"),
    "reconfusion": ("reconfusion", "ReconFusion"),
    "synthetic": ("synthetic", "SyntheticScenes"),
}
"""Name of a dataset to its module in `genxd_core.data.datasets` and its class there."""


def open_dataset(name: str, root: str | Path | None = None, **options: Any) -> SceneDataset:
    """Open a dataset; quick, as only names of folders are looked at.

    Args:
        name: one of `DATASETS`.
        root: folder of the dataset, in its published layout; None for those that need none.
        options: of the adapter; its class documents them.

    Raises:
        InvalidInputError: there is no such dataset or option, or the root is of another layout.
    """
    if name not in DATASETS:
        known = ", ".join(sorted(DATASETS))
        raise InvalidInputError(f"dataset is {name!r}, expected one of {known}.")
    module, class_name = DATASETS[name]
    adapter = getattr(import_module(f".datasets.{module}", __package__), class_name)
    signature = inspect.signature(adapter).parameters
    parameters = list(signature)[1:]
    if unknown := sorted(set(options) - set(parameters)):
        known = f"one of {', '.join(parameters)}" if parameters else "none"
        raise InvalidInputError(f"dataset {name} has no option {unknown[0]!r}, expected {known}.")
    if root is None and signature["root"].default is inspect.Parameter.empty:
        raise InvalidInputError(f"root of {name} is not set; give the folder of the dataset.")
    dataset: SceneDataset = adapter(None if root is None else Path(root), **options)
    return dataset
