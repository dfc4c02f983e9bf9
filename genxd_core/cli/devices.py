"""Which device and precision ``auto`` means on this machine."""

import torch

from ..pipeline_inputs import check_device

__all__ = ["DTYPES", "choose_device", "choose_drawing_device", "choose_dtype"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` prefers CUDA, then Apple's GPU, then the CPU.

    Raises:
        InvalidInputError: this machine does not have it.
    """
    if name != "auto":
        return check_device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_drawing_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is where Gaussians are drawn fastest.

    Raises:
        InvalidInputError: this machine does not have it.
    """
    from ..lifting.backends import drawing_device

    device = choose_device(name)
    return drawing_device(device) if name == "auto" else device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of a name; ``auto`` is half on a GPU and full on a CPU."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32
