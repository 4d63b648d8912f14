"""Rows + column mapping → prompts, responses, pairs and labels, with everything dropped counted."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, groupby
from statistics import fmean

from panacea_lib.data.rows import (
    PairRow,
    ResponseRow,
    Row,
    RowPlace,
    compare,
    label_columns,
    read_pair_row,
    read_response_row,
)
from panacea_lib.data.sources import no_rows
from panacea_lib.data.split import split_prompts
from panacea_lib.errors import InputError
from panacea_lib.problem_data import PairColumns, Preferred, ResponseColumns, ScorePair, Split
from panacea_lib.records import (
    AnnotationRecord,
    PairRecord,
    PromptRecord,
    ResponseRecord,
    Side,
    pair_id,
    prompt_id,
    response_id,
)

SOURCE = "data"  # of responses and labels that were read, not made
DROPPED = (
    "duplicates_dropped",
    "opinions_merged",
    "identical_dropped",
    "unlabelled_dropped",
    "unpaired_dropped",
)
PairKey = tuple[str, str, str]


@dataclass(frozen=True)
class PreferenceData:
    """What a source holds. `counts`: see `map_rows`."""

    prompts: list[PromptRecord]
    responses: list[ResponseRecord]
    pairs: list[PairRecord]
    annotations: list[AnnotationRecord]
    counts: dict[str, int]


@dataclass
class _Pair:
    """A pair in the order in which it was first seen, and every different opinion on it."""

    prompt: str
    response_a: str
    response_b: str
    opinions: list[dict[str, float]] = field(default_factory=list)


def map_rows(
    rows: Iterable[Row], columns: PairColumns | ResponseColumns, split: Split, where: str
) -> PreferenceData:
    """Read, check, pair and split all rows; `where` names the source in errors.

    Rows that say the same (also with the responses swapped) are dropped. Different opinions on
    one pair become the mean of their labels, which is still P(a preferred over b).

    Counts: `rows_read`, `duplicates_dropped`, `opinions_merged` (rows), `identical_dropped`
    (pairs of one text with itself), `unlabelled_dropped` (pairs without any label),
    `unpaired_dropped` (graded responses that are alone with their prompt), then what is left:
    `prompts`, `responses`, `pairs`, `labels`, `ties`, and per dimension `labels.DIMENSION`.

    InputError: a bad row, one id on two pairs, no pair at all, a dimension without a usable
    label among the training pairs, one prompt only, an empty side of the split.
    """
    counts: Counter[str] = Counter(dict.fromkeys(("rows_read", *DROPPED), 0))
    counted = _count(rows, counts)
    if isinstance(columns, PairColumns):
        found = (read_pair_row(values, columns, place) for place, values in counted)
    else:
        graded = (read_response_row(values, columns, place) for place, values in counted)
        found = _pair_responses(graded, counts)
    id_column = columns.id if isinstance(columns, PairColumns) else None
    pairs = _collect(found, id_column, counts)
    if not pairs:
        raise _no_pairs(columns, counts, where)
    column = columns.prompt
    sides = split_prompts((p.prompt for p in pairs), split, f"{where}, line 1, column {column!r}")
    data = _records(pairs, sides, counts)
    _check_labels(data, columns, where)
    return data


def _count(rows: Iterable[Row], counts: Counter[str]) -> Iterator[Row]:
    for row in rows:
        counts["rows_read"] += 1
        yield row


def _pair_responses(rows: Iterable[ResponseRow], counts: Counter[str]) -> Iterator[PairRow]:
    """Every two of the consecutive responses to one prompt."""
    for prompt, group in groupby(rows, key=lambda row: row.prompt):
        responses = list(group)
        counts["unpaired_dropped"] += len(responses) == 1
        for a, b in combinations(responses, 2):
            labels = {
                dimension: compare(score, b.scores[dimension])
                for dimension, score in a.scores.items()
                if dimension in b.scores
            }
            yield PairRow(b.place, None, prompt, a.response, b.response, labels)


def _collect(rows: Iterable[PairRow], id_column: str | None, counts: Counter[str]) -> list[_Pair]:
    """The different pairs in order of appearance; rows that add nothing are counted."""
    pairs: dict[PairKey, _Pair] = {}
    first_with_id: dict[str, tuple[PairKey, RowPlace]] = {}
    for row in rows:
        low, high = sorted((row.response_a, row.response_b))
        key = (row.prompt, low, high)
        if id_column and row.id is not None:
            other_key, other = first_with_id.setdefault(row.id, (key, row.place))
            if other_key != key:
                raise row.place.error(
                    id_column,
                    f"the id {row.id!r} stands on another pair in {other.unit} {other.number}",
                    "give each pair an id of its own, or drop data.columns.id from the problem",
                )
        if low == high:
            counts["identical_dropped"] += 1
        elif not row.labels:
            counts["unlabelled_dropped"] += 1
        else:
            pair = pairs.setdefault(key, _Pair(row.prompt, row.response_a, row.response_b))
            swapped = row.response_a != pair.response_a
            opinion = {d: 1 - p if swapped else p for d, p in row.labels.items()}
            if opinion in pair.opinions:
                counts["duplicates_dropped"] += 1
            else:
                counts["opinions_merged"] += bool(pair.opinions)
                pair.opinions.append(opinion)
    return list(pairs.values())


def _records(pairs: list[_Pair], sides: dict[str, Side], counts: Counter[str]) -> PreferenceData:
    prompts: dict[str, PromptRecord] = {}
    responses: dict[str, ResponseRecord] = {}
    pair_records: list[PairRecord] = []
    annotations: list[AnnotationRecord] = []
    for pair in pairs:
        p_id, side = prompt_id(pair.prompt), sides[pair.prompt]
        prompts.setdefault(p_id, PromptRecord(p_id, side, pair.prompt))
        ids = []
        for text in (pair.response_a, pair.response_b):
            r_id = response_id(p_id, SOURCE, text)
            responses.setdefault(r_id, ResponseRecord(r_id, p_id, SOURCE, text))
            ids.append(r_id)
        record = PairRecord(pair_id(*ids), p_id, side, *ids)
        pair_records.append(record)
        annotations += _annotations(record.pair_id, pair.opinions)
    labels = _mean_labels(annotations)
    counts.update(
        prompts=len(prompts),
        responses=len(responses),
        pairs=len(pair_records),
        labels=len(labels),
        ties=sum(label == 0.5 for label in labels.values()),
    )
    counts.update(f"labels.{dimension}" for _, dimension in labels)
    return PreferenceData(
        list(prompts.values()), list(responses.values()), pair_records, annotations, dict(counts)
    )


def _annotations(pair: str, opinions: list[dict[str, float]]) -> Iterator[AnnotationRecord]:
    for opinion in opinions:
        for dimension, label in opinion.items():
            yield AnnotationRecord(
                pair_id=pair,
                dimension=dimension,
                source=SOURCE,
                annotator=SOURCE,
                label=label,
                score_a=None,
                score_b=None,
                shown_first=None,
                status="ok",
                reason=None,
            )


def _mean_labels(annotations: list[AnnotationRecord]) -> dict[tuple[str, str], float]:
    """(pair, dimension) → the mean of what was said."""
    said: dict[tuple[str, str], list[float]] = defaultdict(list)
    for annotation in annotations:
        assert annotation.label is not None
        said[annotation.pair_id, annotation.dimension].append(annotation.label)
    return {key: fmean(labels) for key, labels in said.items()}


def _no_pairs(
    columns: PairColumns | ResponseColumns, counts: Counter[str], where: str
) -> InputError:
    if not counts["rows_read"]:
        return no_rows(where)
    if isinstance(columns, ResponseColumns) and counts["unpaired_dropped"] == counts["rows_read"]:
        return InputError(
            f"{where}, column {columns.prompt!r}: no two consecutive rows have one prompt, so "
            "there is nothing to compare; sort the rows by prompt, or use `layout: pairs`"
        )
    dropped = ", ".join(f"{counts[name]} {name}" for name in DROPPED if counts[name])
    names = ", ".join(map(repr, label_columns(columns)))
    return InputError(
        f"{where}, columns {names}: no row gives a labelled pair (of {counts['rows_read']} rows: "
        f"{dropped}); add scores, or mend data.columns in the problem"
    )


def _check_labels(data: PreferenceData, columns: PairColumns | ResponseColumns, where: str) -> None:
    """Every dimension needs one label to learn from: not a tie, and on the training side."""
    training = {pair.pair_id for pair in data.pairs if pair.split == "train"}
    decided = [key for key, label in _mean_labels(data.annotations).items() if label != 0.5]
    anywhere = {dimension for _, dimension in decided}
    usable = {dimension for pair, dimension in decided if pair in training}
    mapped = columns.labels if isinstance(columns, PairColumns) else columns.scores
    for dimension, label in mapped.items():
        if dimension in usable:
            continue
        match label:
            case ScorePair():
                column = f"{label.a}, {label.b}"
            case Preferred():
                column = label.preferred
            case _:
                column = label
        why = "none on the training side" if dimension in anywhere else "all are missing or ties"
        raise InputError(
            f"{where}, column {column!r}: no usable label for the dimension {dimension!r} ({why}); "
            "add labels, mend data.columns, or take the dimension out of the problem"
        )
