"""`panacea inbox`: take new data files by hand, as the sensor `new_data` does."""

from typing import Annotated

import typer

from orchestration.environment import be_quiet, enter_workspace
from panacea_lib.data.inbox import SETTLED, InboxBusyError, Received, Rejected, receive
from panacea_lib.problem_files import find_problems, load_problem, load_problem_named
from panacea_lib.workspace import Workspace


def inbox(
    problem: Annotated[
        str | None, typer.Argument(help="The problem's name; default: all that have an inbox.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Check the files, and move none.")] = False,
    settled: Annotated[
        float, typer.Option(min=0, help="Seconds that a file must have been left alone.")
    ] = SETTLED,
) -> None:
    """Check the files in var/inbox/PROBLEM, take the good ones and set the bad ones aside.

    Ends with 2 where one was refused.
    """
    workspace = Workspace.current()
    problems = find_problems(workspace)
    if problem is None:
        names = [n for n, f in problems.items() if load_problem(f, workspace).inbox]
    else:
        names = [load_problem_named(workspace, problem).name]
    be_quiet()
    refused = [_take(workspace, name, dry_run, settled) for name in names]
    if any(refused):
        raise typer.Exit(2)


def _take(workspace: Workspace, name: str, dry_run: bool, settled: float) -> bool:
    """Take one problem's files, and say what became of them; whether one was refused."""
    from orchestration.new_data import sentence

    problem, file = load_problem_named(workspace, name), find_problems(workspace)[name]
    if not dry_run:
        _check_idle(workspace, name)
    outcomes = []
    for outcome in receive(problem, file, workspace, settled=settled, dry_run=dry_run):
        typer.echo(f"{name}: {'(dry run) ' if dry_run else ''}{sentence(outcome)}")
        outcomes.append(outcome)
    if not outcomes:
        typer.echo(f"{name}: no new files in {workspace.inbox / name}")
    if any(isinstance(outcome, Rejected) for outcome in outcomes) and not dry_run:
        typer.echo(f"{name}: what was set aside lies in {workspace.inbox / name / 'rejected'}")
    if any(isinstance(outcome, Received) for outcome in outcomes) and not dry_run:
        typer.echo(f"{name}: `panacea materialize {name}` makes what follows from new data")
    return any(isinstance(o, Rejected) and not o.duplicate for o in outcomes)


def _check_idle(workspace: Workspace, name: str) -> None:
    """InboxBusyError while a run of the problem goes on."""
    if not (workspace.root / "dagster.yaml").exists():
        return  # nothing was ever run here
    enter_workspace(workspace)
    import dagster as dg

    from orchestration.unfinished import unfinished_runs

    for record in unfinished_runs(dg.DagsterInstance.get(), name):
        raise InboxBusyError(
            f"run {record.dagster_run.run_id} of {name} has not ended, and new data would change "
            "what it makes: try again when it has, or terminate it on the page Runs"
        )
