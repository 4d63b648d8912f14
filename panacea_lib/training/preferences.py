"""How λ is drawn in training: a function of (seed, optimiser step, row), never of generator state.

So resuming a run, or splitting a batch for gradient accumulation, changes no draw.
"""

from collections.abc import Sequence

import numpy as np

from panacea_lib.problem import PreferenceSampling


def draw_preference(
    sampling: PreferenceSampling, dimensions: int, seed: int, step: int, row: int
) -> np.ndarray:
    """One preference vector on the simplex, shape (m,).

    Dirichlet(concentration), or with `vertex_probability` a vertex: the paper draws uniformly
    from the simplex (arXiv 2402.02030, algorithm 1), which visits its corners too rarely.
    """
    # Philox counts its blocks in the first word: step and row stand above it, or a long draw would
    # run into the next step's.
    counter = np.array([0, 0, step, row], dtype=np.uint64)
    rng = np.random.Generator(np.random.Philox(key=seed, counter=counter))
    if rng.random() < sampling.vertex_probability:
        return np.eye(dimensions)[rng.integers(dimensions)]
    return rng.dirichlet(np.full(dimensions, sampling.concentration))


def draw_preferences(
    sampling: PreferenceSampling, dimensions: int, seed: int, step: int, rows: Sequence[int]
) -> np.ndarray:
    """One preference vector per row of the batch, shape (B, m); with `per: batch`, the same."""
    if sampling.per == "batch":
        drawn = draw_preference(sampling, dimensions, seed, step, row=0)
        return np.tile(drawn, (len(rows), 1))
    return np.stack([draw_preference(sampling, dimensions, seed, step, row) for row in rows])
