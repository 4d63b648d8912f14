"""Rows for tests of data: numbered, mapped without a file, and the labels that they come to."""

from typing import Any

from panacea_lib.data import PreferenceData
from panacea_lib.data.cells import Row, RowPlace
from panacea_lib.data.mapping import map_parts
from panacea_lib.data.pairing import Part
from panacea_lib.labelling.resolve import resolve_labels
from panacea_lib.problem_columns import Columns, mapped_dimensions
from panacea_lib.problem_data import Split
from panacea_lib.records import AnnotationRecord, LabelRecord, from_table, to_table

WIDE = Split(validation=0.3, test=0.3)


def labels_of(data: PreferenceData) -> list[LabelRecord]:
    """The labels that the annotations come to, pair by pair in the order of the data."""
    table = resolve_labels([to_table(data.annotations, AnnotationRecord)])
    return from_table(table, LabelRecord)


def map_rows(
    rows: list[Row], columns: Columns, split: Split, where: str, keep_unlabelled: bool = False
) -> PreferenceData:
    """One part, all of whose dimensions are labelled by its columns alone."""
    needed = [] if keep_unlabelled else mapped_dimensions(columns)
    return map_parts([Part(rows, columns, where, "data")], split, keep_unlabelled, needed)


def numbered(values: list[dict[str, Any]]) -> list[Row]:
    return [(RowPlace("here", "row", i), row) for i, row in enumerate(values, start=1)]


def pair(own_id: str, a: str, b: str, warm: Any, short: Any = None) -> dict[str, Any]:
    row = {"id": own_id, "prompt": "q", "response_a": a, "response_b": b}
    return {**row, "warm": warm, "short": short}


def preferred(data: PreferenceData) -> set[tuple[str, str]]:
    """(prompt, response that is preferred) by every label that is no tie."""
    text = {r.response_id: r.text for r in data.responses}
    prompt = {p.prompt_id: p.text for p in data.prompts}
    pairs = {p.pair_id: p for p in data.pairs}
    found = set()
    for label in labels_of(data):
        of = pairs[label.pair_id]
        assert label.label is not None
        if label.label == 0.5:
            continue
        better = of.response_a if label.label > 0.5 else of.response_b
        found.add((prompt[of.prompt_id], text[better]))
    return found
