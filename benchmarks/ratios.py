"""Speed ratios of two ways of doing the same: measured in interleaved pairs, judged by an interval.

The rule (shared by every speed claim of the project): the median of at least 30 interleaved pairs
with its 95 % interval; met if the upper bound is within the target, missed if the lower one is
above it, otherwise undecided.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

MIN_PAIRS = 30
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios ours / theirs, and what it was taken from.

    Attributes:
        value: Median of the pairs' ratios.
        low, high: The interval of that median, of at least 95 %.
        pairs: How many pairs.
        ours, theirs: The median time of each, seconds.
    """

    value: float
    low: float
    high: float
    pairs: int
    ours: float
    theirs: float

    def inverse(self) -> "Ratio":
        """theirs / ours: how many times faster we are."""
        return Ratio(
            1 / self.value, 1 / self.high, 1 / self.low, self.pairs, self.theirs, self.ours
        )

    def verdict(self, target: float) -> str:
        """Whether `value` is at most `target`: met, missed or undecided."""
        if self.high <= target:
            return "met"
        return "missed" if self.low > target else "undecided"


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest symmetric pair of order statistics that holds the median with at least 95 %.

    It assumes nothing of the distribution but that the values are independent: the number of them
    below the median is binomial(n, 1/2). Fewer than six values cannot give 95 %: a ValueError.
    """
    ordered, n = sorted(values), len(values)
    below = 0.0  # P(at most `rank` values lie below the median)
    rank = -1
    while below + comb(n, rank + 1) / 2**n <= (1 - CONFIDENCE) / 2:
        rank += 1
        below += comb(n, rank) / 2**n
    if rank < 0:
        raise ValueError(f"{n} values cannot bound a median with {CONFIDENCE:.0%} confidence.")
    return ordered[rank], ordered[n - 1 - rank]


def ratio_of(times: Sequence[tuple[float, float]]) -> Ratio:
    """The ratio ours / theirs from pairs of times (ours, theirs), seconds."""
    ratios = [ours / theirs for ours, theirs in times]
    low, high = median_interval(ratios)
    ours, theirs = (median(column) for column in zip(*times, strict=True))
    return Ratio(median(ratios), low, high, len(ratios), ours, theirs)


def measure_ratio(
    ours: Callable[[], object], theirs: Callable[[], object], pairs: int, warm_up: int = 3
) -> Ratio:
    """Time both in turns, in the order ABBA, after `warm_up` calls of each.

    Whatever slows the machine for longer than one pair slows both halves of it; the order
    alternates, so that neither always comes first. The garbage collector runs between pairs only.
    A callable that starts work elsewhere (on a GPU) must wait for its end.
    """
    if pairs < MIN_PAIRS:
        raise ValueError(f"A speed ratio takes at least {MIN_PAIRS} pairs; got {pairs}.")
    for _ in range(warm_up):
        ours()
        theirs()
    times: list[tuple[float, float]] = []
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()  # what is there already need not be looked at between the pairs
    gc.disable()
    try:
        for pair in range(pairs):
            gc.collect()
            if pair % 2:
                second = _seconds(theirs)
                times.append((_seconds(ours), second))
            else:
                first = _seconds(ours)
                times.append((first, _seconds(theirs)))
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return ratio_of(times)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
