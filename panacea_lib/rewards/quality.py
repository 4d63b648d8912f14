"""How good a reward model is on held-out pairs, beside what is trivial and what is possible."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from panacea_lib.intervals import grouped_interval, sums_by_group, wilson_interval
from panacea_lib.rewards.calibration import (
    calibration_error,
    cross_fitted,
    fit_temperature,
    reliability,
)

Row = dict[str, Any]
"""metric, value, low, high, n."""


@dataclass(frozen=True)
class HeldOutPairs:
    """N held-out pairs that have a label on one dimension.

    label: P(a preferred over b), (N,); prompt: an id of each pair's prompt; a, b: the responses'
    texts; gold: the true P(a preferred), where it is known; topic: what each prompt is about, None
    where that is unknown.
    """

    label: np.ndarray
    prompt: list[str]
    a: list[str]
    b: list[str]
    gold: np.ndarray | None = None
    topic: Sequence[str | None] | None = None

    @property
    def longer(self) -> np.ndarray:
        """Characters of a less characters of b, (N,)."""
        return length_difference(self.a, self.b)


@dataclass(frozen=True)
class Quality:
    """`metrics`: rows of facts.reward_model_metrics; `calibration`: of facts.reward_calibration,
    both less key and dimension."""

    metrics: list[Row]
    calibration: list[Row]


def reward_quality(
    score_a: np.ndarray, score_b: np.ndarray, pairs: HeldOutPairs, longer_wins: bool
) -> Quality:
    """Everything there is to say of one dimension's scores (N,) of both sides.

    longer_wins: what `prefers_longer` says of the training pairs.
    """
    margins = score_a - score_b
    rows = reward_model_metrics(margins, pairs.label, pairs.gold)
    rows += _against_baselines(margins, pairs, longer_wins)
    rows += topic_metrics(margins, pairs)
    rows.append(length_correlation(score_a, score_b, pairs))
    temperature = fit_temperature(margins, pairs.label) if len(margins) else None
    scaled = cross_fitted(margins, pairs.label, pairs.prompt)
    curves = [reliability(values, pairs.label) for values in (margins, scaled)]
    n = len(margins)
    for metric, value in (
        ("temperature", temperature),
        ("ece", calibration_error(curves[0])),
        ("ece_scaled", calibration_error(curves[1])),
    ):
        rows.append(_plain(metric, value, n))
    bins = [{"scaled": bool(k), **row} for k, curve in enumerate(curves) for row in curve]
    return Quality(rows, bins)


def reward_model_metrics(
    margins: np.ndarray, labels: np.ndarray, gold_probability: np.ndarray | None = None
) -> list[Row]:
    """Rows on held-out pairs; ties are left out.

    margins: reward of a less reward of b, shape (N,); labels: P(a preferred), (N,);
    gold_probability: the true P(a preferred) where it is known. `accuracy` counts agreement with
    the label (a Wilson interval of 95 %), `majority` is what always naming the commoner side
    gets, `best_possible` what the true probability gets on these very labels.
    """
    kept = labels != 0.5
    margins, labels = margins[kept], labels[kept]
    first, n = labels > 0.5, int(kept.sum())
    rows = [_share("accuracy", (margins > 0) == first)]
    majority = max(first.mean(), 1 - first.mean()) if n else np.nan
    rows.append(_plain("majority", float(majority), n))
    if gold_probability is not None:
        rows.append(_share("best_possible", (gold_probability[kept] > 0.5) == first))
    loss = np.logaddexp(0, -np.where(first, margins, -margins)).mean() if n else np.nan
    rows.append(_plain("log_loss", float(loss), n))
    return rows


def length_difference(a: list[str], b: list[str]) -> np.ndarray:
    """Characters of a less characters of b, (N,)."""
    return np.array([len(x) - len(y) for x, y in zip(a, b, strict=True)])


def prefers_longer(labels: np.ndarray, longer: np.ndarray) -> bool:
    """Whether the longer response wins more often than the shorter one on these pairs.

    The side that a logistic regression of the label on the length difference would name, too, but
    for its intercept, which would let it say which side is commoner.
    """
    return bool((np.sign(longer) * np.sign(labels - 0.5)).sum() >= 0)


def _against_baselines(margins: np.ndarray, pairs: HeldOutPairs, longer_wins: bool) -> list[Row]:
    """`length_only` is what always naming the longer (or always the shorter) response gets, half a
    point for a pair of like lengths; `…_difference` is accuracy less the baseline's, on the same
    pairs, with bootstraps over prompts."""
    kept = pairs.label != 0.5
    prompts = [prompt for prompt, keep in zip(pairs.prompt, kept, strict=True) if keep]
    first = pairs.label[kept] > 0.5
    hits = ((margins[kept] > 0) == first).astype(float)
    guess = np.sign(pairs.longer[kept]) * (1 if longer_wins else -1)
    by_length = np.where(guess == 0, 0.5, (guess > 0) == first)
    commoner = (first == (first.mean() > 0.5) if len(first) else first).astype(float)
    return [
        _mean("length_only", by_length, prompts),
        _mean("length_only_difference", hits - by_length, prompts),
        _mean("majority_difference", hits - commoner, prompts),
    ]


def topic_metrics(margins: np.ndarray, pairs: HeldOutPairs) -> list[Row]:
    """Rows `accuracy/TOPIC`, one per topic, without ties and pairs whose topic is unknown."""
    topics = np.array(pairs.topic or [], dtype=object)
    kept, hits = pairs.label != 0.5, (margins > 0) == (pairs.label > 0.5)
    return [
        _share(f"accuracy/{topic}", hits[kept & (topics == topic)])
        for topic in sorted({topic for topic in topics if topic is not None})
    ]


def length_correlation(score_a: np.ndarray, score_b: np.ndarray, pairs: HeldOutPairs) -> Row:
    """The correlation of score and length in characters over the pairs' distinct responses, both
    less their prompt's mean; bootstrap over prompts. No value where either never varies."""
    of: dict[tuple[str, str], float] = {}
    for texts, scores in ((pairs.a, score_a), (pairs.b, score_b)):
        of |= dict(zip(zip(pairs.prompt, texts, strict=True), scores, strict=True))
    prompts = [prompt for prompt, _ in of]
    length = _centred(np.array([len(text) for _, text in of], float), prompts)
    score = _centred(np.array(list(of.values()), float), prompts)
    if not (np.abs(length).max(initial=0) > 0 and np.abs(score).max(initial=0) > 0):
        return _plain("length_correlation", None, len(of))
    sums = sums_by_group(prompts, length * score, length**2, score**2)
    value = float(_correlation(sums.sum(axis=0, keepdims=True))[0])
    interval = grouped_interval(sums, _correlation)
    return _with_interval("length_correlation", value, interval, len(of))


def _correlation(totals: np.ndarray) -> np.ndarray:
    """From Σxy, Σx², Σy², (W, 3)."""
    return totals[:, 0] / np.sqrt(totals[:, 1] * totals[:, 2])


def _centred(values: np.ndarray, groups: list[str]) -> np.ndarray:
    _, index = np.unique(groups, return_inverse=True)
    return values - (np.bincount(index, weights=values) / np.bincount(index))[index]


def _mean(metric: str, values: np.ndarray, groups: list[str]) -> Row:
    """A mean with its bootstrap over groups."""
    if not len(values):
        return _plain(metric, None, 0)
    sums = sums_by_group(groups, values, np.ones(len(values)))
    interval = grouped_interval(sums, lambda totals: totals[:, 0] / totals[:, 1])
    return _with_interval(metric, float(values.mean()), interval, len(values))


def _share(metric: str, hits: np.ndarray) -> Row:
    """A share with its Wilson interval."""
    n = len(hits)
    if n == 0:
        return _plain(metric, None, 0)
    return _with_interval(metric, float(hits.mean()), wilson_interval(int(hits.sum()), n), n)


def _plain(metric: str, value: float | None, n: int) -> Row:
    return _with_interval(metric, value, (None, None), n)


def _with_interval(
    metric: str, value: float | None, interval: tuple[float | None, float | None], n: int
) -> Row:
    return {"metric": metric, "value": value, "low": interval[0], "high": interval[1], "n": n}
