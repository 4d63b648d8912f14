"""Pairs and what was said of them: rows that say the same are one, rows that differ add up."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from panacea_lib.data.cells import RowPlace
from panacea_lib.data.pairing import Part
from panacea_lib.data.rows import PairRow, Scores
from panacea_lib.problem_columns import PairColumns

PairKey = tuple[str, str, str]


@dataclass(frozen=True)
class Opinion:
    """What one annotator says of a pair in one row: P(a preferred over b) by dimension, and the
    two scores where that follows from them."""

    annotator: str
    labels: dict[str, float]
    scores: dict[str, Scores]
    place: RowPlace


@dataclass
class Pair:
    """A pair in the order in which it was first seen, and every different opinion on it."""

    prompt: str
    response_a: str
    response_b: str
    opinions: list[Opinion] = field(default_factory=list)


class Pairs:
    """The different pairs of all parts, in order of appearance."""

    def __init__(self, keep_unlabelled: bool) -> None:
        self._keep_unlabelled = keep_unlabelled
        self._pairs: dict[PairKey, Pair] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def all(self) -> list[Pair]:
        """Every pair that was added."""
        return list(self._pairs.values())

    def add(self, part: Part, rows: Iterable[PairRow], counts: Counter[str]) -> None:
        """Add a part's rows; those that add nothing are counted.

        Rows of one annotator with equal labels say the same, whatever their scores: the first
        one's are kept.

        InputError: one id on two pairs of the part; one annotator, named by a column, who says
        two things of one pair.
        """
        first_with_id: dict[str, tuple[PairKey, RowPlace]] = {}
        for row in rows:
            low, high = sorted((row.response_a, row.response_b))
            key = (row.prompt, low, high)
            _check_id(part, row, first_with_id.setdefault(row.id or "", (key, row.place)), key)
            if low == high:
                counts["identical_dropped"] += 1
            elif not row.labels and not self._keep_unlabelled:
                counts["unlabelled_dropped"] += 1
            else:
                self._add(part, row, key, counts)

    def _add(self, part: Part, row: PairRow, key: PairKey, counts: Counter[str]) -> None:
        new = key not in self._pairs
        pair = self._pairs.setdefault(key, Pair(row.prompt, row.response_a, row.response_b))
        annotator = part.annotator if row.annotator is None else part.prefix + row.annotator
        said = row if row.response_a == pair.response_a else row.swapped()
        labels = said.labels
        if new:
            counts["pairs"] += 1
        elif not labels or any(
            (o.annotator, o.labels) == (annotator, labels) for o in pair.opinions
        ):
            counts["duplicates_dropped"] += 1
            return
        else:
            counts["opinions_merged"] += 1
        if labels:
            opinion = Opinion(annotator, labels, said.scores, row.place)
            if row.annotator is not None:
                _check_agrees(part, opinion, pair.opinions)
            pair.opinions.append(opinion)


def _check_id(part: Part, row: PairRow, first: tuple[PairKey, RowPlace], key: PairKey) -> None:
    """An id names one pair of its data set."""
    if row.id is None or first[0] == key or not isinstance(part.columns, PairColumns):
        return
    other = first[1]
    raise row.place.error(
        part.columns.id or "",
        f"the id {row.id!r} stands on another pair in {other.unit} {other.number}",
        "give each pair an id of its own, or drop data.columns.id from the problem",
    )


def _check_agrees(part: Part, opinion: Opinion, others: Iterable[Opinion]) -> None:
    """One annotator has one opinion of a pair on each dimension."""
    assert isinstance(part.columns, PairColumns) and part.columns.annotator
    for other in others:
        if other.annotator != opinion.annotator:
            continue
        for dimension, label in opinion.labels.items():
            if other.labels.get(dimension, label) != label:
                raise opinion.place.error(
                    part.columns.annotator,
                    f"{opinion.annotator!r} prefers otherwise on {dimension!r} in "
                    f"{other.place.unit} {other.place.number}, which is the same pair",
                    "delete one of the two rows, or drop data.columns.annotator from the problem",
                )
