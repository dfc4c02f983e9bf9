"""What several tests share: where data lies, and assertions that say how far off a result is."""

from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"
REFERENCE = DATA / "reference"

__all__ = ["DATA", "REFERENCE", "ROOT", "assert_same_up_to", "assert_same_up_to_std", "seeded"]


def seeded(seed: int = 0) -> torch.Generator:
    """Return a CPU generator; the same numbers on every machine."""
    return torch.Generator().manual_seed(seed)


def assert_same_up_to(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Require equal shapes, finite values and a largest difference of at most ``tolerance``."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} != {tuple(expected.shape)}"
    assert torch.isfinite(actual).all(), "the result has infinities or NaNs"
    difference = (actual.double() - expected.double()).abs()
    largest = float(difference.max()) if difference.numel() else 0.0
    assert largest <= tolerance, f"largest difference {largest:.3g}, allowed {tolerance:.3g}"


def assert_same_up_to_std(actual: Tensor, expected: Tensor, fraction: float) -> None:
    """Like :func:`assert_same_up_to`, in units of the expected values' standard deviation."""
    assert_same_up_to(actual, expected, fraction * float(expected.double().std()))
