"""Graded scores go from the data into the annotations, and from there into margins."""

from types import SimpleNamespace
from typing import Any

import pytest
from data_rows import WIDE, map_rows, numbered, pair

from orchestration.inputs import score_differences
from panacea_lib.data import PreferenceData
from panacea_lib.data.mapping import map_parts
from panacea_lib.data.pairing import Part
from panacea_lib.problem_columns import ChosenColumns, Columns, PairColumns, ResponseColumns
from panacea_lib.records import AnnotationRecord, to_table

ONE: Any = {"warm": "warm"}
TWO: Any = {"warm": {"a": "warm", "b": "short"}}
PREFERRED: Any = {"warm": {"preferred": "warm"}}
STRENGTH: Any = {"warm": {"strength": "warm", "scale": 3, "positive": "a"}}


def pairs(*values: Any) -> list[dict[str, Any]]:
    """Thirty prompts; row i holds value i % N in `warm` (and `short`)."""
    every = [pair(f"{i}", "x", "y", *values[i % len(values)]) for i in range(30)]
    return [row | {"prompt": f"p{row['id']}"} for row in every]


def graded(*scores: Any) -> list[dict[str, Any]]:
    """Thirty prompts with a response for each score."""
    return [
        {"prompt": f"p{i}", "response": f"r{j}", "warm": score}
        for i in range(30)
        for j, score in enumerate(scores)
    ]


def listed(*scores: Any) -> list[dict[str, Any]]:
    entries = [{"response": f"r{j}", "warm": {"is": score}} for j, score in enumerate(scores)]
    return [{"prompt": f"p{i}", "list": entries} for i in range(30)]


def scores_of(data: PreferenceData) -> set[tuple[float | None, float | None, float | None]]:
    return {(said.score_a, said.score_b, said.label) for said in data.annotations}


ANNOTATED = ResponseColumns(
    layout="responses", completions="list", scores={"warm": "warm.is"}, unknown=["N/A"]
)
CHOSEN = ChosenColumns(layout="chosen", prompt="prompt", chosen="x", rejected="y", dimension="warm")
RESPONSES = ResponseColumns(layout="responses", scores=ONE)


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    [
        (
            PairColumns(layout="pairs", labels=ONE),
            pairs(([4, 1],), ([1.5, "2"],), ([3, 3],), (None,), ([1, None],)),
            {(4, 1, 1), (1.5, 2, 0), (3, 3, 0.5)},
        ),
        (
            PairColumns(layout="pairs", labels=TWO),
            pairs((4, 1), (0, 2), (3, None)),
            {(4, 1, 1), (0, 2, 0)},
        ),
        (RESPONSES, graded(4, 1), {(4, 1, 1)}),
        (RESPONSES, graded(3, None, 2), {(3, 2, 1)}),
        (RESPONSES, graded(False, "true"), {(0, 1, 0)}),
        (ANNOTATED, listed("2", "N/A", "5"), {(2, 5, 0)}),
        (
            PairColumns(layout="pairs", labels=PREFERRED),
            pairs(("a",), (0.25,)),
            {(None, None, 1), (None, None, 0.25)},
        ),
        (PairColumns(layout="pairs", labels=STRENGTH), pairs((3,)), {(None, None, 1)}),
        (
            ChosenColumns(
                layout="chosen", prompt="prompt", chosen="x", rejected="y", dimension="d"
            ),
            [{"prompt": f"p{i}", "x": "good", "y": "bad"} for i in range(30)],
            {(None, None, 1), (None, None, 0)},
        ),
    ],
)
def test_two_scores_survive_and_nothing_else_has_any(
    columns: Columns, rows: list[dict[str, Any]], expected: set[Any]
) -> None:
    assert scores_of(map_rows(numbered(rows), columns, WIDE, "here")) == expected


def two_annotators() -> PreferenceData:
    """One file gives 4 and 1; the other has the responses the other way round, 3 and 2, and some
    of its rows twice with other scores but the same label."""
    columns = PairColumns(layout="pairs", labels=ONE)
    one, other = pairs(([4, 1],)), pairs(([3, 2],))
    turned = [row | {"response_a": "y", "response_b": "x"} for row in other]
    again = [row | {"warm": [9, 0]} for row in turned[:5]]
    parts = [
        Part(numbered(one), columns, "one.jsonl", "one"),
        Part(numbered([*turned, *again]), columns, "other.jsonl", "other"),
    ]
    return map_parts(parts, WIDE)


def test_a_swapped_pair_swaps_its_scores_and_the_first_ones_stand() -> None:
    data = two_annotators()
    assert data.counts["duplicates_dropped"] == 5 and data.counts["opinions_merged"] == 30
    assert scores_of(data) == {(4, 1, 1), (2, 3, 0)}


def test_margins_see_them() -> None:
    """The mean of 4 − 1 and 2 − 3; of data that only tells who is preferred there is none."""
    told = map_rows(
        numbered(pairs(("a",))), PairColumns(layout="pairs", labels=PREFERRED), WIDE, "here"
    )
    data = two_annotators()
    for found, differences in ((data, {1.0}), (told, set())):
        table = to_table(found.annotations, AnnotationRecord)
        run: Any = SimpleNamespace(
            plan=SimpleNamespace(label_parts={"warm": ("warm", None)}),
            rows=lambda *_, table=table: table,
        )
        assert set(score_differences(run, "warm").values()) == differences
