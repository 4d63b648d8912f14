"""Which λ to ask for: of the evaluated points, the one that holds the floors and has the most.

"Harmlessness at least x, then the most helpful" is a question about mean rewards over prompts; it
promises nothing of a single answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from panacea_lib.errors import InputError
from panacea_lib.intervals import Z_95, normal_cdf

_TINY = 1e-9  # a mean that misses a floor by rounding holds it


@dataclass(frozen=True)
class Estimate:
    """A mean over the held-out prompts with its 95 % interval; both ends None where unknown."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class FrontPoint:
    """One evaluated λ of one method: rewards by dimension in normalised units, KL in nats."""

    point: int
    preference: dict[str, float]
    rewards: dict[str, Estimate]
    kl: Estimate
    n: int  # answers


@dataclass(frozen=True)
class Choice:
    """The chosen point, and the one that would have been chosen without any floor.

    cost: how much of the mean reward `most` is given up. sure: for every floor P(mean ≥ floor).
    """

    chosen: FrontPoint
    freest: FrontPoint
    most: str
    floors: dict[str, float]
    cost: Estimate
    sure: dict[str, float]


def choose(points: Sequence[FrontPoint], floors: Mapping[str, float], most: str) -> Choice:
    """Of the points whose mean rewards hold all floors, the one with the highest mean of `most`.

    Of equals the one that drifted least (KL), then the first. `most` may have a floor too: it then
    says below what there is no choice worth having. The cost comes without an interval: see
    `cost_interval`. InputError where no point holds the floors; it names what can be reached.
    """
    holding = [p for p in points if _slack(p, floors) >= -_TINY]
    if not holding:
        raise InputError(_unreachable(points, floors))
    chosen, freest = _best(holding, most), _best(points, most)
    cost = freest.rewards[most].mean - chosen.rewards[most].mean
    sure = {name: probability_above(chosen.rewards[name], floor) for name, floor in floors.items()}
    return Choice(chosen, freest, most, dict(floors), Estimate(cost, None, None), sure)


def probability_above(estimate: Estimate, floor: float) -> float:
    """P(mean ≥ floor) over other prompts of this kind, in a normal approximation.

    The interval is taken for the mean ± 1.96 standard errors; a mean without one is taken as
    exact. It speaks of means, not of single answers, and not of other seeds.
    """
    low, high = estimate.low, estimate.high
    if low is None or high is None or high <= low:
        return float(estimate.mean >= floor - _TINY)
    return normal_cdf((estimate.mean - floor) / ((high - low) / (2 * Z_95)))


def cost_interval(freest: np.ndarray, chosen: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of `freest` − `chosen` with a 95 % percentile bootstrap of 1,000 resamples.

    Both (P,): a prompt's mean reward at either point. Paired, as both answer the same prompts: the
    two points' own intervals cannot tell it. The points were picked by these very figures, which
    the interval does not know.
    """
    difference = np.asarray(freest, float) - np.asarray(chosen, float)
    drawn = np.random.default_rng(seed).integers(len(difference), size=(1000, len(difference)))
    low, high = np.percentile(difference[drawn].mean(axis=1), [2.5, 97.5])
    return Estimate(float(difference.mean()), float(low), float(high))


def _best(points: Sequence[FrontPoint], most: str) -> FrontPoint:
    return min(points, key=lambda p: (-p.rewards[most].mean, p.kl.mean, p.point))


def _slack(point: FrontPoint, floors: Mapping[str, float]) -> float:
    """How far the point is above the floor that it is worst at; negative where it misses one."""
    return min((point.rewards[name].mean - floor for name, floor in floors.items()), default=0.0)


def _unreachable(points: Sequence[FrontPoint], floors: Mapping[str, float]) -> str:
    """One sentence: the first floor that no point reaches, or that they cannot be had together."""
    for name, floor in floors.items():
        best = max(points, key=lambda p: p.rewards[name].mean)
        if best.rewards[name].mean < floor - _TINY:
            return (
                f"no evaluated λ has {name} of at least {floor:g}: the highest is "
                f"{best.rewards[name].mean:.3f}, at {_weights(best)}; lower the floor"
            )
    nearest = max(points, key=lambda p: _slack(p, floors))
    has = ", ".join(f"{name} {nearest.rewards[name].mean:.3f}" for name in floors)
    wanted = ", ".join(f"{name} {floor:g}" for name, floor in floors.items())
    return (
        f"no evaluated λ has {wanted} together, though each alone is reached: the nearest has "
        f"{has}, at {_weights(nearest)}; lower a floor"
    )


def _weights(point: FrontPoint) -> str:
    return ",".join(f"{name}={weight:.4g}" for name, weight in point.preference.items())
