"""What is shown on asset pages: pictures and small tables."""

import base64
from typing import Any

import dagster as dg
import pyarrow as pa


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG inside the metadata itself; keep it under 100 KB, as the event log holds it."""
    data = base64.b64encode(png).decode()
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{data})")


def small_table(rows: pa.Table) -> dg.TableMetadataValue:
    """A table of scalars, figures rounded to be read."""
    records = [
        dg.TableRecord({name: _readable(value) for name, value in row.items()})
        for row in rows.to_pylist()
    ]
    types = {name: _column_type(rows[name].type) for name in rows.column_names}
    columns = [dg.TableColumn(name, kind) for name, kind in types.items()]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))


def _readable(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _column_type(kind: pa.DataType) -> str:
    if pa.types.is_floating(kind):
        return "float"
    return "int" if pa.types.is_integer(kind) else "string"
