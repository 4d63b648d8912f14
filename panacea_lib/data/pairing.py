"""The rows of one data set → pairs, in whatever layout they come; what is dropped is counted."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, groupby

from panacea_lib.data.cells import Row
from panacea_lib.data.rows import (
    PairRow,
    ResponseRow,
    compare,
    read_chosen_row,
    read_demonstration_row,
    read_pair_row,
    read_response_rows,
)
from panacea_lib.data.topics import PartTopics
from panacea_lib.problem_columns import ChosenColumns, Columns, DemonstrationColumns, PairColumns

DROPPED: tuple[str, ...] = (
    "duplicates_dropped",
    "opinions_merged",
    "identical_dropped",
    "unlabelled_dropped",
    "unpaired_dropped",
    "empty_dropped",
    "dialogues_dropped",
)


@dataclass(frozen=True)
class Part:
    """One data set of a problem: its rows, what its columns mean, what errors call it, and who its
    labels are by (`annotator`; `prefix` goes before the names of its own column of annotators)."""

    rows: Iterable[Row]
    columns: Columns
    where: str
    annotator: str
    prefix: str = ""


def pair_rows(part: Part, counts: Counter[str], topics: PartTopics) -> Iterator[PairRow]:
    """The pairs of a part; of demonstrations none. Counts `rows_read`, `unpaired_dropped`
    (responses alone with their prompt), `empty_dropped` (rows, of completions responses) and
    `dialogues_dropped` (rows whose two dialogues part before their last answers); `topics` notes
    what the rows' prompts are about."""
    for row in _pair_rows(part, counts, topics):
        if row.empty:
            counts["empty_dropped"] += 1
        else:
            yield row


def _pair_rows(part: Part, counts: Counter[str], topics: PartTopics) -> Iterator[PairRow]:
    columns, rows = part.columns, _count(part.rows, counts)
    match columns:
        case PairColumns():
            for place, values in rows:
                yield topics.note(read_pair_row(values, columns, place))
        case ChosenColumns():
            for place, values in rows:
                row = read_chosen_row(values, columns, place)
                if row is None:
                    counts["dialogues_dropped"] += 1
                else:
                    yield topics.note(in_any_order(row))
        case DemonstrationColumns():
            return
        case _:
            every = (r for place, v in rows for r in read_response_rows(v, columns, place))
            graded = map(topics.note, _without_empty(every, counts))
            if columns.group == "prompt":
                graded = _sorted_by_prompt(graded)
            yield from _pair_responses(graded, counts)


def demonstration_rows(part: Part, counts: Counter[str], topics: PartTopics) -> list[ResponseRow]:
    """The demonstrations of a part, each scored 1 on its dimension; [] where it holds pairs."""
    columns = part.columns
    if not isinstance(columns, DemonstrationColumns):
        return []
    every = (
        read_demonstration_row(values, columns, place)
        for place, values in _count(part.rows, counts)
    )
    return [topics.note(row) for row in _without_empty(every, counts)]


def pair_demonstrations(rows: Iterable[ResponseRow]) -> Iterator[PairRow]:
    """Every two demonstrations of different dimensions for one prompt: each prefers its own."""
    for prompt, group in groupby(_sorted_by_prompt(rows), key=lambda row: row.prompt):
        for a, b in combinations(group, 2):
            if a.scores.keys() != b.scores.keys():
                labels = dict.fromkeys(a.scores, 1.0) | dict.fromkeys(b.scores, 0.0)
                yield in_any_order(PairRow(b.place, None, prompt, a.response, b.response, labels))


def in_any_order(row: PairRow) -> PairRow:
    """The row with its responses in an order drawn from a hash of the texts.

    Where the file's order tells which one is preferred, response a would else always win; and
    "always a" would be a perfect answer for whatever learns from the pairs.
    """
    low, high = sorted((row.response_a, row.response_b))
    digest = hashlib.sha256("\0".join((row.prompt, low, high)).encode()).digest()
    first = high if digest[0] % 2 else low
    return row if first == row.response_a else row.swapped()


def _count(rows: Iterable[Row], counts: Counter[str]) -> Iterator[Row]:
    for row in rows:
        counts["rows_read"] += 1
        yield row


def _without_empty(rows: Iterable[ResponseRow], counts: Counter[str]) -> Iterator[ResponseRow]:
    for row in rows:
        if row.empty:
            counts["empty_dropped"] += 1
        else:
            yield row


def _sorted_by_prompt(rows: Iterable[ResponseRow]) -> list[ResponseRow]:
    """The rows with those of one prompt together, prompts in order of appearance."""
    by_prompt: dict[str, list[ResponseRow]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt, []).append(row)
    return [row for group in by_prompt.values() for row in group]


def _pair_responses(rows: Iterable[ResponseRow], counts: Counter[str]) -> Iterator[PairRow]:
    """Every two of the consecutive responses to one prompt."""
    for prompt, group in groupby(rows, key=lambda row: row.prompt):
        responses = list(group)
        counts["unpaired_dropped"] += len(responses) == 1
        for a, b in combinations(responses, 2):
            scores = {
                dimension: (score, b.scores[dimension])
                for dimension, score in a.scores.items()
                if dimension in b.scores
            }
            labels = {dimension: compare(*both) for dimension, both in scores.items()}
            yield PairRow(b.place, None, prompt, a.response, b.response, labels, scores)
