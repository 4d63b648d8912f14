"""DuckDB without its progress bar, which version 2.0 prints to stdout, terminal or not, after two
seconds: into the JSON of a slow query, or before what a subprocess says."""

from pathlib import Path

import duckdb


def connect(path: str | Path = ":memory:") -> duckdb.DuckDBPyConnection:
    """As `duckdb.connect`, but silent."""
    connection = duckdb.connect(path)
    # Not as configuration: DuckDB refuses another connection to a file under different settings.
    connection.execute("set enable_progress_bar = false")
    return connection
