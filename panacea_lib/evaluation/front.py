"""Fronts of several policies, measured with one ruler: four tables for the warehouse.

V(λ) = E[λ·r] − β·KL(π_λ‖π_ref) is the mean over samples of λ·r − β·log ratio, and
value ratio = Σ_λ (V − V_ref) / Σ_λ (V* − V_ref), each averaged over prompts: the share of the
attainable improvement. Intervals are 95 % percentile bootstraps over prompts, paired: all policies
see the same resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pyarrow as pa

from panacea_lib.evaluation.bootstrap import Figure, figure, interval, resamples
from panacea_lib.evaluation.figures import PolicyFigures, Scene, measure_policy
from panacea_lib.evaluation.ruler import Ruler
from panacea_lib.evaluation.samples import PromptMeans

OPTIMUM = "optimum"
COMPARED = ("value_ratio", "charged_hypervolume", "expected_utility")
"""Figures by which one policy may be said to beat another: larger is better, and drift is paid."""


@dataclass(frozen=True)
class FrontTables:
    """The rows of the tables of these names in schema facts, less the key.

    The method "optimum" is π*_λ. Where it is exact, low = high and n = 0, as nothing was sampled;
    where it is estimated, the points whose effective sample size is too small are left out.
    """

    front_rewards: pa.Table
    front_values: pa.Table
    front_metrics: pa.Table
    front_comparisons: pa.Table


def evaluate_fronts(
    policies: Sequence[PromptMeans],
    grid: np.ndarray,
    dimensions: list[str],
    beta: float,
    ruler: Ruler,
    judge: str,
    bootstrap: int = 1000,
    seed: int = 0,
) -> FrontTables:
    """Measure every policy on the grid (G, m) by the rewards of one judge ("gold" or "proxy").

    The ruler must speak of the same grid, prompts and rewards as the policies' means. n is the
    number of samples a figure rests on. ValueError for what cannot be compared.
    """
    _check(policies, grid, dimensions, ruler)
    weights = resamples(ruler.optimal_value.shape[1], bootstrap, seed)
    scene = Scene(grid, dimensions, beta, ruler, judge, weights)
    measured = [measure_policy(scene, policy, weights) for policy in policies]
    optimum = measure_policy(scene, _optimum(ruler), weights[:1] if ruler.exact else weights)
    shown = np.flatnonzero(ruler.known)
    everywhere = np.arange(len(grid))
    figures = [_figure_rows(scene, policy) for policy in measured]
    if len(shown) == len(grid):
        figures.append(_figure_rows(scene, optimum))
    figures.append(_ruler_rows(scene))
    return FrontTables(
        pa.concat_tables(
            [_rewards_table(scene, optimum, shown)]
            + [_rewards_table(scene, policy, everywhere) for policy in measured]
        ),
        pa.concat_tables(
            [_values_table(scene, optimum, shown)]
            + [_values_table(scene, policy, everywhere) for policy in measured]
        ),
        pa.concat_tables(figures),
        _comparisons_table(scene, measured),
    )


def _check(
    policies: Sequence[PromptMeans], grid: np.ndarray, dimensions: list[str], ruler: Ruler
) -> None:
    names = [policy.method for policy in policies]
    if not names:
        raise ValueError("no policy to evaluate")
    if len(set(names)) != len(names) or OPTIMUM in names:
        raise ValueError(f"methods must differ, and none may be called {OPTIMUM!r}: {names}")
    points, prompts = ruler.optimal_value.shape
    if grid.shape[1] != len(dimensions) or points != len(grid):
        raise ValueError(
            f"a grid of shape {grid.shape} does not fit the dimensions {dimensions} and a ruler "
            f"of {points} points"
        )
    if len(np.unique(grid, axis=0)) != len(grid):
        raise ValueError("a preference vector stands twice in the grid")
    for policy in policies:
        found = policy.reward.shape
        if found[0] not in (1, points) or found[1:] != (prompts, len(dimensions)):
            raise ValueError(
                f"{policy.method} has means of shape {found}, the ruler {points} points and "
                f"{prompts} prompts of {len(dimensions)} dimensions: they are not comparable"
            )


def _optimum(ruler: Ruler) -> PromptMeans:
    points, prompts = ruler.optimal_value.shape
    answers = prompts * ruler.samples
    samples = np.full(points, answers)
    return PromptMeans(OPTIMUM, ruler.optimal_reward, ruler.optimal_kl, None, samples, answers)


def _rewards_table(scene: Scene, policy: PolicyFigures, shown: np.ndarray) -> pa.Table:
    """A row per shown point and dimension; the first of the W rows is the figure itself."""
    m = len(scene.dimensions)
    low, high = interval(policy.reward_W_g_m)

    def column(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, scene.grid.shape)[shown].ravel()

    return pa.table(
        {
            "method": _texts([policy.means.method] * (len(shown) * m)),
            "judge": _texts([scene.judge] * (len(shown) * m)),
            "point": column(np.arange(len(scene.grid))[:, None]),
            "dimension": _texts(scene.dimensions * len(shown)),
            "weight": column(scene.grid),
            "reward": column(policy.reward_W_g_m[0]),
            "reward_low": column(low),
            "reward_high": column(high),
            "n": column(policy.means.samples.reshape(-1, 1)),
        }
    )


def _values_table(scene: Scene, policy: PolicyFigures, shown: np.ndarray) -> pa.Table:
    """A row per shown point; the first of the W rows is the figure itself."""
    points = len(scene.grid)
    low, high = interval(policy.kl_W_g)

    def column(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (points,))[shown]

    return pa.table(
        {
            "method": _texts([policy.means.method] * len(shown)),
            "judge": _texts([scene.judge] * len(shown)),
            "point": column(np.arange(points)),
            "kl": column(policy.kl_W_g[0]),
            "kl_low": column(low),
            "kl_high": column(high),
            "value": column(policy.value_G_P.mean(axis=1)),
            "reference_value": column(scene.ruler.reference_value.mean(axis=1)),
            "optimal_value": column(scene.ruler.optimal_value.mean(axis=1)),
            "n": column(policy.means.samples),
        }
    )


def _figure_rows(scene: Scene, policy: PolicyFigures) -> pa.Table:
    """A row per figure of one policy; the names are those of the leaderboard view."""
    figures = {name: figure(by_row) for name, by_row in policy.resampled.items()}
    figures |= {name: Figure(value) for name, value in policy.plain.items()}
    for dimension, coordinate in zip(scene.dimensions, scene.reference_point, strict=True):
        figures[f"hypervolume_reference_{dimension}"] = Figure(float(coordinate))
    return _metrics_table(scene, policy.means.method, figures, policy.means.answers)


def _ruler_rows(scene: Scene) -> pa.Table:
    """How far an estimated optimum can be trusted; no rows for an exact one."""
    ruler, figures = scene.ruler, {}
    if ruler.effective is not None:
        figures = {
            "effective_samples": Figure(float(ruler.effective.min())),
            "points_refused": Figure(float((~ruler.known).sum())),
            "samples_needed": Figure(float(ruler.samples_needed)),
        }
    return _metrics_table(scene, OPTIMUM, figures, ruler.samples)


def _metrics_table(scene: Scene, method: str, figures: dict[str, Figure], n: int) -> pa.Table:
    def column(values: list[float | None]) -> pa.Array:
        return pa.array(values, pa.float64())

    return pa.table(
        {
            "method": _texts([method] * len(figures)),
            "judge": _texts([scene.judge] * len(figures)),
            "metric": _texts(list(figures)),
            "value": column([found.value for found in figures.values()]),
            "low": column([found.low for found in figures.values()]),
            "high": column([found.high for found in figures.values()]),
            "n": pa.array([n] * len(figures), pa.int64()),
        }
    )


def _texts(values: list[str]) -> pa.Array:
    """A column whose type does not depend on there being rows."""
    return pa.array(values, pa.string())


def _comparisons_table(scene: Scene, policies: list[PolicyFigures]) -> pa.Table:
    """A row per ordered pair of policies and compared figure: the difference under the same
    resamples of prompts, so that what is hard for both does not blur it."""
    rows = []
    for name in COMPARED:
        for one, other in permutations(policies, 2):
            difference = figure(one.resampled[name] - other.resampled[name])
            rows.append(
                {
                    "method": one.means.method,
                    "other": other.means.method,
                    "judge": scene.judge,
                    "metric": name,
                    "difference": difference.value,
                    "low": difference.low,
                    "high": difference.high,
                }
            )
    texts = [(name, pa.string()) for name in ("method", "other", "judge", "metric")]
    numbers = [(name, pa.float64()) for name in ("difference", "low", "high")]
    return pa.Table.from_pylist(rows, schema=pa.schema(texts + numbers))
