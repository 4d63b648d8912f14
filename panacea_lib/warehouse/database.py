"""The DuckDB file itself: the write lock, the schema, and the read-only snapshot.

DuckDB lets one process write or many read, never both, and refuses the second at once. So writers
queue for a lock of our own, keep the file open for one transaction, and publish a copy for readers.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb

from panacea_lib import quiet_duckdb
from panacea_lib.disk import fsync
from panacea_lib.lease import LeaseHeldError, hold

VERSION = 1
_FILES = ("schema", "views", "views_labels", "views_rewards", "views_evaluation", "comments")
_SQL = [(Path(__file__).parent / f"{name}.sql").read_text("utf-8") for name in _FILES]
_NAMES = {  # a view may be called like the table that it shows
    name if name.startswith("facts.") else f"main.{name}"
    for sql in _SQL
    for name in re.findall(r"^create (?:table if not exists|or replace view) (\S+)", sql, re.M)
}
DEFINITIONS = hashlib.sha256("\0".join(_SQL).encode()).hexdigest()
_RETRY_SECONDS = 0.2


class WarehouseBusyError(TimeoutError):
    """The warehouse could not be opened for writing in time; the message names who holds it."""


class SchemaVersionError(RuntimeError):
    """The database was written by another version of this project and is left untouched."""


@contextmanager
def write_lock(path: Path, holder: str, timeout: float) -> Iterator[None]:
    """Hold the OS lock on `path`, which names its holder while it is held (`panacea_lib.lease`).

    Raises WarehouseBusyError, naming the holder, after `timeout` seconds.
    """
    with ExitStack() as held:
        try:
            held.enter_context(hold(path, holder, timeout))
        except LeaseHeldError as error:
            raise WarehouseBusyError(
                f"{path}: waited {timeout:g} s to write; {error.holder}"
            ) from None
        yield


def connect_to_write(path: Path, timeout: float) -> duckdb.DuckDBPyConnection:
    """Open the database read-write; the caller holds the lock and closes the connection.

    Raises WarehouseBusyError where another program (a DuckDB shell) still has it open after
    `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return quiet_duckdb.connect(path)
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise WarehouseBusyError(
                    f"{path} is open in another program: close it there, and read the snapshot "
                    f"{snapshot_path(path).name} instead. DuckDB says: {error}"
                ) from error
        time.sleep(_RETRY_SECONDS)


def connect_to_read(snapshot: Path) -> duckdb.DuckDBPyConnection:
    """Open a snapshot so that SQL from anyone can only read it; the caller closes the connection.

    Attached to an instance of its own: DuckDB shares one instance per path within a process, which
    would show a thread the file that another thread opened before the latest was published.
    """
    connection = quiet_duckdb.connect()
    try:
        quoted = str(snapshot).replace("'", "''")
        connection.execute(f"attach '{quoted}' as panacea (read_only)")
        connection.execute("use panacea")
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def reader_cursor(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Another connection to what `connect_to_read` opened, as safe; the caller closes it."""
    cursor = connection.cursor()
    cursor.execute("use panacea")  # the one setting that a cursor does not take over
    return cursor


def ensure_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the tables and views that are missing; belongs inside the writer's transaction.

    Raises SchemaVersionError for a database of another version.
    """
    _check_version(connection)
    same = read_definitions(connection) == DEFINITIONS
    if same and _present(connection) >= _NAMES:
        return  # the usual case: running all of it takes longer than most writes
    for sql in _SQL:
        connection.execute(sql)
    if not same:
        connection.execute("delete from facts.schema_version")
        connection.execute("insert into facts.schema_version values (?, ?)", [VERSION, DEFINITIONS])


def _present(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The tables and views that are there."""
    sql = (
        "select schema_name || '.' || table_name from duckdb_tables() "
        "where database_name = current_database() union "
        "select schema_name || '.' || view_name from duckdb_views() "
        "where database_name = current_database()"
    )
    return {name for (name,) in connection.execute(sql).fetchall()}


def table_columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """The columns of facts.`table` in order, without the key; empty if there is no such table."""
    found = connection.execute(
        "select column_name from duckdb_columns() where database_name = current_database() "
        "and schema_name = 'facts' and table_name = ? and column_name <> 'key' "
        "order by column_index",
        [table],
    ).fetchall()
    return [name for (name,) in found]


def read_definitions(connection: duckdb.DuckDBPyConnection) -> str | None:
    """The hash of the SQL files that made this database's tables and views, if it says."""
    if "definitions" not in table_columns(connection, "schema_version"):
        return None
    row = connection.execute("select definitions from facts.schema_version").fetchone()
    return row[0] if row else None


def _check_version(connection: duckdb.DuckDBPyConnection) -> None:
    if not table_columns(connection, "schema_version"):
        return  # a new database, or one whose version table was dropped
    found = connection.execute("select version from facts.schema_version").fetchone()
    if found and found[0] != VERSION:
        newer = found[0] > VERSION
        remedy = "update this project" if newer else "move the file away and materialise again"
        raise SchemaVersionError(
            f"the warehouse has schema version {found[0]}, this code knows {VERSION}: {remedy}; "
            "nothing was changed"
        )


def snapshot_path(database: Path) -> Path:
    """Where readers look: `panacea.duckdb` is published as `panacea.snapshot.duckdb`."""
    return database.with_name(f"{database.stem}.snapshot{database.suffix}")


def publish_snapshot(database: Path) -> None:
    """Replace the snapshot by a copy of the closed database, whole or not at all.

    The copy takes over the database's modification time, which is how `is_published` knows it.
    """
    source = database.stat()
    partial = snapshot_path(database).with_suffix(".partial")
    partial.unlink(missing_ok=True)  # what a killed writer left is read-only
    try:
        shutil.copyfile(database, partial)
        os.utime(partial, ns=(source.st_atime_ns, source.st_mtime_ns))
        partial.chmod(0o444)
        fsync(partial)
        partial.replace(snapshot_path(database))
        fsync(database.parent)
    finally:
        partial.unlink(missing_ok=True)


def compact_database(database: Path) -> None:
    """Give the space of deleted rows back: DuckDB only uses it again. The caller holds the lock.

    A copy that dies leaves the database as it was.
    """
    partial = database.with_suffix(".compacting")
    for left in (partial, _write_ahead_log(partial)):
        left.unlink(missing_ok=True)
    connection = quiet_duckdb.connect()
    try:
        for path, name in ((database, "old (read_only)"), (partial, "new")):
            quoted = str(path).replace("'", "''")
            alias, _, mode = name.partition(" ")
            connection.execute(f"attach '{quoted}' as {alias} {mode}")
        connection.execute("copy from database old to new")
    finally:
        connection.close()
    fsync(partial)
    partial.replace(database)
    fsync(database.parent)


def is_published(database: Path) -> bool:
    """Whether the snapshot is a copy of the database as it is now (true where neither exists)."""
    snapshot, log = snapshot_path(database), _write_ahead_log(database)
    if not database.exists() or not snapshot.exists():
        return database.exists() == snapshot.exists()
    new, old = database.stat(), snapshot.stat()
    same = (new.st_mtime_ns, new.st_size) == (old.st_mtime_ns, old.st_size)
    return same and not log.exists()


def restore_database(database: Path) -> None:
    """Bring a deleted database back from its snapshot, which is a whole copy."""
    if database.exists() or not snapshot_path(database).exists():
        return
    _write_ahead_log(database).unlink(missing_ok=True)  # it belongs to the file that is gone
    partial = database.with_suffix(".restoring")
    shutil.copyfile(snapshot_path(database), partial)
    fsync(partial)
    partial.replace(database)


def _write_ahead_log(database: Path) -> Path:
    return database.with_name(f"{database.name}.wal")
