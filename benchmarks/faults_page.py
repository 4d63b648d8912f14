"""The page of `benchmarks.faults`: from its lines to a table."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

Row = dict[str, Any]
LIBRARIES = ("torch", "transformers", "dagster", "duckdb")
WHAT = {
    "kill9": "`kill -9` of the whole process group at a random moment of a run from nothing",
    "full_checkpoint": "disk full while a training writes its checkpoints",
    "full_store": "disk full while an artifact is staged",
    "full_snapshot": "disk full while the snapshot is copied for readers",
    "full_database": "disk full while DuckDB writes rows",
    "full_everything": "one full disk for everything, Dagster's own database as well",
    "truncated_checkpoint": "killed in a training, and a file of its newest checkpoint cut short",
    "flipped_byte": "a flipped bit in a random file of a random artifact",
    "same_twice": "two runs of one problem at once",
    "two_problems": "two problems at once in one workspace",
    "postgres_killed": "PostgreSQL killed under a run of the deployment, and brought back",
    "schedule_twice": "a schedule's tick evaluated twice, as its daemon was killed in between",
}
ABOUT = """\
`.venv/bin/python -m benchmarks.faults`; {where}.

The setting is `benchmarks/fault_problems/faults.yaml`: demo-small, made smaller until every asset,
both baselines and every check just run, with a checkpoint every few steps. Every try has a
workspace of its own. After the fault **one** more `panacea materialize` runs, and then

- *recovered*: it ended with 0;
- *equal*: every row of every table of `facts` and every file of every artifact is what an
  undisturbed run made, and every view has as many rows. Left out is what differs between two
  undisturbed runs: run ids and times (`run_id`, `created_at`, `materialized_at`, `since`,
  `decided_at`, `decided_by`, `seconds`), the report's page, which shows them, the seals, PEFT's
  README and the base model's folder in an adapter's configuration, and the order of a set in it;
  and why a product was made, which tells of the fault;
- *whole*: every product has as many rows as it was saved with, and no row belongs to none;
- *kept*: what the disturbed run had completed was reused: same time of making, same artifact.

A full disk is a small tmpfs. Its run must end with 1 and say so in one sentence, with no traceback,
and the snapshot is read all the while; then there is space again. A flipped bit must be noticed by
a run that reads the artifact, which must name a remedy; that is followed. Two runs at once may both
succeed, or one says who holds what. PostgreSQL comes back after five seconds, services that ended
are started again as Compose does, and the next run goes through the queue.
"""


def write_page(rows: list[Row], page: Path) -> None:
    """All tables from all lines."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    where = f"Python {platform.python_version()}, {libraries}"
    parts = ["# Faults", ABOUT.format(where=where), "## The table", _table(rows)]
    if bad := [row for row in rows if row["wrong"]]:
        lines = [f"- {row['fault']} {row['try']}, {row['what']}: {row['wrong']}" for row in bad]
        parts += ["## What went wrong", "\n".join(lines)]
    parts += ["## What was done", _tries(rows)]
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


def _table(rows: list[Row]) -> str:
    lines = ["| fault | tries | recovered | equal, whole and kept |", "|---|---:|---:|---:|"]
    for fault, what in WHAT.items():
        own = [row for row in rows if row["fault"] == fault]
        well = sum(row["recovered"] and not row["wrong"] for row in own)
        recovered = sum(row["recovered"] for row in own)
        lines.append(f"| {what} | {len(own)} | {recovered} | {well} |")
    recovered = sum(row["recovered"] for row in rows)
    well = sum(row["recovered"] and not row["wrong"] for row in rows)
    return "\n".join([*lines, f"| **all** | {len(rows)} | {recovered} | {well} |"])


def _tries(rows: list[Row]) -> str:
    lines = ["| fault | try | what | what the disturbed run said |", "|---|---:|---|---|"]
    order = list(WHAT)
    for row in sorted(rows, key=lambda row: (order.index(row["fault"]), row["try"])):
        told = row["told"].replace("|", "/").replace("…/home/", "…/")  # each try's workspace
        told = told.replace("`", "'")  # what a run said is no command for the page's reader
        lines.append(f"| {row['fault']} | {row['try']} | {row['what']} | {told} |")
    return "\n".join(lines)
