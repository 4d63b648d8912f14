"""Workspaces to be disturbed, and how they compare with one that was not."""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import psutil

from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import PROJECT_ROOT, Workspace

PROBLEMS = PROJECT_ROOT / "benchmarks" / "fault_problems"
PROBLEM, OTHER = "faults", "faults-two"
BEFORE_TRAINING = "prompts,base_model,responses,pairs,annotations,preference_labels"
# Who, when and how long: two undisturbed runs differ in these, and in nothing else.
BOOKKEEPING = {"run_id", "created_at", "materialized_at", "since", "decided_at"}
BOOKKEEPING |= {"decided_by", "seconds"}
# The page and its record hold the time of making and measured seconds; what they show is compared
# as rows. The seals follow from the files, PEFT's README.md names the base model's folder.
NOT_COMPARED = {"report.html", "manifest.json", "COMPLETE", "README.md"}
PLACE = "base_model_name_or_path"  # where the workspace lies


@dataclass(frozen=True)
class Ended:
    """A command that ended: exit code, stdout and stderr, wall seconds."""

    code: int
    told: str
    seconds: float


@dataclass(frozen=True)
class State:
    """What a workspace holds, in a form in which equal is equal.

    Attributes:
        rows: table of facts → hash of its rows in one order, without bookkeeping.
        files: KEY/file of the artifacts → hash.
        views: view → number of rows.
    """

    rows: dict[str, str]
    files: dict[str, str]
    views: dict[str, int]

    def differences(self, other: "State") -> list[str]:
        """The tables, files and views in which they are not equal."""
        found = []
        for name in ("rows", "files", "views"):
            mine, theirs = getattr(self, name), getattr(other, name)
            found += [f"{name} {n}" for n in mine | theirs if mine.get(n) != theirs.get(n)]
        return sorted(found)


# ---- running


def start(home: Path, *arguments: str, problem: str = PROBLEM) -> subprocess.Popen[str]:
    """`panacea materialize` of a problem as a process group of its own."""
    command = [sys.executable, "-m", "orchestration.cli", "materialize", problem, *arguments]
    environment = {
        **os.environ,
        "PANACEA_HOME": str(home),
        "PANACEA_PROBLEMS": f"{PROBLEMS}:{os.environ.get('PANACEA_PROBLEMS', '')}",
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    environment.pop("PANACEA_ARTIFACTS", None)
    home.parent.mkdir(parents=True, exist_ok=True)
    with log_of(home, problem).open("w") as log:
        return subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def log_of(home: Path, problem: str = PROBLEM) -> Path:
    """Where a run's output goes."""
    return home.with_name(f"{home.name}.{problem}.log")


def run(home: Path, *arguments: str, problem: str = PROBLEM) -> Ended:
    """`panacea materialize` of a problem, to its end."""
    started = time.monotonic()
    code = start(home, *arguments, problem=problem).wait(timeout=1800)
    return Ended(code, log_of(home, problem).read_text("utf-8"), time.monotonic() - started)


def work_until(process: subprocess.Popen[str], limit: float = math.inf) -> float:
    """Wait until the process and its children have had `limit` seconds of CPU, or have ended;
    returns what they had. Unlike the clock, that means the same on a busy machine."""
    had = 0.0
    while process.poll() is None and had < limit:
        time.sleep(0.01)
        with suppress(psutil.Error):  # one of them may have ended while we looked
            tree = psutil.Process(process.pid)
            times = [one.cpu_times() for one in (tree, *tree.children(recursive=True))]
            own = sum(t.user + t.system for t in times)
            had = own + times[0].children_user + times[0].children_system
    return had


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL for the whole process group, as a power cut has it."""
    with suppress(ProcessLookupError):  # it may have ended a moment ago
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ---- looking


def warehouse_of(home: Path) -> Warehouse:
    """The warehouse of a workspace."""
    return Warehouse(Workspace(home).warehouse)


def state_of(home: Path) -> State:
    """Read everything that a workspace holds."""
    warehouse = warehouse_of(home)
    tables = warehouse.read("select table_name from duckdb_tables() where schema_name = 'facts'")
    views = warehouse.read("select view_name from duckdb_views() where not internal")
    return State(
        {name: _rows(warehouse, name) for name in sorted(tables["table_name"].to_pylist())},
        _files(home / "var" / "artifacts"),
        {
            name: warehouse.read(f'select * from "{name}"').num_rows
            for name in sorted(views["view_name"].to_pylist())
        },
    )


def _rows(warehouse: Warehouse, table: str) -> str:
    rows = warehouse.read(f"select * from facts.{table}").to_pylist(maps_as_pydicts="strict")
    if table == "products":
        rows = [row | {"details": json.loads(row["details"])} for row in rows]
    if table == "origins":  # why it was made again, where it was
        rows = [row | {"reason": ""} for row in rows]
    lines = sorted(json.dumps(_timeless(row), sort_keys=True, default=str) for row in rows)
    return _hash("\n".join(lines).encode())


def _timeless(value: Any) -> Any:
    """Without bookkeeping, at any depth."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in BOOKKEEPING}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _files(artifacts: Path) -> dict[str, str]:
    found = {}
    for file in sorted(artifacts.glob("[!.]*/**/*")):
        name = file.relative_to(artifacts).as_posix()
        if file.is_file() and file.name not in NOT_COMPARED:
            found[name] = _hash(_content(file))
    return found


def _content(file: Path) -> bytes:
    """The bytes; of JSON that PEFT and the stages write, what it says."""
    if file.name not in ("adapter_config.json", "product.json"):
        return file.read_bytes()
    told = _timeless(json.loads(file.read_text("utf-8")))
    told.pop(PLACE, None)
    if modules := told.get("target_modules"):
        told["target_modules"] = sorted(modules)  # PEFT keeps a set
    return json.dumps(told, sort_keys=True).encode()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def half_tables(home: Path) -> list[str]:
    """Products whose rows are not as many as were saved, and rows of no product."""
    warehouse = warehouse_of(home)
    products = warehouse.read("select key, row_counts from facts.products").to_pylist()
    told = {(p["key"], t): n for p in products for t, n in json.loads(p["row_counts"]).items()}
    found = {}
    for table in sorted({table for _, table in told}):
        counts = warehouse.read(f"select key, count(*) as n from facts.{table} group by key")
        found |= {(row["key"], table): row["n"] for row in counts.to_pylist()}
    wrong = [name for name in told | found if told.get(name, 0) != found.get(name, 0)]
    return [f"{table} of {key[:8]}" for key, table in sorted(wrong)]


def completed(home: Path) -> dict[str, datetime]:
    """Key → when it was made, of all products that were committed; read from a copy, as a look
    would mend the database."""
    path = Workspace(home).warehouse
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        _copy_database(path, copy)
        if not copy.exists():
            return {}
        with duckdb.connect(copy) as connection:
            names = "select table_name from duckdb_tables() where schema_name = 'facts'"
            if ("products",) not in connection.execute(names).fetchall():
                return {}
            rows = connection.execute("select key, created_at from facts.products").fetchall()
    return dict(rows)


def _copy_database(path: Path, copy: Path) -> None:
    """Both files as they were at one moment: a run may be writing them, or folding the log into the
    database and removing it."""
    files = {f: copy.with_name(f.name) for f in (path, path.with_name(f"{path.name}.wal"))}
    while True:
        before = _stamps(files)
        for file, target in files.items():
            target.unlink(missing_ok=True)
            with suppress(FileNotFoundError):  # never written, or just removed
                shutil.copyfile(file, target)
        if _stamps(files) == before:
            return


def _stamps(files: Iterable[Path]) -> list[tuple[int, int] | None]:
    """Size and time of the last write of each file; None where there is none."""
    found: list[tuple[int, int] | None] = []
    for file in files:
        try:
            told = file.stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((told.st_size, told.st_mtime_ns))
    return found


def stored(home: Path) -> dict[str, int]:
    """Key → when it was sealed (ns), of all artifacts that are complete."""
    seals = (home / "var" / "artifacts").glob("[!.]*/COMPLETE")
    return {seal.parent.name: seal.stat().st_mtime_ns for seal in seals}
