"""What nothing needs any more goes, and only that: products, artifacts, abandoned work, runs."""

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from conftest import panacea
from hypothesis import given, settings
from hypothesis import strategies as st
from small_warehouse import candidate, prompts

from orchestration.old_runs import delete_runs, find_old_runs
from orchestration.resources import WorkspaceResource
from orchestration.upkeep import prune_job
from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.champions import record
from panacea_lib.lease import hold, lease_of
from panacea_lib.prune import Retention, find_prunable, prune
from panacea_lib.warehouse import Product, Warehouse
from panacea_lib.warehouse import database as files
from panacea_lib.workspace import Workspace

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_COMMENTS = """
select table_name, column_name, comment from duckdb_columns() where not internal
order by table_name, column_index
"""


class Lab:
    """A workspace in which things happened on chosen days before NOW."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.warehouse = Warehouse(self.workspace.warehouse)
        self.store = ArtifactStore(self.workspace.artifacts)

    def make(self, key: str, stage: str, days_ago: float, inputs: list[str] | None = None) -> str:
        """A product of problem tiny, shown since then; policies are artifacts too. Its key."""
        key = key * 32
        content = {"stage": stage, "inputs": inputs or []}
        made = Product(key, stage, "", "tiny", "run-1", 1.0, 0, {}, content, "a test")
        if stage in ("base_model", "panacea_policy"):
            with self.store.writer(key) as folder:
                (folder / "weights.safetensors").write_bytes(b"0" * 1000)
        self.warehouse.save_product(made, prompts(f"of {key}") if stage == "prompts" else {})
        then = (NOW - timedelta(days=days_ago)).replace(tzinfo=None)
        with self.warehouse.writer("a test") as connection:
            for table, column in (("products", "created_at"), ("adoptions", "since")):
                connection.execute(
                    f"update facts.{table} set {column} = ? where key = ?", [then, key]
                )
        return key

    def reign(self, policy: str, base: str, before: str | None) -> None:
        """A promotion."""
        event = replace(candidate(policy, problem="tiny"), base_key=base, front_key=None)
        record(self.warehouse, replace(event, action="promoted", incumbent_key=before))

    def found(self, days: int = 30, champions: int = 1) -> set[str]:
        """First digits of what would go."""
        products = find_prunable(self.workspace, Retention(days, champions), NOW).products
        return {product.key[0] for product in products}

    def prune(self, days: int = 30, champions: int = 1) -> None:
        prune(self.workspace, find_prunable(self.workspace, Retention(days, champions), NOW))


@pytest.fixture
def lab(tmp_path) -> Lab:
    return Lab(tmp_path)


def content_of_folder(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_what_was_superseded_long_ago_goes_with_its_artifact_and_rows(lab):
    old = lab.make("a", "prompts", 90)
    old_policy = lab.make("b", "panacea_policy", 90, [old])
    new = lab.make("c", "prompts", 50)
    new_policy = lab.make("d", "panacea_policy", 50, [new])
    found = find_prunable(lab.workspace, Retention(30, 1), NOW)
    assert {p.key for p in found.products} == {old, old_policy}
    assert {p.key: p.rows for p in found.products} == {old: 1, old_policy: 0}
    assert [p.artifact_bytes > 1000 for p in found.products if p.key == old_policy] == [True]
    prune(lab.workspace, found)
    assert lab.store.stored_keys() == [new_policy]
    assert lab.warehouse.read("select key from facts.prompts")["key"].to_pylist() == [new]
    assert set(lab.warehouse.read("select key from facts.products")["key"].to_pylist()) == {
        new,
        new_policy,
    }
    assert lab.warehouse.is_complete(new) and not lab.warehouse.is_complete(old)
    assert lab.found() == set()


def test_what_was_superseded_lately_stays(lab):
    """It counts from when another took its place, not from when it was made."""
    lab.make("a", "prompts", 90)
    lab.make("b", "prompts", 10)
    assert lab.found(days=30) == set()
    assert lab.found(days=5) == {"a"}


def test_what_is_shown_keeps_all_that_it_was_made_from(lab):
    """As after `--select`: newer prompts, and a policy of the older ones."""
    old = lab.make("a", "prompts", 90)
    labels = lab.make("b", "preference_labels", 90, [old])
    lab.make("c", "panacea_policy", 80, [labels])
    lab.make("d", "prompts", 70)
    lab.make("e", "preference_labels", 70)
    assert lab.found() == set()


def test_the_last_champions_stay_with_their_base_models(lab):
    keys = [lab.make(f"{i}", "panacea_policy", 90 - i) for i in (1, 2, 3, 4)]
    base = lab.make("a", "base_model", 90)
    lab.make("b", "base_model", 80)
    for before, key in zip([None, *keys], keys[:3], strict=False):
        lab.reign(key, base, before)
    assert lab.found(champions=1) == {"1", "2"}
    assert lab.found(champions=2) == {"1"}
    assert lab.found(champions=9) == set()


def test_a_rollback_to_a_pruned_champion_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path))
    lab = Lab(tmp_path)
    base = lab.make("a", "base_model", 90)
    first, second = (lab.make(digit, "panacea_policy", 80) for digit in "bc")
    lab.reign(first, base, None)
    lab.reign(second, base, first)
    lab.prune(days=0)
    refused = panacea("champion", "rollback", "tiny")
    assert refused.code == 1 and f"artifact {first}" in refused.err, refused.err


def test_a_policy_that_a_problem_names_stays(lab, tmp_path, monkeypatch):
    folder = tmp_path / "problems"
    folder.mkdir()
    pinned = lab.make("a", "panacea_policy", 90)
    lab.make("b", "panacea_policy", 80)
    text = f"name: pins\nextends: tiny\npairs: {{policy: {pinned}}}\n"
    (folder / "pins.yaml").write_text(text)
    both = os.pathsep.join([os.environ["PANACEA_PROBLEMS"], str(folder)])
    assert lab.found() == {"a"}
    monkeypatch.setenv("PANACEA_PROBLEMS", both)
    assert lab.found() == set()


def test_a_bad_problem_file_stops_it_since_it_may_name_a_policy(tmp_path, monkeypatch):
    folder = tmp_path / "problems"
    folder.mkdir()
    (folder / "bad.yaml").write_text("name: bad\nextends: demo\npairs: {polcy: 3}\n")
    both = os.pathsep.join([os.environ["PANACEA_PROBLEMS"], str(folder)])
    monkeypatch.setenv("PANACEA_PROBLEMS", both)
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path / "home"))
    refused = panacea("prune")
    assert refused.code == 2 and "polcy" in refused.err
    assert not (tmp_path / "home").exists()


def test_unfinished_work_goes_when_it_is_old_and_strange_artifacts_stay(lab):
    fresh, stale, strange = ("1" * 32, "2" * 32, "3" * 32)
    for key in (fresh, stale):
        (lab.store.working_dir(key) / "checkpoint").touch()
    for path in (lab.store.working_dir(stale), lab.store.working_dir(stale) / "checkpoint"):
        os.utime(path, (0, 0))
    with lab.store.writer(strange) as folder:
        (folder / "weights.safetensors").touch()
    found = find_prunable(lab.workspace, Retention(30), datetime.now(UTC))
    assert (found.unfinished, found.unknown) == ([stale], [strange])
    prune(lab.workspace, found)
    assert list(lab.store.unfinished()) == [fresh]
    assert lab.store.stored_keys() == [strange]


def test_work_that_somebody_has_taken_up_again_stays(lab):
    key = "1" * 32
    os.utime(lab.store.working_dir(key), (0, 0))
    found = find_prunable(lab.workspace, Retention(30), datetime.now(UTC))
    assert found.unfinished == [key]
    with hold(lease_of(lab.store.working_dir(key)), "a training", 0):
        prune(lab.workspace, found)
        assert list(lab.store.unfinished()) == [key]
    prune(lab.workspace, found)
    assert not lab.store.unfinished()


def test_looking_changes_nothing(lab, tmp_path):
    lab.make("a", "panacea_policy", 90)
    lab.make("b", "panacea_policy", 80)
    before = content_of_folder(tmp_path)
    assert lab.found() == {"a"}
    assert content_of_folder(tmp_path) == before


def test_what_died_in_the_middle_is_finished_by_the_next(lab, monkeypatch):
    lab.make("a", "panacea_policy", 90)
    lab.make("b", "panacea_policy", 80)
    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "delete_products", lambda *_: os.kill(os.getpid(), 0) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lab.prune()
    assert lab.store.stored_keys() == ["b" * 32] and lab.found() == {"a"}
    lab.prune()
    assert lab.found() == set()


def test_the_file_gives_its_space_back_and_a_copy_that_died_harms_nothing(lab, monkeypatch):
    with lab.warehouse.writer("a test") as connection:
        connection.execute(
            "create table facts.large as select md5(i::varchar) from range(600000) t(i)"
        )
    size = lab.workspace.warehouse.stat().st_size
    with lab.warehouse.writer("a test") as connection:
        connection.execute("drop table facts.large")
    kept = lab.make("a", "prompts", 1)
    comments = lab.warehouse.read(_COMMENTS).to_pylist()
    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lab.warehouse.delete_products([], "a test")
    assert lab.warehouse.is_complete(kept)
    lab.warehouse.delete_products([], "a test")
    assert lab.workspace.warehouse.stat().st_size < size / 2
    assert lab.warehouse.is_complete(kept)
    lab.make("b", "prompts", 0)  # the copy takes writes, with its keys and constraints
    assert lab.warehouse.read(_COMMENTS).to_pylist() == comments, "it explains itself still"


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(st.sampled_from(["prompts", "pairs", "panacea_policy"]), st.integers(0, 90)),
        min_size=1,
        max_size=7,
    ),
    st.integers(0, 60),
)
def test_whatever_the_policy_what_is_shown_is_whole(tmp_path_factory, history, days):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    made: list[str] = []
    for digit, (stage, age) in zip("1234567", sorted(history, key=lambda h: -h[1]), strict=False):
        made.append(lab.make(digit, stage, age, made[-1:]))
    shown = set(lab.warehouse.read("select key from facts.current")["key"].to_pylist())
    lab.prune(days=days)
    left = lab.warehouse.read("select key, content::varchar as content from facts.origins")
    inputs = {k: json.loads(c)["inputs"] for k, c in zip(*left.to_pydict().values(), strict=True)}
    assert shown <= inputs.keys()
    for key in shown:
        while key:  # back to the first input
            assert lab.warehouse.is_complete(key)
            key = next(iter(inputs[key]), None)


# ---- runs


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["one", "two"]))
def thing(context: dg.AssetExecutionContext) -> None:
    context.log.info("made")
    print("printed")


def test_old_runs_go_but_those_that_the_pages_need(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        runs = {
            name: [
                dg.materialize([thing], partition_key=name, instance=instance).run_id
                for _ in range(times)
            ]
            for name, times in (("one", 3), ("two", 1))
        }
        assert find_old_runs(instance, datetime.now(UTC) - timedelta(days=1)) == []
        time.sleep(0.01)
        old = find_old_runs(instance, datetime.now(UTC))
        assert sorted(old) == sorted(runs["one"][:2])
        logs = Path(instance.storage_directory())
        assert all((logs / run).exists() for run in old)
        delete_runs(instance, old)
        assert {r.run_id for r in instance.get_runs()} == {runs["one"][2], *runs["two"]}
        assert not any((logs / run).exists() for run in old)
        assert instance.get_materialized_partitions(thing.key) == {"one", "two"}
        assert not [p for run in old for p in tmp_path.rglob(f"*{run}*")]


# ---- the command and the job


def test_the_command_says_what_would_go(chain):
    told = panacea("prune", "--days", "0", "--dry-run")
    assert told.code == 0, told.err
    assert "would remove 0 products" in told.out


def test_the_command_and_the_job_remove_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path))
    lab = Lab(tmp_path)
    lab.make("a", "panacea_policy", 90)
    lab.make("b", "panacea_policy", 80)
    told = panacea("prune", "--dry-run")
    assert told.code == 0 and "would remove 1 of tiny, panacea_policy" in told.out, told.err
    assert lab.store.is_complete("a" * 32)
    told = panacea("prune")
    assert told.code == 0 and "removing 1 products in all" in told.out, told.err
    assert not lab.store.is_complete("a" * 32)
    lab.make("c", "panacea_policy", 70)
    with dg.instance_for_test() as instance:
        done = prune_job.execute_in_process(
            instance=instance,
            resources={"workspace": WorkspaceResource()},
            run_config={"ops": {"remove_superseded": {"config": {"days": 0}}}},
        )
        assert done.success
        said = [record.user_message for record in instance.all_logs(done.run_id)]
    assert any("removing 1 of tiny" in line for line in said)
    assert lab.store.stored_keys() == ["c" * 32]
