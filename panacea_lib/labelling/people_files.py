"""The files that people answer in: a batch of pairs out, their answers in, by any spreadsheet.

A row per pair and dimension. Whoever answers fills in `preferred` (a, b, tie, or P(a preferred)
from 0 to 1) and `annotator` (a name), and may add a `comment`. All else must stay as it is.
"""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from panacea_lib.data.rows import RowPlace
from panacea_lib.data.text_files import check_text, csv_shape, wide_fields
from panacea_lib.errors import InputError
from panacea_lib.problem_errors import nearest

TEXTS = ("prompt", "response_a", "response_b")
COLUMNS = ("pair_id", "dimension", *TEXTS, "preferred", "annotator", "comment")
_WORDS = {"a": 1.0, "b": 0.0, "tie": 0.5}
# A spreadsheet runs a cell that begins so as a formula; an apostrophe before it makes it text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# And one that looks like a number or a date it writes anew in its own way.
_NUMBER = re.compile(r"[0-9][0-9.,:/eE+-]*")
_AGAIN = "export the batch again and copy the answers over"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one person said of one pair on one dimension, and where it stands."""

    place: RowPlace
    pair_id: str
    dimension: str
    label: float  # P(a preferred over b)
    annotator: str
    comment: str


@dataclass(frozen=True, slots=True)
class AnsweredBatch:
    """A file's answers; rows without one, and exact repeats, are only counted."""

    answers: list[Answer]
    unanswered: int
    repeated: int


def export_batch(pairs: pa.Table, dimensions: Sequence[str], path: Path) -> int:
    """Write a row per pair and dimension, to be answered; the number of rows.

    pairs: pair_id, prompt, response_a, response_b; path: a new .csv (UTF-8 with the mark that
    spreadsheets want) or .parquet. In CSV, cells that a spreadsheet would run as a formula or
    round as a number begin with an apostrophe. InputError: another ending, a file that is there.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{path}: its ending tells no format; name it .csv or .parquet")
    if path.exists():  # somebody's answers, perhaps
        raise InputError(f"{path} exists already; move it away, or name another file")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; create it first")
    rows = [
        {**pair, "dimension": dimension, "preferred": "", "annotator": "", "comment": ""}
        for pair in pairs.select(["pair_id", *TEXTS]).to_pylist()
        for dimension in dimensions
    ]
    if path.suffix.lower() == ".parquet":
        schema = pa.schema([(name, pa.string()) for name in COLUMNS])
        parquet.write_table(pa.Table.from_pylist(rows, schema), path)
    else:
        with path.open("x", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(COLUMNS)
            writer.writerows([_shielded(row[name]) for name in COLUMNS] for row in rows)
    return len(rows)


def read_answers(path: Path, known_pairs: pa.Table, dimensions: Sequence[str]) -> AnsweredBatch:
    """The answers in a batch that came back; nothing is filed.

    known_pairs: pair_id, prompt, response_a, response_b of the pairs as they are. InputError, with
    file, row, column and remedy: a column that is missing or doubled, an unknown pair or dimension,
    a text that is not the pair's (but for line ends and trailing white space), an answer that is
    none, or without a name, or two different ones by one person.
    """
    known = {row["pair_id"]: row for row in known_pairs.select(["pair_id", *TEXTS]).to_pylist()}
    found: dict[tuple[str, str, str], Answer] = {}
    unanswered = repeated = 0
    for place, cells in _rows(path):
        if not any(cells.values()):
            continue  # spreadsheets leave such rows behind
        answer = _answer(place, cells, known, dimensions)
        if answer is None:
            unanswered += 1
            continue
        who = (answer.annotator, answer.pair_id, answer.dimension)
        before = found.setdefault(who, answer)
        if before.label != answer.label:
            raise place.error(
                "preferred",
                f"{answer.annotator!r} says {show_label(answer.label)} here and "
                f"{show_label(before.label)} in {before.place.unit} {before.place.number} of the "
                f"same pair on {answer.dimension}",
                "delete the wrong row",
            )
        repeated += before is not answer
    return AnsweredBatch(list(found.values()), unanswered, repeated)


def show_label(label: float) -> str:
    """A label as people write it."""
    words = {value: word for word, value in _WORDS.items()}
    return words.get(label, f"{label:g}")


def _answer(
    place: RowPlace,
    cells: dict[str, str],
    known: dict[str, dict[str, str]],
    dimensions: Sequence[str],
) -> Answer | None:
    """One row, checked; None where nobody has answered it."""
    pair = _bare(cells["pair_id"].strip())
    if pair not in known:
        raise _unknown_pair(place, cells["pair_id"].strip())
    dimension = cells["dimension"].strip()
    if dimension not in dimensions:
        raise place.error(
            "dimension", f"no dimension is named {dimension!r}", nearest(dimension, dimensions)
        )
    for name in TEXTS:
        if _comparable(cells[name]) != _comparable(known[pair][name]):
            raise place.error(name, f"the text is not that of pair {pair} any more", _AGAIN)
    label = _label(place, cells["preferred"])
    annotator = " ".join(cells["annotator"].split())
    if label is None:
        return None
    if not annotator:
        raise place.error("annotator", "an answer without a name", "write who gave it")
    return Answer(place, pair, dimension, label, annotator, _bare(cells["comment"].strip()))


def _unknown_pair(place: RowPlace, given: str) -> InputError:
    if _NUMBER.fullmatch(given):
        return place.error(
            "pair_id",
            f"{given!r} is no pair; a spreadsheet has made a number of the id",
            f"{_AGAIN}, or open the file with this column as text",
        )
    remedy = "check that the batch is of this problem, or export one of the pairs as they are now"
    return place.error("pair_id", f"the problem has no pair {given!r}", remedy)


def _label(place: RowPlace, cell: str) -> float | None:
    word = cell.strip().casefold()
    if not word:
        return None
    if word in _WORDS:
        return _WORDS[word]
    try:
        number = float(word.replace(",", "."))  # many countries write 0,5
    except ValueError:
        number = math.nan
    if 0 <= number <= 1:
        return number
    raise place.error(
        "preferred",
        f"{cell.strip()!r} is no answer",
        "write a, b, tie, or P(a preferred) from 0 to 1; leave it empty where nobody knows",
    )


# ---- files


def _rows(path: Path) -> Iterator[tuple[RowPlace, dict[str, str]]]:
    """Every row with its place, all cells as text."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the batch that came back")
    match path.suffix.lower():
        case ".csv":
            yield from _csv_rows(path)
        case ".parquet":
            yield from _parquet_rows(path)
        case _:
            raise InputError(
                f"{path}: its ending tells no format; save it as .csv (UTF-8) or .parquet"
            )


def _csv_rows(path: Path) -> Iterator[tuple[RowPlace, dict[str, str]]]:
    check_text(path)
    delimiter = _delimiter(path)
    header = csv_shape(path, delimiter).header
    _check_columns(path, header)
    with wide_fields(), path.open(encoding="utf-8-sig", newline="") as stream:
        records = enumerate(csv.reader(stream, delimiter=delimiter), start=1)
        next(records)
        for number, row in records:
            if row:
                # The row as a spreadsheet counts it: a text may go over several lines of the file.
                yield RowPlace(str(path), "row", number), dict(zip(header, row, strict=True))


def _delimiter(path: Path) -> str:
    """A comma; or a semicolon or a tab, which spreadsheets write in many countries.

    No column of ours holds any of them, so the header tells.
    """
    with path.open(encoding="utf-8-sig") as stream:
        header = stream.readline()
    return next((mark for mark in ",;\t" if mark in header), ",")


def _parquet_rows(path: Path) -> Iterator[tuple[RowPlace, dict[str, str]]]:
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"{path}: this is not Parquet, or damaged ({said}); write it again"
        ) from error
    _check_columns(path, table.column_names)
    for number, row in enumerate(table.select(list(COLUMNS)).to_pylist(), start=1):
        place = RowPlace(str(path), "row", number)
        yield place, {name: "" if value is None else str(value) for name, value in row.items()}


def _check_columns(path: Path, header: Sequence[str]) -> None:
    for name in COLUMNS:
        if header.count(name) != 1:
            there = ", ".join(map(repr, header))
            what = "there is no such column" if name not in header else "it stands twice"
            raise InputError(
                f"{path}, row 1, column {name!r}: {what} (there are {there}); the columns must be "
                "those of the exported batch, others may be added"
            )


# ---- cells


def _shielded(text: str) -> str:
    """The cell as a spreadsheet leaves it alone; `_bare` takes the apostrophe off again."""
    risky = text.startswith(_FORMULA) or _NUMBER.fullmatch(text)
    return f"'{text}" if risky else text


def _bare(text: str) -> str:
    rest = text.removeprefix("'")
    return rest if rest.startswith(_FORMULA) or _NUMBER.fullmatch(rest) else text


def _comparable(text: Any) -> str:
    """What must be equal: not line ends, nor white space before them, nor the apostrophe."""
    lines = re.split(r"\r\n|\r|\n", _bare(text))
    return "\n".join(line.rstrip() for line in lines).strip()
