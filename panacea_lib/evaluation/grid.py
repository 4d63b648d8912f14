"""The fixed grid of preference vectors that every policy is measured on."""

from itertools import product

import numpy as np

_POINTS = 64  # at m ≥ 4
_SEED = 240202030  # of the draws at m ≥ 4; changing it changes every figure ever measured


def preference_grid(m: int) -> np.ndarray:
    """The G preference vectors at m dimensions, shape (G, m); the same forever.

    m = 2: 11 points, the first weight rising from 0 to 1. m = 3: the 21 points of the lattice of
    step 1/5, in lexicographic order. 4 to 10: the vertices, the centre, and fixed draws from
    Dirichlet(1, …, 1) up to 64 points. Every grid holds all m vertices.
    """
    if not 2 <= m <= 10:
        raise ValueError(f"a preference grid has 2 to 10 dimensions, not {m}")
    if m <= 3:
        return _lattice(m, steps=10 if m == 2 else 5)
    draws = _dirichlet_draws(_POINTS - m - 1, m)
    return np.vstack([np.eye(m), np.full((1, m), 1 / m), draws])


def _lattice(m: int, steps: int) -> np.ndarray:
    """All weights that are multiples of 1/steps and sum to 1, in lexicographic order."""
    counts = [c for c in product(range(steps + 1), repeat=m) if sum(c) == steps]
    return np.array(counts) / steps


def _dirichlet_draws(count: int, m: int) -> np.ndarray:
    """Draws from Dirichlet(1, …, 1): exponential variables over their sum, shape (count, m).

    From a bit generator's raw output: NumPy promises that stream forever, but lets `Generator`'s
    distributions change between versions (NEP 19).
    """
    raw = np.random.PCG64(_SEED + m).random_raw(count * m)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1), never 0
    exponential = -np.log(uniform).reshape(count, m)
    return exponential / exponential.sum(axis=1, keepdims=True)
