"""One row of a file in each layout, read and checked."""

from dataclasses import dataclass, field, replace
from typing import Any

from panacea_lib.data.cells import (
    RowPlace,
    Values,
    dig,
    identifier,
    number,
    show,
    text,
    topic,
)
from panacea_lib.data.dialogues import last_turn, prompt_text, split_dialogue
from panacea_lib.problem_columns import (
    ChosenColumns,
    Columns,
    DemonstrationColumns,
    LabelColumn,
    PairColumns,
    Preferred,
    ResponseColumns,
    ScorePair,
    Strength,
)

_LETTERS = {"a": 1.0, "b": 0.0, "tie": 0.5, "unknown": None}
_TRUTH = {"true": 1.0, "false": 0.0}
Scores = tuple[float, float]
"""Of response a and of response b."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two responses and what one annotator says; a dimension not in `labels` is unknown.

    scores: of the dimensions whose label compares two scores; topic: of the prompt, None where it
    is unknown.
    """

    place: RowPlace
    id: str | None
    prompt: str
    response_a: str
    response_b: str
    labels: dict[str, float]
    scores: dict[str, Scores] = field(default_factory=dict)
    annotator: str | None = None
    topic: str | None = None

    @property
    def empty(self) -> bool:
        """Whether a text is empty, which only `drop_empty` lets through."""
        return not (self.prompt and self.response_a and self.response_b)

    def swapped(self) -> "PairRow":
        """The same opinion of the same pair, response b first."""
        return replace(
            self,
            response_a=self.response_b,
            response_b=self.response_a,
            labels={dimension: 1 - label for dimension, label in self.labels.items()},
            scores={dimension: (b, a) for dimension, (a, b) in self.scores.items()},
        )


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """One response; a dimension that is not in `scores` is unknown. topic: as of a `PairRow`."""

    place: RowPlace
    prompt: str
    response: str
    scores: dict[str, float]
    topic: str | None = None

    @property
    def empty(self) -> bool:
        """Whether a text is empty, which only `drop_empty` lets through."""
        return not (self.prompt and self.response)


def text_columns(columns: Columns) -> list[str]:
    """The mapped columns that must hold text, as the problem writes them."""
    match columns:
        case PairColumns():
            return [columns.prompt, columns.response_a, columns.response_b]
        case ChosenColumns():
            prompt = [columns.prompt] if columns.prompt else []
            return [*prompt, columns.chosen, columns.rejected]
        case ResponseColumns():
            response = [] if columns.completions else [columns.response]
            return [columns.prompt, *response]
        case DemonstrationColumns():
            extra = [columns.input] if columns.input else []
            return [columns.prompt, *extra, columns.response]


def label_columns(columns: Columns) -> list[str]:
    """The mapped columns that hold scores, labels or lists, as the problem writes them."""
    match columns:
        case PairColumns():
            return [name for label in columns.labels.values() for name in columns_of(label)]
        case ResponseColumns():
            if columns.completions:
                return [columns.completions]
            return list(columns.scores.values())
        case ChosenColumns() | DemonstrationColumns():
            return []


def mapped_columns(columns: Columns) -> list[str]:
    """Every column of the mapping, as the problem writes them."""
    extra = [columns.id, columns.annotator] if isinstance(columns, PairColumns) else []
    own = [name for name in (*extra, columns.topic) if name]
    return list(dict.fromkeys([*own, *text_columns(columns), *label_columns(columns)]))


def columns_of(label: LabelColumn) -> list[str]:
    """The columns that one label is read from."""
    match label:
        case ScorePair():
            return [label.a, label.b]
        case Preferred():
            return [label.preferred]
        case Strength():
            return [label.strength]
        case _:
            return [label]


def read_pair_row(values: Values, columns: PairColumns, place: RowPlace) -> PairRow:
    """Check one row of the layout "pairs"; InputError names the row and the column."""
    labels: dict[str, float] = {}
    scores: dict[str, Scores] = {}
    for dimension, label in columns.labels.items():
        found = _label(values, label, place)
        if isinstance(found, tuple):
            scores[dimension] = found
            labels[dimension] = compare(*found)
        elif found is not None:
            labels[dimension] = found
    drop = columns.drop_empty
    names = {"id": columns.id, "annotator": columns.annotator}
    known = {
        key: identifier(dig(values, name, place), name, place, key)
        for key, name in names.items()
        if name
    }
    return PairRow(
        place=place,
        id=known.get("id"),
        prompt=prompt_text(dig(values, columns.prompt, place), columns.prompt, place, drop),
        response_a=text(dig(values, columns.response_a, place), columns.response_a, place, drop),
        response_b=text(dig(values, columns.response_b, place), columns.response_b, place, drop),
        labels=labels,
        scores=scores,
        annotator=known.get("annotator"),
        topic=_topic(values, columns, place),
    )


def read_chosen_row(values: Values, columns: ChosenColumns, place: RowPlace) -> PairRow | None:
    """Check one row of the layout "chosen"; response a is the chosen one.

    None where two whole dialogues part before their last answers, or end with the user's turn.
    """
    drop = columns.drop_empty
    chosen, rejected = (dig(values, name, place) for name in (columns.chosen, columns.rejected))
    if columns.prompt:
        prompt = prompt_text(dig(values, columns.prompt, place), columns.prompt, place, drop)
        a = last_turn(chosen, columns.chosen, place, drop)
        b = last_turn(rejected, columns.rejected, place, drop)
    else:
        one = split_dialogue(chosen, columns.chosen, place, drop)
        other = split_dialogue(rejected, columns.rejected, place, drop)
        if one is None or other is None or one[0] != other[0]:
            return None
        (prompt, a), b = one, other[1]
    known = _topic(values, columns, place)
    return PairRow(place, None, prompt, a, b, {columns.dimension: 1.0}, topic=known)


def read_response_rows(
    values: Values, columns: ResponseColumns, place: RowPlace
) -> list[ResponseRow]:
    """Check one row of the layout "responses": one response, or all of a list of them."""
    drop, known = columns.drop_empty, _topic(values, columns, place)
    prompt = prompt_text(dig(values, columns.prompt, place), columns.prompt, place, drop)
    entries, prefix = [values], ""
    if columns.completions:
        entries, prefix = dig(values, columns.completions, place), f"{columns.completions}."
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise place.error(
                columns.completions, f"holds {show(entries)}", "write a list of objects"
            )
    rows = []
    for entry in entries:
        scores: dict[str, float] = {}
        for dimension, column in columns.scores.items():
            score = _score(dig(entry, column, place), columns.unknown, prefix + column, place)
            if score is not None:
                scores[dimension] = score
        response = dig(entry, columns.response, place)
        answer = text(response, prefix + columns.response, place, drop)
        rows.append(ResponseRow(place, prompt, answer, scores, known))
    return rows


def read_demonstration_row(
    values: Values, columns: DemonstrationColumns, place: RowPlace
) -> ResponseRow:
    """Check one row of the layout "demonstrations"; it shows `columns.dimension`."""
    drop = columns.drop_empty
    prompt = prompt_text(dig(values, columns.prompt, place), columns.prompt, place, drop)
    if columns.input:
        extra = text(dig(values, columns.input, place), columns.input, place, may_be_empty=True)
        prompt = f"{prompt}\n\n{extra}" if extra and prompt else prompt
    response = text(dig(values, columns.response, place), columns.response, place, drop)
    known = _topic(values, columns, place)
    return ResponseRow(place, prompt, response, {columns.dimension: 1.0}, known)


def compare(score_a: float, score_b: float) -> float:
    """Two scores → P(a preferred over b): 1, 0, or 0.5 for a tie."""
    return 0.5 if score_a == score_b else float(score_a > score_b)


def _topic(values: Values, columns: Columns, place: RowPlace) -> str | None:
    """What the row says its prompt is about."""
    return topic(dig(values, columns.topic, place), columns.topic, place) if columns.topic else None


def _label(values: Values, label: LabelColumn, place: RowPlace) -> float | Scores | None:
    """What one of the four forms says: P(a preferred over b), or two scores; None is unknown."""
    match label:
        case Preferred():
            return _preferred(dig(values, label.preferred, place), label, place)
        case Strength():
            return _strength(dig(values, label.strength, place), label, place)
        case ScorePair():
            a, b = (number(dig(values, c, place), c, place) for c in (label.a, label.b))
        case _:
            found = dig(values, label, place)
            if found is None:
                return None
            if not isinstance(found, list | tuple) or len(found) != 2:
                raise place.error(
                    label,
                    f"holds {show(found)}",
                    "write [score of a, score of b], or null if unknown",
                )
            a, b = (number(score, label, place) for score in found)
    return None if a is None or b is None else (a, b)


def _preferred(value: Any, label: Preferred, place: RowPlace) -> float | None:
    column = label.preferred
    if value is None:
        return None
    if label.values is not None:
        word = _word(value)
        if word not in label.values:
            raise place.error(
                column,
                f"holds {show(value)}",
                f"write one of {', '.join(map(repr, label.values))}, or add it to the column's "
                "`values` in the problem",
            )
        return _LETTERS[label.values[word]]
    if isinstance(value, str):
        if value in ("a", "b", "tie"):
            return _LETTERS[value]
        raise place.error(
            column, f"holds {show(value)}", 'write "a", "b", "tie" or a number from 0 to 1'
        )
    found = number(value, column, place)
    if found is not None and not 0 <= found <= 1:
        raise place.error(
            column, f"{found} is no probability", "write P(a preferred over b), from 0 to 1"
        )
    return found


def _strength(value: Any, label: Strength, place: RowPlace) -> float | None:
    found = number(value, label.strength, place)
    if found is None:
        return None
    if abs(found) > label.scale:
        raise place.error(
            label.strength,
            f"{found:g} lies beyond the scale {label.scale:g}",
            "mend the value, or the column's `scale` in the problem",
        )
    return (1 + found / label.scale * (1 if label.positive == "a" else -1)) / 2


def _score(value: Any, unknown: list[str], column: str, place: RowPlace) -> float | None:
    """A response's score: a number, a truth value (true is better), or a word for unknown."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        if value.strip() in unknown:
            return None
        if value.strip().lower() in _TRUTH:
            return _TRUTH[value.strip().lower()]
    return number(value, column, place)


def _word(value: Any) -> str:
    """How a cell's value is written among `values`: 1 and 1.0 (of a CSV file) are "1"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
