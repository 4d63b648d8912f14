"""A slider for two dimensions: equal steps along the front instead of equal steps in λ.

Equal steps in λ crowd together where the front turns slowly and leap where it turns fast. SURF
(arXiv 2605.20619) inverts the arc length of the front as a function of λ; with the evaluated
points that is a table to look λ up in.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

_LEAST_STEP = 0.01  # of the mean step; see `fit_slider`


@dataclass(frozen=True)
class Slider:
    """A map from a position t in [0, 1] to λ₁, linear between K knots.

    position: (K,) strictly rising from 0 to 1. weight: (K,) λ₁, the weight of the first dimension,
    strictly rising from 0 to 1; so t is a share towards the first dimension. `calibrated` is False
    where the front gave nothing to go by, and t is λ₁ itself.
    """

    position: np.ndarray
    weight: np.ndarray
    calibrated: bool

    def preference(self, t: float) -> np.ndarray:
        """λ at position t, shape (2,). ValueError for a t outside [0, 1], NaN included."""
        if not 0 <= t <= 1:
            raise ValueError(f"a slider's position is a number from 0 to 1, not {t}")
        first = float(np.interp(t, self.position, self.weight))
        return np.array([first, 1 - first])

    def as_json(self, dimensions: list[str]) -> dict[str, Any]:
        """For programs that do not have this library: knots to interpolate λ between."""
        first, second = dimensions
        return {
            "calibrated": self.calibrated,
            "position": self.position.tolist(),
            "preference": [{first: float(w), second: float(1 - w)} for w in self.weight],
        }

    @classmethod
    def identity(cls) -> Self:
        """t is λ₁."""
        return cls(np.array([0.0, 1.0]), np.array([0.0, 1.0]), calibrated=False)


def fit_slider(grid: np.ndarray, rewards: np.ndarray) -> Slider:
    """The slider of one method from its points: λ (G, 2) and mean normalised rewards (G, 2).

    t is the length of the way along the points, in the order of λ₁ and in reward units, over the
    whole length. Every step counts with the length that was measured, so a step back that is only
    noise counts too; more samples are the remedy. A step shorter than 1 % of the mean step counts
    as that long: on a flat part, where λ changes nothing that was measured, the map stays strictly
    rising and is crossed quickly. If all points are equal, it is the identity and says so.
    ValueError unless the grid has both vertices, each λ once, and all numbers are finite.
    """
    grid, rewards = _checked(grid, rewards)
    order = np.argsort(grid[:, 0])
    weight, steps = grid[order, 0], step_lengths(rewards[order])
    # Means that differ by less than rounding do not differ.
    if steps.sum() <= 1e-9 * max(1.0, float(np.abs(rewards).max())):
        return Slider.identity()
    lengths = np.maximum(steps, _LEAST_STEP * steps.mean())
    position = np.concatenate([[0.0], np.cumsum(lengths) / lengths.sum()])
    position[-1] = 1.0  # rounding
    return Slider(position, weight, calibrated=True)


def step_lengths(points: np.ndarray) -> np.ndarray:
    """Euclidean distances between neighbours of points (G, m) in order, shape (G − 1,)."""
    return np.linalg.norm(np.diff(points, axis=0), axis=1)


def _checked(grid: np.ndarray, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    grid, rewards = np.asarray(grid, float), np.asarray(rewards, float)
    if grid.ndim != 2 or grid.shape[1] != 2 or grid.shape != rewards.shape:
        raise ValueError(
            f"a slider needs λ and rewards of two dimensions, shape (G, 2) both, not {grid.shape} "
            f"and {rewards.shape}"
        )
    if not (np.isfinite(grid).all() and np.isfinite(rewards).all()):
        raise ValueError("a λ or a mean reward of the front is not a finite number")
    weights = np.sort(grid[:, 0])
    if len(weights) < 2 or weights[0] != 0 or weights[-1] != 1 or not np.diff(weights).all():
        raise ValueError("a slider needs both vertices of λ, and each λ once")
    return grid, rewards
