"""Policies trained in a process beside the run: it is killed, stopped, orphaned, and nothing is
lost. (Several processes: tests/test_training_processes.py.)"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from conftest import TESTS, panacea

from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.plan import Plan
from panacea_lib.problem_files import load_problem
from panacea_lib.workspace import Workspace

pytestmark = pytest.mark.slow
STEPS, EVERY = 200, 8
PROBLEM = """
name: {name}
extends: tiny
training: {{steps: {steps}, checkpoint_every: {every}}}
launch: {{training: {training}}}
"""
BEFORE = "prompts,base_model,responses,pairs,annotations,preference_labels,reward_models"
BEFORE += ",response_rewards"
TRAIN = ("materialize", "launched", "--select", "panacea_policy")


AS_A_WORKER = """
import dagster as dg
result = defs.resolve_job_def(CHAIN.name).execute_in_process(
    instance=dg.DagsterInstance.get(),
    partition_key="launched",
    asset_selection=[dg.AssetKey("panacea_policy")],
)
print(result.run_id)
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    """Two problems that differ in where they train, and so have one plan; everything before their
    policy is that of `tiny`."""
    folder = tmp_path_factory.mktemp("problems")
    plans = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANACEA_PROBLEMS", f"{TESTS / 'problems'}:{folder}")
        root = Workspace.current().root
        patch.setenv("DAGSTER_HOME", str(root))
        patch.chdir(root)
        for name, training in (("inside", "inside"), ("launched", "subprocess")):
            file = folder / f"{name}.yaml"
            numbers = {"steps": STEPS, "every": EVERY}
            file.write_text(PROBLEM.format(name=name, training=training, **numbers))
            plans.append(Plan.of(load_problem(file), file))
        assert plans[0].keys("panacea_policy") == plans[1].keys("panacea_policy")
        before = panacea("materialize", "launched", "--select", BEFORE)
        assert before.code == 0, before.err
        yield plans[0]


@pytest.fixture(scope="module")
def inside(plan) -> bytes:
    """The adapter as the run's own process trains it."""
    finished = panacea("materialize", "inside", "--select", "panacea_policy")
    assert finished.code == 0, finished.err
    return adapter(plan)


@pytest.fixture(autouse=True)
def nothing_is_there(plan, inside) -> None:
    """Each test trains the policy anew."""
    store().delete(plan.key("panacea_policy", "panacea"))


def store() -> ArtifactStore:
    return ArtifactStore(Workspace.current().artifacts)


def adapter(plan: Plan) -> bytes:
    folder = store().fetch(plan.key("panacea_policy", "panacea"))
    return (folder / "panacea" / "adapter_model.safetensors").read_bytes()


def working(plan: Plan) -> Path:
    return store().working_dir(plan.key("panacea_policy", "panacea"))


def checkpoint(plan: Plan) -> int:
    """The step of the newest checkpoint; 0 without one."""
    states = working(plan).glob("panacea/checkpoints/checkpoint-*/trainer_state.json")
    return max((int(state.parent.name.split("-")[1]) for state in states), default=0)


def wait_for(condition: Callable[[], object], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def training_of(run: int) -> psutil.Process:
    """The process that trains for the run of this pid."""

    seen: list[psutil.Process] = []

    def is_there() -> bool:
        with suppress(psutil.Error):  # other children of the run come and go
            children = psutil.Process(run).children()
            seen.extend(c for c in children if "orchestration.training_process" in c.cmdline())
        return bool(seen)

    wait_for(is_there)
    return seen[0]


@contextmanager
def training_run(*python: str):
    """`panacea materialize`, or other Python, while it runs."""
    command = [sys.executable, *(python or ("-m", "orchestration.cli", *TRAIN))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as run:
        try:
            yield run
        finally:
            run.kill()


def test_kill_9_is_noticed_and_the_same_run_goes_on_from_the_checkpoint(plan, inside):
    with training_run("-c", AS_A_WORKER) as run:
        training = training_of(run.pid)
        wait_for(lambda: checkpoint(plan))
        training.kill()
        out, err = run.communicate()
    assert run.returncode == 0, err
    assert adapter(plan) == inside, "the same bits as in the run's own process"

    logs = dg.DagsterInstance.get().all_logs(out.split()[-1])
    events = [entry.dagster_event for entry in logs]
    (again,) = [i for i, event in enumerate(events) if event and event.is_step_up_for_retry]
    said = events[again].step_retry_data.error.cause.message
    assert "was killed by SIGKILL" in said and "memory: lower training.batch_size" in said
    # Its progress is in the log, and begins anew where the checkpoint was.
    told = [re.search(rf"panacea: (\d+) of {STEPS}", entry.user_message) for entry in logs]
    steps = [int(match[1]) for match in told if match]
    after = [int(match[1]) for match in told[again:] if match]
    assert after[0] >= EVERY and after[-1] == STEPS and len(steps) > len(after)


def test_whatever_ends_it_a_checkpoint_is_left_and_the_next_run_goes_on(plan, inside):
    with training_run() as run:  # the training is asked to end
        training = training_of(run.pid)
        wait_for(lambda: checkpoint(plan))
        training.send_signal(signal.SIGTERM)
        _, err = run.communicate()
    assert run.returncode == 1
    said = re.search(rf"asked to stop, after step (\d+) of {STEPS}; the next one goes on", err)
    assert said and checkpoint(plan) == int(said[1]) < STEPS, err

    with training_run() as run:  # the run is asked to end, as by the UI or Ctrl-C
        before = checkpoint(plan)
        training = training_of(run.pid)
        wait_for(lambda: checkpoint(plan) > before)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate()
    assert run.returncode == 130, err
    assert not training.is_running() and before < checkpoint(plan) < STEPS

    with training_run() as run:  # the run is killed: its training finds out by itself
        before = checkpoint(plan)
        training = training_of(run.pid)
        wait_for(lambda: checkpoint(plan) > before)
        run.kill()
        psutil.wait_procs([training], timeout=120)
    assert not training.is_running() and before < checkpoint(plan) < STEPS
    assert not (working(plan) / "panacea" / "result.json").exists()

    before = checkpoint(plan)
    finished = panacea(*TRAIN)
    assert finished.code == 0, finished.err
    assert adapter(plan) == inside, "as if nothing had happened"
