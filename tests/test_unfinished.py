"""Which runs have not ended: those of living processes, and not those that were killed."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest

from orchestration.definitions import CHAIN, defs
from orchestration.unfinished import process_tag, unfinished_runs

STARTED = dg.DagsterRunStatus.STARTED
TAG = "import orchestration.unfinished as u; print(*u.process_tag().values(), flush=True); input()"


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


def start(instance: dg.DagsterInstance, problem: str, tags: dict[str, str]) -> str:
    """A run of the chain in Dagster's storage, in progress; its id."""
    job = defs.resolve_job_def(CHAIN.name)
    tags = {"dagster/partition": problem, **tags}
    return instance.create_run_for_job(job, tags=tags, status=STARTED).run_id


def unfinished(instance: dg.DagsterInstance, problem: str | None = None) -> list[str]:
    return [record.dagster_run.run_id for record in unfinished_runs(instance, problem)]


def test_a_run_counts_until_it_ends(instance):
    run = start(instance, "tiny", process_tag())
    watched = start(instance, "tiny", {})
    other = start(instance, "demo", {})
    assert unfinished(instance, "tiny") == [watched, run]
    assert set(unfinished(instance)) == {run, watched, other}
    instance.report_run_canceled(instance.get_run_by_id(watched))
    assert unfinished(instance, "tiny") == [run]


def test_a_run_whose_process_was_killed_has_failed(instance):
    child = subprocess.Popen(
        [sys.executable, "-c", TAG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    (name,) = process_tag()
    run = start(instance, "tiny", {name: child.stdout.readline().strip()})
    assert unfinished(instance, "tiny") == [run]
    child.kill()
    child.wait()
    assert unfinished(instance, "tiny") == []
    found = instance.get_run_by_id(run)
    assert found is not None and found.status == dg.DagsterRunStatus.FAILURE
    assert any("was killed" in record.message for record in instance.all_logs(run))


@pytest.mark.parametrize(
    ("host", "counts"),
    [(socket.gethostname(), False), ("elsewhere", True)],
    ids=["this host", "another host"],
)
def test_only_a_process_of_this_host_is_known_to_be_gone(instance, host, counts):
    (name,) = process_tag()
    run = start(instance, "tiny", {name: f"{host} 1 12.00"})  # process 1 is another by now
    assert unfinished(instance) == ([run] if counts else [])
