"""What is cheap follows by itself what was made anew by hand: the front its answers, the report the
front.

Nothing that trains, answers or scores with a model of a user's is ever started so, and what is
started sees no GPU: the front of the embedded world enumerates its tiny model.
"""

import os
from collections.abc import Mapping

import dagster as dg

FOLLOWS = "panacea/follows"  # tag of the runs that the sensor launches
_LEADERS = {"pareto_front": "generations", "report": "pareto_front"}


def follows(asset: str) -> dg.AutomationCondition:
    """When `asset` is made: its leader has become something else, in a run that did not make both.

    Per partition, so per problem. Not while the leader, another input or the asset itself is being
    made; not after a check that blocks; not by what was merely reused, which changes no data
    version; and not again where the asset failed last, which wants a person.
    """
    condition = dg.AutomationCondition
    leader = dg.AssetSelection.assets(_LEADERS[asset])
    changed = (
        condition.newly_updated()
        & condition.data_version_changed()
        & ~condition.executed_with_root_target()
    )
    # Then both are made by one run, which stops at a check by itself.
    asked_for = condition.any_deps_match(condition.will_be_requested()).allow(leader)
    passed = condition.all_deps_blocking_checks_passed().allow(leader)
    return (
        (condition.any_deps_match(changed).allow(leader) | asked_for).since_last_handled()
        & (passed | asked_for)
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
        & ~condition.execution_failed()
    )


FOLLOWING = dg.AutomationConditionSensorDefinition(
    "cheap_assets_follow",
    target=dg.AssetSelection.assets(*_LEADERS),
    run_tags={FOLLOWS: "true"},
    default_status=dg.DefaultSensorStatus.RUNNING,
    emit_backfills=False,
    description="Makes a problem's front and report when what they show was made without them.",
)


def followed_settings(
    run: dg.DagsterRun, instance: dg.DagsterInstance, stage: str
) -> tuple[int | None, int | None] | None:
    """Under which seed and cap on steps a run that follows makes a stage: (seed, max_steps) of what
    it follows, since other settings would be other products; None for every other run.

    From here on the process sees no GPU; to be called before torch is imported.
    """
    if FOLLOWS not in run.tags:
        return None
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    problem = run.tags["dagster/partition"]
    wanted = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey(_LEADERS[stage]), asset_partitions=[problem]
    )
    record = instance.fetch_materializations(wanted, limit=1).records[0]
    assert record.asset_materialization is not None  # the filter asks for nothing else
    metadata = record.asset_materialization.metadata
    return _whole(metadata, "seed"), _whole(metadata, "max_steps")


def _whole(metadata: Mapping[str, dg.MetadataValue], name: str) -> int | None:
    value = metadata[name].value if name in metadata else None
    assert value is None or isinstance(value, int)
    return value
