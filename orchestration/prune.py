"""`panacea prune`: what nothing needs any more goes, by a policy."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from orchestration.environment import be_quiet, enter_workspace
from panacea_lib.prune import Prunable, Retention, find_prunable, pinned_keys, prune
from panacea_lib.workspace import Workspace

if TYPE_CHECKING:
    from dagster import DagsterInstance

_DEFAULT = Retention()


def prune_command(
    days: Annotated[
        int,
        typer.Option(min=0, help="What was superseded or given up longer ago goes, and old runs."),
    ] = _DEFAULT.days,
    champions: Annotated[
        int, typer.Option(min=1, help="So many champions of each problem stay, for rollbacks.")
    ] = _DEFAULT.champions,
    dry_run: Annotated[bool, typer.Option(help="Only say what would go.")] = False,
) -> None:
    """Remove products that no problem shows any more, abandoned work, and old runs with their logs.

    What problems show today stays, with all that it was made from, and so do answers of people and
    judges.
    """
    be_quiet()
    workspace = Workspace.current()
    pinned_keys(workspace)  # a bad problem file is found before the workspace's folder is made
    enter_workspace(workspace)
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        for line in prune_workspace(workspace, instance, Retention(days, champions), dry_run):
            typer.echo(line)


def prune_workspace(
    workspace: Workspace, instance: "DagsterInstance", retention: Retention, dry_run: bool
) -> Iterator[str]:
    """Say what goes, then remove it unless it is a dry run."""
    from orchestration.old_runs import delete_runs, find_old_runs

    now = datetime.now(UTC)
    found = find_prunable(workspace, retention, now)
    runs = find_old_runs(instance, now - timedelta(days=retention.days))
    yield from _told(found, len(runs), "would remove" if dry_run else "removing")
    if not dry_run:
        prune(workspace, found)
        delete_runs(instance, runs)


def _told(found: Prunable, runs: int, verb: str) -> list[str]:
    lines = [
        f"{verb} {count} of {problem}, {stage}"
        for (problem, stage), count in Counter((p.problem, p.stage) for p in found.products).items()
    ]
    rows = sum(product.rows for product in found.products)
    size = sum(product.artifact_bytes for product in found.products) / 2**20
    lines.append(
        f"{verb} {len(found.products)} products in all ({rows:,} rows, {size:,.1f} MiB of "
        f"artifacts), {len(found.unfinished)} works that were given up, {runs} runs"
    )
    if found.unknown:
        lines.append(
            f"{len(found.unknown)} artifacts are of no product in this warehouse and stay; another "
            "workspace may share the store"
        )
    return lines
