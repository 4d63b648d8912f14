"""Retraining by schedule: what a tick launches, when it skips, and what a bad file does."""

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._daemon.monitoring.run_monitoring import check_run_timeout
from hypothesis import given
from hypothesis import strategies as st

from orchestration.definitions import CHAIN, defs
from orchestration.following import FOLLOWING
from orchestration.schedules import fresh_seed, retrain_schedules, schedule_name
from panacea_lib.errors import InputError
from panacea_lib.plan import Plan
from panacea_lib.plan_content import STAGE_VERSIONS
from panacea_lib.problem_files import find_problems, load_problem, load_problem_named
from panacea_lib.workspace import Workspace

NOON = datetime(2030, 1, 7, 12, tzinfo=UTC)
PROBLEM_NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,63}", fullmatch=True)


@pytest.fixture
def problems(tmp_path, monkeypatch) -> Path:
    """A folder for problem files that is found beside the shipped ones."""
    monkeypatch.setenv("PANACEA_PROBLEMS", str(tmp_path))
    return tmp_path


def write(folder: Path, name: str, retrain: str = "") -> None:
    section = f"retrain: {retrain}\n" if retrain else ""
    (folder / f"{name}.yaml").write_text(f"name: {name}\nextends: demo\n{section}")


def schedule_of(problem: str) -> dg.ScheduleDefinition:
    found = {schedule.name: schedule for schedule in retrain_schedules(CHAIN.name)}
    return found[schedule_name(problem)]


def tick(
    problem: str, instance: dg.DagsterInstance, at: datetime = NOON
) -> dg.RunRequest | dg.SkipReason:
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
    found = schedule_of(problem)(context)
    assert isinstance(found, dg.RunRequest | dg.SkipReason)
    return found


@pytest.fixture
def instance(tmp_path_factory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("instance"))) as found:
        yield found


def start_run(
    instance: dg.DagsterInstance,
    problem: str,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
    tags: Mapping[str, str] | None = None,
) -> dg.DagsterRun:
    """A run of the chain in Dagster's storage, as it is while somebody works on it."""
    return instance.create_run_for_job(
        defs.resolve_job_def(CHAIN.name),
        tags={"dagster/partition": problem, **(tags or {})},
        status=status,
        remote_job_origin=RemoteRepositoryOrigin(
            RegisteredCodeLocationOrigin("panacea"), "__repository__"
        ).get_job_origin(CHAIN.name),
    )


# ---- what there is


def test_every_problem_has_a_schedule_of_the_chain_and_none_runs_unasked():
    schedules = {schedule.name: schedule for schedule in defs.schedules or []}
    expected = {schedule_name(n) for n in find_problems(Workspace.current())}
    assert set(schedules) == {*expected, "prune_weekly"}
    for schedule in (schedules[name] for name in expected):
        assert isinstance(schedule, dg.ScheduleDefinition)
        assert schedule.job_name == CHAIN.name
        assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
        assert schedule.cron_schedule == "0 3 * * 1"


def test_the_section_says_when_and_whether(problems):
    write(problems, "nightly", "{cron: 30 2 * * *, timezone: Europe/Berlin, enabled: true}")
    nightly = schedule_of("nightly")
    assert nightly.default_status == dg.DefaultScheduleStatus.RUNNING
    assert (nightly.cron_schedule, nightly.execution_timezone) == ("30 2 * * *", "Europe/Berlin")


@given(PROBLEM_NAMES, PROBLEM_NAMES)
def test_two_problems_never_share_a_schedule_s_name(one, other):
    assert schedule_name(one).replace("_", "").isalnum()
    assert (schedule_name(one) == schedule_name(other)) == (one == other)


def test_hyphens_and_underscores_are_told_apart():
    names = ["a-b", "a_b", "a--b", "a-_b", "a_-b", "a-ub"]
    assert len({schedule_name(name) for name in names}) == len(names)
    assert schedule_name("hh-tiny") == "retrain_hh_tiny"


def test_a_bad_section_is_told_with_file_and_line(problems):
    write(problems, "mine", "{cron: 0 25 * * *}")
    with pytest.raises(InputError, match=r"mine\.yaml, line 3, retrain\.cron: '25' is no hour"):
        load_problem(problems / "mine.yaml")


def test_a_bad_file_shows_at_its_own_ticks_and_takes_no_other_down(problems, instance):
    write(problems, "good", "{enabled: true}")
    write(problems, "bad", "{enabled: true, sede: fresh}")
    assert isinstance(tick("good", instance), dg.RunRequest)
    bad = schedule_of("bad")
    assert bad.default_status == dg.DefaultScheduleStatus.RUNNING, "it does not end quietly"
    assert "unknown key" in (bad.description or "")
    with pytest.raises(InputError, match=r"bad\.yaml, line 3, retrain\.sede: unknown key"):
        tick("bad", instance)
    write(problems, "bad", "{enabled: true, seed: fresh}")
    assert isinstance(tick("bad", instance), dg.RunRequest), "mended, without a reload"


# ---- what a tick does


def test_a_tick_launches_one_run_under_the_problem_and_the_time(problems, instance):
    write(problems, "mine", "{max_hours: 1.5}")
    run = tick("mine", instance)
    assert isinstance(run, dg.RunRequest)
    assert run.partition_key == "mine"
    assert run.run_key == "mine 2030-01-07T12:00Z"
    assert run.tags["dagster/max_runtime"] == "5400"
    assert run.run_config == {"resources": {"settings": {"config": {}}}}
    assert dg.validate_run_config(defs.resolve_job_def(CHAIN.name), run.run_config)
    local = NOON.astimezone(ZoneInfo("Asia/Tokyo"))
    assert tick("mine", instance, local) == run, "one moment, one key"
    assert tick("mine", instance, NOON + timedelta(minutes=1)) != run


@pytest.mark.parametrize("status", ["NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING"])
def test_it_skips_while_a_run_of_the_problem_is_not_finished(problems, instance, status):
    write(problems, "mine")
    run = start_run(instance, "mine", dg.DagsterRunStatus(status))
    now = datetime.now(UTC) + timedelta(hours=2)
    skipped = tick("mine", instance, now)
    assert isinstance(skipped, dg.SkipReason)
    said = f"run {run.run_id[:8]} of mine is not finished ({status}, 2.0 h old; after 24 h"
    assert (skipped.skip_message or "").startswith(said)
    later = now + timedelta(hours=22.1)
    assert isinstance(tick("mine", instance, later), dg.RunRequest), "a dead run ends to block"


def test_its_age_counts_from_its_start_not_from_the_queue(problems, instance):
    write(problems, "mine", "{max_hours: 1}")
    run = start_run(instance, "mine", dg.DagsterRunStatus.STARTING)
    instance.handle_new_event(started_event(run, datetime.now(UTC) + timedelta(hours=3)))
    assert isinstance(tick("mine", instance, NOON.replace(year=2029)), dg.RunRequest)
    soon = datetime.now(UTC) + timedelta(hours=3.5)
    assert isinstance(tick("mine", instance, soon), dg.SkipReason)


def started_event(run: dg.DagsterRun, at: datetime) -> dg.EventLogEntry:
    event = dg.DagsterEvent(
        event_type_value=dg.DagsterEventType.PIPELINE_START.value, job_name=run.job_name
    )
    return dg.EventLogEntry(
        error_info=None,
        level="debug",
        user_message="",
        run_id=run.run_id,
        timestamp=at.timestamp(),
        job_name=run.job_name,
        dagster_event=event,
    )


def test_dagster_s_monitor_ends_a_run_that_died_unseen_by_its_tag(problems, instance):
    write(problems, "mine", "{max_hours: 1}")
    asked = tick("mine", instance)
    assert isinstance(asked, dg.RunRequest)
    run = start_run(instance, "mine", dg.DagsterRunStatus.STARTING, asked.tags)
    instance.handle_new_event(started_event(run, datetime.now(UTC) - timedelta(hours=1.1)))
    record = instance.get_run_record_by_id(run.run_id)
    assert record and record.dagster_run.status == dg.DagsterRunStatus.STARTED
    check_run_timeout(instance, record, logging.getLogger("test"), 0.0)
    ended = instance.get_run_by_id(run.run_id)
    assert ended and ended.status == dg.DagsterRunStatus.FAILURE


def test_another_problem_s_run_and_a_finished_one_are_in_nobody_s_way(problems, instance):
    write(problems, "mine")
    start_run(instance, "other")
    start_run(instance, "mine", tags=FOLLOWING.run_tags)  # a front, a minute's work
    for status in ("SUCCESS", "FAILURE", "CANCELED"):
        start_run(instance, "mine", dg.DagsterRunStatus(status))
    assert isinstance(tick("mine", instance), dg.RunRequest)


def test_a_tick_that_was_interrupted_finds_its_own_run(problems, instance):
    """The daemon died after it had created the run: its second try must ask for the same one."""
    write(problems, "mine")
    now = datetime.now(UTC)
    first = tick("mine", instance, now)
    assert isinstance(first, dg.RunRequest) and first.run_key
    start_run(instance, "mine", dg.DagsterRunStatus.NOT_STARTED, {"dagster/run_key": first.run_key})
    assert tick("mine", instance, now) == first
    assert isinstance(tick("mine", instance, now + timedelta(minutes=1)), dg.SkipReason)


def test_a_fresh_seed_is_another_at_every_tick_and_the_same_at_the_same(problems, instance):
    write(problems, "mine", "{seed: fresh}")
    job = defs.resolve_job_def(CHAIN.name)
    seeds = []
    for at in (NOON, NOON, NOON + timedelta(minutes=1)):
        run = tick("mine", instance, at)
        assert isinstance(run, dg.RunRequest) and dg.validate_run_config(job, run.run_config)
        seeds.append(run.run_config["resources"]["settings"]["config"]["seed"])
    assert seeds[0] == seeds[1] == int(NOON.timestamp()) // 60 == seeds[2] - 1
    assert 0 <= fresh_seed(datetime(9999, 12, 31, tzinfo=UTC)) < 2**31


def test_a_fresh_seed_makes_every_policy_anew():
    file = find_problems(Workspace.current())["tiny"]
    problem = load_problem_named(Workspace.current(), "tiny")
    same, fresh = Plan.of(problem, file), Plan.of(problem, file, fresh_seed(NOON))
    for stage in ("prompts", "reward_models", "panacea_policy", "baseline_policies"):
        assert not set(same.keys(stage).values()) & set(fresh.keys(stage).values())


@pytest.mark.slow
def test_a_tick_recomputes_nothing_of_what_is_unchanged_and_says_so(chain, monkeypatch):
    root = Workspace.current().root
    monkeypatch.chdir(root)
    monkeypatch.setenv("DAGSTER_HOME", str(root))
    instance = dg.DagsterInstance.get()
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=NOON,
        repository_def=defs.get_repository_def(),
    )
    told = defs.resolve_schedule_def(schedule_name("tiny")).evaluate_tick(context)
    (request,) = told.run_requests or []
    result = defs.resolve_job_def(CHAIN.name).execute_in_process(
        instance=instance,
        partition_key=request.partition_key,
        run_config={
            **request.run_config,
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        tags=dict(request.tags),
    )
    events = result.get_asset_materialization_events()
    made = [event.step_materialization_data.materialization for event in events]
    actions = {m.asset_key.to_user_string(): m.metadata["action"].value for m in made}
    assert actions == dict.fromkeys(STAGE_VERSIONS, "reused")
