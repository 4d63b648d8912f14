"""New data through the real sensor, the command line and the chain of `tiny`."""

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest
from conftest import TESTS, Finished, panacea
from inbox_files import drop_folder

from orchestration import new_data as sensor_module
from orchestration.definitions import CHAIN, defs
from orchestration.new_data import new_data
from orchestration.resources import WorkspaceResource
from panacea_lib.plan_content import STAGE_VERSIONS
from panacea_lib.problem_files import load_problem
from panacea_lib.received import received_files
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace
from panacea_lib.world.data import world_prompts

TINY = TESTS / "problems" / "tiny.yaml"


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """An empty workspace of the test's own; to the sensor files are complete at once."""
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sensor_module, "SETTLED", 0)
    return Workspace.current()


def prompts() -> list[str]:
    data = load_problem(TINY).data
    return [prompt.text for prompt in world_prompts(data, 0)]  # pyright: ignore[reportArgumentType]


def drop(workspace: Workspace, name: str, *answers: tuple[str, str], problem: str = "tiny") -> Path:
    """A file of pairs, one for each two answers, about as many prompts."""
    rows = [
        {"prompt": p, "response_a": a, "response_b": b, "helpfulness": "a", "harmlessness": 0.25}
        for p, (a, b) in zip(prompts(), answers, strict=False)
    ]
    path = drop_folder(workspace, problem) / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


PAIR = ("sure : reward effort .", "sorry : ask around .")
OTHER = ("sorry . this is dangerous .", "whatever")


@pytest.fixture
def instance():
    with dg.instance_for_test() as found:
        yield found


class Tick:
    """What one evaluation of the sensor comes to, as the daemon is told it."""

    def __init__(self, instance: dg.DagsterInstance, cursor: str | None = None) -> None:
        context = dg.build_sensor_context(
            instance=instance,
            cursor=cursor,
            definitions=defs,
            resources={"workspace": WorkspaceResource()},
        )
        found = new_data.evaluate_tick(context)
        self.cursor = found.cursor or cursor
        self.skipped = found.skip_message or ""
        self.requests = found.run_requests or []

    @property
    def launched(self) -> list[str | None]:
        return [request.partition_key for request in self.requests]


# ---- the sensor


def test_without_folders_nothing_is_looked_at(workspace, instance):
    assert Tick(instance).skipped == "no new files"
    assert not workspace.root.exists()


def test_one_run_for_each_change_of_what_was_received(workspace, instance):
    drop(workspace, "monday.jsonl", PAIR)
    first = Tick(instance)
    assert first.launched == ["tiny"]
    assert first.requests[0].tags["dagster/partition"] == "tiny"
    again = Tick(instance, first.cursor)
    assert again.launched == [] and again.skipped == "no new files"
    drop(workspace, "copy.jsonl", PAIR)
    duplicate = Tick(instance, first.cursor)
    assert duplicate.launched == [] and "set aside copy.jsonl" in duplicate.skipped
    drop(workspace, "tuesday.jsonl", OTHER)
    second = Tick(instance, first.cursor)
    assert second.launched == ["tiny"]
    keys = {tick.requests[0].run_key for tick in (first, second)}
    assert len(keys) == 2
    lost = Tick(instance)  # a cursor that is lost: Dagster knows the run key and starts nothing
    assert lost.requests[0].run_key == second.requests[0].run_key


def test_what_was_received_by_hand_or_by_a_tick_that_died_gets_its_run(workspace, instance):
    drop(workspace, "monday.jsonl", PAIR)
    assert panacea("inbox", "tiny", "--settled", "0").code == 0
    assert Tick(instance).launched == ["tiny"]


def test_a_bad_file_is_set_aside_and_said_and_starts_nothing(workspace, instance):
    drop(workspace, "bad.jsonl", PAIR).write_text("{")
    tick = Tick(instance)
    assert tick.launched == []
    assert tick.skipped.startswith("tiny: refused bad.jsonl: bad.jsonl, line 1: this is not JSON")


def test_it_waits_while_a_run_of_the_problem_has_not_ended(workspace, instance):
    path = drop(workspace, "monday.jsonl", PAIR)
    run = instance.create_run_for_job(
        defs.resolve_job_def(CHAIN.name),
        tags={"dagster/partition": "tiny"},
        status=dg.DagsterRunStatus.STARTED,
    )
    tick = Tick(instance)
    assert tick.launched == [] and tick.skipped == f"tiny: waits for the end of run {run.run_id}"
    assert path.exists(), "the run's later stages would be of other data than its first"
    instance.report_run_canceled(run)
    assert Tick(instance).launched == ["tiny"]


def test_the_other_problems_go_on(workspace, instance):
    drop(workspace, "a.jsonl", PAIR, problem="demo3")  # it has no inbox
    drop(workspace, "a.jsonl", PAIR, problem="tiny")
    first = Tick(instance)
    assert first.launched == ["tiny"]
    second = Tick(instance, first.cursor)
    assert "demo3 takes no new files; give it a section `inbox`" in second.skipped


def test_a_tick_takes_no_file_after_its_time_and_none_that_is_too_large(
    workspace, instance, monkeypatch
):
    drop(workspace, "a.jsonl", PAIR)
    drop(workspace, "b.jsonl", OTHER)
    with monkeypatch.context() as patch:
        patch.setattr(sensor_module, "_TICK", -1.0)
        first = Tick(instance)
    assert len(received_files("tiny", workspace)) == 1
    second = Tick(instance, first.cursor)
    assert second.launched == ["tiny"]
    assert len(received_files("tiny", workspace)) == 2
    large = drop(workspace, "c.jsonl", PAIR, OTHER)
    monkeypatch.setattr(sensor_module, "LARGEST", large.stat().st_size - 1)
    assert "left c.jsonl" in (skipped := Tick(instance, second.cursor).skipped)
    assert "run `panacea inbox tiny`" in skipped and large.exists()


# ---- the command


def test_the_command_says_what_became_of_each_file(workspace):
    drop(workspace, "good.jsonl", PAIR, OTHER)
    drop(workspace, "new.jsonl.part", PAIR)
    assert "no new files in" in panacea("inbox", "demo-small").out
    found = panacea("inbox", "tiny")
    assert found.code == 0 and "tiny: left good.jsonl: it changed less than 30 s ago" in found.out
    dry = panacea("inbox", "tiny", "--dry-run", "--settled", "0")
    assert dry.code == 0 and "(dry run) received good.jsonl: 2 pairs of 2 rows" in dry.out
    assert received_files("tiny", workspace) == []
    drop(workspace, "bad.jsonl").write_text("{")
    found = panacea("inbox", "--settled", "0")
    assert found.code == 2
    assert "tiny: received good.jsonl: 2 pairs" in found.out
    assert "tiny: refused bad.jsonl: bad.jsonl, line 1" in found.out
    assert "tiny: left new.jsonl.part" in found.out
    assert "`panacea materialize tiny` makes what follows" in found.out
    drop(workspace, "again.jsonl", PAIR, OTHER)
    found = panacea("inbox", "tiny", "--settled", "0")
    assert found.code == 0, "a duplicate is nobody's mistake"
    assert "set aside again.jsonl: the same content was received already" in found.out


def test_the_command_refuses_a_problem_that_takes_none(workspace):
    found = panacea("inbox", "demo3")
    assert found.code == 2 and "demo3 takes no new files" in found.err
    assert panacea("inbox", "nobody").code == 2


# ---- the chain


def labels(warehouse: Warehouse) -> dict[tuple[str, str], float]:
    """(pair, dimension) → the current label of `tiny`."""
    rows = warehouse.read(
        "select l.pair_id, l.dimension, l.label from facts.preference_labels l "
        "join facts.adoptions a on a.key = l.key and a.problem = 'tiny' "
        "where a.stage = 'preference_labels' qualify a.since = max(a.since) over ()"
    )
    return {(r["pair_id"], r["dimension"]): r["label"] for r in rows.to_pylist()}


def told(finished: Finished) -> dict[str, str]:
    """Stage and part → built, reused or restored."""
    assert finished.code == 0, finished.err
    lines = [line.split("✓ ")[1].split("  ") for line in finished.err.splitlines() if "✓ " in line]
    return {words[0].strip(): words[1].strip() for words in lines}


@pytest.mark.slow
def test_new_data_is_recomputed_from_and_the_rest_reused(chain, tmp_path, monkeypatch):
    home = shutil.copytree(Workspace.current().root, tmp_path / "home")
    monkeypatch.setenv("PANACEA_HOME", str(home))
    workspace = Workspace.current()
    warehouse = Warehouse(workspace.warehouse)
    before = labels(warehouse)
    decisions = "select count(*) as n from champion_history where problem = 'tiny'"
    count = warehouse.read(decisions)["n"][0].as_py()
    assert set(told(panacea("materialize", "tiny")).values()) == {"reused"}
    drop(workspace, "monday.jsonl", *[PAIR, OTHER] * 20)
    assert "received monday.jsonl: 40 pairs" in panacea("inbox", "tiny", "--settled", "0").out

    done = told(panacea("materialize", "tiny"))
    kept = {name for name, action in done.items() if action == "reused"}
    assert kept == {"prompts", "base_model"}
    assert set(done.values()) == {"reused", "built"}
    assert {name.split(" ")[0] for name in done} == set(STAGE_VERSIONS)
    after = labels(warehouse)
    assert {key: after[key] for key in before} == before, "what was known is as it was"
    new = [after[key] for key in after.keys() - before.keys()]
    assert sorted(new) == [0.25] * 40 + [1.0] * 40
    assert warehouse.read(decisions)["n"][0].as_py() == count + 1
    assert set(told(panacea("materialize", "tiny")).values()) == {"reused"}
