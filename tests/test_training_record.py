"""A folder holds one training: another's checkpoints are not gone on with."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from small_models import small_base, small_config, small_pairs, write_pairs

from panacea_lib.errors import InputError, TrainingStoppedError
from panacea_lib.problem_files import load_problem
from panacea_lib.training import TrainConfig, train, train_policy

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet", small_pairs(16))


@pytest.fixture(scope="module")
def stopped(pairs, tmp_path_factory) -> tuple[TrainConfig, Path]:
    """A training that was asked to stop after its third step of six."""
    folder = tmp_path_factory.mktemp("stopped")
    config, seen = small_config(pairs, steps=6), [0]
    with pytest.raises(TrainingStoppedError):
        train(config, folder, lambda at, *_: seen.append(at), lambda: seen[-1] == 3)
    return config, folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "reward_distillation"}, "method was dpo and is reward_distillation"),
        ({"rank": 4}, r"training.rank \(training.rank was 8 and is 4\): name another folder"),
        ({"steps": 5}, "steps was 6 and is 5"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"base_model": "HuggingFaceTB/SmolLM2-135M"}, "base_model was base and is SmolLM2-135M"),
        ({"batch_size": 4}, "rows_a_step was 8 and is 4"),
        ({"dimensions": ["a", "b"], "beta": 0.1}, r"differs in dimensions, beta \(dimensions was"),
    ],
)
def test_another_training_is_refused_and_nothing_is_changed(stopped, pairs, changes, told):
    _, folder = stopped
    before = content(folder)
    with pytest.raises(InputError, match=told):
        train(small_config(pairs, **{"steps": 6, **changes}), folder)
    assert content(folder) == before


def test_other_pairs_under_the_same_name_are_refused(stopped, tmp_path):
    _, folder = stopped
    others = write_pairs(tmp_path / "pairs.parquet", small_pairs(16, seed=1))
    with pytest.raises(InputError, match="differs in pairs"):
        train(small_config(others, steps=6), folder)


def test_the_same_training_goes_on_elsewhere_and_in_smaller_parts(stopped, pairs, tmp_path):
    config, folder = stopped
    moved = shutil.copytree(folder, tmp_path / "moved")
    base = shutil.copytree(small_base(), tmp_path / "elsewhere" / small_base().name)
    there = shutil.copy(pairs, tmp_path / "there.parquet")
    smaller = {"batch_size": 4, "accumulation": 2, "gradient_checkpointing": True}
    smaller |= {"checkpoint_every": 2, "tail_penalty": 1.0}  # which DPO does not read
    seen: list[int] = []
    cut = small_config(Path(there), base_model=str(base), steps=6, **smaller)
    train(cut, moved, lambda at, *_: seen.append(at))
    assert seen == [3, 4, 5, 6], "it told where it goes on, and went on"
    train(config, tmp_path / "whole")
    name = "adapter/adapter_model.safetensors"
    one, two = load_file(moved / name), load_file(tmp_path / "whole" / name)
    for key, tensor in one.items():
        assert torch.allclose(tensor, two[key], atol=2e-5), key


def test_a_finished_policy_of_another_problem_is_not_taken_for_this_one_s(tmp_path):
    problem = load_problem(TESTS / "problems" / "tiny.yaml")
    table, work = pa.table(small_pairs(16)), tmp_path / "work"
    how = ("panacea", small_base(), table, tmp_path / "out", work, 0)
    train_policy(problem, *how, max_steps=2)
    assert json.loads((work / "panacea" / "result.json").read_text())["details"]["steps"] == 2
    with pytest.raises(InputError, match=r"training\.steps was 2 and is 3"):
        train_policy(problem, *how, max_steps=3)
    other = problem.model_copy(update={"beta": 2 * problem.beta})
    with pytest.raises(InputError, match="beta was"):
        train_policy(other, *how, max_steps=2)
