"""One writer, whole snapshots, and nothing that a crash or a user deletes is lost for good."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from small_warehouse import product, prompts, shown

from panacea_lib.errors import MissingUpstreamError
from panacea_lib.warehouse import SchemaVersionError, Warehouse
from panacea_lib.warehouse import database as database_module


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(tmp_path / "panacea.duckdb", lock_timeout=20)


def alter(path: Path, sql: str) -> None:
    """What a user with a DuckDB shell may do to the file."""
    with duckdb.connect(path) as connection:
        connection.execute(sql)


def test_saved_rows_come_back_as_they_were(warehouse):
    texts = [f"text {i:05}" for i in reversed(range(5000))]
    warehouse.save_product(product("a1"), prompts(*texts))
    rows = warehouse.rows("prompts", "a1")
    assert rows.equals(prompts(*texts)["prompts"])
    assert warehouse.rows("prompts", "a1", order_by="text")["text"][0].as_py() == "text 00000"
    (line,) = warehouse.read("from facts.products").to_pylist()
    assert (line["stage"], line["problem"], line["seed"]) == ("prompts", "demo", 7)
    assert json.loads(line["row_counts"]) == {"prompts": 5000}
    assert json.loads(line["details"]) == {"note": "λ"}


def test_same_key_replaces_and_new_key_adds(warehouse):
    warehouse.save_product(product("a1"), prompts("old", "older"))
    warehouse.save_product(product("a1"), prompts("new"))
    assert shown(warehouse) == ["new"]
    warehouse.save_product(product("a2"), prompts("newest"))
    assert shown(warehouse) == ["newest"], "views show the newest"
    assert warehouse.rows("prompts", "a1")["text"].to_pylist() == ["new"]
    history = warehouse.read("select key, is_current from runs_history").to_pylist()
    assert history == [{"key": "a1", "is_current": False}, {"key": "a2", "is_current": True}]
    assert warehouse.is_complete("a1") and warehouse.is_complete("a2")


def test_several_products_are_saved_together_or_not_at_all(warehouse):
    warehouse.save_product(product("a0"), prompts("kept"))
    bad = {"prompts": pa.table({"prompt_id": ["x"], "txet": ["y"]})}
    with pytest.raises(ValueError, match=r"lack the columns \['split', 'text'\].*\['txet'\]"):
        warehouse.save_products([(product("a1"), prompts("lost")), (product("a2"), bad)])
    assert shown(warehouse) == ["kept"] and not warehouse.is_complete("a1")
    parts = [(product(key, "reward_models", key), {}) for key in ("b1", "b2")]
    warehouse.save_products(parts)
    assert warehouse.is_complete("b1") and warehouse.is_complete("b2")


@pytest.mark.parametrize("table", ["nonsense", "products", "current", "schema_version"])
def test_rows_go_to_tables_of_rows_only(warehouse, table):
    with pytest.raises(ValueError, match="not a table of rows"):
        warehouse.save_product(product("a1"), {table: pa.table({"x": [1]})})


def test_wrong_values_are_refused_and_nothing_is_saved(warehouse):
    rows = {"prompts": pa.table({"prompt_id": ["1"], "split": [None], "text": ["x"]})}
    with pytest.raises(duckdb.ConstraintException, match="split"):
        warehouse.save_product(product("a1"), rows)
    assert not warehouse.is_complete("a1")


def test_an_exception_rolls_back_and_publishes_nothing(warehouse):
    warehouse.save_product(product("a1"), prompts("kept"))
    before = warehouse.snapshot.stat()
    with pytest.raises(RuntimeError, match="boom"), warehouse.writer("test") as connection:
        warehouse.replace_rows(connection, "prompts", "a1", prompts("lost")["prompts"])
        raise RuntimeError("boom")
    assert warehouse.snapshot.stat() == before and shown(warehouse) == ["kept"]
    opens = "import duckdb, sys; duckdb.connect(sys.argv[1]).close()"  # no handle was leaked
    subprocess.run([sys.executable, "-c", opens, str(warehouse.path)], check=True)
    warehouse.save_product(product("a1"), prompts("saved"))
    assert shown(warehouse) == ["saved"]


def test_the_snapshot_is_a_read_only_copy_and_nothing_else_is_left(warehouse):
    warehouse.save_product(product("a1"), prompts("x"))
    assert stat.S_IMODE(warehouse.snapshot.stat().st_mode) == 0o444
    assert warehouse.snapshot.read_bytes() == warehouse.path.read_bytes()
    left = sorted(path.name for path in warehouse.path.parent.iterdir())
    assert left == ["panacea.duckdb", "panacea.duckdb.lock", "panacea.snapshot.duckdb"]
    assert warehouse.lock.read_text() == "", "nobody holds it now"


def test_an_unknown_key_is_incomplete_and_creates_nothing(warehouse):
    assert not warehouse.is_complete("a1")
    assert not list(warehouse.path.parent.iterdir())
    with pytest.raises(MissingUpstreamError, match="panacea materialize demo"):
        warehouse.rows("prompts", "a1")


@pytest.mark.parametrize(
    ("damage", "complete"),
    [
        ("drop table facts.prompts cascade", False),
        ("delete from facts.prompts where text = 'x'", False),
        ("insert into facts.prompts values ('a1', 'i', 'train', 'more')", False),
        ("drop table facts.products cascade", False),
        ("drop schema facts cascade", False),
        ("drop table facts.current cascade", True),
        ("drop table facts.adoptions cascade", True),
        ("drop table facts.generations cascade", True),  # none of this product's rows
        ("drop table facts.schema_version", True),
        ("drop view runs", True),
    ],
)
def test_what_a_user_drops_is_restored(warehouse, damage, complete):
    warehouse.save_product(product("a1"), prompts("x", "y"))
    intact = warehouse.read("select table_name from duckdb_tables() order by 1")
    alter(warehouse.path, damage)
    assert warehouse.is_complete("a1") is complete
    if complete:
        warehouse.mark_current("demo", "prompts", "", "a1")
    else:
        warehouse.save_product(product("a1"), prompts("x", "y"))
    assert warehouse.is_complete("a1") and shown(warehouse) == ["x", "y"]
    assert warehouse.read("select table_name from duckdb_tables() order by 1").equals(intact)
    assert warehouse.read("from runs")["rows"].to_pylist() == [2]


def test_a_deleted_snapshot_is_published_again(warehouse):
    warehouse.save_product(product("a1"), prompts("x"))
    warehouse.snapshot.unlink()
    assert warehouse.is_complete("a1") and shown(warehouse) == ["x"]
    warehouse.close()
    warehouse.snapshot.chmod(0o644)
    alter(warehouse.snapshot, "delete from facts.prompts")
    assert warehouse.is_complete("a1") and shown(warehouse) == ["x"]


def test_a_deleted_database_returns_from_its_snapshot(warehouse):
    warehouse.save_products([(product("a1"), prompts("x")), (product("a2", part="p"), {})])
    warehouse.path.unlink()
    warehouse.path.with_name("panacea.duckdb.wal").write_bytes(b"of the file that is gone")
    assert warehouse.is_complete("a1")
    warehouse.save_product(product("a3", part="q"), prompts("y"))
    assert warehouse.is_complete("a2") and shown(warehouse) == ["x", "y"]


def test_with_everything_deleted_we_start_afresh(warehouse):
    warehouse.save_product(product("a1"), prompts("x"))
    warehouse.path.unlink()
    warehouse.snapshot.unlink()
    assert not warehouse.is_complete("a1")
    warehouse.save_product(product("a1"), prompts("x"))
    assert warehouse.is_complete("a1")


@pytest.mark.parametrize(("version", "remedy"), [(2, "update this project"), (0, "move the file")])
def test_another_schema_version_is_refused_untouched(warehouse, version, remedy):
    warehouse.save_product(product("a1"), prompts("x"))
    alter(warehouse.path, f"update facts.schema_version set version = {version}")
    before = warehouse.path.read_bytes()
    with pytest.raises(SchemaVersionError, match=f"version {version}.*knows 1.*{remedy}"):
        warehouse.save_product(product("a1"), prompts("y"))
    with pytest.raises(SchemaVersionError):
        warehouse.is_complete("a1")
    assert warehouse.path.read_bytes() == before


def test_new_views_are_published_by_the_next_run_even_if_all_is_reused(warehouse, monkeypatch):
    warehouse.save_product(product("a1"), prompts("x"))
    newer = [*database_module._SQL, "create or replace view brand_new as select 1 as one"]
    monkeypatch.setattr(database_module, "_SQL", newer)
    monkeypatch.setattr(database_module, "DEFINITIONS", "newer")
    assert warehouse.is_complete("a1")
    assert warehouse.read("from brand_new").to_pylist() == [{"one": 1}]


def test_marking_what_is_shown_already_touches_nothing(warehouse):
    warehouse.save_products([(product("a1"), prompts("one")), (product("a2"), prompts("two"))])
    before = warehouse.snapshot.stat()
    assert warehouse.mark_current("demo", "prompts", "", "a2") is False
    now = warehouse.snapshot.stat()  # reading it may move its atime
    assert (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert warehouse.mark_current("demo", "prompts", "", "a1") is True
    assert shown(warehouse) == ["one"]
    assert warehouse.mark_current("other", "prompts", "", "a1") is True
    assert warehouse.read("select problem from runs order by 1")["problem"].to_pylist() == [
        "demo", "other",
    ]  # fmt: skip
    with pytest.raises(MissingUpstreamError, match="holds no product ff of stage prompts"):
        warehouse.mark_current("demo", "prompts", "", "ff")


def test_retired_parts_are_history(warehouse):
    for method in ("dpo", "soups"):
        warehouse.save_product(product(f"key-{method}", "baseline_policies", method), {})
    assert warehouse.retire_parts("demo", "baseline_policies", keep=["dpo"]) is True
    assert warehouse.retire_parts("demo", "baseline_policies", keep=["dpo"]) is False
    assert warehouse.read("from runs")["part"].to_pylist() == ["dpo"]
    assert warehouse.read("from runs_history")["part"].to_pylist() == ["dpo", "soups"]
    assert warehouse.is_complete("key-soups")


def test_a_slow_query_prints_nothing(tmp_path):
    """DuckDB 2.0 draws a progress bar on stdout after two seconds, in any process."""
    warehouse = Warehouse(tmp_path / "panacea.duckdb")
    asked = "select current_setting('enable_progress_bar') as bar"
    with warehouse.writer("test") as connection:
        assert connection.execute(asked).fetchall() == [(False,)]
    assert warehouse.read(asked)["bar"].to_pylist() == [False]
