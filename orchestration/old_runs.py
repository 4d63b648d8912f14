"""Runs that ended long ago, and what Dagster keeps of them: events, and what they printed."""

from datetime import datetime
from pathlib import Path

from dagster import AssetRecordsFilter, DagsterInstance, RunsFilter
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqliteEventLogStorage


def find_old_runs(instance: DagsterInstance, before: datetime) -> list[str]:
    """Ids of the runs that ended and were made before a time; without those that the pages need to
    say when an asset of a problem was last materialised."""
    ended = RunsFilter(statuses=list(FINISHED_STATUSES), created_before=before)
    needed = _latest(instance)
    return [run.run_id for run in instance.get_runs(ended) if run.run_id not in needed]


def delete_runs(instance: DagsterInstance, run_ids: list[str]) -> None:
    """Remove runs with their events and logs."""
    for run_id in run_ids:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
        events = instance.event_log_storage
        if isinstance(events, SqliteEventLogStorage):  # it empties a run's file and leaves it
            file = Path(events.path_for_shard(run_id))
            for left in file.parent.glob(f"{file.name}*"):
                left.unlink()


def _latest(instance: DagsterInstance) -> set[str]:
    """The runs of the latest materialisation of every asset, for every problem."""
    found: set[str] = set()
    for key in instance.all_asset_keys():
        problems = instance.get_materialized_partitions(key)
        for problem in problems:
            of_problem = AssetRecordsFilter(asset_key=key, asset_partitions=[problem])
            records = instance.fetch_materializations(of_problem, limit=1).records
            found |= {record.run_id for record in records}
    return found
