"""A schedule per problem: the whole chain again, one run at a time, and nothing that is unchanged.

Cron, time zone and whether it runs by default are read with the definitions; all else at the tick.
"""

from datetime import UTC, datetime

import dagster as dg

from orchestration.following import FOLLOWS
from orchestration.unfinished import unfinished_runs
from panacea_lib.errors import InputError
from panacea_lib.problem_files import find_problems, load_problem, load_problem_named
from panacea_lib.problem_retrain import Retrain
from panacea_lib.workspace import Workspace

_RUN_KEY = "dagster/run_key"  # tag of runs
_SEEDS = 2**31


def retrain_schedules(job: str) -> list[dg.ScheduleDefinition]:
    """One for each problem that is found, running where the problem's section `retrain` says so.

    That of a file which cannot be read runs too, weekly: its ticks fail with what is wrong, and
    launch nothing. So a slip in a file is seen, and does not quietly end the retraining.
    """
    workspace = Workspace.current()
    found = []
    for name, path in find_problems(workspace).items():
        try:
            retrain, wrong = load_problem(path, workspace).retrain, None
        except InputError as error:
            retrain, wrong = Retrain(enabled=True), str(error)
        found.append(_schedule(name, retrain, wrong, job))
    return found


def schedule_name(problem: str) -> str:
    """`retrain_…`, another for every problem: Dagster's names hold no hyphen, those of problems no
    capital."""
    return f"retrain_{problem.replace('_', '_U').replace('-', '_')}"


def fresh_seed(scheduled: datetime) -> int:
    """The minutes from 1970 to a tick, in [0, 2**31): cron knows nothing shorter."""
    return int(scheduled.timestamp()) // 60 % _SEEDS


def _schedule(problem: str, retrain: Retrain, wrong: str | None, job: str) -> dg.ScheduleDefinition:
    told = (
        f"Everything of {problem}, from its prompts to its champion; what is unchanged is reused."
    )
    if wrong:
        told = f"The problem's file is bad, so its ticks fail: {wrong}"

    @dg.schedule(
        name=schedule_name(problem),
        job_name=job,
        cron_schedule=retrain.cron,
        execution_timezone=retrain.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING
        if retrain.enabled
        else dg.DefaultScheduleStatus.STOPPED,
        description=told,
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _tick(context, problem)

    return tick


def _tick(context: dg.ScheduleEvaluationContext, problem: str) -> dg.RunRequest | dg.SkipReason:
    """InputError where the problem's file is bad by now."""
    retrain = load_problem_named(Workspace.current(), problem).retrain
    scheduled = context.scheduled_execution_time.astimezone(UTC)
    key = f"{problem} {scheduled:%Y-%m-%dT%H:%M}Z"
    if busy := _still_running(context.instance, problem, scheduled, key, retrain.max_hours):
        return dg.SkipReason(busy)
    settings = {"seed": fresh_seed(scheduled)} if retrain.seed == "fresh" else {}
    return dg.RunRequest(
        run_key=key,  # a tick that is evaluated again finds its run by this
        partition_key=problem,
        run_config={"resources": {"settings": {"config": settings}}},
        tags={dg.MAX_RUNTIME_SECONDS_TAG: str(int(retrain.max_hours * 3600))},
    )


def _still_running(
    instance: dg.DagsterInstance, problem: str, scheduled: datetime, key: str, max_hours: float
) -> str | None:
    """Why a tick launches nothing: any unfinished run of the problem, whoever started it.

    But not this tick's own, which an interrupted daemon may have left; not one that only follows,
    which is short; and none older than `max_hours`, as a run that died unseen stays unfinished.
    None where there is none.
    """
    for record in unfinished_runs(instance, problem):
        run = record.dagster_run
        since = record.start_time or record.create_timestamp.timestamp()
        hours = (scheduled.timestamp() - since) / 3600
        if run.tags.get(_RUN_KEY) == key or FOLLOWS in run.tags:
            continue
        if hours < max_hours:
            return (
                f"run {run.run_id[:8]} of {problem} is not finished ({run.status.value}, "
                f"{max(hours, 0):.1f} h old; after {max_hours:g} h it would no longer count)"
            )
    return None
