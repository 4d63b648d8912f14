"""The figures of one front: what it is worth, how far it reaches, and whether λ steers it.

Every figure is given for each row of weights over prompts (`bootstrap`), so that it has an interval
and can be compared with another policy's under the same resamples.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from panacea_lib.evaluation import metrics, steering
from panacea_lib.evaluation.bootstrap import WALKED, average, walk
from panacea_lib.evaluation.ruler import Ruler
from panacea_lib.evaluation.samples import PromptMeans

_COARSE_DIRECTIONS = 2**14  # of a resample's hypervolume above 7 dimensions


@dataclass(frozen=True)
class Scene:
    """What all policies share: G points, P prompts, W rows of weights over prompts."""

    grid: np.ndarray  # (G, m)
    dimensions: list[str]
    beta: float
    ruler: Ruler
    judge: str
    weights: np.ndarray  # (W, P)

    @cached_property
    def optimum_W_G_m(self) -> np.ndarray | None:
        """KL-charged mean rewards of π*_λ for the rows that walk; None unless all are known."""
        if not self.ruler.known.all():
            return None
        weights = self.weights[:WALKED]
        kl_W_G = average(weights, self.ruler.optimal_kl)
        return average(weights, self.ruler.optimal_reward) - self.beta * kl_W_G[:, :, None]

    @cached_property
    def reference_point(self) -> np.ndarray:
        """(m,) where all hypervolumes are measured from."""
        return metrics.reference_point(self.ruler.reference_reward)


@dataclass(frozen=True)
class PolicyFigures:
    """One policy, measured. g is the number of its points: G, or 1 if it ignores λ.

    reward_W_g_m and kl_W_g (nats): means over prompts by row of weights. value_G_P: V(λ) by prompt.
    resampled: figure -> its value by row, shape (W,) or (WALKED,). plain: those without interval.
    """

    means: PromptMeans
    reward_W_g_m: np.ndarray
    kl_W_g: np.ndarray
    value_G_P: np.ndarray
    resampled: dict[str, np.ndarray]
    plain: dict[str, float]


def measure_policy(scene: Scene, means: PromptMeans, weights: np.ndarray) -> PolicyFigures:
    """All figures of one policy under `weights` (W, P): the scene's, or row 0 where nothing of the
    policy was sampled and its figures are exact."""
    reward_W_g_m = average(weights, means.reward)
    kl_W_g = average(weights, means.log_ratio)
    reward_G_P = (scene.grid[:, None, :] * means.reward).sum(axis=2)
    value_G_P = reward_G_P - scene.beta * means.log_ratio
    # One point that serves all λ is one point for a front, so g is not widened to G here.
    charged_W_g_m = reward_W_g_m - scene.beta * kl_W_g[:, :, None]
    resampled = {
        "value_ratio": value_ratio(scene.ruler, value_G_P, weights),
        "inner_product": (scene.grid * reward_W_g_m).sum(axis=2).mean(axis=1),
        "kl": kl_W_g.mean(axis=1),
        "sparsity": walk(reward_W_g_m, metrics.sparsity),
        "spacing": walk(reward_W_g_m, metrics.spacing),
        **_volumes(scene, reward_W_g_m, charged_W_g_m),
        **_distances(scene, charged_W_g_m),
        **_utilities(scene, charged_W_g_m, weights),
        **_steering(scene, reward_W_g_m),
    }
    if means.outside is not None:
        resampled["outside_mass"] = average(weights, means.outside).mean(axis=1)
    plain = _trust(scene, "", reward_W_g_m[0]) | _trust(scene, "charged_", charged_W_g_m[0])
    return PolicyFigures(means, reward_W_g_m, kl_W_g, value_G_P, resampled, plain)


def value_ratio(ruler: Ruler, value_G_P: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ_λ (V − V_ref) / Σ_λ (V* − V_ref) per row of weights (W, P), shape (W,); NaN where there is
    nothing to gain."""
    gained_P = (value_G_P - ruler.reference_value).sum(axis=0)
    attainable_P = (ruler.optimal_value - ruler.reference_value).sum(axis=0)
    gained_W, attainable_W = weights @ gained_P, weights @ attainable_P
    ratio = np.full(len(gained_W), np.nan)
    return np.divide(gained_W, attainable_W, out=ratio, where=attainable_W > 1e-12)


def _volumes(
    scene: Scene, reward_W_g_m: np.ndarray, charged_W_g_m: np.ndarray
) -> dict[str, np.ndarray]:
    reference = scene.reference_point

    def volume(points: np.ndarray) -> float:
        return metrics.hypervolume(points, reference)

    def coarse(points: np.ndarray) -> float:
        return metrics.hypervolume(points, reference, _COARSE_DIRECTIONS)

    return {
        "hypervolume": walk(reward_W_g_m, volume, coarse),
        "charged_hypervolume": walk(charged_W_g_m, volume, coarse),
    }


def _distances(scene: Scene, charged_W_g_m: np.ndarray) -> dict[str, np.ndarray]:
    """How far the front of the optimum is away, under the same resample; nothing where it is not
    known."""
    if scene.optimum_W_G_m is None:
        return {}
    rows = zip(charged_W_g_m, scene.optimum_W_G_m, strict=False)  # the shorter is WALKED, or 1
    return {"igd_plus": np.array([metrics.igd_plus(points, best) for points, best in rows])}


def _utilities(
    scene: Scene, charged_W_g_m: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """What a user gets who picks the best of the policy's points for her λ, KL paid for."""
    cross = steering.cross_values(scene.grid, charged_W_g_m[:WALKED])
    best_W_G = cross.max(axis=2)
    optimal_W_G = average(weights[:WALKED], scene.ruler.optimal_value)
    return {
        "expected_utility": best_W_G.mean(axis=1),
        "max_utility_loss": (optimal_W_G - best_W_G).max(axis=1),
        "charged_regret": steering.regret(cross),
    }


def _steering(scene: Scene, reward_W_g_m: np.ndarray) -> dict[str, np.ndarray]:
    by_dimension = steering.steerability(scene.grid, reward_W_g_m[:WALKED])
    found = {"steerability": by_dimension.mean(axis=1)}
    for name, values in zip(scene.dimensions, by_dimension.T, strict=True):
        found[f"steerability_{name}"] = values
    pairs = steering.neighbours(scene.grid)
    if pairs is not None and reward_W_g_m.shape[1] > 1:
        one, other = pairs.T

        def evenness(points: np.ndarray) -> float | None:
            return steering.evenness(np.linalg.norm(points[one] - points[other], axis=1))

        found["evenness"] = walk(reward_W_g_m, evenness)
    return found


def _trust(scene: Scene, prefix: str, front: np.ndarray) -> dict[str, float]:
    """What one must know of a front (g, m) to trust its hypervolume."""
    reference = scene.reference_point
    return {
        f"{prefix}hypervolume_error": metrics.hypervolume_error(front, reference),
        f"{prefix}on_front": float(metrics.nondominated(front).sum()),
        f"{prefix}points_outside": float(metrics.points_outside(front, reference)),
    }
