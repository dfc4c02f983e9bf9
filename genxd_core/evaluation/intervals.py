"""Means with 95 % intervals by the bootstrap (Efron 1979), and paired differences of two methods.

Scenes are drawn with replacement; of several trainings the seeds too. With three seeds or fewer
the intervals are somewhat too narrow, and with one they know nothing of how trainings differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InvalidInputError

__all__ = ["Interval", "mean_interval", "paired_interval"]

Values = Sequence[float] | Sequence[Sequence[float]]
"""One value a scene, or for each training seed one value a scene."""


@dataclass(frozen=True)
class Interval:
    """A mean and where it lies with 95 % confidence.

    Attributes:
        mean: of all values.
        low: the 2.5 % quantile of means over resampled scenes (and seeds).
        high: the 97.5 % quantile.
    """

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies above or below 0; 0 where it holds 0."""
        return int(self.low > 0) - int(self.high < 0)

    def rounded(self, digits: int = 4) -> list[float]:
        """``[mean, low, high]`` for a report."""
        return [round(value, digits) for value in (self.mean, self.low, self.high)]


def mean_interval(values: Values, *, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean of values over scenes, or over training seeds and scenes.

    Args:
        values: one a scene, or a list of them for each training seed.
        draws: of the bootstrap.
        seed: of the draws; the same values give the same interval.

    Raises:
        InvalidInputError: there are no values, they are not finite, or seeds differ in length.
    """
    table = _table(values, "values")
    rng = torch.Generator().manual_seed(seed)
    scenes = _resampled(table.shape[1], draws, rng)
    return _interval(table.mean(), _means(table, scenes, rng))


def paired_interval(a: Values, b: Values, *, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean of ``a - b`` over the same scenes; each draw takes the same scenes of both.

    Args:
        a: one value a scene, or a list of them for each training seed.
        b: the same, of the other method; the number of seeds may differ, which are drawn for each
            method by itself.
        draws: of the bootstrap.
        seed: of the draws.

    Raises:
        InvalidInputError: as `mean_interval`, or the numbers of scenes differ.
    """
    first, second = _table(a, "a"), _table(b, "b")
    if first.shape[1] != second.shape[1]:
        raise InvalidInputError(
            f"a has {first.shape[1]} scenes and b {second.shape[1]}; expected values of the same "
            "scenes in the same order. Evaluate both with the same settings."
        )
    rng = torch.Generator().manual_seed(seed)
    scenes = _resampled(first.shape[1], draws, rng)
    means = _means(first, scenes, rng) - _means(second, scenes, rng)
    return _interval(first.mean() - second.mean(), means)


def _table(values: Values, name: str) -> Float[Tensor, "seeds scenes"]:
    rows = [row if isinstance(row, Sequence) else [row] for row in values]
    lengths = {len(row) for row in rows}
    if not rows or len(lengths) != 1 or 0 in lengths:
        raise InvalidInputError(
            f"{name} has rows of {sorted(lengths)} values; expected at least one value, and as "
            "many scenes for each seed."
        )
    table = torch.tensor(rows, dtype=torch.float64)
    if not isinstance(values[0], Sequence):
        table = table.T
    if not bool(table.isfinite().all()):
        raise InvalidInputError(f"{name} holds values that are not finite; expected numbers.")
    return table


def _resampled(count: int, draws: int, rng: torch.Generator) -> Tensor:
    return torch.randint(count, (draws, count), generator=rng)


def _means(table: Tensor, scenes: Tensor, rng: torch.Generator) -> Float[Tensor, " draws"]:
    """Mean of every draw: over its scenes, and over seeds drawn for it."""
    of_scenes = torch.stack([row[scenes].mean(dim=1) for row in table])
    seeds = _resampled(len(table), len(scenes), rng)
    return of_scenes.gather(0, seeds.T).mean(dim=0)


def _interval(mean: Tensor, means: Tensor) -> Interval:
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return Interval(float(mean), low, high)
