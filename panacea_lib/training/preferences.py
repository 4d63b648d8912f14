"""How λ is drawn in training: by (seed, optimiser step, row), never by a generator's state.

So resuming a run, or splitting a batch for accumulation or over processes, changes no draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from panacea_lib.problem_training import PreferenceSampling
from panacea_lib.training.config import TrainConfig


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
        drawn = np.eye(dimensions)[rng.integers(dimensions)]
    else:
        drawn = rng.dirichlet(np.full(dimensions, sampling.concentration))
    if sampling.stratified:
        # A symmetric draw stays one when two entries change places: only who leads is decided.
        leads, shall_lead = drawn.argmax(), (step + row) % dimensions
        drawn[[leads, shall_lead]] = drawn[[shall_lead, leads]]
    return drawn


def draw_preferences(
    sampling: PreferenceSampling, dimensions: int, seed: int, step: int, rows: Sequence[int]
) -> np.ndarray:
    """One preference vector per row of the batch, shape (B, m); with `per: batch`, the same."""
    if sampling.per == "batch":
        drawn = draw_preference(sampling, dimensions, seed, step, row=0)
        return np.tile(drawn, (len(rows), 1))
    return np.stack([draw_preference(sampling, dimensions, seed, step, row) for row in rows])


@dataclass(frozen=True)
class PreferenceDraws:
    """What a trainer asks for λ: the draws of one training, or one λ throughout (`fixed`, (m,))."""

    sampling: PreferenceSampling
    dimensions: int
    seed: int
    fixed: tuple[float, ...] | None = None

    @classmethod
    def of_training(cls, config: TrainConfig) -> Self:
        """The draws of one training."""
        fixed = config.fixed_preference
        return cls(
            config.training.preferences,
            len(config.dimensions),
            config.seed,
            None if fixed is None else tuple(fixed),
        )

    def of(self, step: int, rows: Tensor) -> Tensor:
        """λ of each row (B,) at an optimiser step: (B, m), float32, on the rows' device."""
        if self.fixed is not None:
            return torch.tensor(self.fixed, device=rows.device).expand(len(rows), -1)
        drawn = draw_preferences(self.sampling, self.dimensions, self.seed, step, rows.tolist())
        return torch.tensor(drawn, dtype=torch.float32, device=rows.device)
