"""The warehouse: every stage's rows in one DuckDB file, and a snapshot that anyone may query."""

from panacea_lib.warehouse.database import SchemaVersionError, WarehouseBusyError
from panacea_lib.warehouse.query import run_query, to_csv, to_json
from panacea_lib.warehouse.writer import Product, Warehouse

__all__ = [
    "Product",
    "SchemaVersionError",
    "Warehouse",
    "WarehouseBusyError",
    "run_query",
    "to_csv",
    "to_json",
]
