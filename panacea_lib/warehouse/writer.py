"""The warehouse as the stages see it: save a product's rows, ask whether they are whole, read."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa

from panacea_lib.errors import MissingUpstreamError
from panacea_lib.warehouse import database
from panacea_lib.warehouse.bookkeeping import (
    BOOKKEEPING,
    Connection,
    Product,
    adopt,
    count_rows,
    delete_rows,
    now,
    save_origin,
    upsert_product,
)

Parameters = Sequence[Any] | Mapping[str, Any] | None


class Warehouse:
    """One DuckDB file for writers and its read-only snapshot for everybody else.

    Whatever a user deletes (a table, a view, the snapshot, the file) the next `is_complete`
    repairs; lost rows make their product incomplete. A deleted database returns from its
    snapshot: to start afresh, delete both.
    """

    def __init__(self, path: Path, lock_timeout: float = 120.0) -> None:
        self.path = path
        self.snapshot = database.snapshot_path(path)
        self.lock = path.with_name(f"{path.name}.lock")
        self._lock_timeout = lock_timeout
        self._open: tuple[tuple[int, int, int], Connection] | None = None
        self._reopening = Lock()

    @contextmanager
    def writer(self, holder: str) -> Iterator[Connection]:
        """The one way to write: lock, one transaction, checkpoint, close, publish the snapshot.

        An exception inside rolls everything back and publishes nothing. Do not train or generate
        inside. Raises WarehouseBusyError naming the holder, or SchemaVersionError.
        """
        with self._locked(holder), self._transaction() as connection:
            yield connection

    def replace_rows(self, connection: Connection, table: str, key: str, rows: pa.Table) -> None:
        """Make `rows` the rows of `key` in facts.`table`, within the writer's transaction.

        `rows` has every column of the table but the key. Raises ValueError where it does not, and
        duckdb.Error for values that the table does not take.
        """
        columns = database.table_columns(connection, table)
        if not columns or table in BOOKKEEPING:
            raise ValueError(f"facts.{table} is not a table of rows")
        if sorted(rows.column_names) != sorted(columns):
            missing = sorted(set(columns) - set(rows.column_names))
            unknown = sorted(set(rows.column_names) - set(columns))
            raise ValueError(
                f"facts.{table}: rows lack the columns {missing} and have unknown {unknown}; "
                f"give each of {columns} once (the key is added)"
            )
        names = ", ".join(f'"{name}"' for name in columns)
        connection.execute(f'delete from facts."{table}" where key = ?', [key])
        connection.register("incoming_rows", rows)
        connection.execute(
            f'insert into facts."{table}" (key, {names}) select ?, {names} from incoming_rows',
            [key],
        )
        connection.unregister("incoming_rows")

    def save_product(self, product: Product, tables: dict[str, pa.Table]) -> None:
        """Save one product: its rows in every table, its line in products, the problem's key."""
        self.save_products([(product, tables)])

    def save_products(self, products: Iterable[tuple[Product, dict[str, pa.Table]]]) -> None:
        """Save several products in one transaction, so that readers see all of them or none.

        Raises what `writer` and `replace_rows` raise; then nothing is saved.
        """
        products = list(products)
        if not products:
            return
        first, moment = products[0][0], now()
        with self.writer(f"{first.stage} of {first.problem}") as connection:
            for product, tables in products:
                for table, rows in tables.items():
                    self.replace_rows(connection, table, product.key, rows)
                counts = {table: rows.num_rows for table, rows in tables.items()}
                upsert_product(connection, product, counts, moment)
                adopt(connection, product.problem, product.stage, product.part, product.key, moment)

    def mark_current(self, problem: str, stage: str, part: str, key: str) -> bool:
        """Let the problem's views show `key`; says whether that changed anything.

        Nothing is opened for writing and no snapshot is published where they show it already.
        Raises MissingUpstreamError where the warehouse holds no product of this key.
        """
        if self._shows(problem, stage, part, key):
            return False
        with self.writer(f"{stage} of {problem}") as connection:
            known = connection.execute("select 1 from facts.products where key = ?", [key])
            if known.fetchone() is None:
                raise MissingUpstreamError(f"the warehouse holds no product {key} of stage {stage}")
            adopt(connection, problem, stage, part, key, now())
        return True

    def remember_origin(self, key: str, content: Mapping[str, Any]) -> None:
        """Note what a product follows from where that was lost, or an earlier version made it."""
        if self.read("select 1 from facts.origins where key = ?", [key]).num_rows:
            return
        with self.writer(f"the origin of {key}") as connection:
            save_origin(connection, key, content, "made before its reason was kept")

    def retire_parts(self, problem: str, stage: str, keep: Collection[str]) -> bool:
        """Stop showing the stage's parts that are not in `keep`; says whether anything changed.

        For a dimension or a method that the problem no longer names; its rows stay in history.
        """
        shown: list[str] = []
        if self.snapshot.exists():
            sql = "select part from facts.current where problem = ? and stage = ?"
            shown = self.read(sql, [problem, stage])["part"].to_pylist()
        gone = sorted(set(shown) - set(keep))
        if gone:
            with self.writer(f"{stage} of {problem}") as connection:
                connection.execute(
                    "delete from facts.current where problem = ? and stage = ? "
                    "and list_contains(?, part)",
                    [problem, stage, gone],
                )
        return bool(gone)

    def delete_products(self, keys: Collection[str], holder: str) -> None:
        """Remove products and all their rows, and give the space back; unknown keys are fine.

        Champions' decisions stay, and what problems have shown.
        """
        with self._locked(holder), self._transaction(compact=True) as connection:
            delete_rows(connection, keys)

    def is_complete(self, key: str) -> bool:
        """Whether the product of `key` is here with every row it was saved with.

        First repairs what a crash or a user broke: missing tables and views, a missing or outdated
        snapshot. Raises WarehouseBusyError or SchemaVersionError where that needs a writer.
        """
        self._refresh()
        if not self.snapshot.exists():
            return False
        with self._reader() as connection:
            sql = "select row_counts from facts.products where key = ?"
            row = connection.execute(sql, [key]).fetchone()
            return row is not None and all(
                count_rows(connection, table, key) == count
                for table, count in json.loads(row[0]).items()
            )

    def read(self, sql: str, parameters: Parameters = None) -> pa.Table:
        """The result of a query on the snapshot; it can neither write nor reach any file.

        Raises MissingUpstreamError where nothing has been published yet, duckdb.Error for bad SQL.
        """
        with self._reader() as connection:
            relation = connection.sql(sql, params=parameters)
            return pa.table({}) if relation is None else relation.to_arrow_table()

    def rows(self, table: str, key: str, order_by: str = "rowid") -> pa.Table:
        """The rows of `key` in facts.`table` as they were saved, in that order unless told.

        `order_by` is SQL. Raises MissingUpstreamError where nothing has been published yet.
        """
        return self.read(
            f'select * exclude (key) from facts."{table}" where key = ? order by {order_by}', [key]
        )

    def close(self) -> None:
        """Let go of the snapshot's file; the next question opens it again."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    @contextmanager
    def _locked(self, holder: str) -> Iterator[None]:
        with database.write_lock(self.lock, holder, self._lock_timeout):
            database.restore_database(self.path)
            yield

    @contextmanager
    def _transaction(self, compact: bool = False) -> Iterator[Connection]:
        """The caller holds the lock."""
        connection = database.connect_to_write(self.path, self._lock_timeout)
        try:
            connection.begin()
            try:
                database.ensure_schema(connection)
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            connection.execute("checkpoint")
        finally:
            connection.close()
        if compact:
            database.compact_database(self.path)
        database.publish_snapshot(self.path)

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        if not self.snapshot.exists():
            raise MissingUpstreamError(
                f"there is no warehouse at {self.snapshot} yet: run `panacea materialize demo`"
            )
        with self._reopening:
            connection = database.reader_cursor(self._reopened())
        try:
            yield connection
        finally:
            connection.close()

    def _reopened(self) -> Connection:
        """The snapshot, kept open until another one is published: opening is slow."""
        found = self.snapshot.stat()
        identity = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._open is None or self._open[0] != identity:
            self.close()
            self._open = identity, database.connect_to_read(self.snapshot)
        return self._open[1]

    def _refresh(self) -> None:
        """Publish again if the snapshot is not a copy of the database and the code's views."""
        if self._is_fresh():
            return
        with self._locked("publishing the snapshot"):
            if self._is_fresh():  # whoever held the lock has just published
                return
            with self._transaction():
                pass

    def _is_fresh(self) -> bool:
        if not database.is_published(self.path):
            return False
        if not self.snapshot.exists():
            return True
        with self._reader() as connection:
            return database.read_definitions(connection) == database.DEFINITIONS

    def _shows(self, problem: str, stage: str, part: str, key: str) -> bool:
        if not self.snapshot.exists():
            return False
        found = self.read(
            "select 1 from facts.current join facts.adoptions using (problem, stage, part, key) "
            "where problem = ? and stage = ? and part = ? and key = ? limit 1",
            [problem, stage, part, key],
        )
        return found.num_rows == 1
