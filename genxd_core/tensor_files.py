"""Tensors from files of others: safetensors, and pickles that hold nothing but tensors."""

import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from .errors import WeightsError
from .files import TENSOR_SUFFIXES
from .model.weights import read_safetensors

__all__ = ["read_tensors"]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their keys, on the CPU; a pickle never runs code.

    They may be mapped from the file: copy what is kept, or the file stays open.

    Raises:
        WeightsError: the file is missing, empty, cut off, of another kind, or holds more than
            tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path} does not exist, or is no file; give {_kinds()}.")
    suffix = path.suffix.lower()
    if suffix not in TENSOR_SUFFIXES:
        raise WeightsError(f"{path} ends in {path.suffix!r}; expected {_kinds()}.")
    if suffix == ".safetensors":
        return read_safetensors(path)[0]
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty (0 bytes); download or copy it again.")
    return _read_pickle(path)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # Only files of the newer form can be mapped; of those, unused tensors are never read.
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of pickles, which fail or not anyway
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        # A global is what pickles call a class or function.
        if "unsupported global" not in str(error).lower():
            raise _damaged(path) from error
        raise WeightsError(
            f"{path} holds Python objects besides tensors, whose loading can run code, and is not "
            "read. Save the network's state_dict, as .safetensors at best, or get another file."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise _damaged(path) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise WeightsError(
            f"{path} holds a {type(found).__name__} that is no state dict (names to tensors); "
            "save the network's state_dict."
        )
    return {str(key): value for key, value in found.items()}


def _damaged(path: Path) -> WeightsError:
    size = path.stat().st_size
    return WeightsError(
        f"{path} is cut off or damaged, or no file of tensors by torch ({size} bytes); download "
        "or copy it again."
    )


def _kinds() -> str:
    return f"a file ending in {', '.join(TENSOR_SUFFIXES[:-1])} or {TENSOR_SUFFIXES[-1]}"
