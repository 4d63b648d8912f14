"""The chain survives what happens to it; benchmarks/faults.md has the whole table."""

import shutil
import sqlite3
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
import torch

from benchmarks.fault_cases import checkpoint_states, small_disk
from benchmarks.fault_world import (
    Ended,
    State,
    completed,
    half_tables,
    kill,
    run,
    start,
    state_of,
    stored,
)
from orchestration.disk_full import disk_full_message
from panacea_lib.trainers import last_complete_checkpoint
from panacea_lib.workspace import Workspace

pytestmark = pytest.mark.slow
SELECTED = ("panacea_policy", "generations", "pareto_front")
SELECT = ("--select", ",".join(SELECTED))
# What a problem shows and when it began to: other tests may have shown more before.
_SHOWING = {"rows current", "rows adoptions", "rows champion_events"}


@pytest.fixture
def whole(chain, tmp_path) -> Path:
    """A copy of the workspace in which the whole chain ran."""
    return shutil.copytree(Workspace.current().root, tmp_path / "home")


@pytest.fixture
def begun(whole) -> tuple[Path, State]:
    """Without the policy and what follows from it; and what was there.

    Products that another problem of the workspace shows too stay: a run of `tiny` gives those back
    to `tiny` only.
    """
    expected = state_of(whole)
    with duckdb.connect(Workspace(whole).warehouse) as connection:
        keys = [
            key
            for (key,) in connection.execute(
                "select key from facts.current where list_contains(?, stage) "
                "group by key having bool_and(problem = 'tiny')",
                [list(SELECTED)],
            ).fetchall()
        ]
        tables = connection.execute(
            "select table_name from duckdb_columns() where schema_name = 'facts' "
            "and column_name = 'key'"
        ).fetchall()
        for (table,) in tables:
            connection.execute(f"delete from facts.{table} where list_contains(?, key)", [keys])
    for key in keys:
        shutil.rmtree(whole / "var" / "artifacts" / key, ignore_errors=True)
    return whole, expected


def killed_when(home: Path, happened: Callable[[], bool]) -> None:
    """Begin a run, and kill it when something has happened."""
    process = start(home, *SELECT, problem="tiny")
    deadline = time.monotonic() + 300
    while not happened():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline, "nothing happened in five minutes"
        time.sleep(0.01)
    kill(process)


def finish(home: Path, *arguments: str) -> Ended:
    ended = run(home, *(arguments or SELECT), problem="tiny")
    assert ended.code == 0, ended.told
    return ended


def check(home: Path, expected: State) -> None:
    """Nothing is half, and all is as if nothing had happened."""
    assert half_tables(home) == []
    assert set(expected.differences(state_of(home))) <= _SHOWING


def checkpoints(home: Path) -> list[Path]:
    """The complete ones of trainings that have not ended, the newest last."""
    complete = {last_complete_checkpoint(s.parent.parent) for s in checkpoint_states(home)}
    return sorted((Path(c) for c in complete if c), key=lambda path: int(path.name.split("-")[1]))


def test_killed_in_three_places_and_a_checkpoint_cut_short(begun):
    """In a training, between an artifact and its rows, and after some rows; then it ends."""
    home, expected = begun
    kept, sealed = completed(home), stored(home)

    killed_when(home, lambda: len(checkpoints(home)) > 0)
    optimizer = checkpoints(home)[-1] / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    assert optimizer.parent not in checkpoints(home)
    killed_when(home, lambda: len(stored(home)) > len(sealed))
    sealed = stored(home)
    killed_when(home, lambda: len(completed(home)) > len(kept) + 1)
    kept = completed(home)
    finish(home)
    check(home, expected)
    assert {key: completed(home)[key] for key in kept} == kept, "what was done is not done again"
    assert {key: stored(home)[key] for key in sealed} == sealed


def test_a_full_disk_is_one_sentence_and_then_it_goes_on(begun):
    home, expected = begun
    try:
        subprocess.run(["unshare", "--mount", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root")
    with small_disk(home / "var" / "artifacts" / ".work", 100_000) as enlarge:
        failed = run(home, *SELECT, problem="tiny")
        assert failed.code == 1
        (told,) = [line for line in failed.told.splitlines() if "the disk is full" in line]
        assert told.startswith("panacea_policy failed: the disk is full (")
        assert f"mostly under {home}/var, then run the same command again" in told
        assert "Traceback" not in failed.told
        enlarge()
        finish(home)
    check(home, expected)


def test_a_flipped_bit_is_named_and_the_remedy_helps(whole):
    expected = state_of(whole)
    with duckdb.connect(Workspace(whole).warehouse, read_only=True) as connection:
        (key,) = connection.execute(
            "select key from facts.current where problem = 'tiny' and stage = 'panacea_policy'"
        ).fetchone() or ("",)
    folder = whole / "var" / "artifacts" / key
    file = folder / "panacea" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    failed = run(whole, "--select", "report", problem="tiny")
    assert failed.code == 1
    assert "panacea/adapter_model.safetensors was changed after it was stored" in failed.told
    assert f"Delete the artifact (the folder {folder}) and materialize its asset" in failed.told
    shutil.rmtree(folder)
    finish(whole, "--select", "panacea_policy,report")
    check(whole, expected)


def test_a_database_is_read_while_its_log_is_folded_into_it(tmp_path, monkeypatch):
    """By the writer's checkpoint, between the copy of the one file and that of the other."""
    path = Workspace(tmp_path).warehouse
    path.parent.mkdir(parents=True)
    writer = duckdb.connect(path)
    writer.execute("create schema facts")
    writer.execute("create table facts.products as select '' as key, now()::timestamp created_at")
    copyfile = shutil.copyfile

    def checkpoint_first(source: Path, target: Path) -> None:
        if source.suffix == ".wal":
            writer.execute("checkpoint")
            assert not source.exists()
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", checkpoint_first)
    assert path.with_name(f"{path.name}.wal").exists()
    assert completed(tmp_path).keys() == {""}


# ---- what a full disk says


def _write_text() -> None:
    Path("/dev/full").write_text("x" * 100_000)


def _duckdb() -> None:
    with duckdb.connect() as connection:
        connection.execute("copy (from range(100000)) to '/dev/full' (format csv)")


def _torch() -> None:
    torch.save({"a": torch.zeros(1_000_000)}, "/dev/full")


@pytest.mark.parametrize("write", [_write_text, _duckdb, _torch])
def test_a_full_disk_is_known_by_what_libraries_say(write):
    """The kernel's /dev/full refuses every byte as a full disk does."""
    try:
        write()
    except Exception as error:
        told = disk_full_message("".join(traceback.format_exception(error)))
    else:
        raise AssertionError("it was written")
    assert told and told.startswith("the disk is full (")
    assert "free space" in told and "run the same command again" in told


def test_other_errors_are_not_taken_for_a_full_disk():
    for error in (ValueError("no"), OSError(13, "Permission denied"), sqlite3.OperationalError()):
        assert disk_full_message(f"{type(error).__name__}: {error}") is None
    assert disk_full_message("sqlite3.OperationalError: disk I/O error") is None, "there is space"
