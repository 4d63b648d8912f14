"""The tables that say what there is: products, what they follow from, and what problems show."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb

from panacea_lib.warehouse import database

Connection = duckdb.DuckDBPyConnection
BOOKKEEPING = {"products", "origins", "current", "adoptions", "champion_events", "schema_version"}
_OF_PRODUCTS = """
select table_name from duckdb_columns()
where database_name = current_database() and schema_name = 'facts' and column_name = 'key'
    and table_name not in ('current', 'adoptions')
"""


@dataclass(frozen=True)
class Product:
    """What one stage made for one part of a problem, under its content key."""

    key: str
    stage: str
    part: str  # a dimension, a method, or "" for a stage in one piece
    problem: str
    run_id: str
    seconds: float
    seed: int
    details: dict[str, Any] = field(default_factory=dict)  # anything JSON holds
    content: dict[str, Any] = field(default_factory=dict)  # what it follows from (`Plan.content`)
    reason: str = ""  # why it is made


def count_rows(connection: Connection, table: str, key: str) -> int | None:
    """Rows of `key` in facts.`table`; None without such a table."""
    if not database.table_columns(connection, table):
        return None
    found = connection.execute(f'select count(*) from facts."{table}" where key = ?', [key])
    return (found.fetchone() or (None,))[0]


def now() -> datetime:
    """UTC; the tables hold it without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


def upsert_product(
    connection: Connection, product: Product, row_counts: dict[str, int], moment: datetime
) -> None:
    """Save the line of a product and what it follows from, in place of an earlier one's."""
    connection.execute(
        "insert into facts.products by name select ? as key, ? as stage, ? as part, ? as problem, "
        "? as run_id, ? as created_at, ? as seconds, ? as seed, ? as row_counts, ? as details "
        "on conflict (key) do update set run_id = excluded.run_id, "
        "created_at = excluded.created_at, seconds = excluded.seconds, seed = excluded.seed, "
        "row_counts = excluded.row_counts, details = excluded.details",
        [
            *(product.key, product.stage, product.part, product.problem, product.run_id, moment),
            *(product.seconds, product.seed, json.dumps(row_counts)),
            json.dumps(product.details, sort_keys=True, allow_nan=False),
        ],
    )
    save_origin(connection, product.key, product.content, product.reason)


def save_origin(connection: Connection, key: str, content: Mapping[str, Any], reason: str) -> None:
    """Save what a product follows from, and why it was made."""
    connection.execute(
        "insert or replace into facts.origins values (?, ?, ?)",
        [key, json.dumps(content, sort_keys=True), reason],
    )


def adopt(
    connection: Connection, problem: str, stage: str, part: str, key: str, moment: datetime
) -> None:
    """Show `key` from now on, and log the change for the history views."""
    connection.execute(
        "insert into facts.adoptions select $problem, $stage, $part, $key, $now "
        "where (select arg_max(key, since) from facts.adoptions where problem = $problem "
        "and stage = $stage and part = $part) is distinct from $key",
        {"problem": problem, "stage": stage, "part": part, "key": key, "now": moment},
    )
    connection.execute(
        "insert or replace into facts.current values (?, ?, ?, ?, ?)",
        [problem, stage, part, key, moment],
    )


def delete_rows(connection: Connection, keys: Collection[str]) -> None:
    """Remove products, what they follow from, and their rows in every table; that problems have
    shown them stays on record."""
    for (table,) in connection.execute(_OF_PRODUCTS).fetchall():
        connection.execute(f'delete from facts."{table}" where list_contains(?, key)', [[*keys]])
