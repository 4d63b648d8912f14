"""The faults of the deployment: PostgreSQL dies under a run; a schedule fires twice."""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.fault_cases import Ready, Tried, wrongs
from benchmarks.fault_world import PROBLEM, PROBLEMS, completed, stored
from panacea_lib.workspace import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "tests"))  # where the compose file's stand-in lies

from deployment_stack import (  # pyright: ignore[reportMissingImports]
    LAUNCH,
    SERVICES,
    Stack,
    ended,
    find_run,
    somebody,
)

RETRAIN = {"enabled": True, "cron": "* * * * *"}  # the problem's section for the schedule
RUN_KEYS = "select run_id, value from run_tags where key = 'dagster/run_key' order by 1"
TICK = "select status from job_ticks where type = 'SCHEDULE' order by id desc limit 1"
OURS = ("code", "webserver", "daemon")
DEAD = 5.0  # seconds without PostgreSQL
PATIENCE = 900.0
STORES = 3  # runs, events, schedules


def postgres_killed(ready: Ready, rng: random.Random) -> Tried:
    """SIGKILL for PostgreSQL and its children at a random moment of a run; back 5 s later.

    A service that ends is started again, as Compose does.
    """
    with _stack() as stack:
        run_id, moment = _launch(stack), rng.uniform(0, ready.seconds)
        time.sleep(moment)
        made = len(completed(stack.home))
        before = find_run(stack, runIds=[run_id])
        _kill_postgres(stack)
        time.sleep(DEAD)
        _restart_postgres(stack)
        fate, restarted = _watch(stack, run_id)
        at = f"at {moment:.1f} s ({(before or {}).get('status')}, {made} products made)"
        what = f"{at}; that run: {fate}; started again: {', '.join(restarted) or 'nothing'}"
        return _next_run(stack, ready, what)


def schedule_twice(ready: Ready, _rng: random.Random) -> Tried:
    """A schedule's tick launches its run and the daemon is killed before it has noted that; started
    again it evaluates the same tick anew."""
    with _stack(retrain=RETRAIN) as stack:
        deadline = time.monotonic() + PATIENCE
        while not (found := _asked_database(stack, RUN_KEYS)) and time.monotonic() < deadline:
            time.sleep(0.01)
        stack._processes["daemon"].kill()
        stack._processes["daemon"].wait()
        (run_id, key) = found[0]
        (tick,) = _asked_database(stack, TICK)
        stack.start("daemon")
        run = _until_ended(stack, run_id, set())
        launched = [one for one, its in _asked_database(stack, RUN_KEYS) if its == key]
        what = f"the tick was {tick[0]} when the daemon died; that run: {run['status']}"
        early = "" if len(launched) == 1 else f"{len(launched)} runs of one tick"
        if tick[0] != "STARTED":  # it had noted the run, and would not evaluate the tick again
            early = "the daemon was killed too late"
        return _next_run(stack, ready, what, early)


def _next_run(stack: Stack, ready: Ready, what: str, early: str = "") -> Tried:
    """Through the queue, and everything that must hold after it; `early` is wrong already."""
    done, sealed = completed(stack.home), stored(stack.home)
    status = _until_ended(stack, _launch(stack), set())["status"]
    wrong = [early] if early else []
    if status != "SUCCESS":
        return Tried(what, "", False, [*wrong, f"the next run: {status}"])
    return Tried(what, "", True, wrong + wrongs(stack.home, ready.expected, done, sealed))


def _asked_database(stack: Stack, sql: str) -> list[tuple[Any, ...]]:
    connection = stack.connect(SERVICES["postgres"]["environment"]["POSTGRES_DB"])
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        rows = cursor.fetchall()
    connection.close()
    return rows


@contextmanager
def _stack(retrain: dict[str, Any] | None = None) -> Iterator[Stack]:
    """All four services, healthy, with the problem in their volume; ended afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="panacea-faults-")).resolve()
    folder.chmod(0o755)  # PostgreSQL's user reads the secret and its own folder in it
    stack = Stack(folder)
    try:
        _begin(stack, retrain)
        yield stack
    except Exception as error:
        error.add_note(stack.logs())
        raise
    finally:
        stack.end()
        shutil.rmtree(folder, ignore_errors=True)


def _begin(stack: Stack, retrain: dict[str, Any] | None) -> None:
    stack._image["OMP_NUM_THREADS"] = "1"  # as in the undisturbed run: sums of floats depend on it
    stack.prepare()
    problem = yaml.safe_load((PROBLEMS / f"{PROBLEM}.yaml").read_text("utf-8"))
    problem |= {"retrain": retrain} if retrain else {}
    (stack.home / "var" / "problems" / f"{PROBLEM}.yaml").write_text(yaml.safe_dump(problem))
    stack.start_postgres()
    stack.wait("postgres", lambda: stack.is_healthy("postgres"))
    stack.create_database(SERVICES["postgres"]["environment"]["POSTGRES_DB"])
    for service in OURS:
        stack.start(service)
        stack.wait(service, lambda name=service: stack.is_healthy(name))


def _launch(stack: Stack) -> str:
    """Every asset of the problem, through the queue; the run's id."""
    run = {
        "selector": {
            "repositoryLocationName": "panacea",
            "repositoryName": "__repository__",
            "jobName": "chain",
        },
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": PROBLEM}]},
        "mode": "default",
    }
    found = _answered(lambda: stack.ask(LAUNCH, run=run)["launchRun"])
    if found["__typename"] != "LaunchRunSuccess":
        raise RuntimeError(f"the run was not launched: {found}")
    return found["run"]["runId"]


def _answered(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Ask again where the server fails: Dagster keeps a connection to PostgreSQL for each of its
    stores and finds a dead one out by using it, so each may fail one request."""
    for _ in range(STORES):
        try:
            return ask()
        except urllib.error.HTTPError:
            time.sleep(1)
    return ask()


def _kill_postgres(stack: Stack) -> None:
    server = psutil.Process(stack._processes["postgres"].pid)
    for process in [server, *server.children(recursive=True)]:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    stack._processes["postgres"].wait()


def _restart_postgres(stack: Stack) -> None:
    command = [str(word) for word in stack._processes["postgres"].args]  # pyright: ignore
    stack._spawn("postgres", command, dict(os.environ), Path("/"), **somebody())
    stack.wait("postgres", lambda: stack.is_healthy("postgres"))


def _watch(stack: Stack, run_id: str) -> tuple[str, list[str]]:
    """How the run and its retries ended, and which services had to be started again."""
    restarted: set[str] = set()
    found = _until_ended(stack, run_id, restarted)
    fate = [found["status"]]
    while found["status"] != "SUCCESS" and len(fate) < 3:
        retry = _retry_of(stack, found["runId"], restarted)
        if retry is None:
            break
        found = _until_ended(stack, retry["runId"], restarted)
        fate.append(f"retry {found['status']}")
    return ", ".join(fate), sorted(restarted)


def _retry_of(stack: Stack, run_id: str, restarted: set[str]) -> dict[str, Any] | None:
    """The run that the daemon started in its place, within a minute."""
    parent = [{"key": "dagster/parent_run_id", "value": run_id}]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = _asked(stack, restarted, lambda: find_run(stack, tags=parent))
        if found:
            return found
        time.sleep(1)
    return None


def _until_ended(stack: Stack, run_id: str, restarted: set[str]) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = _asked(stack, restarted, lambda: ended(stack, runIds=[run_id]))
        if found:
            return found
        time.sleep(1)
    return {"status": f"not ended after {PATIENCE:g} s", "runId": run_id}


def _asked(stack: Stack, restarted: set[str], ask: Any) -> dict[str, Any] | None:
    """Ask the web server; None while it cannot answer. What ended is started again before."""
    for service in OURS:
        if stack._processes[service].poll() is not None:
            restarted.add(service)
            stack.start(service)
    try:
        return ask()
    except (OSError, AssertionError, KeyError):  # no connection, or an error in the answer
        return None
