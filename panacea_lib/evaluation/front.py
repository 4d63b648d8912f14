"""Fronts of several policies, measured with one ruler: three tables for the warehouse.

V(λ) = E[λ·r] − β·KL(π_λ‖π_ref) is the mean over samples of λ·r − β·log ratio, and
value ratio = Σ_λ (V − V_ref) / Σ_λ (V* − V_ref), each averaged over prompts: the share of the
attainable improvement. Intervals are 95 % percentile bootstraps over prompts, paired: all policies
see the same resamples. A prompt's samples are averaged first, so that a resample is one row of
weights over prompts and all of them are one matrix product.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from panacea_lib.evaluation import metrics
from panacea_lib.evaluation.ruler import Ruler
from panacea_lib.evaluation.samples import PolicySamples, PromptMeans, prompt_means

OPTIMUM = "optimum"
_SHAPE_RESAMPLES = 200  # of the figures that walk over points: 2.5 % of them are still 5
_COARSE_DIRECTIONS = 2**14  # of a resample's hypervolume above 7 dimensions
_Figure = tuple[float | None, float | None, float | None]  # value, low, high


@dataclass(frozen=True)
class FrontTables:
    """The rows of facts.front_rewards, front_values and front_metrics, less the key.

    The method "optimum" is π*_λ: exact, hence low = high, and n = 0, as nothing was sampled.
    """

    front_rewards: pa.Table
    front_values: pa.Table
    front_metrics: pa.Table


@dataclass(frozen=True)
class _Scene:
    """What all policies share: G points, P prompts, W = 1 + B rows of weights over prompts."""

    grid: np.ndarray  # (G, m)
    dimensions: list[str]
    beta: float
    ruler: Ruler
    judge: str
    weights: np.ndarray  # (W, P); row 0 counts every prompt once, the others are resamples


def evaluate_fronts(
    samples: Sequence[PolicySamples],
    grid: np.ndarray,
    dimensions: list[str],
    beta: float,
    ruler: Ruler,
    judge: str,
    bootstrap: int = 1000,
    seed: int = 0,
) -> FrontTables:
    """Measure every policy on the grid (G, m) by the rewards of one judge ("gold" or "proxy").

    The ruler must speak of the same grid, prompts and rewards as the samples. n is the number of
    samples a figure rests on.
    """
    _check(samples, grid, dimensions, ruler)
    prompts = ruler.optimal_value.shape[1]
    scene = _Scene(grid, dimensions, beta, ruler, judge, _weights(prompts, bootstrap, seed))
    rewards, values, figures = [], [], []
    if ruler.optimal_reward is not None and ruler.optimal_kl is not None:
        rewards.append(_rewards_table(scene, OPTIMUM, ruler.optimal_reward[None], np.array(0)))
        values.append(
            _values_table(scene, OPTIMUM, ruler.optimal_kl[None], ruler.optimal_value, np.array(0))
        )
    for policy in samples:
        means = prompt_means(policy, len(grid), prompts, len(dimensions))
        reward_W_g_m = _average(scene.weights, means.reward)
        kl_W_g = _average(scene.weights, means.log_ratio)
        value_G_P = _values(scene, means)
        rewards.append(_rewards_table(scene, policy.method, reward_W_g_m, means.samples))
        values.append(_values_table(scene, policy.method, kl_W_g, value_G_P, means.samples))
        figures.append(_metrics_table(scene, means, reward_W_g_m, kl_W_g, value_G_P))
    return FrontTables(*(pa.concat_tables(tables) for tables in (rewards, values, figures)))


def _check(
    samples: Sequence[PolicySamples], grid: np.ndarray, dimensions: list[str], ruler: Ruler
) -> None:
    names = [policy.method for policy in samples]
    if not names:
        raise ValueError("no policy to evaluate")
    if len(set(names)) != len(names) or OPTIMUM in names:
        raise ValueError(f"methods must differ, and none may be called {OPTIMUM!r}: {names}")
    if grid.shape[1] != len(dimensions) or len(ruler.optimal_value) != len(grid):
        raise ValueError(
            f"a grid of shape {grid.shape} does not fit the dimensions {dimensions} and a ruler "
            f"of {len(ruler.optimal_value)} points"
        )


def _weights(prompts: int, bootstrap: int, seed: int) -> np.ndarray:
    """Shares of the P prompts, shape (1 + bootstrap, P): all alike, then resamples."""
    counts = np.random.default_rng(seed).multinomial(
        prompts, np.full(prompts, 1 / prompts), size=bootstrap
    )
    return np.vstack([np.ones((1, prompts)), counts]) / prompts


def _average(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Averages over prompts: (W, P) and (g, P, …) give (W, g, …)."""
    return np.tensordot(weights, values, axes=(1, 1))


def _interval(by_row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5th and 97.5th percentile over the resamples, which are all but the first of the W
    rows; a figure without resamples is exact, and both ends of its interval."""
    if len(by_row) == 1:
        return by_row[0], by_row[0]
    low, high = np.percentile(by_row[1:], [2.5, 97.5], axis=0)
    return low, high


def _values(scene: _Scene, means: PromptMeans) -> np.ndarray:
    """V(λ) per point and prompt, shape (G, P); one row of means serves all points if need be."""
    reward_G_P = (scene.grid[:, None, :] * means.reward).sum(axis=2)
    return reward_G_P - scene.beta * means.log_ratio


def _rewards_table(
    scene: _Scene, method: str, reward_W_g_m: np.ndarray, samples_g: np.ndarray
) -> pa.Table:
    """A row per point and dimension; the first of the W rows is the figure itself."""
    points, m = scene.grid.shape
    low, high = _interval(reward_W_g_m)

    def column(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (points, m)).ravel()

    return pa.table(
        {
            "method": [method] * (points * m),
            "judge": [scene.judge] * (points * m),
            "point": column(np.arange(points)[:, None]),
            "dimension": scene.dimensions * points,
            "weight": column(scene.grid),
            "reward": column(reward_W_g_m[0]),
            "reward_low": column(low),
            "reward_high": column(high),
            "n": column(samples_g.reshape(-1, 1)),
        }
    )


def _values_table(
    scene: _Scene, method: str, kl_W_g: np.ndarray, value_G_P: np.ndarray, samples_g: np.ndarray
) -> pa.Table:
    """A row per point; the first of the W rows is the figure itself."""
    points = len(scene.grid)
    low, high = _interval(kl_W_g)

    def column(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (points,))

    return pa.table(
        {
            "method": [method] * points,
            "judge": [scene.judge] * points,
            "point": np.arange(points),
            "kl": column(kl_W_g[0]),
            "kl_low": column(low),
            "kl_high": column(high),
            "value": value_G_P.mean(axis=1),
            "reference_value": scene.ruler.reference_value.mean(axis=1),
            "optimal_value": scene.ruler.optimal_value.mean(axis=1),
            "n": column(samples_g),
        }
    )


def _metrics_table(
    scene: _Scene,
    means: PromptMeans,
    raw_W_g_m: np.ndarray,
    kl_W_g: np.ndarray,
    value_G_P: np.ndarray,
) -> pa.Table:
    """A row per figure of one policy; the names are those of the leaderboard view."""
    inner_W = (scene.grid * raw_W_g_m).sum(axis=2).mean(axis=1)
    figures: dict[str, _Figure] = {
        "value_ratio": _figure(_value_ratio(scene, value_G_P)),
        "inner_product": _figure(inner_W),
        "sparsity": _shape(raw_W_g_m, metrics.sparsity),
        "spacing": _shape(raw_W_g_m, metrics.spacing),
        "kl": _figure(kl_W_g.mean(axis=1)),
    }
    # One point that serves all λ is one point for a front, so g is not widened to G here.
    charged_W_g_m = raw_W_g_m - scene.beta * kl_W_g[:, :, None]
    reference = metrics.reference_point(scene.ruler.reference_reward)
    for prefix, points_W_g_m in (("", raw_W_g_m), ("charged_", charged_W_g_m)):
        for name, figure in _volume_figures(points_W_g_m, reference).items():
            figures[prefix + name] = figure
    for dimension, coordinate in zip(scene.dimensions, reference, strict=True):
        figures[f"hypervolume_reference_{dimension}"] = _plain(coordinate)
    if means.outside is not None:
        figures["outside_mass"] = _figure(_average(scene.weights, means.outside).mean(axis=1))
    value, low, high = zip(*figures.values(), strict=True)
    return pa.table(
        {
            "method": [means.method] * len(figures),
            "judge": [scene.judge] * len(figures),
            "metric": list(figures),
            "value": pa.array(value, pa.float64()),
            "low": pa.array(low, pa.float64()),
            "high": pa.array(high, pa.float64()),
            "n": [int(means.samples.sum())] * len(figures),
        }
    )


def _volume_figures(points_W_g_m: np.ndarray, reference: np.ndarray) -> dict[str, _Figure]:
    """Hypervolume of a front and what one must know to trust it."""
    front = points_W_g_m[0]

    def resampled(points: np.ndarray) -> float:
        return metrics.hypervolume(points, reference, _COARSE_DIRECTIONS)

    return {
        "hypervolume": _shape(
            points_W_g_m, lambda points: metrics.hypervolume(points, reference), resampled
        ),
        "hypervolume_error": _plain(metrics.hypervolume_error(front, reference)),
        "on_front": _plain(metrics.nondominated(front).sum()),
        "points_outside": _plain(metrics.points_outside(front, reference)),
    }


def _value_ratio(scene: _Scene, value_G_P: np.ndarray) -> np.ndarray:
    """Value ratio per row of weights, shape (W,); NaN where there is nothing to gain."""
    ruler = scene.ruler
    gained_P = (value_G_P - ruler.reference_value).sum(axis=0)
    attainable_P = (ruler.optimal_value - ruler.reference_value).sum(axis=0)
    gained_W, attainable_W = scene.weights @ gained_P, scene.weights @ attainable_P
    ratio = np.full(len(gained_W), np.nan)
    return np.divide(gained_W, attainable_W, out=ratio, where=attainable_W > 1e-12)


def _plain(value: float) -> _Figure:
    """A figure without an interval."""
    return float(value), None, None


def _figure(by_row: np.ndarray) -> _Figure:
    """Value and interval of a figure given for every row of weights, shape (W,).

    No figure where row 0 has none; no interval where a resample has none, as one over the others
    would be too narrow.
    """
    if not np.isfinite(by_row[0]):
        return None, None, None
    if not np.isfinite(by_row[1:]).all():
        return float(by_row[0]), None, None
    low, high = _interval(by_row)
    return float(by_row[0]), float(low), float(high)


def _shape(
    points_W_g_m: np.ndarray,
    measure: Callable[[np.ndarray], float | None],
    measure_resample: Callable[[np.ndarray], float | None] | None = None,
) -> _Figure:
    """A figure that walks over the points of a front, with an interval of fewer resamples."""
    resampled = measure_resample or measure
    found = [measure(points_W_g_m[0])]
    found += [resampled(points) for points in points_W_g_m[1 : 1 + _SHAPE_RESAMPLES]]
    return _figure(np.array([np.nan if value is None else value for value in found]))
