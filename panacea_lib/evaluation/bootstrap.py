"""Resamples of prompts: one draw for everything that is compared, so that differences are paired.

A prompt's samples are averaged first, so that a resample is one row of weights over prompts and
all of them are one matrix product. W rows: row 0 counts every prompt once and gives the figure, the
others are resamples and give its interval.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WALKED = 201
"""Rows that are used for figures that walk over a front's points: 2.5 % of 200 are still 5."""


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


def resamples(prompts: int, bootstrap: int, seed: int) -> np.ndarray:
    """Shares of the P prompts, shape (1 + bootstrap, P): all alike, then resamples."""
    counts = np.random.default_rng(seed).multinomial(
        prompts, np.full(prompts, 1 / prompts), size=bootstrap
    )
    return np.vstack([np.ones((1, prompts)), counts]) / prompts


def average(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Averages over prompts: (W, P) and (g, P, …) give (W, g, …)."""
    return np.tensordot(weights, values, axes=(1, 1))


def interval(by_row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5th and 97.5th percentile over the resamples, which are all but the first of the W
    rows; a figure without resamples is exact, and both ends of its interval."""
    if len(by_row) == 1:
        return by_row[0], by_row[0]
    low, high = np.percentile(by_row[1:], [2.5, 97.5], axis=0)
    return low, high


def figure(by_row: np.ndarray) -> Figure:
    """Value and interval of a figure given for every row of weights, shape (W,).

    No figure where row 0 has none; no interval where a resample has none, as one over the others
    would be too narrow.
    """
    if not np.isfinite(by_row[0]):
        return Figure(None)
    if not np.isfinite(by_row[1:]).all():
        return Figure(float(by_row[0]))
    low, high = interval(by_row)
    return Figure(float(by_row[0]), float(low), float(high))


def walk(
    points_W_g_m: np.ndarray,
    measure: Callable[[np.ndarray], float | None],
    measure_resample: Callable[[np.ndarray], float | None] | None = None,
) -> np.ndarray:
    """A figure that walks over the points of a front, for the first WALKED rows; NaN for None."""
    resampled = measure_resample or measure
    found = [measure(points_W_g_m[0])]
    found += [resampled(points) for points in points_W_g_m[1:WALKED]]
    return np.array([np.nan if value is None else value for value in found])
