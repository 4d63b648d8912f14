"""Annotations → labels: trust, both orders, failures; and what pictures say of them."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from panacea_lib.labelling.resolve import resolve_labels
from panacea_lib.records import AnnotationRecord, LabelRecord, arrow_schema, from_table, to_table
from panacea_lib.report import labels_picture, position_bias_picture


def said(
    pair: str, label: float | None, source: str = "people", annotator: str = "ann", **more: Any
) -> AnnotationRecord:
    """What `annotator` said of the pair on "warm"; None: it failed."""
    told = {
        "score_a": None,
        "score_b": None,
        "shown_first": None,
        "status": "failed" if label is None else "ok",
        "reason": "not JSON" if label is None else None,
        "dimension": "warm",
    }
    return AnnotationRecord(pair, source=source, annotator=annotator, label=label, **told | more)


def resolved(*sources: list[AnnotationRecord]) -> dict[str, LabelRecord]:
    """The label of each pair; sources from the most trusted on."""
    table = resolve_labels([to_table(source, AnnotationRecord) for source in sources])
    return {record.pair_id: record for record in from_table(table, LabelRecord)}


def test_the_most_trusted_source_that_knows_a_label_gives_it():
    people = [said("p1", 1.0), said("p2", None)]
    judge = [said(pair, 0.0, "judge", "local") for pair in ("p1", "p2", "p3")]
    found = resolved(people, judge)
    assert {pair: (x.label, x.source, x.annotator) for pair, x in found.items()} == {
        "p1": (1.0, "people", "ann"),
        "p2": (0.0, "judge", "local"),
        "p3": (0.0, "judge", "local"),
    }
    assert resolved(judge, people)["p1"].source == "judge"


def test_annotators_of_one_source_are_averaged_and_their_distance_lowers_confidence():
    found = resolved([said("p1", 1.0), said("p1", 0.0, annotator="bob"), said("p2", 0.7)])
    assert (found["p1"].label, found["p1"].annotator, found["p1"].confidence) == (
        0.5,
        "2 annotators",
        0.0,
    )
    assert (found["p2"].label, found["p2"].confidence) == (0.7, None)


def test_both_orders_are_one_opinion_and_half_an_answer_is_none():
    both = [
        said("p1", 1.0, "judge", "local", shown_first="a"),
        said("p1", 0.0, "judge", "local", shown_first="b"),
        said("p2", 1.0, "judge", "local", shown_first="a"),
        said("p2", None, "judge", "local", shown_first="b"),
    ]
    found = resolved(both)
    assert (found["p1"].label, found["p1"].confidence, found["p1"].status) == (0.5, 0.0, "ok")
    assert (found["p2"].label, found["p2"].status) == (None, "failed")
    assert (found["p2"].reason, found["p2"].annotator) == ("not JSON", "local")
    # An annotator who answered stands in for one who did not.
    with_bob = [*both, said("p2", 0.0, "judge", "other", shown_first="a")]
    assert (resolved(with_bob)["p2"].label, resolved(with_bob)["p2"].annotator) == (0.0, "other")


def test_dimensions_do_not_mix_and_an_absent_label_stays_absent():
    table = resolve_labels(
        [to_table([said("p1", 1.0), said("p1", 0.0, dimension="short")], AnnotationRecord)]
    )
    assert table.schema.equals(arrow_schema(LabelRecord))
    labels = {(x.pair_id, x.dimension): x.label for x in from_table(table, LabelRecord)}
    assert labels == {("p1", "warm"): 1.0, ("p1", "short"): 0.0}
    assert resolve_labels([to_table([], AnnotationRecord)]).num_rows == 0


ANNOTATIONS = st.lists(
    st.builds(
        said,
        st.sampled_from(["p1", "p2"]),
        st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        st.just("people"),
        st.sampled_from(["ann", "bob", "eve"]),
    ),
    max_size=12,
)


@given(ANNOTATIONS, st.randoms())
@settings(deadline=None)
def test_labels_do_not_depend_on_the_order_of_answers(answers, random):
    shuffled = list(answers)
    random.shuffle(shuffled)
    first, second = resolved(answers), resolved(shuffled)
    assert first.keys() == second.keys() == {x.pair_id for x in answers}
    for pair, label in first.items():
        other = second[pair]
        assert (label.status, label.annotator) == (other.status, other.annotator)
        if label.label is not None:
            assert label.label == pytest.approx(other.label)
            given_labels = [x.label for x in answers if x.pair_id == pair and x.label is not None]
            assert min(given_labels) - 1e-9 <= label.label <= max(given_labels) + 1e-9


def test_pictures_are_small_pngs_even_where_little_is_known():
    names = [f"dimension_{i}" for i in range(10)]
    used = [
        {"dimension": name, "source": source, "share": 0.3}
        for name in names
        for source in ("data", "people", "judge", "failed")
    ]
    conflicts = [
        {"dimension_a": a, "dimension_b": b, "disagreement": 0.4 if b > "dimension_5" else None}
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    bias = {"dimension": "warm", "annotator": "j", "first_preferred": 0.6, "consistent": 0.8}
    for drawn in (
        labels_picture(used, conflicts, names),
        labels_picture([], [], names[:2]),
        position_bias_picture([bias | {"pairs": 100}]),
    ):
        assert len(drawn) < 74_000
        assert np.array(Image.open(io.BytesIO(drawn))).std() > 0
