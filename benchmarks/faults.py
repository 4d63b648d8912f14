"""Faults that the pipeline must survive, one try at a time: a Markdown page.

    .venv/bin/python -m benchmarks.faults                        # every try that is not there yet
    .venv/bin/python -m benchmarks.faults --faults kill9 --tries 5
    .venv/bin/python -m benchmarks.faults --page                 # only write the page anew

Each try is a line of `benchmarks/faults.jsonl` once it has ended, and is not run again. Its random
moment, size or place follows from the fault's name and its number. The full disks need root (they
are small tmpfs), PostgreSQL its server programs.
"""

import argparse
import hashlib
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for all runs alike: sums of floats depend on it
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

from benchmarks import fault_cases as cases
from benchmarks.fault_services import postgres_killed, schedule_twice
from benchmarks.fault_world import PROBLEM, PROBLEMS
from benchmarks.faults_page import write_page
from panacea_lib.warehouse.database import DEFINITIONS
from panacea_lib.workspace import PROJECT_ROOT

RESULTS = PROJECT_ROOT / "benchmarks" / "faults.jsonl"
PAGE = PROJECT_ROOT / "benchmarks" / "faults.md"
WORK = PROJECT_ROOT / "var" / "benchmarks" / "faults"
FAULTS: dict[str, tuple[cases.Fault, int]] = {
    "full_checkpoint": (cases.full_checkpoint, 3),
    "full_store": (cases.full_store, 3),
    "full_snapshot": (cases.full_snapshot, 3),
    "full_database": (cases.full_database, 3),
    "full_everything": (cases.full_everything, 5),
    "truncated_checkpoint": (cases.truncated_checkpoint, 5),
    "flipped_byte": (cases.flipped_byte, 10),
    "same_twice": (cases.same_twice, 3),
    "two_problems": (cases.two_problems, 3),
    "postgres_killed": (postgres_killed, 3),
    "schedule_twice": (schedule_twice, 3),
    "kill9": (cases.kill9, 50),
}
"""Each with its number of tries; the cheap and telling ones first."""


def setting() -> str:
    """A hash of the problem: lines of another one do not count."""
    text = (PROBLEMS / f"{PROBLEM}.yaml").read_bytes()
    return hashlib.sha256(text).hexdigest()[:12]


def finished() -> list[dict[str, Any]]:
    """The lines of this very setting."""
    if not RESULTS.exists():
        return []
    rows = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["setting"] == setting()]


def run_missing(faults: Sequence[str], tries: int | None, work: Path) -> None:
    """Run the tries that have no line yet, and append their lines as they come."""
    done = {(row["fault"], row["try"]) for row in finished()}
    wanted = [(name, n) for name in faults for n in range(tries or FAULTS[name][1])]
    left = [one for one in wanted if one not in done]
    print(f"{len(left)} tries to make, {len(done)} there", flush=True)
    # What is compared with must have the tables and views of today's code.
    folder = work / f"{setting()}-{DEFINITIONS[:8]}"
    ready = cases.prepare(folder) if left else None
    for name, number in left:
        assert ready
        started = time.monotonic()
        tried = FAULTS[name][0](ready, random.Random(f"{name} {number}"))
        row = {
            "fault": name,
            "try": number,
            **asdict(tried),
            "seconds": round(time.monotonic() - started, 1),
            "setting": setting(),
        }
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_portable(row, folder)) + "\n")
        print(f"{name} {number}: {'; '.join(tried.wrong) or 'well'} ({tried.what})", flush=True)


def _portable(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Without this machine's paths."""
    text = json.dumps(row).replace(str(folder), "…").replace(str(PROJECT_ROOT), "…")
    return json.loads(text)


def main() -> None:
    """Make what is missing of what was asked for, then write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = list(FAULTS)
    parser.add_argument("--faults", nargs="+", choices=names, default=names, metavar="FAULT")
    parser.add_argument("--tries", type=int, help="of each fault, instead of its own number")
    parser.add_argument("--page", action="store_true", help="run nothing")
    parser.add_argument("--work", type=Path, default=WORK, help="where workspaces are kept")
    given = parser.parse_args()
    if not given.page:
        run_missing(given.faults, given.tries, given.work.resolve())
    write_page(finished(), PAGE)


if __name__ == "__main__":
    main()
