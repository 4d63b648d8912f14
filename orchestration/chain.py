"""Run the chain for one problem in this process, on the workspace's own Dagster instance."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import dagster as dg
from dagster._check import CheckError

from orchestration.definitions import CHAIN, defs
from orchestration.disk_full import DISK_FULL, disk_full_message
from orchestration.progress import TerminalDisplay, shown_on
from orchestration.unfinished import process_tag, unfinished_runs
from panacea_lib.errors import InputError
from panacea_lib.problem_errors import nearest

_NAMES = re.compile(r"\w+(\s*,\s*\w+)*")
# Bad syntax, and attributes that can be asked for in the UI only.
_BAD_SELECTION = (dg.DagsterError, CheckError, NotImplementedError)
# What Dagster wraps an asset's error in, and what asks it for one more attempt.
_WRAPPERS = ("DagsterExecutionStepExecutionError", "RetryRequested")
# The job page of the UI lists runs by the code location that they belong to.
_LOCATION = {".dagster/repository": "__repository__@orchestration.definitions"}


@dataclass(frozen=True)
class Failure:
    """A step that failed: the name of its deepest error, what that says, and the whole story."""

    step: str
    error: str
    message: str
    trace: str


@dataclass(frozen=True)
class Finished:
    """How a run ended; `warnings` are failed checks that stop nothing."""

    success: bool
    run_id: str
    failures: list[Failure]
    failed_checks: list[str]
    warnings: list[str]


def resolve_selection(selection: str | None) -> list[dg.AssetKey]:
    """The assets that `a,b` or a selection in Dagster's syntax names; all of them for None.

    InputError for an unknown asset, bad syntax, or a selection of nothing.
    """
    graph = defs.resolve_asset_graph()
    names = sorted(key.to_user_string() for key in graph.get_all_asset_keys())
    if selection is None:
        return [dg.AssetKey(name) for name in names]
    if _NAMES.fullmatch(selection.strip()):
        wanted = {name.strip() for name in selection.split(",")}
        for name in sorted(wanted - set(names)):
            raise InputError(f"--select: no asset is named {name!r} ({nearest(name, names)})")
        return [dg.AssetKey(name) for name in sorted(wanted)]
    try:
        keys = dg.AssetSelection.from_string(selection).resolve(graph)
    except _BAD_SELECTION as error:
        raise InputError(
            f"--select: {selection!r} is no asset selection; write names with commas "
            f"({', '.join(names[:2])}, …) or Dagster's syntax, e.g. 'key:\"pairs\"+'"
        ) from error
    if not keys:
        raise InputError(f"--select: {selection!r} selects none of {', '.join(names)}")
    return sorted(keys, key=lambda key: key.to_user_string())


def run_chain(problem: str, assets: list[dg.AssetKey], settings: dict[str, Any]) -> Finished:
    """Materialise the assets of one problem, with their checks; progress goes to the terminal.

    What libraries print goes to the run's own log in Dagster, not to the terminal.
    """
    from rich.console import Console

    instance = dg.DagsterInstance.get()
    unfinished_runs(instance)  # an earlier command that was killed is told to have failed
    job = defs.resolve_job_def(CHAIN.name)
    run_config = {
        "resources": {"settings": {"config": settings}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    with (
        _libraries_muted() as terminal,
        TerminalDisplay(Console(file=terminal)) as display,
        shown_on(display),
    ):
        result = job.execute_in_process(
            run_config=run_config,
            instance=instance,
            partition_key=problem,
            asset_selection=assets,
            raise_on_error=False,
            tags=_LOCATION | process_tag(),
        )
    return _finished(result)


@contextmanager
def _libraries_muted() -> Iterator[TextIO]:
    """Send this process's stdout and stderr nowhere; yields the real stderr.

    Dagster copies both to its log files, and echoes them to where they went before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        with os.fdopen(os.dup(saved[1]), "w", encoding="utf-8") as terminal:
            yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in enumerate(saved, start=1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def _finished(result: dg.ExecuteInProcessResult) -> Finished:
    failures, failed, warned = [], [], []
    for event in result.all_events:
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            check = event.asset_check_evaluation_data
            if not check.passed:
                told = f"{check.check_name} of {check.asset_key.to_user_string()}: "
                told += check.description or "failed"
                is_error = check.severity == dg.AssetCheckSeverity.ERROR
                (failed if is_error else warned).append(told)
        elif event.is_step_failure and event.step_failure_data.error:
            failures.append(_failure(event.step_key or "", event.step_failure_data.error))
    failures = [f for f in failures if f.error != "DagsterAssetCheckFailedError"]
    return Finished(result.success, result.run_id, failures, failed, warned)


def _failure(step: str, error: Any) -> Failure:
    if error.cls_name in _WRAPPERS and error.cause:
        error = error.cause
    trace = error.to_string()
    if full := disk_full_message(trace):
        return Failure(step, DISK_FULL, full, trace)
    name = error.cls_name or "Error"
    # "package.module.Name: what happened", or without the package
    message = error.message.strip().split(f"{name}: ", 1)[-1]
    return Failure(step, name, message, trace)
