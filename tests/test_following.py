"""What follows by itself: which assets, when, for which problem, and under which settings."""

import os
from collections.abc import Iterator

import dagster as dg
import pytest

from orchestration.definitions import CHAIN, defs
from orchestration.following import FOLLOWING, followed_settings
from orchestration.partitions import PROBLEMS
from panacea_lib.workspace import Workspace

FRONT, REPORT = dg.AssetKey("pareto_front"), dg.AssetKey("report")
# Dagster says so of checks per partition, which the definitions use (orchestration/partitions.py).
pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
]


class Daemon:
    """The conditions of all assets, tick after tick, on a real instance."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._cursor = None

    def tick(self) -> dict[str, set[str | None]]:
        """Asset → problems that are asked for now."""
        found = dg.evaluate_automation_conditions(defs, self._instance, cursor=self._cursor)
        self._cursor = found.cursor
        keys = defs.resolve_asset_graph().get_all_asset_keys()
        asked = {key.to_user_string(): set(found.get_requested_partitions(key)) for key in keys}
        return {name: problems for name, problems in asked.items() if problems}


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


def made(
    instance: dg.DagsterInstance,
    asset: str,
    version: str,
    problem: str = "tiny",
    passed: bool = True,
) -> None:
    """A run that makes one asset, with the check that keeps what is bad from what follows."""
    check = dg.AssetCheckSpec(
        "answers_are_scored", asset=asset, blocking=True, partitions_def=PROBLEMS
    )

    @dg.asset(name=asset, partitions_def=PROBLEMS, check_specs=[check])
    def stand_in() -> dg.MaterializeResult:
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version), check_results=[dg.AssetCheckResult(passed=passed)]
        )

    dg.materialize([stand_in], instance=instance, partition_key=problem, raise_on_error=False)


def test_only_the_cheap_ones_follow_and_the_daemon_does_it_unasked():
    graph = defs.resolve_asset_graph()
    keys = {key for key in graph.get_all_asset_keys() if graph.get(key).automation_condition}
    assert keys == {FRONT, REPORT} == FOLLOWING.asset_selection.resolve(graph)
    assert not {kind for key in keys for kind in graph.get(key).kinds} & {"pytorch", "huggingface"}
    assert FOLLOWING.default_status == dg.DefaultSensorStatus.RUNNING


def test_front_and_report_follow_new_answers_of_their_problem_once(instance):
    daemon = Daemon(instance)
    made(instance, "generations", "old")
    made(instance, "pareto_front", "old")
    assert daemon.tick() == {}, "what was there before the daemon is nobody's news"
    made(instance, "generations", "new")
    assert daemon.tick() == {"pareto_front": {"tiny"}, "report": {"tiny"}}
    assert daemon.tick() == {}
    made(instance, "pareto_front", "new")
    made(instance, "report", "new")
    assert daemon.tick() == {}, "they lead nothing on, and themselves least of all"


def test_what_was_reused_leads_nothing_on(instance):
    daemon = Daemon(instance)
    made(instance, "generations", "same")
    daemon.tick()
    made(instance, "generations", "same")
    assert daemon.tick() == {}


def test_neither_follows_what_it_does_not_show(instance):
    daemon = Daemon(instance)
    daemon.tick()
    made(instance, "panacea_policy", "new")
    assert daemon.tick() == {}, "its answers are not here"


def test_nothing_follows_a_failed_check_until_it_passes(instance):
    daemon = Daemon(instance)
    daemon.tick()
    made(instance, "generations", "new", passed=False)
    assert daemon.tick() == {}
    made(instance, "generations", "new", passed=True)
    assert daemon.tick() == {"pareto_front": {"tiny"}, "report": {"tiny"}}


def test_nothing_follows_while_a_run_of_the_chain_makes_it_or_after_it_failed(instance):
    daemon = Daemon(instance)
    daemon.tick()
    run = instance.create_run_for_job(
        defs.resolve_job_def(CHAIN.name),
        tags={"dagster/partition": "tiny"},
        status=dg.DagsterRunStatus.STARTED,
    )
    made(instance, "generations", "new")
    made(instance, "generations", "new", "every-method")
    assert daemon.tick() == {"pareto_front": {"every-method"}, "report": {"every-method"}}
    assert daemon.tick() == {}
    instance.report_run_failed(run)
    assert daemon.tick() == {}, "a person must look at that"


def follow(instance: dg.DagsterInstance, **settings: int) -> dg.ExecuteInProcessResult:
    """What the sensor launches for `tiny`; it sets no settings, a test may."""
    return defs.resolve_job_def(CHAIN.name).execute_in_process(
        instance=instance,
        partition_key="tiny",
        asset_selection=[FRONT, REPORT],
        tags=dict(FOLLOWING.run_tags),
        run_config={
            "resources": {"settings": {"config": settings}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


@pytest.mark.slow
def test_a_run_that_follows_takes_the_settings_of_what_it_follows_and_no_gpu(chain, monkeypatch):
    root = Workspace.current().root
    monkeypatch.chdir(root)
    monkeypatch.setenv("DAGSTER_HOME", str(root))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # and it is as before in the end
    instance = dg.DagsterInstance.get()
    result = follow(instance, seed=99, max_steps=1)
    assert result.success, "under its own settings it would find nothing"
    events = result.get_asset_materialization_events()
    made = [event.step_materialization_data.materialization.metadata for event in events]
    assert [one["action"].value for one in made] == ["reused", "reused"]
    assert [one["seed"].value for one in made] == [0, 0] and "max_steps" not in made[0]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    by_hand = dg.DagsterRun(job_name=CHAIN.name, tags={"dagster/partition": "tiny"})
    assert followed_settings(by_hand, instance, "pareto_front") is None


@pytest.mark.slow
def test_under_another_seed_and_cap_it_looks_for_what_was_made_under_those(
    chain, instance, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    @dg.asset(partitions_def=PROBLEMS)
    def generations() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"seed": 7, "max_steps": 3})

    dg.materialize([generations], instance=instance, partition_key="tiny")
    result = follow(instance)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_key == "pareto_front"
    said = failed.step_failure_data.error_display_string
    assert "is not there for seed 7 and at most 3 steps" in said.replace("\n", " ")
