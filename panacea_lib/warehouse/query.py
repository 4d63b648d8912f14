"""SQL from people: run it on the snapshot, and print the answer for machines."""

import csv
import io
import json
import math
from base64 import b64encode
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from panacea_lib.errors import InputError
from panacea_lib.warehouse.writer import Warehouse


def run_query(warehouse: Warehouse, sql: str) -> pa.Table:
    """The answer to one query, read-only; of several statements the last one's.

    Raises InputError with DuckDB's own message for SQL it refuses (a write, a file, a typo), and
    MissingUpstreamError where nothing has been published yet.
    """
    try:
        answer = warehouse.read(sql)
    except duckdb.Error as error:
        raise InputError(f"the query was refused: {error}") from error
    if not answer.column_names:
        raise InputError("the query returns nothing: write a SELECT, or `from leaderboard`")
    return answer.rename_columns(_distinct(answer.column_names))


def to_json(table: pa.Table) -> str:
    """A JSON list with one object per row and line; maps are objects, NaN and infinity null."""
    names = table.column_names
    lines = [
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False)
        for row in _plain_rows(table)
    ]
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"


def to_csv(table: pa.Table) -> str:
    """CSV with a header line; maps, structs and lists are JSON in their cell, nulls are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in _plain_rows(table):
        writer.writerow(
            json.dumps(cell, ensure_ascii=False) if isinstance(cell, dict | list) else cell
            for cell in row
        )
    return text.getvalue()


def _plain_rows(table: pa.Table) -> list[list[Any]]:
    # Rows, not dicts: a table that did not come from run_query may repeat a column name.
    columns = [column.to_pylist(maps_as_pydicts="strict") for column in table.columns]
    return [[_plain(cell) for cell in row] for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """`value` in the types JSON has; text for those it has not (times, intervals)."""
    if isinstance(value, dict):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return str(value)


def _distinct(names: list[str]) -> list[str]:
    """Repeated names numbered (`n`, `n_2`), as every output format needs them apart."""
    result: list[str] = []
    for name in names:
        number, distinct = 1, name
        while distinct in result:
            number += 1
            distinct = f"{name}_{number}"
        result.append(distinct)
    return result
