"""Cron expressions of five fields: refused here, in one sentence, before a scheduler meets them.

A strict part of what Dagster's own parser takes: no `@weekly`, no `L`, `#` or seconds.
"""

import re
from itertools import product

_FIELDS = {
    "minute": (0, 59),
    "hour": (0, 23),
    "day of the month": (1, 31),
    "month": (1, 12),
    "day of the week": (0, 7),
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES = {
    "month": {name: i for i, name in enumerate(_MONTHS, start=1)},
    "day of the week": {name: i for i, name in enumerate(_WEEKDAYS)},
}
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d{1,2}))?", re.ASCII)


def check_cron(text: str) -> None:
    """ValueError, saying what is wrong and how to write it, unless `text` is a cron expression that
    some day fulfils."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{text!r} has {len(fields)} fields, not the five of minute, hour, day of the month, "
            "month and day of the week; write for example '0 3 * * 1', Mondays at 3:00"
        )
    _, _, days, months, _ = (
        _values(field, name) for field, name in zip(fields, _FIELDS, strict=True)
    )
    if all(day > _LONGEST[month - 1] for day, month in product(days, months)):
        raise ValueError(f"{text!r} names a day that no such month has; name another day")


def _values(field: str, name: str) -> set[int]:
    """All numbers that a field means; ValueError for what is no such field."""
    return {value for item in field.split(",") for value in _range(item, name)}


def _range(item: str, name: str) -> range:
    low, high = _FIELDS[name]
    match = _ITEM.fullmatch(item)
    if match is None:
        raise ValueError(
            f"{item!r} is no {name}; write *, a number from {low} to {high}, a range like "
            f"{low}-{high}, a step like */2, or several with commas"
        )
    first, last, step = match.groups()
    if step is not None and ((first is not None and last is None) or not 0 < int(step) <= high):
        raise ValueError(
            f"the step of {item!r} (in {name}) must be from 1 to {high} and follow * or a range; "
            "write for example */2"
        )
    start = low if first is None else _number(first, name)
    end = high if first is None else start if last is None else _number(last, name)
    if start > end:
        raise ValueError(
            f"the range {item!r} (in {name}) runs backwards; write it as two, a comma between them"
        )
    return range(start, end + 1, int(step or 1))


def _number(word: str, name: str) -> int:
    low, high = _FIELDS[name]
    value = _NAMES.get(name, {}).get(word.lower())
    if value is None:
        value = int(word) if re.fullmatch(r"\d{1,2}", word, re.ASCII) else -1
    if not low <= value <= high:
        raise ValueError(f"{word!r} is no {name}; write a number from {low} to {high}")
    return value
