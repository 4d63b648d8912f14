"""The arithmetic behind every speed claim, on numbers whose answer is known."""

import gc
import random

import pytest

from benchmarks.ratios import Ratio, measure_ratio, median_interval, ratio_of


def test_the_interval_of_thirty_values_is_the_tenth_from_each_end():
    # The sign test's table: n = 30, two-sided 5 %, reject at 9 or fewer.
    values = list(range(1, 31))
    random.Random(0).shuffle(values)
    assert median_interval(values) == (10, 21)


def test_six_values_are_the_fewest_that_bound_a_median():
    assert median_interval([6, 1, 2, 5, 3, 4]) == (1, 6)
    with pytest.raises(ValueError, match="5 values cannot"):
        median_interval([1, 2, 3, 4, 5])


def test_the_interval_holds_the_median_as_often_as_it_says():
    draw = random.Random(1)
    held = 0
    for _ in range(2000):
        low, high = median_interval([draw.expovariate(1.0) for _ in range(31)])
        held += low <= 0.6931 <= high
    assert 0.95 <= held / 2000 <= 0.985  # exactly 0.9706 for 31 values


def test_a_ratio_is_taken_within_pairs():
    # The machine slows down tenfold half way: medians of each side alone would say nothing.
    times = [(1.1 * slow, 1.0 * slow) for slow in [1.0] * 15 + [10.0] * 15]
    ratio = ratio_of(times)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.1, 1.1, 1.1))
    assert (ratio.pairs, ratio.ours, ratio.theirs) == (30, pytest.approx(6.05), 5.5)


def test_one_disturbed_pair_moves_neither_value_nor_interval():
    calm = [(1.0 + i / 1000, 1.0) for i in range(30)]
    disturbed = [*calm[:-1], (50.0, 1.0)]
    assert ratio_of(disturbed) == ratio_of(calm)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.9, 1.05, "met"),
        (1.04, 1.06, "undecided"),
        (1.05, 1.06, "undecided"),
        (1.051, 1.2, "missed"),
    ],
)
def test_the_verdict(low, high, verdict):
    assert Ratio((low + high) / 2, low, high, 30, 1.0, 1.0).verdict(1.05) == verdict


def test_the_inverse_turns_everything_round():
    ratio = Ratio(0.1, 0.05, 0.2, 30, 1.0, 10.0)
    assert ratio.inverse() == Ratio(10.0, 5.0, 20.0, 30, 10.0, 1.0)


def test_calls_are_warmed_up_and_interleaved_with_the_garbage_collector_off():
    calls = []
    ratio = measure_ratio(
        lambda: calls.append(("a", gc.isenabled())),
        lambda: calls.append(("b", gc.isenabled())),
        pairs=30,
        warm_up=1,
    )
    assert ratio.pairs == 30
    assert "".join(name for name, _ in calls) == "ab" + "abba" * 15
    assert not any(enabled for _, enabled in calls[2:])
    assert gc.isenabled()


def test_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match="at least 30 pairs; got 29"):
        measure_ratio(lambda: None, lambda: None, pairs=29)
