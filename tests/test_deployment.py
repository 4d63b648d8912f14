"""What docker-compose.yml starts works: its services as processes (tests/deployment_stack.py)."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deployment_stack import POSTGRES_BIN, SERVICES, Stack, ended, events, find_run, launch
from doc_pages import blocks
from process_launcher import PID_TAG

from panacea_lib.warehouse import Warehouse
from panacea_lib.warehouse.database import write_lock
from panacea_lib.workspace import PROJECT_ROOT


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """All four, healthy; started in the order of `depends_on`."""
    if POSTGRES_BIN is None:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="panacea-deployment-")).resolve()
    folder.chmod(0o755)  # PostgreSQL's user reads the secret and its own folder in it
    found = Stack(folder)
    try:
        found.prepare()
        found.start_postgres()
        found.wait("postgres", lambda: found.is_healthy("postgres"))
        found.create_database(SERVICES["postgres"]["environment"]["POSTGRES_DB"])
        for service in ("code", "webserver", "daemon"):
            found.start(service)
            found.wait(service, lambda name=service: found.is_healthy(name))
        yield found
    finally:
        found.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_run_goes_through_the_queue_and_its_events_are_in_postgresql(stack):
    run_id = launch(stack)
    run = stack.wait("the run", lambda: ended(stack, runIds=[run_id]))
    assert run["status"] == "SUCCESS", stack.logs()
    types = [kind for kind, _ in events(stack, run_id)]
    told = ["PIPELINE_ENQUEUED", "PIPELINE_STARTING", "STEP_START", "ASSET_MATERIALIZATION"]
    assert [kind for kind in dict.fromkeys(types) if kind in told] == told
    assert "ASSET_CHECK_EVALUATION" in types and "PIPELINE_SUCCESS" in types
    warehouse = Warehouse(stack.home / "var" / "warehouse" / "panacea.duckdb")
    assert [row["stage"] for row in warehouse.read("from runs").to_pylist()] == ["prompts"]


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_is_tried_again_and_ends(stack):
    warehouse = Warehouse(stack.home / "var" / "warehouse" / "panacea.duckdb")
    # Another seed makes new rows, for which the worker must wait as long as the lock is held.
    with write_lock(warehouse.lock, "the test", 1):
        run_id = launch(stack, seed=1)
        stack.wait("the step", lambda: "STEP_START" in [kind for kind, _ in events(stack, run_id)])
        worker = find_run(stack, runIds=[run_id])
        assert worker and worker["status"] == "STARTED"
        os.kill(int(worker["tags"][PID_TAG]), signal.SIGKILL)
    died = stack.wait("the daemon to notice", lambda: ended(stack, runIds=[run_id]))
    assert died["status"] == "FAILURE"
    assert any("the worker ended with -9" in text for _, text in events(stack, run_id))
    parent = [{"key": "dagster/parent_run_id", "value": run_id}]
    again = stack.wait("the retry", lambda: ended(stack, tags=parent))
    assert again["status"] == "SUCCESS", stack.logs()
    assert again["tags"]["dagster/retry_number"] == "1"
    made = warehouse.read("select seed from facts.products where run_id = ?", [again["runId"]])
    assert made["seed"].to_pylist() == [1]


START = """mutation Start($of: ScheduleSelector!) { startSchedule(scheduleSelector: $of) {
  __typename ... on PythonError { message } } }"""
STOP = """mutation Stop($id: String) { stopRunningSchedule(id: $id) {
  __typename ... on PythonError { message } } }"""
SCHEDULE = """query Schedule($of: ScheduleSelector!) { scheduleOrError(scheduleSelector: $of) {
  __typename
  ... on Schedule { cronSchedule scheduleState {
    id status ticks { timestamp status skipReason runKeys runIds error { message } } } } } }"""
DRY_RUN = """mutation Try($of: ScheduleSelector!, $at: Float!) {
  scheduleDryRun(selectorData: $of, timestamp: $at) {
  __typename
  ... on DryRunInstigationTick { evaluationResult {
    skipReason runRequests { runKey } error { message } } } } }"""
IN_REPOSITORY = {"repositoryLocationName": "panacea", "repositoryName": "__repository__"}
OF_TICKING = {**IN_REPOSITORY, "scheduleName": "retrain_ticking"}
SENSOR = """query Sensor($of: SensorSelector!) { sensorOrError(sensorSelector: $of) {
  __typename ... on Sensor { sensorState { status ticks { status error { message } } } } } }"""
AGE = """query Age { assetNodes(assetKeys: [{path: ["champion"]}]) {
  freshnessStatusInfo { freshnessStatus } } }"""


def first_tick(stack: Stack) -> dict[str, Any] | None:
    ticks = stack.ask(SCHEDULE, of=OF_TICKING)["scheduleOrError"]["scheduleState"]["ticks"]
    return ticks[-1] if ticks and ticks[-1]["status"] != "STARTED" else None


@pytest.mark.slow
def test_the_daemon_sees_a_schedule_tick_and_the_next_tick_skips(stack):
    warehouse = Warehouse(stack.home / "var" / "warehouse" / "panacea.duckdb")
    with write_lock(warehouse.lock, "the test", 1):  # the run waits for it, and so does not end
        started = stack.ask(START, of=OF_TICKING)["startSchedule"]
        assert started["__typename"] == "ScheduleStateResult", started
        tick = stack.wait("a tick", lambda: first_tick(stack))
        assert tick["status"] == "SUCCESS", tick
        due = datetime.fromtimestamp(tick["timestamp"], UTC)
        assert tick["runKeys"] == [f"ticking {due:%Y-%m-%dT%H:%M}Z"] and due.second == 0
        (run_id,) = tick["runIds"]
        tried = stack.ask(DRY_RUN, of=OF_TICKING, at=tick["timestamp"] + 60)["scheduleDryRun"]
        found = tried["evaluationResult"]
        assert found["error"] is None and not found["runRequests"], found
        assert found["skipReason"].startswith(f"run {run_id[:8]} of ticking is not finished")
        state = stack.ask(SCHEDULE, of=OF_TICKING)["scheduleOrError"]["scheduleState"]
        stopped = stack.ask(STOP, id=state["id"])["stopRunningSchedule"]
        assert stopped["__typename"] == "ScheduleStateResult", stopped
    made = "select distinct seed from facts.products where run_id = ?"
    stack.wait("a product", lambda: warehouse.read(made, [run_id]).num_rows)
    assert warehouse.read(made, [run_id])["seed"].to_pylist() == [int(tick["timestamp"]) // 60]
    run = find_run(stack, runIds=[run_id])
    assert run
    expected = {
        "dagster/schedule_name": "retrain_ticking",
        "dagster/partition": "ticking",
        "dagster/run_key": tick["runKeys"][0],
        "dagster/max_runtime": "1800",
    }
    assert expected.items() <= run["tags"].items()
    os.kill(int(run["tags"][PID_TAG]), signal.SIGTERM)  # tests/test_schedules.py runs all of it
    assert stack.wait("the run's end", lambda: ended(stack, runIds=[run_id]))["status"] != "SUCCESS"


@pytest.mark.slow
def test_the_daemon_looks_what_may_follow_and_how_old_things_are(stack):
    def ticks() -> list[dict[str, Any]]:
        of = {**IN_REPOSITORY, "sensorName": "cheap_assets_follow"}
        state = stack.ask(SENSOR, of=of)["sensorOrError"]["sensorState"]
        assert state["status"] == "RUNNING", "without being started"
        return [tick for tick in state["ticks"] if tick["status"] != "STARTED"]

    stack.wait("a tick of the sensor", ticks)
    assert {tick["status"] for tick in ticks()} == {"SKIPPED"}, "no answers were made here"
    (champion,) = stack.ask(AGE)["assetNodes"]
    assert champion["freshnessStatusInfo"] == {"freshnessStatus": "UNKNOWN"}, "there is none yet"


def read_events(stack: Stack, database: str) -> dict[int, str]:
    """Every event of a database, by its number."""
    connection = stack.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute("select id, event from event_logs")
        found = dict(cursor.fetchall())
    connection.close()
    return found


def documented(word: str) -> str:
    """The command of docs/operations.md that calls `word`, without what enters the container."""
    lines = "\n".join(blocks(PROJECT_ROOT / "docs" / "operations.md", "")).replace("\\\n", " ")
    enter = r"docker compose (?:exec -T postgres|run --rm -T code) "
    (found,) = re.findall(rf"^{enter}({word} .*)$", lines, re.M)
    return found


@pytest.mark.slow
def test_the_documented_backup_is_restored_by_the_documented_commands(stack, tmp_path):
    def run(command: str) -> None:
        env = stack.environment("code") | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(stack.ports["5432"]),
            "PGPASSWORD": stack.password,
        }
        subprocess.run(["sh", "-euc", command], cwd=tmp_path, env=env, check=True)

    database = SERVICES["postgres"]["environment"]["POSTGRES_DB"]
    restored = tmp_path / "restored"
    restored.mkdir()
    before = read_events(stack, database)
    run(documented("pg_dump"))
    run(documented("tar --create").replace("/srv/panacea", str(stack.home)))
    stack.create_database("restored")
    run(documented("psql --username=panacea --quiet").replace(f" {database} ", " restored "))
    run(documented("tar --extract").replace("/srv/panacea", str(restored)))

    # The services go on writing: what stood before is there, and nothing that never was.
    events_restored = read_events(stack, "restored")
    assert before and before.items() <= events_restored.items()
    assert events_restored.items() <= read_events(stack, database).items()
    warehouse = Warehouse(restored / "var" / "warehouse" / "panacea.duckdb")
    assert not warehouse.path.exists() and warehouse.snapshot.exists()
    current = "select key from facts.current where problem = 'tiny'"
    (key,) = warehouse.read(current)["key"].to_pylist()
    assert warehouse.is_complete(key), "and the database is back"
    assert warehouse.path.exists()
    assert (restored / "var" / "problems" / "tiny.yaml").exists()


@pytest.mark.slow
def test_nothing_is_written_outside_the_volume_and_no_log_knows_the_password(stack):
    assert {path.name for path in stack.home.iterdir()} == {"dagster.yaml", "var"}
    for log in stack.folder.glob("*.log"):
        assert stack.password not in log.read_text(), log.name
    database = SERVICES["postgres"]["environment"]["POSTGRES_DB"]
    told = read_events(stack, database).values()
    assert told and not any(stack.password in event for event in told)
