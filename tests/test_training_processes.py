"""One training by two processes, as `accelerate launch` starts them: docs/operations.md."""

import json
import os
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from conftest import TESTS
from safetensors.torch import load_file
from small_models import small_base, small_config, small_pairs, write_pairs

from orchestration.defs.policies.launch import command
from orchestration.training_job import LaunchFolder, TrainingJob
from panacea_lib.problem import Problem
from panacea_lib.problem_files import load_problem
from panacea_lib.training import TrainConfig, train, train_policy

pytestmark = pytest.mark.slow
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


def train_in_two(wanted: TrainConfig, out: Path) -> None:
    """The library's own module, by the launcher that the pipeline uses."""
    file = out.with_suffix(".json")
    file.write_text(wanted.model_dump_json())
    launcher = command(Path(), 2)
    module = [*launcher[: launcher.index("--module") + 1], "panacea_lib.training.train"]
    finished = subprocess.run(
        [*module, str(file), str(out)], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr[-4000:]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def curve(rows: list[dict]) -> dict[tuple, float]:
    return {(row["step"], row["dimension"], row["metric"]): row["value"] for row in rows}


def test_two_processes_log_the_losses_of_one_with_the_same_batch_and_resume(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet", small_pairs(64))
    config = small_config(pairs, batch_size=8, accumulation=2, steps=8, checkpoint_every=4)
    one = curve(train(config, tmp_path / "one").curves)
    train_in_two(config, tmp_path / "two")
    two = curve(json.loads((tmp_path / "two" / "result.json").read_text())["curves"])
    assert one.keys() == two.keys()
    losses = [place for place in one if place[2] == "loss"]
    assert len(losses) == 8 * 3, "every step, in all and of each dimension"
    for place, value in one.items():
        assert two[place] == pytest.approx(value, rel=1e-4, abs=1e-6), place
    first, second = (adapter(tmp_path / name / "adapter") for name in ("one", "two"))
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


@pytest.fixture
def problem() -> Problem:
    """`tiny` with two LoRAs of 60 steps each, trained by two processes."""
    loaded = load_problem(TESTS / "problems" / "tiny.yaml")
    changes = {"steps": 120, "batch_size": 8, "checkpoint_every": 5}
    changed = {"training": loaded.training.model_copy(update=changes)}
    return loaded.model_copy(update=changed)


def test_two_processes_stop_at_one_step_when_the_lifeline_closes_and_go_on(problem, tmp_path):
    """As a run starts them, and as they are left when it dies."""
    table = pa.table(small_pairs(64))
    how = (problem, "rewarded_soups", small_base(), table, tmp_path / "one")
    whole = train_policy(*how, tmp_path / "work-of-one", 0)
    job = TrainingJob(
        problem=problem,
        method="rewarded_soups",
        base_folder=small_base(),
        pairs=write_pairs(tmp_path / "pairs.parquet", small_pairs(64)),
        checkpoints=tmp_path / "work",
        seed=0,
        max_steps=None,
        rewards=None,
    )
    second = job.checkpoints / "harmlessness" / "checkpoints"
    launch = LaunchFolder.new(job.checkpoints, job)
    with subprocess.Popen(
        command(launch.path, 2), env=ENVIRONMENT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        end = time.monotonic() + 240
        while not list(second.glob("checkpoint-*/trainer_state.json")):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.02)
        process.communicate()  # closes stdin
    told = launch.told()
    assert process.returncode != 0 and told and told.error == "TrainingStoppedError"
    assert f"of {problem.training.steps // 2}; the next one goes on there" in told.message
    assert (job.checkpoints / "helpfulness" / "result.json").exists()

    launch = LaunchFolder.new(job.checkpoints, job)
    with subprocess.Popen(command(launch.path, 2), env=ENVIRONMENT, stdin=subprocess.PIPE) as again:
        assert again.wait(240) == 0
    told = launch.told()
    assert told and told.result and told.result.details["steps"] == whole.details["steps"]
    for name in problem.dimension_names:
        one, two = adapter(tmp_path / "one" / name), adapter(launch.adapters / name)
        assert all(torch.allclose(one[part], two[part], atol=1e-4) for part in one)
