"""The sensor `new_data`: takes files from the problems' inboxes, and has what they change made."""

import hashlib
import json
from contextlib import closing
from time import monotonic

import dagster as dg

from orchestration.partitions import PROBLEMS
from orchestration.resources import WorkspaceResource
from orchestration.unfinished import unfinished_runs
from panacea_lib.data.inbox import (
    SETTLED,
    InboxBusyError,
    Outcome,
    Received,
    Rejected,
    receive,
)
from panacea_lib.errors import InputError
from panacea_lib.problem_files import find_problems, load_problem_named
from panacea_lib.received import received_files
from panacea_lib.workspace import Workspace

LARGEST = 16 * 2**20
"""Bytes of a file that a tick reads: about 5 s where it was measured, compressed up to tenfold."""
_TICK = 20.0  # seconds after which a tick takes no further file: Dagster gives it 60


@dg.sensor(
    job_name="chain",
    minimum_interval_seconds=60,
    # On: without the folder of an inbox it looks at nothing, and who drops a file there means it.
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Checks files that are dropped into var/inbox/PROBLEM/, takes good ones, sets bad "
    "ones aside, and runs the chain of a problem that has received something.",
)
def new_data(
    context: dg.SensorEvaluationContext, workspace: WorkspaceResource
) -> dg.SensorResult | dg.SkipReason:
    """One run per problem and set of received files; none while a run of the problem goes on."""
    here = workspace.workspace
    launched: dict[str, str] = json.loads(context.cursor or "{}")
    until = monotonic() + _TICK
    told: list[str] = []
    requests: list[dg.RunRequest] = []
    for name in PROBLEMS.get_partition_keys():
        if not (here.inbox / name).is_dir() and not (here.received / name).is_dir():
            continue
        # Files that join the data meanwhile would change what a run's later stages are made of.
        if runs := unfinished_runs(context.instance, name):
            told.append(f"{name}: waits for the end of run {runs[0].dagster_run.run_id}")
            continue
        try:
            told += [f"{name}: {line}" for line in _take(here, name, until)]
            received = _set_of(here, name)
        except (InputError, InboxBusyError) as error:  # the other problems go on
            told.append(f"{name}: {error}")
            continue
        if received and launched.get(name) != received:
            launched[name] = received
            requests.append(dg.RunRequest(f"{name}-{received}", partition_key=name))
    for line in told:
        context.log.info(line)
    if not requests:
        return dg.SkipReason("\n".join(told) or "no new files")
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(launched))


def _take(workspace: Workspace, name: str, until: float) -> list[str]:
    """Take the problem's files until the tick's time is over; says what became of each."""
    if not (workspace.inbox / name).is_dir():
        return []
    problem, file = load_problem_named(workspace, name), find_problems(workspace)[name]
    told = []
    with closing(receive(problem, file, workspace, settled=SETTLED, largest=LARGEST)) as outcomes:
        for outcome in outcomes:
            told.append(sentence(outcome))
            if monotonic() > until:
                told.append("further files wait for the next tick")
                break
    return told


def _set_of(workspace: Workspace, name: str) -> str:
    """What a problem has received so far, as a short hash; "" for nothing."""
    names = [path.name for path in received_files(name, workspace)]
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:16] if names else ""


def sentence(outcome: Outcome) -> str:
    """What became of a file."""
    match outcome:
        case Received():
            counts = outcome.counts
            made = counts.get("pairs") or counts.get("demonstrations", 0)
            what = "pairs" if counts.get("pairs") else "demonstrations"
            rows = counts["rows_read"]
            return f"received {outcome.name}: {made:,} {what} of {rows:,} rows, {outcome.path}"
        case Rejected(duplicate=True):
            return f"set aside {outcome.name}: {outcome.reason}"
        case Rejected():
            return f"refused {outcome.name}: {outcome.reason}"
        case _:
            return f"left {outcome.name}: {outcome.reason}"
