"""One row of a file, checked: texts that are text, scores that are numbers, labels in [0, 1]."""

import math
from dataclasses import dataclass
from typing import Any

from panacea_lib.errors import InputError
from panacea_lib.problem_data import PairColumns, Preferred, ResponseColumns, ScorePair

Values = dict[str, Any]
_LETTERS = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row stands: the file or data set, "line" or "row", and its number from 1."""

    source: str
    unit: str
    number: int

    def error(self, column: str, what: str, remedy: str) -> InputError:
        """An error that names file, row, column, what is wrong and what to do."""
        return InputError(
            f"{self.source}, {self.unit} {self.number}, column {column!r}: {what}; {remedy}"
        )


Row = tuple[RowPlace, Values]


@dataclass(frozen=True, slots=True)
class PairRow:
    """A row of the layout "pairs"; a dimension that is not in `labels` is unknown."""

    place: RowPlace
    id: str | None
    prompt: str
    response_a: str
    response_b: str
    labels: dict[str, float]


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """A row of the layout "responses"; a dimension that is not in `scores` is unknown."""

    place: RowPlace
    prompt: str
    response: str
    scores: dict[str, float]


def text_columns(columns: PairColumns | ResponseColumns) -> list[str]:
    """The mapped columns that must hold text, as the problem writes them."""
    if isinstance(columns, ResponseColumns):
        return [columns.prompt, columns.response]
    return [columns.prompt, columns.response_a, columns.response_b]


def label_columns(columns: PairColumns | ResponseColumns) -> list[str]:
    """The mapped columns that hold scores or labels, as the problem writes them."""
    if isinstance(columns, ResponseColumns):
        return list(columns.scores.values())
    names: list[str] = []
    for label in columns.labels.values():
        match label:
            case ScorePair():
                names += [label.a, label.b]
            case Preferred():
                names.append(label.preferred)
            case _:
                names.append(label)
    return names


def mapped_columns(columns: PairColumns | ResponseColumns) -> list[str]:
    """Every column of the mapping, as the problem writes them."""
    own_id = [columns.id] if isinstance(columns, PairColumns) and columns.id else []
    return list(dict.fromkeys([*own_id, *text_columns(columns), *label_columns(columns)]))


def read_pair_row(values: Values, columns: PairColumns, place: RowPlace) -> PairRow:
    """Check one row of the layout "pairs"; InputError names the row and the column."""
    labels: dict[str, float] = {}
    for dimension, label in columns.labels.items():
        match label:
            case Preferred():
                found = _preferred(values, label.preferred, place)
            case ScorePair():
                scores = [_number(_dig(values, c, place), c, place) for c in (label.a, label.b)]
                found = _label(scores[0], scores[1])
            case _:
                found = _label_of_list(values, label, place)
        if found is not None:
            labels[dimension] = found
    return PairRow(
        place=place,
        id=_identifier(values, columns.id, place) if columns.id else None,
        prompt=_text(values, columns.prompt, place),
        response_a=_text(values, columns.response_a, place),
        response_b=_text(values, columns.response_b, place),
        labels=labels,
    )


def read_response_row(values: Values, columns: ResponseColumns, place: RowPlace) -> ResponseRow:
    """Check one row of the layout "responses"; InputError names the row and the column."""
    scores = {
        dimension: score
        for dimension, column in columns.scores.items()
        if (score := _number(_dig(values, column, place), column, place)) is not None
    }
    return ResponseRow(
        place=place,
        prompt=_text(values, columns.prompt, place),
        response=_text(values, columns.response, place),
        scores=scores,
    )


def compare(score_a: float, score_b: float) -> float:
    """Two scores → P(a preferred over b): 1, 0, or 0.5 for a tie."""
    return 0.5 if score_a == score_b else float(score_a > score_b)


def _label(score_a: float | None, score_b: float | None) -> float | None:
    return None if score_a is None or score_b is None else compare(score_a, score_b)


def _label_of_list(values: Values, column: str, place: RowPlace) -> float | None:
    scores = _dig(values, column, place)
    if scores is None:
        return None
    if not isinstance(scores, list | tuple) or len(scores) != 2:
        raise place.error(
            column, f"holds {_show(scores)}", "write [score of a, score of b], or null if unknown"
        )
    return _label(*(_number(score, column, place) for score in scores))


def _preferred(values: Values, column: str, place: RowPlace) -> float | None:
    value = _dig(values, column, place)
    if isinstance(value, str):
        if value in _LETTERS:
            return _LETTERS[value]
        raise place.error(
            column, f"holds {_show(value)}", 'write "a", "b", "tie" or a number from 0 to 1'
        )
    number = _number(value, column, place)
    if number is not None and not 0 <= number <= 1:
        raise place.error(
            column, f"{number} is no probability", "write P(a preferred over b), from 0 to 1"
        )
    return number


def _number(value: Any, column: str, place: RowPlace) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise place.error(
            column, f"{_show(value)} is not a number", "write a number, or null if unknown"
        )
    # A whole number can be too long for a float; it is as infinite to us.
    if (isinstance(value, int) and abs(value) > 2**63) or not math.isfinite(value):
        raise place.error(
            column, f"{_show(value)} is not a finite number", "write a number, or null if unknown"
        )
    return float(value)


def _text(values: Values, column: str, place: RowPlace) -> str:
    value = _dig(values, column, place)
    if not isinstance(value, str):
        raise place.error(column, f"holds {_show(value)}, not text", "write text or drop the row")
    if not value.strip():
        raise place.error(column, "the text is empty", "write text or drop the row")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise place.error(
                column,
                f"character {error.start + 1} is half of a surrogate pair",
                "write valid Unicode",
            ) from error
    return value


def _identifier(values: Values, column: str, place: RowPlace) -> str:
    value = _dig(values, column, place)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise place.error(
            column, f"{_show(value)} is no id", "give every row an id or drop data.columns.id"
        )
    return str(value)


def _dig(values: Values, column: str, place: RowPlace) -> Any:
    """The value of a column, or of a dotted path into nested fields.

    The column itself must be in every row: a misspelt one would else read as "unknown". Below
    it an absent field is None.
    """
    if column in values:
        return values[column]
    head, *rest = column.split(".")
    if head not in values:
        raise place.error(
            head,
            f"the row has no such column (it has {', '.join(map(repr, values)) or 'none'})",
            "add it (null where unknown) or mend data.columns in the problem",
        )
    value = values[head]
    for depth, part in enumerate(rest, start=1):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise place.error(
                ".".join([head, *rest[: depth - 1]]),
                f"holds {_show(value)}, which has no field {part!r}",
                "nest the fields or mend data.columns in the problem",
            )
        value = value.get(part)
    return value


def _show(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
