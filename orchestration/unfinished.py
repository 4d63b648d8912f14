"""Runs of a problem that have not ended, and those that only look so because they were killed.

Dagster's daemon watches the runs that it launched. Nobody watches one of `panacea materialize`: it
leaves a tag that says which process it is, and who asks for unfinished runs on the same machine
sees whether that still lives.
"""

import socket

import dagster as dg

_PARTITION = "dagster/partition"
_PROCESS = "panacea/process"  # tag: host, process id, when that process began
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def process_tag() -> dict[str, str]:
    """The tag of a run that this process executes itself."""
    import psutil

    me = psutil.Process()
    return {_PROCESS: f"{socket.gethostname()} {me.pid} {me.create_time():.2f}"}


def unfinished_runs(instance: dg.DagsterInstance, problem: str | None = None) -> list[dg.RunRecord]:
    """Runs that have not ended, of one problem or of all, newest first. Those whose process is gone
    are recorded as failed, and left out."""
    tags = {_PARTITION: problem} if problem else None
    records = instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED, tags=tags))
    return [record for record in records if not _bury(instance, record.dagster_run)]


def _bury(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the run's process is gone; then the run has failed from now on."""
    host, pid, began = (run.tags.get(_PROCESS) or "? 0 0").rsplit(" ", 2)
    if host != socket.gethostname() or _lives(int(pid), began):
        return False
    instance.report_run_failed(run, f"its process {pid} was killed: the same command goes on there")
    return True


def _lives(pid: int, began: str) -> bool:
    """Whether the process that had this id at that time has it still."""
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}" == began
    except psutil.NoSuchProcess:
        return False
