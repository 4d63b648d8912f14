"""Column schemas of the tables, for the asset pages: read from the warehouse's own SQL."""

from functools import cache

import dagster as dg

from panacea_lib import quiet_duckdb
from panacea_lib.warehouse.database import ensure_schema


def table_metadata(table: str) -> dict[str, dg.MetadataValue]:
    """Metadata of an asset whose main table is facts.`table`; KeyError if there is none."""
    return {
        "dagster/table_name": dg.MetadataValue.text(f"facts.{table}"),
        "dagster/column_schema": dg.MetadataValue.table_schema(_schemas()[table]),
    }


@cache
def _schemas() -> dict[str, dg.TableSchema]:
    """Every table of `facts`, from a database in memory that the schema file has made."""
    with quiet_duckdb.connect() as connection:
        ensure_schema(connection)
        rows = connection.execute(
            "select table_name, column_name, data_type, is_nullable, comment from duckdb_columns() "
            "where schema_name = 'facts' order by table_name, column_index"
        ).fetchall()
    columns: dict[str, list[dg.TableColumn]] = {}
    for table, column, kind, nullable, comment in rows:
        constraints = dg.TableColumnConstraints(nullable=nullable)
        columns.setdefault(table, []).append(
            dg.TableColumn(column, kind.lower(), description=comment, constraints=constraints)
        )
    return {table: dg.TableSchema(columns=found) for table, found in columns.items()}
