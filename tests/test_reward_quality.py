"""What is said of reward models on held-out pairs, on numbers whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.defs.rewards.checks import _against
from orchestration.inputs import score_differences
from panacea_lib.intervals import grouped_interval, sums_by_group, wilson_interval
from panacea_lib.rewards.calibration import (
    BINS,
    calibration_error,
    cross_fitted,
    fit_temperature,
    reliability,
)
from panacea_lib.rewards.quality import HeldOutPairs, prefers_longer, reward_quality, topic_metrics


def draw(n: int = 20_000, too_sure: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins `too_sure` times the true logits, and labels drawn from those."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=n)
    return too_sure * logits, rng.binomial(1, 1 / (1 + np.exp(-logits))).astype(float)


# ---- calibration


@pytest.mark.parametrize("too_sure", [0.5, 1.0, 3.0])
def test_the_temperature_is_how_much_too_sure_a_model_is(too_sure):
    assert fit_temperature(*draw(too_sure=too_sure)) == pytest.approx(too_sure, rel=0.05)


def test_a_temperature_is_bounded():
    assert fit_temperature(np.array([]), np.array([])) == 1
    assert fit_temperature(np.ones(3), np.ones(3)) == pytest.approx(0.01)
    assert fit_temperature(np.ones(3), np.zeros(3)) == pytest.approx(100)


def test_each_half_of_the_prompts_is_scaled_by_the_other_half():
    margins, labels = draw(400, too_sure=2.0)
    prompts = [f"{i % 40:02}" for i in range(400)]
    even = np.array([int(prompt) % 2 == 0 for prompt in prompts])
    scaled = cross_fitted(margins, labels, prompts)
    for own in (even, ~even):
        used = fit_temperature(margins[~own], labels[~own])
        assert scaled[own] == pytest.approx(margins[own] / used)
        turned = labels.copy()
        turned[own] = 1 - turned[own]
        assert cross_fitted(margins, turned, prompts)[own] == pytest.approx(scaled[own])


def test_scaling_mends_a_model_that_is_too_sure():
    margins, labels = draw(too_sure=3.0)
    prompts = [str(i // 10) for i in range(len(margins))]
    before = calibration_error(reliability(margins, labels))
    after = calibration_error(reliability(cross_fitted(margins, labels, prompts), labels))
    assert before is not None and after is not None and before > 0.1 and after < 0.015


def test_reliability_by_hand():
    """Two bins' worth of pairs, the model right in three of four; a tie is half a point."""
    margins = np.repeat([np.log(3), -np.log(3)], BINS)
    labels = np.repeat([0.75, 0.25], BINS)
    rows = reliability(margins, labels)
    assert [row["n"] for row in rows] == [2] * BINS and [r["bin"] for r in rows] == [*range(BINS)]
    assert all(r["predicted"] == pytest.approx(0.75) == r["observed"] for r in rows)
    assert (rows[0]["low"], rows[0]["high"]) == wilson_interval(1.5, 2)
    assert calibration_error(rows) == pytest.approx(0)
    assert reliability(np.array([]), np.array([])) == [] and calibration_error([]) is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), flips=st.integers(0, 2**20 - 1))
def test_a_pair_has_no_first_side(seed, flips):
    margins, labels = draw(20, seed=seed)
    turn = np.array([flips >> i & 1 for i in range(20)], bool)
    turned = np.where(turn, -margins, margins), np.where(turn, 1 - labels, labels)
    assert fit_temperature(*turned) == pytest.approx(fit_temperature(margins, labels))
    assert reliability(*turned) == reliability(margins, labels)


# ---- beside length and the majority


def held_out(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, HeldOutPairs]:
    """Scores of a model that knows what is true, and pairs whose longer side wins a little more."""
    rng = np.random.default_rng(seed)
    good, length = rng.normal(size=(2, n)), rng.integers(1, 60, size=(2, n))
    truth = good[0] - good[1] + 0.01 * (length[0] - length[1])
    label = rng.binomial(1, 1 / (1 + np.exp(-3 * truth))).astype(float)
    texts = [["x" * size for size in row] for row in length]
    prompts = [f"{i // 10:03}" for i in range(n)]
    topics = ["bread" if i % 2 else "locks" for i in range(n)]
    return good[0], good[1], HeldOutPairs(label, prompts, *texts, topic=topics)


def test_the_report_has_every_figure():
    a, b, pairs = held_out()
    found = reward_quality(a, b, pairs, longer_wins=True)
    rows = {row["metric"]: row for row in found.metrics}
    assert set(rows) == {
        *("accuracy", "majority", "log_loss", "length_only", "length_only_difference"),
        *("majority_difference", "length_correlation", "temperature", "ece", "ece_scaled"),
        *("accuracy/bread", "accuracy/locks"),
    }
    assert rows["length_only_difference"]["low"] > 0 and rows["majority_difference"]["low"] > 0
    apart = rows["accuracy"]["value"] - rows["length_only"]["value"]
    assert rows["length_only_difference"]["value"] == pytest.approx(apart)
    apart = rows["accuracy"]["value"] - rows["majority"]["value"]
    assert rows["majority_difference"]["value"] == pytest.approx(apart)
    topics = [rows[f"accuracy/{topic}"] for topic in ("bread", "locks")]
    assert sum(row["n"] for row in topics) == 600
    assert sum(row["n"] * row["value"] for row in topics) / 600 == pytest.approx(
        rows["accuracy"]["value"]
    )
    assert rows["ece_scaled"]["value"] < rows["ece"]["value"], "the scores are three times too shy"
    assert rows["temperature"]["value"] == pytest.approx(1 / 3, rel=0.2)
    low, high = (rows["length_correlation"][end] for end in ("low", "high"))
    assert low < 0 < high, "this model does not look at length"
    assert {row["scaled"] for row in found.calibration} == {True, False}


def test_pairs_whose_topic_is_unknown_are_in_no_topic():
    """Of two pairs about bread one is right; a tie and a pair about nothing known do not count."""
    label, margins = np.array([1, 0, 0.5, 1, 1]), np.array([1.0, 1, 1, 1, 1])
    topics = ["bread", "bread", "bread", None, "locks"]
    pairs = HeldOutPairs(label, list("pqrst"), ["a"] * 5, ["b"] * 5, topic=topics)
    told = {row["metric"]: (row["value"], row["n"]) for row in topic_metrics(margins, pairs)}
    assert told == {"accuracy/bread": (0.5, 2), "accuracy/locks": (1, 1)}
    for none in (None, [None] * 5):
        assert topic_metrics(margins, replace(pairs, topic=none)) == []


def test_length_alone_by_hand():
    """Three decided pairs: the longer side won one, the others are of like lengths; and a tie."""
    label, scores = np.array([1, 1, 0, 0.5]), (np.array([1.0, 1, -1, 1]), np.zeros(4))
    pairs = HeldOutPairs(label, list("pqrs"), ["aa", "a", "b", "b"], list("abbc"))
    found = {row["metric"]: row for row in reward_quality(*scores, pairs, True).metrics}
    assert found["length_only"]["value"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found["accuracy"]["value"] == 1 and found["length_only"]["n"] == 3
    turned = reward_quality(*scores, pairs, longer_wins=False)
    shorter = next(row for row in turned.metrics if row["metric"] == "length_only")
    assert shorter["value"] == pytest.approx((0 + 0.5 + 0.5) / 3)


def test_which_side_wins_is_learned_from_decided_pairs():
    longer = np.array([5, -5, 5, 90])
    assert prefers_longer(np.array([1, 0, 0, 0.5]), longer)
    assert not prefers_longer(np.array([0, 1, 1, 0.5]), longer)


def test_length_counts_within_prompts_and_each_response_once():
    """Between prompts longer is better, within each it is worse: −1."""
    pairs = HeldOutPairs(
        np.array([1.0, 1, 1]), ["p", "p", "q"], ["x", "x", "x" * 9], ["xx", "xxx", "x" * 10]
    )
    a, b = np.array([3.0, 3, 50]), np.array([2.0, 1, 49])
    rows = {row["metric"]: row for row in reward_quality(a, b, pairs, True).metrics}
    assert rows["length_correlation"]["value"] == pytest.approx(-1)
    assert rows["length_correlation"]["n"] == 5


def test_where_no_pair_has_a_winner_nothing_is_claimed():
    for label in (np.array([]), np.array([0.5, 0.5])):
        n = len(label)
        pairs = HeldOutPairs(label, ["p"] * n, ["a"] * n, ["b"] * n)
        found = reward_quality(np.zeros(n), np.zeros(n), pairs, True)
        rows = {row["metric"]: row["value"] for row in found.metrics}
        assert rows["accuracy"] is None and rows["length_only_difference"] is None
        assert rows["length_correlation"] is None


# ---- intervals over groups


def test_pairs_of_one_prompt_are_not_independent():
    """Ten copies of each of 40 hits: the interval is that of 40, not of 400."""
    rng = np.random.default_rng(0)
    hits = np.repeat(rng.binomial(1, 0.7, size=40), 10).astype(float)

    def share(totals: np.ndarray) -> np.ndarray:
        return totals[:, 0] / totals[:, 1]

    def width(groups: list[str]) -> float:
        low, high = grouped_interval(sums_by_group(groups, hits, np.ones(400)), share)
        assert low is not None and high is not None and low < hits.mean() < high
        return high - low

    clustered, alone = width([str(i // 10) for i in range(400)]), width([*map(str, range(400))])
    assert clustered == pytest.approx(alone * 10**0.5, rel=0.15)
    assert grouped_interval(np.ones((1, 2)), share) == (None, None)


# ---- the checks' rule


def test_worse_is_said_only_beyond_noise():
    def row(metric: str, value: float, low: float | None = None, high: float | None = None) -> dict:
        figures = {"value": value, "low": low, "high": high, "n": 100}
        return {"dimension": "d", "metric": metric, **figures}

    def compared(difference: float, low: float, high: float) -> tuple[bool, bool]:
        rows = [row("accuracy", 0.6 + difference), row("majority", 0.6)]
        rows.append(row("majority_difference", difference, low, high))
        run = SimpleNamespace(
            plan=SimpleNamespace(parts=lambda _: ["all"]),
            rows=lambda *_: pa.Table.from_pylist(rows),
        )
        (found,) = _against(run, "majority")  # pyright: ignore[reportArgumentType]
        assert found.dimension == "d" and "on 100 pairs" in found.figures
        return found.better, found.worse

    assert compared(0.1, -0.05, 0.2) == (True, False)
    assert compared(-0.1, -0.2, 0.05) == (False, False), "not better, yet not worse beyond noise"
    assert compared(-0.1, -0.2, -0.05) == (False, True)


# ---- margins


def test_a_margin_is_from_the_source_that_the_label_is_from():
    """The first source labels p1 without scores and has failed on p2, which the second graded."""

    def said(pair: str, label: float | None, a: float | None, b: float | None) -> dict:
        return {"pair_id": pair, "label": label, "score_a": a, "score_b": b}

    tables = {
        "d by judge": [said("p1", 1.0, None, None), said("p2", None, None, None)],
        "d by data": [said("p1", 1.0, 4.0, 1.0), said("p2", 0.0, 1.0, 3.0), said("p2", 0.0, 1, 2)],
        "e by data": [said("p2", 1.0, 9.0, 1.0)],
    }
    run = SimpleNamespace(
        plan=SimpleNamespace(label_parts={part: (part[0], None) for part in tables}),
        rows=lambda _table, _stage, part: pa.Table.from_pylist(tables[part]),
    )
    assert score_differences(run, "d") == {"p2": -1.5}  # pyright: ignore[reportArgumentType]
