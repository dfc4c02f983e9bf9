"""Fits of a line, a scale and a plane that outliers do not move; and Eq. 2 as printed.

Iteratively reweighted least squares with the weight of Geman and McClure,
``(c^2 / (c^2 + r^2))^2``, c twice the scaled median of the residuals r.

Dimension letters: n points, k coefficients.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["paper_fit", "robust_line", "robust_plane", "robust_scale"]

_ROUNDS = 20
_TO_SIGMA = 1.4826  # from the median of absolute values to a normal distribution's deviation
_L1_ROUNDED = 1e-3  # of the values' size: smaller residuals weigh alike, or few would decide all
_EXACT = 1e-9  # of the values' size: residuals that are rounding


def paper_fit(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> tuple[float, float] | None:
    """Eq. 2 as printed: ``alpha = median(y) / median(x)``, ``beta = median(y - alpha x)``."""
    middle = float(x.quantile(0.5))
    if middle == 0.0:
        return None
    alpha = float(y.quantile(0.5)) / middle
    return alpha, float((y - alpha * x).quantile(0.5))


def robust_line(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> tuple[float, float] | None:
    """Scale and shift of ``y = a x + b``; None where x does not vary."""
    spread = _deviation(x)
    if spread <= _EXACT * float(x.abs().median()):
        return None
    start = _deviation(y) / spread
    columns = torch.stack([x, torch.ones_like(x)], dim=1)
    found = _reweighted(columns, y, torch.stack([start, (y - start * x).median()]))
    return None if found is None else (float(found[0]), float(found[1]))


def robust_scale(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> tuple[float, float] | None:
    """Scale of ``y = a x`` and a shift of 0; None where x is 0."""
    usable = x.abs() > 0
    if not bool(usable.any()):
        return None
    start = (y[usable] / x[usable]).median()
    found = _reweighted(x[:, None], y, start[None])
    return None if found is None else (float(found[0]), 0.0)


def robust_plane(xy: Float[Tensor, "n 2"], z: Float[Tensor, " n"]) -> Float[Tensor, "3"] | None:
    """Coefficients of ``z = p0 x + p1 y + p2``; None where the points lie on a line."""
    if len(z) < 3:
        return None
    columns = torch.cat([xy, torch.ones_like(z)[:, None]], dim=1)
    start = torch.stack([torch.zeros_like(z[0]), torch.zeros_like(z[0]), z.median()])
    # From a level plane, the outliers of a slope are many: first the least sum of residuals.
    for _ in range(_ROUNDS):
        residuals = (z - columns @ start).abs()
        found = _weighted(columns, z, 1.0 / (residuals + _L1_ROUNDED * float(z.abs().max())))
        if found is None:
            return None
        start = found
    return _reweighted(columns, z, start)


def _reweighted(columns: Tensor, y: Tensor, start: Tensor) -> Float[Tensor, " k"] | None:
    least = _EXACT * float(y.abs().median())
    for _ in range(_ROUNDS):
        residuals = y - columns @ start
        width = max(2.0 * _TO_SIGMA * float(residuals.abs().median()), least)
        weights = (1.0 + (residuals / width) ** 2) ** -2
        found = _weighted(columns, y, weights)
        if found is None:
            return None
        start = found
    return start


def _weighted(columns: Tensor, y: Tensor, weights: Tensor) -> Float[Tensor, " k"] | None:
    """Weighted least squares by the normal equations; None where they are singular."""
    weights = weights / weights.max()
    normal = columns.T @ (weights[:, None] * columns)
    size = normal.diagonal().clamp_min(torch.finfo(normal.dtype).tiny).sqrt()
    # In units of the columns, so that "singular" does not depend on the units of x.
    scaled = normal / (size[:, None] * size)
    if not bool(scaled.isfinite().all()) or float(torch.linalg.det(scaled)) < 1e-12:
        return None
    found: Tensor = torch.linalg.solve(scaled, columns.T @ (weights * y) / size) / size
    return found


def _deviation(values: Tensor) -> Tensor:
    """Median distance from the median."""
    return (values - values.median()).abs().median()
