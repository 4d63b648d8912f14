"""Is there something to learn every dimension from? Told before any work starts."""

from collections import Counter
from collections.abc import Mapping, Sequence

from panacea_lib.data.pairing import DROPPED, Part
from panacea_lib.data.rows import columns_of, label_columns, text_columns
from panacea_lib.data.sources import no_rows
from panacea_lib.errors import InputError
from panacea_lib.problem_columns import (
    Columns,
    DemonstrationColumns,
    PairColumns,
    ResponseColumns,
    mapped_dimensions,
)


def no_pairs(parts: Sequence[Part], counts: Sequence[Counter[str]]) -> InputError:
    """The error where no part gives a pair; it speaks of the first part."""
    part, count = parts[0], counts[0]
    columns, where = part.columns, part.where
    if not count["rows_read"]:
        return no_rows(where)
    if isinstance(columns, ResponseColumns) and count["unpaired_dropped"] == count["rows_read"]:
        return InputError(
            f"{where}, column {columns.prompt!r}: no two consecutive rows have one prompt, so "
            "there is nothing to compare; sort the rows by prompt, write `group: prompt`, or use "
            "`layout: pairs`"
        )
    if isinstance(columns, DemonstrationColumns):
        return InputError(
            f"{where}, column {columns.prompt!r}: no two demonstrations of different dimensions "
            "have one prompt, so reward models, the evaluation and every method but sft have no "
            "pair to learn from; add a part with pairs, or demonstrations for the same prompts"
        )
    dropped = ", ".join(f"{count[name]} {name}" for name in DROPPED if count[name])
    names = ", ".join(map(repr, label_columns(columns) or text_columns(columns)))
    return InputError(
        f"{where}, columns {names}: no row gives a labelled pair (of {count['rows_read']} rows: "
        f"{dropped}); add scores, mend data.columns in the problem, or let another source label "
        "the pairs (the section labels)"
    )


def check_labels(
    labels: Mapping[tuple[str, str], float],
    training: set[str],
    parts: Sequence[Part],
    needed: Sequence[str],
) -> None:
    """Every needed dimension has one label to learn from: no tie, and on the training side.

    labels: (pair, dimension) → label; training: ids of the pairs of the training side.
    """
    decided = [key for key, label in labels.items() if label != 0.5]
    anywhere = {dimension for _, dimension in decided}
    usable = {dimension for pair, dimension in decided if pair in training}
    for dimension in needed:
        if dimension in usable:
            continue
        part = next(p for p in parts if dimension in mapped_dimensions(p.columns))
        why = "none on the training side" if dimension in anywhere else "all are missing or ties"
        raise InputError(
            f"{part.where}, column {_column(part.columns, dimension)!r}: no usable label for the "
            f"dimension {dimension!r} ({why}); add labels, mend data.columns, or take the "
            "dimension out of the problem"
        )


def _column(columns: Columns, dimension: str) -> str:
    """The column that labels a dimension, as the problem writes it."""
    match columns:
        case PairColumns():
            return ", ".join(columns_of(columns.labels[dimension]))
        case ResponseColumns():
            return columns.scores[dimension]
        case DemonstrationColumns():
            return columns.response
        case _:
            return columns.chosen
