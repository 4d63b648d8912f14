"""How sure a figure is."""

from collections.abc import Callable
from math import erfc, sqrt

import numpy as np

Z_95 = 1.96
RESAMPLES = 1000


def wilson_interval(hits: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); (0, 1) where nothing was counted.

    A hit may count in part, as a tie does.
    """
    if n == 0:
        return 0.0, 1.0
    share = hits / n
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * (share * (1 - share) / n + Z_95**2 / (4 * n**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)  # rounding may step outside


def normal_cdf(z: float) -> float:
    """P(Z ≤ z) of a standard normal Z."""
    return erfc(-z / sqrt(2)) / 2


def grouped_interval(
    sums: np.ndarray, figure: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[float | None, float | None]:
    """95 % percentile bootstrap over whole groups of rows (a prompt's pairs stay together).

    sums: what each of the G groups adds to k totals, (G, k); figure: totals (W, k) → (W,). No
    interval (None, None) for fewer than two groups, or where a resample has no figure.
    """
    groups = len(sums)
    if groups < 2:
        return None, None
    draws = np.random.default_rng(seed).multinomial(
        groups, np.full(groups, 1 / groups), size=RESAMPLES
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        found = figure(draws @ sums)
    if not np.isfinite(found).all():
        return None, None
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def sums_by_group(groups: list[str], *columns: np.ndarray) -> np.ndarray:
    """Totals of the columns (N,) in each group, in the order of the groups' names; (G, k)."""
    _, index = np.unique(groups, return_inverse=True)
    return np.stack([np.bincount(index, weights=column) for column in columns], axis=1)
