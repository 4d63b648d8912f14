"""Rounds without anybody: materialised twice, new data dropped in, taken, recomputed, judged.

    .venv/bin/python -m benchmarks.unattended demo-small --out benchmarks/unattended.md

In a fresh workspace, on one Dagster instance: the sensor `new_data` and the problem's schedule are
evaluated as the daemon does it, and what the schedule asks for is run by the job `chain`. What
happened is read from the materialisations' metadata and from `champion_history`.
"""

import argparse
import csv
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.environment import be_quiet, disable_telemetry, enter_workspace, share_cores
from panacea_lib.data.inbox import SETTLED
from panacea_lib.plan_content import STAGE_VERSIONS
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_files import load_problem_named
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace
from panacea_lib.world.data import world_prompts
from panacea_lib.world.gold import gold_scores
from panacea_lib.world.grammar import all_prompts, render, sample_answers

if TYPE_CHECKING:
    from dagster import RunRequest

LIBRARIES = ("torch", "transformers", "trl", "peft", "dagster", "duckdb")
Made = dict[str, tuple[str, float, dict[str, str]]]  # stage → what was done, seconds, why
HISTORY = """
select action, left(policy_key, 8) as policy, left(incumbent_key, 8) as champion, metric,
    difference, low, high, reason
from champion_history where problem = ? order by decided_at
"""


def main() -> None:
    """Do the round, and write the page."""
    parser = argparse.ArgumentParser(description="A round of new data, without anybody.")
    parser.add_argument("problem", help="one in the embedded world with the inbox of `demo`")
    parser.add_argument("--pairs", type=int, default=600, help="new ones")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"), help="the page's file")
    given = parser.parse_args()
    out = given.out.resolve()
    with tempfile.TemporaryDirectory(prefix="panacea-unattended-") as home:
        os.environ["PANACEA_HOME"] = home
        disable_telemetry()
        share_cores()
        be_quiet()
        enter_workspace(Workspace.current())
        text = go_round(given.problem, given.pairs)
    command = f"python -m benchmarks.unattended {given.problem} --pairs {given.pairs}"
    out.write_text(text.replace("COMMAND", command), encoding="utf-8")


def go_round(problem: str, pairs: int) -> str:
    """Everything in its order; gives the page."""
    workspace = Workspace.current()
    warehouse = Warehouse(workspace.warehouse)
    runs: list[tuple[Made, float]] = []
    counts: list[dict[str, int]] = []
    for _ in range(2):
        runs.append(materialize(problem))
        counts.append(current_rows(warehouse, problem))
    drop(workspace, problem, pairs)
    time.sleep(SETTLED + 1)
    taken, requests, cursor = tick(None)
    if [request.partition_key for request in requests] != [problem]:
        sys.exit(f"the sensor asked for {requests}: {taken}")
    for week in (1, 2):
        runs.append(materialize(problem, scheduled(problem, week)))
        counts.append(current_rows(warehouse, problem))
    history = warehouse.read(HISTORY, [problem]).to_pylist()
    return page(problem, runs, counts, [taken, tick(cursor)[0]], history)


def scheduled(problem: str, week: int) -> dict[str, Any]:
    """What the problem's schedule asks for at a Monday's tick: the settings of its run."""
    import dagster as dg

    from orchestration.definitions import CHAIN
    from orchestration.schedules import retrain_schedules, schedule_name

    schedules = {schedule.name: schedule for schedule in retrain_schedules(CHAIN.name)}
    context = dg.build_schedule_context(
        instance=dg.DagsterInstance.get(),
        scheduled_execution_time=datetime.now(UTC) + timedelta(weeks=week),
    )
    request = schedules[schedule_name(problem)](context)
    if not isinstance(request, dg.RunRequest) or request.partition_key != problem:
        sys.exit(f"the schedule asked for {request}")
    return request.run_config["resources"]["settings"]["config"]


def materialize(problem: str, settings: dict[str, Any] | None = None) -> tuple[Made, float]:
    """Run the job `chain` for the problem; what was made and why, and wall seconds."""
    from dagster import DagsterInstance

    from orchestration.chain import resolve_selection, run_chain

    started = time.perf_counter()
    finished = run_chain(problem, resolve_selection(None), settings or {})
    seconds = time.perf_counter() - started
    if not finished.success:
        sys.exit(f"the run failed: {finished.failures} {finished.failed_checks}")
    made: Made = {}
    for record in DagsterInstance.get().all_logs(finished.run_id):
        event = record.dagster_event
        if event is not None and event.is_step_materialization:
            told = event.step_materialization_data.materialization
            action, took, why = (told.metadata[n].value for n in ("action", "seconds", "why"))
            assert isinstance(why, dict)
            made[told.asset_key.to_user_string()] = (
                str(action),
                float(str(took)),
                {part: str(told) for part, told in why.items()},
            )
    return made, seconds


def drop(workspace: Workspace, problem: str, count: int) -> None:
    """Put a good file, the same one under another name, and a bad one into the drop folder.

    The pairs are answers that the base model might have given to prompts of the problem, and the
    labels are right: an annotator without noise.
    """
    loaded = load_problem_named(workspace, problem)
    assert isinstance(loaded.data, WorldData)
    prompts = [p for p in world_prompts(loaded.data, loaded.seed) if p.split == "train"]
    rng, names = np.random.default_rng(1), loaded.dimension_names
    rows = []
    for i in rng.integers(len(prompts), size=count):
        prompt = all_prompts()[prompts[i].text]
        texts = [render(prompt, answer) for answer in sample_answers(rng, 2)]
        a, b = gold_scores(prompt, texts, names)
        better = np.where(a > b, "a", np.where(a < b, "b", "tie"))
        rows.append([prompt.text, *texts, *better])
    folder = workspace.inbox / problem
    folder.mkdir(parents=True)
    for name, kept in (("monday.csv", rows), ("monday again.csv", rows), ("tuesday.csv", rows[:9])):
        aside = folder / f"{name}.part"
        with aside.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["prompt", "response_a", "response_b", *names])
            writer.writerows(kept)
            if name == "tuesday.csv":
                writer.writerow(["who are you", "a model", "nobody", *["a"] * len(names)])
        aside.rename(folder / name)


def tick(cursor: str | None) -> tuple[list[str], "list[RunRequest]", str | None]:
    """One evaluation of the sensor: what it says, which runs it asks for, and its cursor."""
    import dagster as dg

    from orchestration import new_data as module
    from orchestration.definitions import defs
    from orchestration.resources import WorkspaceResource

    workspace = Workspace.current()
    context = dg.build_sensor_context(
        instance=dg.DagsterInstance.get(),
        cursor=cursor,
        definitions=defs,
        resources={"workspace": WorkspaceResource()},
    )
    before = _placed(workspace)
    found = module.new_data.evaluate_tick(context)
    lines = [line for line in _placed(workspace) if line not in before]
    requests = list(found.run_requests or [])
    lines += [f"a run of `chain` for {r.partition_key}, run key `{r.run_key}`" for r in requests]
    return lines or [found.skip_message or ""], requests, found.cursor or cursor


def _placed(workspace: Workspace) -> list[str]:
    """A line for every file that was received or set aside so far."""
    lines = [f"received: `{path.name}`" for path in sorted(workspace.received.glob("*/*"))]
    for error in sorted(workspace.inbox.glob("*/rejected/*.error.txt")):
        name = error.name.removesuffix(".error.txt")
        lines.append(f"set aside: `{name}`: {error.read_text('utf-8').strip()}")
    return lines


def current_rows(warehouse: Warehouse, problem: str) -> dict[str, int]:
    """Rows of what is current, by table."""
    found = {}
    for table in ("prompts", "responses", "pairs", "preference_labels"):  # as their stages
        sql = f"""select count(*) as n from facts.{table} where key = (
            select arg_max(key, since) from facts.adoptions where problem = ? and stage = ?)"""
        found[table] = warehouse.read(sql, [problem, table])["n"][0].as_py()
    return found


def page(
    problem: str,
    runs: list[tuple[Made, float]],
    counts: list[dict[str, int]],
    ticks: list[list[str]],
    history: list[dict[str, Any]],
) -> str:
    """The whole Markdown page."""
    header = ["asset", "first", "again", "scheduled, with new data", "scheduled again"]
    rows = [[stage, *(_done(made.get(stage)) for made, _ in runs)] for stage in STAGE_VERSIONS]
    reasons = [
        [stage, part, told]
        for stage in STAGE_VERSIONS
        for part, told in runs[2][0].get(stage, ("", 0.0, {}))[2].items()
    ]
    rows.append(["**wall, s**", *(f"**{seconds:.0f}**" for _, seconds in runs)])
    kept = [[table, *(count[table] for count in counts)] for table in counts[0]]
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    said = ["\n".join(f"- {line}" for line in lines) for lines in ticks]
    return f"""# Rounds without anybody, on `{problem}`

`COMMAND`, {date.today()}. {len(os.sched_getaffinity(0))} cores, Python \
{platform.python_version()}, {libraries}.

On a fresh workspace the job `chain` ran twice. Then three files were dropped into the inbox: good
pairs, the same under another name, and one with a row about no prompt of the problem. The sensor
`new_data` was evaluated once they had settled and took them. It asks for a run itself; here the
problem's schedule came first: its tick was evaluated, the run that it asked for was run, and a week
later once more.

## What was made, and what was reused

Seconds are those of making products; the wall time has also checks, pictures and Dagster. Other
jobs may have run beside: they say what was made, not how fast it can be.

{_table(header, rows)}
Why, as the scheduled run with new data said it (metadata `why`):

{_table(["asset", "part", "why"], reasons)}
Rows of what is current:

{_table(["table", *header[1:]], kept)}
## What the sensor said

{said[0]}

After the scheduled runs:

{said[1]}

## What the champion's gate decided

`champion_history`, oldest first. The first run's policy had the base model to beat; where nothing
changed, nothing was decided.

{_table(list(history[0]), [list(row.values()) for row in history])}"""


def _done(what: tuple[str, float, dict[str, str]] | None) -> str:
    if what is None:
        return "–"
    action, seconds, _ = what
    return action if not seconds else f"{action}, {seconds:.1f} s"


def _table(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "–" if value is None else str(value)


if __name__ == "__main__":
    main()
