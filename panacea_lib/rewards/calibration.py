"""Does a reward difference of ln 3 mean that three of four annotators prefer that side?

By Bradley-Terry P(a preferred) = σ(Δ), Δ the difference of the rewards. A pair has no first side,
so all is said of the side that the model prefers: predicted σ(|Δ|), observed its mean label.
"""

from typing import Any

import numpy as np

from panacea_lib.intervals import wilson_interval

BINS = 10
_LEAST, _MOST = 0.01, 100.0


def fit_temperature(margins: np.ndarray, labels: np.ndarray) -> float:
    """T that makes σ(Δ/T) likeliest (temperature scaling, arXiv 1706.04599), between 0.01 and 100.

    The loss is convex in 1/T, so its slope is halved into. 1 where there is no pair.
    """
    if not len(margins):
        return 1.0
    low, high = np.log(1 / _MOST), np.log(1 / _LEAST)
    for _ in range(60):
        middle = (low + high) / 2
        slope = ((_sigmoid(np.exp(middle) * margins) - labels) * margins).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def cross_fitted(margins: np.ndarray, labels: np.ndarray, prompts: list[str]) -> np.ndarray:
    """The margins over a temperature that their own prompts had no part in: each half of the
    prompts is scaled by what the other half's pairs say."""
    names = np.unique(prompts)  # ids are hashes: every other one is a fair half
    half = np.isin(prompts, names[::2])
    scaled = np.empty(len(margins))
    for own in (half, ~half):
        scaled[own] = margins[own] / fit_temperature(margins[~own], labels[~own])
    return scaled


def reliability(margins: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Rows (bin, n, predicted, observed, low, high) of at most BINS bins of like numbers of pairs,
    the least sure first.

    labels: P(a preferred), shares of votes and ties too. low, high: Wilson's 95 % interval.
    """
    order = np.argsort(np.abs(margins), kind="stable")
    predicted = _sigmoid(np.abs(margins))
    observed = np.where(margins > 0, labels, 1 - labels)
    rows = []
    bins = [rows for rows in np.array_split(order, BINS) if len(rows)]
    for number, own in enumerate(bins):
        low, high = wilson_interval(float(observed[own].sum()), len(own))
        rows.append(
            {
                "bin": number,
                "n": len(own),
                "predicted": float(predicted[own].mean()),
                "observed": float(observed[own].mean()),
                "low": low,
                "high": high,
            }
        )
    return rows


def calibration_error(bins: list[dict[str, Any]]) -> float | None:
    """Mean distance of predicted and observed over pairs; None without pairs. Noise adds to it:
    with n pairs in a bin a perfect model still shows about 0.4/√n."""
    n = sum(row["n"] for row in bins)
    if not n:
        return None
    return sum(row["n"] * abs(row["predicted"] - row["observed"]) for row in bins) / n


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))
