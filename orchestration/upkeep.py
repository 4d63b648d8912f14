"""The job that prunes, for a schedule: `panacea prune` in the background."""

import dagster as dg
from pydantic import Field

from orchestration.prune import prune_workspace
from orchestration.resources import WorkspaceResource
from panacea_lib.prune import Retention

_DEFAULT = Retention()


class PruneSettings(dg.Config):
    """As the options of `panacea prune`."""

    days: int = Field(default=_DEFAULT.days, ge=0, description="What is older goes.")
    champions: int = Field(default=_DEFAULT.champions, ge=1, description="Kept for rollbacks.")
    dry_run: bool = Field(default=False, description="Only say what would go.")


@dg.op
def remove_superseded(
    context: dg.OpExecutionContext, config: PruneSettings, workspace: WorkspaceResource
) -> None:
    """Superseded products, abandoned work, old runs and their logs."""
    retention = Retention(config.days, config.champions)
    for line in prune_workspace(
        workspace.workspace, context.instance, retention, dry_run=config.dry_run
    ):
        context.log.info(line)


@dg.job(name="prune", description="Removes what nothing needs any more; see docs/operations.md.")
def prune_job() -> None:
    """One step; it waits in the queue as trainings do, and so meets none."""
    remove_superseded()


# Stopped until somebody wants it: it deletes.
PRUNE_WEEKLY = dg.ScheduleDefinition(
    name="prune_weekly",
    job=prune_job,
    cron_schedule="0 6 * * 0",
    description="Sundays at 6 (UTC).",
)
