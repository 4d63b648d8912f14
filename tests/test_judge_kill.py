"""A judge's job is killed: it is finished in the end, and nothing is paid for twice."""

import os
import random
import signal
import sqlite3
import time

import psutil
import pyarrow.parquet as pq
import pytest
from filelock import FileLock, Timeout
from judge_gateway import running_gateway
from judge_jobs import lengths, make_job, run_job, started_job

from panacea_lib.labelling.judge import judge_pairs
from panacea_lib.labelling.judge_job import JudgeError

LATENCY = 0.02


@pytest.fixture
def gateway():
    with running_gateway(LATENCY) as running:
        yield running


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def is_free(job) -> bool:
    """Whether no asking process is at the cache any more."""
    try:
        with FileLock(f"{job.cache}.lock", timeout=0):
            return True
    except Timeout:
        return False


def answers(job) -> int:
    with sqlite3.connect(job.cache, timeout=60) as cache:
        (count,) = cache.execute("select count(*) from answers").fetchone()
    cache.close()
    return count


def assert_all_is_there_once(job, rows, gateway, pairs: int) -> None:
    counts = gateway.counts()
    assert len(counts) == 2 * pairs and set(counts.values()) == {1}
    assert [(r["pair_id"], r["shown_first"]) for r in rows] == [
        (f"p{i}", order) for i in range(pairs) for order in "ab"
    ]
    assert [r["label"] for r in rows] == [float(i % 2) for i in range(pairs) for _ in "ab"]
    assert answers(job) == 2 * pairs


@pytest.mark.slow
def test_a_job_of_2000_pairs_killed_at_three_random_moments_makes_no_request_twice(
    gateway, tmp_path
):
    job = make_job(tmp_path, gateway.endpoint, lengths(2000), in_flight=32)
    moments = sorted(random.Random(7).sample(range(1, 3900), 3))
    for moment in moments:
        with started_job(job, tmp_path) as process:
            wait_for(lambda m=moment: gateway.total() >= m)
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        # No pause: the next job comes while answers of the last one are still on their way.
    assert not (tmp_path / "annotations.parquet").exists()
    rows, cost = run_job(job, tmp_path)
    assert_all_is_there_once(job, rows, gateway, 2000)
    assert cost.cached >= moments[-1] and cost.requests == 4000 - cost.cached > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_job_that_is_ended_takes_in_what_is_in_flight_and_sends_nothing_new(
    gateway, tmp_path, number
):
    # So many that the job is not done before this process, on a busy machine, has its turn again.
    job = make_job(tmp_path, gateway.endpoint, lengths(1500), in_flight=16)
    with started_job(job, tmp_path) as process:
        wait_for(lambda: gateway.total() >= 50)
        process.send_signal(number)
        process.wait()
    wait_for(lambda: is_free(job))
    sent = gateway.total()
    assert 50 <= sent < 3000 and answers(job) == sent, "every request that went out is answered"
    rows, _ = run_job(job, tmp_path)
    assert_all_is_there_once(job, rows, gateway, 1500)


def test_a_job_killed_while_it_waits_to_try_again_tries_no_more(tmp_path):
    with running_gateway() as gateway:
        job = make_job(tmp_path, gateway.endpoint, lengths(5), "busy", attempts=9, in_flight=1)
        with started_job(job, tmp_path) as process:
            wait_for(lambda: gateway.total() >= 3)
            process.kill()
        wait_for(lambda: is_free(job))
        assert answers(job) == 0 and gateway.total() <= 4


def test_two_jobs_at_one_cache_do_not_ask_the_same(gateway, tmp_path):
    job = make_job(tmp_path, gateway.endpoint, lengths(200))
    with started_job(job, tmp_path) as other:
        wait_for(lambda: gateway.total() >= 20)
        told = []
        cost = judge_pairs(job, tmp_path / "mine.parquet", told.append)
        assert other.wait() == 0
    assert any(progress.waiting for progress in told) and cost.requests == 0 and cost.cached == 400
    mine = pq.read_table(tmp_path / "mine.parquet")
    assert mine.equals(pq.read_table(tmp_path / "annotations.parquet"))
    assert_all_is_there_once(job, mine.to_pylist(), gateway, 200)


def test_the_death_of_the_asking_process_is_told_and_the_next_run_goes_on(
    gateway, tmp_path, monkeypatch
):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret-0123456789")
    job = make_job(tmp_path, gateway.endpoint, lengths(200), api_key_env="JUDGE_KEY")

    def kill(progress) -> None:
        if progress.answered:
            children = psutil.Process().children()
            (asking,) = [c for c in children if "judge_process" in c.cmdline()[-1]]
            assert "sk-secret" not in " ".join(asking.cmdline())
            asking.kill()

    with pytest.raises(JudgeError, match=r"was killed by signal 9.*are kept in .*\. Run again"):
        judge_pairs(job, tmp_path / "out.parquet", kill)
    kept = answers(job)
    assert 0 < kept < 400 and not (tmp_path / "out.parquet").exists()
    rows, cost = run_job(job, tmp_path)
    assert cost.cached == kept and len(rows) == 400
    assert sum(gateway.counts().values()) <= 400 + 4, "at most those in flight were asked again"
