"""Time and memory of `panacea materialize`, from nothing to a front, as a Markdown page.

    .venv/bin/python benchmarks/demo.py demo demo-small --out benchmarks/demo.md

Each problem runs as a user runs it, in a process and a temporary workspace of its own. Let nothing
else run meanwhile.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from panacea_lib.plan_content import STAGE_VERSIONS
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import PROJECT_ROOT, Workspace

LIBRARIES = ("torch", "transformers", "trl", "peft", "dagster", "duckdb")
# What the stages import when they first need it, timed in a process that has Dagster already.
IMPORTS = """
import time
start = time.perf_counter()
import orchestration.chain
middle = time.perf_counter()
import matplotlib.figure, panacea_lib.evaluation, panacea_lib.policy, panacea_lib.world.exact
import panacea_lib.rewards.soft_trainer, panacea_lib.training.pair_trainer
from transformers import AutoModelForSequenceClassification, LlamaForCausalLM, Trainer
print([middle - start, time.perf_counter() - middle])
"""
SECONDS = "select stage, sum(seconds) as seconds from runs where problem = ? group by stage"
LEADERBOARD = "select * exclude (judge, stored_parameters) from leaderboard where problem = ?"
GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """One run: seconds, peak bytes of the process tree, seconds per stage, leaderboard rows."""

    problem: str
    wall: float
    pss: int
    rss: int
    stages: dict[str, float]
    leaderboard: list[dict[str, Any]]


def measure(problem: str) -> Measured:
    """Materialise a problem in a fresh workspace; SystemExit if that fails."""
    with tempfile.TemporaryDirectory(prefix="panacea-benchmark-") as home:
        command = [sys.executable, "-m", "orchestration.cli", "materialize", problem]
        environment = {**os.environ, "PANACEA_HOME": home}
        started = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        pss, rss = _watch(child)
        wall = time.perf_counter() - started
        if child.returncode:
            sys.exit(f"{' '.join(command)} ended with {child.returncode}")
        warehouse = Warehouse(Workspace(Path(home)).warehouse)
        stages = {r["stage"]: r["seconds"] for r in warehouse.read(SECONDS, [problem]).to_pylist()}
        board = warehouse.read(LEADERBOARD, [problem]).to_pylist()
    return Measured(problem, wall, pss, rss, stages, board)


def _watch(child: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Wait for the end; the peaks of the process tree's PSS and RSS, looked at 4 times a second."""
    pss = rss = 0
    root = psutil.Process(child.pid)
    while child.poll() is None:
        try:
            tree = [root, *root.children(recursive=True)]
            memory = [process.memory_full_info() for process in tree]
        except psutil.Error:  # a process ended while we looked
            continue
        pss, rss = max(pss, sum(m.pss for m in memory)), max(rss, sum(m.rss for m in memory))
        time.sleep(0.25)
    return pss, rss


def page(runs: list[Measured], command: str) -> str:
    """The whole Markdown page."""
    output = subprocess.check_output(
        [sys.executable, "-c", IMPORTS], cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL
    )
    dagster, models = json.loads(output)
    header = "problem; wall, s; peak PSS, GiB; peak RSS, GiB; in stages, s; rest, s"
    rows = []
    for run in runs:
        work = sum(run.stages.values())
        rest = run.wall - work
        memory = [run.pss / GIB, run.rss / GIB]
        rows.append([run.problem, run.wall, *memory, work, rest, (rest + models) / run.wall])
    stages = [[stage, *(run.stages.get(stage, 0.0) for run in runs)] for stage in STAGE_VERSIONS]
    board = [row for run in runs for row in run.leaderboard]
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"""# The demo, measured

`{command}`, {date.today()}. {len(os.sched_getaffinity(0))} cores, \
{psutil.virtual_memory().total / GIB:.0f} GiB, Python {platform.python_version()}, {libraries}.

{_table([*header.split("; "), "rest and imports / wall"], rows)}
Memory is that of all processes together; RSS counts shared pages once for each of them. A stage's
seconds are those of making its products. The rest is start, Dagster, saving rows, checks, pictures
and printing; {dagster:.1f} s of it go into importing Dagster and the definitions. The stages import
the model libraries when they need them, {models:.1f} s, which the last column adds to the rest.
Imports were timed apart, in a process of their own.

## Seconds by stage

{_table(["stage", *(run.problem for run in runs)], stages)}
## Leaderboards

{_table(list(board[0]), [list(row.values()) for row in board])}"""


def _table(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
    return "–" if value is None else str(value)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description="Time and memory of `panacea materialize`.")
    parser.add_argument("problems", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"), help="the page's file")
    given = parser.parse_args()
    command = f"python benchmarks/demo.py {' '.join(given.problems)}"
    given.out.write_text(page([measure(p) for p in given.problems], command), encoding="utf-8")


if __name__ == "__main__":
    main()
