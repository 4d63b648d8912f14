"""What must be true of a text file before a library may read it.

`datasets` and pandas report a bad byte, a cut gzip stream or a ragged row with an exception of
their own that names no row, and guess where a file is ambiguous. So JSONL and CSV files are first
read once here, in plain Python, streaming.
"""

import csv
import gzip
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from panacea_lib.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class CsvShape:
    """The header of a CSV file and the line on which each record begins."""

    header: list[str]
    lines: list[int]


def check_text(path: Path) -> None:
    """InputError unless the file is UTF-8 text without NUL, gzipped if and only if named .gz."""
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, start=1):
                _check_line(path, number, line)
    except EOFError as error:
        raise InputError(
            f"{path}, after line {number}: the gzip stream is cut off; "
            "the file is truncated: copy or download it again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}, after line {number}: this is not gzip, or damaged ({error}); copy it again, "
            "or drop .gz from its name if it is plain text"
        ) from error
    if not number:
        raise InputError(f"{path}: the file is empty; it needs a row per pair or response")


def csv_shape(path: Path, delimiter: str = ",") -> CsvShape:
    """Read the structure of a CSV file that `check_text` has passed.

    InputError: a bad quote, a row of another length than the header, an empty or doubled name.
    """
    lines: list[int] = []
    with wide_fields(), path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True, delimiter=delimiter)
        try:
            header = next(reader, [])
            _check_header(path, header)
            begins = reader.line_num + 1
            for row in reader:
                if row:  # a blank line is no record, to pandas neither
                    if len(row) != len(header):
                        raise InputError(
                            f"{path}, line {begins}: {len(row)} fields where the header has "
                            f"{len(header)}; quote fields that hold commas or line ends"
                        )
                    lines.append(begins)
                begins = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num}: this is not CSV ({error}); "
                'quote fields with ", and double a quote inside one'
            ) from error
    return CsvShape(header, lines)


def _check_header(path: Path, header: list[str]) -> None:
    if not header:
        raise InputError(f"{path}, line 1: no header; name the columns in the first line")
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise InputError(
                f"{path}, line 1: the columns are parted by {word}, not by commas; save the file "
                "as comma-separated CSV (UTF-8)"
            )
    name, times = Counter(header).most_common(1)[0]
    if times > 1 or "" in header:
        what = f"{name!r} {times} times" if times > 1 else "a column without a name"
        raise InputError(f"{path}, line 1: the header has {what}; give every column its own name")


def _check_line(path: Path, number: int, line: bytes) -> None:
    if number == 1 and line.startswith(_GZIP_MAGIC):
        raise InputError(f"{path}: this is gzip; add .gz to its name (JSONL only) or unpack it")
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: byte 0x{line[error.start]:02x} at position {error.start + 1} "
            "is not UTF-8; save the file as UTF-8"
        ) from error
    if b"\0" in line:
        raise InputError(
            f"{path}, line {number}: a NUL byte at position {line.index(0) + 1}; delete it, or "
            "save the file as UTF-8 if it is UTF-16"
        )


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


@contextmanager
def wide_fields() -> Iterator[None]:
    """The csv module refuses fields over 128 KiB by a process-wide limit; texts may be longer."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
