"""What a large warehouse costs: ingest beside DuckDB alone, every documented query, the report.

    .venv/bin/python -m benchmarks.warehouse --out benchmarks/warehouse.md

The rows are synthetic (`benchmarks.warehouse_rows`), the ways are the pipeline's: `save_product`
with its lock, transaction, checkpoint and published snapshot; `Warehouse.read`; and the command
`panacea materialize demo --select report` in a process of its own.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import duckdb
import pyarrow as pa

import panacea_lib.warehouse
from benchmarks.ratios import MIN_PAIRS, Ratio, measure_ratio
from benchmarks.warehouse_rows import PROBLEM, Saved, Sizes, Synthetic, planned
from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.plan_content import policy_stage
from panacea_lib.warehouse import Product, Warehouse
from panacea_lib.workspace import PROJECT_ROOT, Workspace

LIBRARIES = ("duckdb", "pyarrow")
INGEST_TARGET, QUERY_TARGET, REPORT_TARGET = 2.0, 1.0, 30.0
SLOWEST = 5
SCHEMA = Path(panacea_lib.warehouse.__file__).with_name("schema.sql")
PAGE = PROJECT_ROOT / "docs" / "sql.md"
MIB = 2**20


# ---- ingest


def ours(path: Path, product: Product, table: str, rows: pa.Table) -> Callable[[], None]:
    """Save one product into a warehouse that is not there yet."""

    def save() -> None:
        _remove(path)
        Warehouse(path).save_product(product, {table: rows})

    return save


def theirs(path: Path, product: Product, table: str, rows: pa.Table) -> Callable[[], None]:
    """Insert the same rows into the same table of a new file, committed and checkpointed."""
    found = re.search(
        rf"create table if not exists (facts\.{table} .*?\n\);)", SCHEMA.read_text("utf-8"), re.S
    )
    assert found is not None

    def insert() -> None:
        _remove(path)
        with duckdb.connect(path) as connection:
            connection.execute("create schema facts")
            connection.execute(f"create table {found[1]}")
            connection.register("incoming", rows)
            connection.execute(
                f"insert into facts.{table} by name select ? as key, * from incoming",
                [product.key],
            )
            connection.execute("checkpoint")

    return insert


def _remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.stem}*"):
        file.unlink()


def measure_ingest(products: list[Saved], pairs: int, folder: Path) -> list[str]:
    """A line of Markdown for all labels, and one for the generations of one method of several."""
    labels = next(saved for saved in products if saved[0].stage == "preference_labels")
    answers = next(saved for saved in products if saved[0].stage == "generations")
    incoming = [
        ("preference_labels", labels[0], labels[1]["preference_labels"]),
        ("generations", answers[0], answers[1]["generations"]),
    ]
    lines = []
    for table, product, rows in incoming:
        what = (product, table, rows)
        ratio = measure_ratio(
            ours(folder / "ours.duckdb", *what),
            theirs(folder / "theirs.duckdb", *what),
            pairs,
            warm_up=1,
        )
        lines.append(_ingest_line(table, rows, ratio))
        print(lines[-1], flush=True)
    return lines


def _ingest_line(table: str, rows: pa.Table, ratio: Ratio) -> str:
    cells = [
        table,
        f"{rows.num_rows:,}",
        f"{rows.nbytes / MIB:.0f}",
        f"{ratio.ours:.2f}",
        f"{ratio.theirs:.2f}",
        f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        str(ratio.pairs),
        f"≤ {INGEST_TARGET:g}",
        ratio.verdict(INGEST_TARGET),
    ]
    return f"| {' | '.join(cells)} |"


# ---- one large warehouse


@dataclass(frozen=True)
class Large:
    """What was measured of the warehouse that holds everything.

    Attributes:
        size: Bytes of the database.
        rows: Rows in all tables.
        filled: Seconds to save all products in one transaction.
        small: Best seconds of three to save the front, a product of some hundred rows, into it.
        queries: Per question of docs/sql.md the best seconds of three, and the fewest seconds of
            processor time, the slowest first.
        report: Seconds of the whole command, and of making the page in it.
    """

    size: int
    rows: int
    filled: float
    small: float
    queries: list[tuple[str, float, float]]
    report: tuple[float, float]


def measure_large(workspace: Workspace, products: list[Saved]) -> Large:
    """Fill a warehouse, then ask it."""
    warehouse = Warehouse(workspace.warehouse)
    filled = _seconds(lambda: warehouse.save_products(products))
    size = workspace.warehouse.stat().st_size
    print(f"filled in {filled:.1f} s: {size / MIB:.0f} MiB", flush=True)
    small = _best(lambda: warehouse.save_product(*products[-1]))
    print(f"a small product: {small:.2f} s", flush=True)
    found = [
        (
            name,
            _best(lambda sql=sql: warehouse.read(sql)),
            _best(lambda sql=sql: warehouse.read(sql), time.process_time),
        )
        for name, sql in questions()
    ]
    found.sort(key=lambda query: -query[1])
    for name, seconds, processor in found:
        print(f"{seconds:.3f} s ({processor:.3f} s)  {name}", flush=True)
    rows = sum(table.num_rows for _, tables in products for table in tables.values())
    return Large(size, rows, filled, small, found, measure_report(workspace, warehouse))


def questions() -> list[tuple[str, str]]:
    """Every query of docs/sql.md with its heading."""
    found, heading = [], ""
    pattern = r"^#+ (.*?)$|^```sql\n(.*?)^```"
    for match in re.finditer(pattern, PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        if match[1]:
            heading = match[1]
        else:
            found.append((heading, match[2]))
    return found


def measure_report(workspace: Workspace, warehouse: Warehouse) -> tuple[float, float]:
    """The command as a user gives it, over policies of a few bytes; SystemExit if it fails."""
    _, plan = planned(workspace)
    store = ArtifactStore(workspace.artifacts)
    for method in plan.methods:
        stage = "base_model" if method == "reference" else policy_stage(method)
        with store.writer(plan.key(stage, "" if method == "reference" else method)) as folder:
            (folder / "config.json").write_text("{}")
    command = [sys.executable, "-m", "orchestration.cli", "materialize", PROBLEM]
    command += ["--select", "report", "--force"]
    environment = {**os.environ, "PANACEA_HOME": str(workspace.root)}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True)
    wall = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()}")
    sql = "select seconds from runs where problem = ? and stage = 'report'"
    page = warehouse.read(sql, [PROBLEM])["seconds"][0].as_py()
    print(f"the report: {page:.1f} s of {wall:.1f} s", flush=True)
    return wall, page


def _best(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    return min(_seconds(call, clock) for _ in range(3))


def _seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    call()
    return clock() - started


# ---- the page


HEADER = """\
| table | rows | Arrow, MiB | ours, s | DuckDB alone, s | ratio (95 % interval) | pairs | target | |
|---|---:|---:|---:|---:|---|---:|---|---|"""


def page(lines: list[str], large: Large, command: str, machine: str) -> str:
    """The Markdown page."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    text = "\n".join([HEADER, *lines])
    over = [query for query in large.queries if query[1] > QUERY_TARGET]
    shown = large.queries[: max(SLOWEST, len(over))]
    queries = "\n".join(f"| {name} | {wall:.3f} | {cpu:.3f} |" for name, wall, cpu in shown)
    told = "met" if not over else f"missed by {len(over)}"
    wall, making = large.report
    return f"""# A large warehouse

`{command}`, {date.today()}. {machine}; Python {platform.python_version()}, {libraries}.

## Ingest

{text}

Ours is `save_product` into a new warehouse: lock, one transaction, checkpoint, close, and the
published snapshot, which is a second copy. DuckDB alone inserts the same Arrow table into the same
table of a new file, commits and checkpoints. The ratio is the median of interleaved pairs with its
95 % interval (`benchmarks/ratios.py`); at most 2 is "at least half as fast". The generations are
those of one method of four: a product of the pipeline. All of them were saved once, below.

## A warehouse of {large.rows:,} rows, {large.size / MIB:.0f} MiB

Everything that the problem `demo` would have with so many labels and answers, saved in one
transaction in {large.filled:.1f} s. Each later write copies the whole file for its snapshot: saving
the front, a product of some hundred rows, took {large.small:.2f} s (best of three).

Every query of [docs/sql.md](../docs/sql.md) under {QUERY_TARGET:g} s: **{told}**, of
{len(large.queries)} queries, each the best of three through `Warehouse.read`. DuckDB uses all
cores; processor time is theirs together, and does not wait for other programs. The slowest:

| question | s | processor, s |
|---|---:|---:|
{queries}

The report under {REPORT_TARGET:g} s: **{"met" if wall < REPORT_TARGET else "missed"}**. \
`panacea materialize {PROBLEM} --select report --force` took {wall:.1f} s, of
which making the page were {making:.1f} s; the rest is start, Dagster and the snapshot.
"""


def main() -> None:
    """Measure, print each figure as it comes, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="labels, and generations")
    parser.add_argument("--pairs", type=int, default=30, help=f"of ingests, at least {MIN_PAIRS}")
    parser.add_argument("--out", type=Path, help="the page's file")
    given = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="panacea-benchmark-") as home:
        workspace = Workspace(Path(home))
        products = Synthetic(workspace, Sizes(given.rows, given.rows)).products()
        large = measure_large(workspace, products)
        print(HEADER, flush=True)
        lines = measure_ingest(products, given.pairs, Path(home))
    if given.out:
        command = " ".join(["python -m benchmarks.warehouse", *sys.argv[1:]])
        load = f"{load_before:.1f} before and {os.getloadavg()[0]:.1f} after"
        machine = f"{len(os.sched_getaffinity(0))} cores, load average {load}"
        text = page(lines, large, command, machine)
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
