"""Agreement of annotators: an example by hand, laws, and what is undefined."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panacea_lib.labelling.agreement import AgreementRecord, agreement, alpha
from panacea_lib.records import AnnotationRecord, to_table


def table(
    rows: list[tuple[str, str, float | None]], dimension: str = "tone", source: str = "people"
) -> pa.Table:
    """Annotator, pair, label → annotations."""
    records = [
        AnnotationRecord(
            pair, dimension, source, who, label, None, None, None,
            "failed" if label is None else "ok", None,
        )
        for who, pair, label in rows
    ]  # fmt: skip
    return to_table(records, AnnotationRecord)


def figures(*tables: pa.Table) -> dict[tuple[str, str], tuple[float | None, int]]:
    return {(r.annotator, r.metric): (r.value, r.n) for r in agreement(tables)}


def test_an_example_by_hand():
    """ann, bob and cy on four pairs; the last pair only ann has seen.

    Pairs: (1, 1, –), (1, 0, 1), (0, 0, 0.5). Squared distances within a pair, ordered, over
    answers − 1: 0; 4/2 = 2; (4 · 0.25)/2 = 0.5. Observed: 2.5 / 8 answers. The answers
    1 1 1 0 1 0 0 0.5 have Σx = 4.5 and Σx² = 4.25: expected 2 · (8 · 4.25 − 4.5²) / (8 · 7)
    = 27.5 / 56. α = 1 − (2.5 / 8) / (27.5 / 56) = 1 − 7 / 11.
    """
    said = [("ann", "p", 1.0), ("bob", "p", 1.0), ("ann", "q", 1.0), ("bob", "q", 0.0)]
    said += [("cy", "q", 1.0), ("ann", "r", 0.0), ("bob", "r", 0.0), ("cy", "r", 0.5)]
    said += [("ann", "s", 1.0)]
    found = figures(table(said))
    assert found["", "alpha"] == (pytest.approx(4 / 11), 3)
    # The others of bob say a, a, b where he says a, b, b.
    own, others = np.array([1, 0, 0]), np.array([1, 1, 0])
    both = np.concatenate([own, others])
    expected = 1 - ((own - others) ** 2).sum() / 6 / both.var(ddof=1)
    assert found["people bob", "alpha"] == (pytest.approx(expected), 3)
    # p: ann says a, as bob does; q: both others say a, he b; r: one other says b, as he does.
    assert found["people bob", "majority"] == (pytest.approx(2 / 3), 3)
    assert found["people cy", "majority"] == (0.0, 1), "q is split, and on r a tie is not b"
    assert found["people ann", "majority"] == (1.0, 2)


verdicts = st.lists(
    st.lists(st.none() | st.sampled_from([-1.0, 0.0, 1.0]), min_size=3, max_size=3),
    min_size=1,
    max_size=12,
)


@given(verdicts)
@settings(deadline=None)
def test_alpha_knows_no_names(units):
    said = np.array(units, float).T
    ours = alpha(said)
    if ours is not None:
        assert ours <= 1 + 1e-9
        assert alpha(-said) == pytest.approx(ours), "calling a b and b a changes nothing"
        assert alpha(said[::-1]) == pytest.approx(ours)
    same = np.repeat(said[:1], 2, axis=0)
    assert alpha(same) in (None, pytest.approx(1.0))


def test_what_is_undefined_is_none_and_not_a_guess():
    alone = figures(table([("ann", "p", 1.0), ("bob", "q", 0.0)]))
    assert (
        alone["", "alpha"]
        == (None, 0)
        == alone["people ann", "alpha"]
        == alone["people bob", "majority"]
    )
    alike = figures(table([("ann", "p", 1.0), ("bob", "p", 1.0)]))
    assert alike["", "alpha"] == (None, 1), "no variation, so nothing is expected by chance"
    assert alike["people ann", "majority"] == (1.0, 1)
    assert agreement([]) == [] == agreement([table([])])


def test_asked_twice_is_one_opinion_and_a_failed_one_is_none():
    judge = table(
        [("j", "p", 1.0), ("j", "p", 0.0), ("j", "q", 1.0), ("j", "q", None)], "d", "judge"
    )
    people = table([("j", "p", 1.0), ("j", "q", 1.0), ("k", "q", 1.0), ("k", "p", 0.0)], "d")
    records = agreement([judge, people])
    found = {(r.annotator, r.metric): r for r in records}
    assert found["judge j", "alpha"].n == 1, "one of the two answers on q failed"
    assert found["people j", "alpha"].n == 2, "another j"
    # (0.5, 1, 0) and (1, 1): variance within 3 · 0.25 / 5, of all answers 0.2.
    assert records[0] == AgreementRecord("d", "", "alpha", pytest.approx(1 - 0.15 / 0.2), 2)


def test_dimensions_are_told_apart():
    tone = table([("ann", "p", 1.0), ("bob", "p", 0.0)])
    wit = table([("ann", "p", 1.0), ("bob", "p", 1.0), ("ann", "q", 0.0), ("bob", "q", 0.0)], "wit")
    overall = {r.dimension: r.value for r in agreement([tone, wit]) if not r.annotator}
    assert overall == {"tone": pytest.approx(0.0), "wit": pytest.approx(1.0)}
