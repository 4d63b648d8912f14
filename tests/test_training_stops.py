"""What may end a training before its time: a wish, another trainer of the same policy, memory."""

import subprocess
import sys

import pyarrow as pa
import pytest
import torch
from conftest import TESTS
from safetensors.torch import load_file
from small_models import small_base, small_config, small_pairs, write_pairs

from panacea_lib.errors import InputError, NotEnoughMemoryError, TrainingStoppedError
from panacea_lib.lease import LeaseHeldError, hold, lease_of
from panacea_lib.memory import memory_shortage_told
from panacea_lib.problem_files import load_problem
from panacea_lib.training import train, train_policy
from panacea_lib.training.processes import rows_per_process

HOLDER = """
import sys, time
from pathlib import Path
from panacea_lib.lease import hold
with hold(Path(sys.argv[1]), "the training of panacea", 1):
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs.parquet", small_pairs(32))


@pytest.mark.parametrize("step", [0, 3])
def test_a_wish_ends_it_after_the_step_and_the_next_training_goes_on_there(pairs, tmp_path, step):
    config = small_config(pairs, steps=100)  # a log line in every second step
    train(config, tmp_path / "whole")
    seen = [0]
    with pytest.raises(TrainingStoppedError, match=f"after step {step} of 100"):
        train(config, tmp_path / "cut", lambda at, *_: seen.append(at), lambda: seen[-1] >= step)
    kept = tmp_path / "cut" / "checkpoints" / "checkpoint-3"
    assert kept.exists() == (step == 3) and not (tmp_path / "cut" / "result.json").exists()
    seen.clear()
    result = train(config, tmp_path / "cut", lambda at, *_: seen.append(at))
    assert seen[0] == (3 if step else 1), "a listener hears where it goes on"
    whole, cut = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for name in ("whole", "cut")
    )
    assert all(whole[name].equal(cut[name]) for name in whole)
    logged = [row["step"] for row in result.curves if row["metric"] == "loss"]
    assert (3 in logged) == (step == 3), "the loss up to the stop is in a line of its own"


def test_a_wish_in_the_last_step_changes_nothing(pairs, tmp_path):
    seen = [0]
    config = small_config(pairs)
    result = train(config, tmp_path, lambda at, *_: seen.append(at), lambda: seen[-1] == 4)
    assert result.details["steps"] == 4 and (tmp_path / "result.json").exists()


def test_a_second_trainer_of_a_policy_is_told_who_the_first_is(tmp_path):
    problem = load_problem(TESTS / "problems" / "tiny.yaml")
    how = (problem, "panacea", small_base(), pa.table(small_pairs(32)), tmp_path / "out")
    checkpoints = tmp_path / "work"
    command = [sys.executable, "-c", HOLDER, str(lease_of(checkpoints))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "in\n"
        told = rf"\(panacea\): held by 'the training of panacea' \(pid {other.pid} on .*since 20"
        with pytest.raises(LeaseHeldError, match=told):
            train_policy(*how, checkpoints, 0, 2, lease_timeout=0.3)
        other.kill()
    assert not (checkpoints / "panacea").exists(), "nothing was begun"
    assert train_policy(*how, checkpoints, 0, 2, lease_timeout=0.3).details["steps"] == 2
    with hold(lease_of(checkpoints), "the next", 0.1):
        pass  # the trainer has let go


def test_rows_that_processes_cannot_share_equally_are_refused(pairs, tmp_path, monkeypatch):
    assert rows_per_process(7) == 7
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert rows_per_process(9) == 3
    with pytest.raises(InputError, match="batch_size: 8 rows cannot be shared equally by 3"):
        train(small_config(pairs), tmp_path / "out")


SHORT = """
import resource, sys
from pathlib import Path
import psutil
from panacea_lib.training import TrainConfig, train
import panacea_lib.training.pair_trainer
from panacea_lib.errors import NotEnoughMemoryError
config = TrainConfig.model_validate_json(Path(sys.argv[1]).read_text())

def little(step, *_):
    # From now on the step's tensors have hardly any room beside what is there.
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, -1))

try:
    train(config, Path(sys.argv[2]), little)
except NotEnoughMemoryError as error:
    sys.exit(str(error))
"""


def test_memory_that_runs_out_is_said_with_the_remedy(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet", small_pairs(512))
    config = small_config(pairs, "reward_distillation", batch_size=512, tail_penalty=0.1)
    file = tmp_path / "config.json"
    file.write_text(config.model_dump_json())
    command = [sys.executable, "-c", SHORT, str(file), str(tmp_path / "out")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    last = found.stderr.strip().splitlines()[-1]
    assert found.returncode == 1 and last.startswith("the training ran out of memory: lower "), (
        found.stderr
    )
    assert "batch_size" in last and "accumulation" in last and "gradient_checkpointing" in last


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), memory_shortage_told("it", "less"):
        raise RuntimeError("shapes differ")
    told = pytest.raises(NotEnoughMemoryError, match="it ran out of memory: less")
    with told, memory_shortage_told("it", "less"):
        torch.empty(2**50)
