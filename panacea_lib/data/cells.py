"""One cell of a row, checked: texts that are text, scores that are numbers, ids that are ids."""

import math
import re
from dataclasses import dataclass
from typing import Any

from panacea_lib.errors import InputError

Values = dict[str, Any]
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d+)?")


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


def dig(values: Values, column: str, place: RowPlace) -> Any:
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
                f"holds {show(value)}, which has no field {part!r}",
                "nest the fields or mend data.columns in the problem",
            )
        value = value.get(part)
    return value


def number(value: Any, column: str, place: RowPlace) -> float | None:
    """A finite number, also one that is written as text; None is unknown."""
    if value is None:
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise place.error(
            column, f"{show(value)} is not a number", "write a number, or null if unknown"
        )
    # A whole number can be too long for a float; it is as infinite to us.
    if (isinstance(value, int) and abs(value) > 2**63) or not math.isfinite(value):
        raise place.error(
            column, f"{show(value)} is not a finite number", "write a number, or null if unknown"
        )
    return float(value)


def text(value: Any, column: str, place: RowPlace, may_be_empty: bool = False) -> str:
    """A text with something in it, or "" if `may_be_empty`, which null then is too."""
    if value is None and may_be_empty:
        return ""
    if not isinstance(value, str):
        raise place.error(column, f"holds {show(value)}, not text", "write text or drop the row")
    if not value.strip():
        if may_be_empty:
            return ""
        raise place.error(
            column,
            "the text is empty",
            "write text or drop the row (data.columns.drop_empty: true drops all such rows)",
        )
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


def identifier(value: Any, column: str, place: RowPlace, key: str) -> str:
    """An id or a name as text; `key` is the mapping's key that may be dropped instead."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise place.error(
            column, f"{show(value)} is no {key}", f"give every row one or drop data.columns.{key}"
        )
    return str(value)


def topic(value: Any, column: str, place: RowPlace) -> str | None:
    """A topic as text: a word or a whole number; null and empty are unknown."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, str):
        return text(value, column, place, may_be_empty=True).strip() or None
    raise place.error(
        column,
        f"{show(value)} is no topic",
        "write a word or a whole number, or null if unknown",
    )


def show(value: Any) -> str:
    """A value as an error quotes it."""
    quoted = "nothing" if value is None else repr(value)
    return quoted if len(quoted) <= 60 else quoted[:60] + "…"
