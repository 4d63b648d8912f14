"""Real trainings, seconds long: their first loss, their adapter, and that they may die anywhere."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_models import DIMENSIONS, small_config, small_pairs, write_pairs
from torch import Tensor

from panacea_lib.errors import InputError
from panacea_lib.problem_training import PreferenceSampling
from panacea_lib.train_result import TrainResult
from panacea_lib.trainers import last_complete_checkpoint
from panacea_lib.training import TrainConfig, train
from panacea_lib.training.config import read_config
from panacea_lib.training.objectives import distillation_losses
from panacea_lib.training.pair_data import order_of_passes
from panacea_lib.training.preferences import draw_preferences

NAN = float("nan")
STATE = '{"global_step": 10, "max_steps": 200}'


# ---- a training


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet", small_pairs())


def weights(out_dir: Path) -> dict[str, Tensor]:
    return load_file(out_dir / "adapter" / "adapter_model.safetensors")


def curve(result: TrainResult, metric: str, dimension: str = "") -> list[float]:
    return [
        row["value"]
        for row in result.curves
        if (row["metric"], row["dimension"]) == (metric, dimension)
    ]


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory) -> tuple[TrainConfig, Path, TrainResult]:
    out_dir = tmp_path_factory.mktemp("trained")
    config = small_config(pairs)
    return config, out_dir, train(config, out_dir)


def test_the_first_dpo_loss_is_ln_2_in_every_dimension(trained):
    """A new adapter is the reference policy, so every margin is 0."""
    _, _, result = trained
    assert curve(result, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    for name in DIMENSIONS:
        assert curve(result, "loss", name)[0] == pytest.approx(math.log(2), abs=1e-5)
    assert curve(result, "loss")[-1] != pytest.approx(math.log(2), abs=1e-5)


def test_the_first_dpo_loss_is_ln_2_for_a_lora_too_and_with_sparse_labels(pairs, tmp_path):
    lora = small_config(pairs, steps=1, adapter="lora", fixed_preference=[0.0, 1.0])
    result = train(lora, tmp_path / "lora")
    assert curve(result, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    columns = small_pairs()
    for row in range(0, 64, 4):
        columns["label"][row][1] = NAN
    sparse = write_pairs(tmp_path / "sparse.parquet", columns)
    result = train(small_config(sparse, steps=1, batch_size=64), tmp_path / "sparse")
    for name in DIMENSIONS:  # the whole set in one batch: coverage is made good exactly
        assert curve(result, "loss", name)[0] == pytest.approx(math.log(2), abs=1e-5)


def test_every_step_gives_every_row_the_preference_of_its_draw(pairs, tmp_path):
    """All rows in one batch and a rate of nothing: at every step the loss is mean (λ·Δr)², of
    margin 0, with λ as the draw of (seed, step, row) says."""
    delta = np.array(small_pairs()["reward_delta"])
    numbers = {"steps": 3, "batch_size": 64, "learning_rate": 1e-12}
    result = train(small_config(pairs, "reward_distillation", seed=3, **numbers), tmp_path)
    expected = []
    for step in range(3):
        drawn = draw_preferences(PreferenceSampling(), 2, seed=3, step=step, rows=range(64))
        target = torch.tensor((drawn * delta).sum(axis=1), dtype=torch.float32)
        one = (torch.zeros(64), target[:, None], torch.ones(64, 1))
        expected.append(distillation_losses(*one, "squared").mean().item())
    assert curve(result, "loss") == pytest.approx(expected, rel=1e-4)
    assert len({round(loss, 3) for loss in expected}) == 3, "a fresh λ at every step"


def test_the_adapter_changed_and_is_finite_and_the_result_says_what_was_done(trained):
    config, out_dir, result = trained
    found = weights(out_dir)
    assert all(torch.isfinite(tensor).all() for tensor in found.values())
    moved = [name for name, tensor in found.items() if name.endswith(("sigma", "scale"))]
    assert len(moved) == 2 * 7 * 2, "σ and s of seven matrices in two layers"
    assert all(found[name].abs().max() > 0 for name in moved), "they start at 0"
    assert result.details["steps"] == config.training.steps == 4
    assert result.details["trained_parameters"] == sum(t.numel() for t in found.values())
    stored = json.loads((out_dir / "result.json").read_text())
    assert TrainResult(**stored) == result


def test_the_same_configuration_gives_the_same_bytes_and_another_seed_others(trained, tmp_path):
    config, out_dir, _ = trained
    train(config, tmp_path / "again")
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (out_dir / name).read_bytes()
    train(config.model_copy(update={"seed": 1}), tmp_path / "other")
    assert (tmp_path / "other" / name).read_bytes() != (out_dir / name).read_bytes()


def test_a_tail_penalty_takes_other_logits_to_the_same_end_and_keeps_mass_from_the_tail(
    pairs, tmp_path
):
    numbers = {"steps": 30, "learning_rate": 3e-2}

    def trained_at(penalty: float) -> tuple[TrainResult, dict[str, Tensor]]:
        folder = tmp_path / f"{penalty}"
        config = small_config(pairs, "reward_distillation", tail_penalty=penalty, **numbers)
        return train(config, folder), weights(folder)

    (_, without), (faint, same), (strong, _) = map(trained_at, (0.0, 1e-9, 30.0))
    for name, tensor in without.items():
        assert torch.allclose(tensor, same[name], atol=1e-3), name
    assert curve(faint, "tail")[0] == pytest.approx(0, abs=1e-6), "a new adapter is the reference"
    assert curve(strong, "tail")[-1] < curve(faint, "tail")[-1] / 2


@given(st.integers(1, 40), st.integers(1, 200), st.integers(0, 2**32))
def test_pass_after_pass_has_every_pair_once(pairs, count, seed):
    order = order_of_passes(pairs, count, seed)
    assert len(order) == count
    for start in range(0, count, pairs):
        assert len(set(order[start : start + pairs])) == min(pairs, count - start)
    assert set(order) <= set(range(pairs))
    longer = order_of_passes(pairs, count + 7, seed)
    assert (longer[:count] == order).all()


@pytest.mark.parametrize("method", ["dpo", "reward_distillation"])
@pytest.mark.parametrize(("count", "part"), [(64, 4), (14, 4), (14, 1)])
def test_one_batch_of_8_is_several_accumulated(tmp_path, method, count, part):
    """λ goes with the row and the optimiser step, so accumulation changes rounding only; also where
    batches do not share 14 pairs out evenly."""
    columns = small_pairs(count)
    columns["label"][0] = [NAN, 1.0]  # coverage is that of the training set, not of a batch
    pairs = write_pairs(tmp_path / "pairs.parquet", columns)
    whole = small_config(pairs, method)
    train(whole, tmp_path / "whole")
    train(small_config(pairs, method, batch_size=part, accumulation=8 // part), tmp_path / "parts")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=2e-5), name
    train(whole.model_copy(update={"seed": 1}), tmp_path / "other")
    other = weights(tmp_path / "other")
    assert not all(torch.allclose(tensor, other[name], atol=2e-5) for name, tensor in one.items())


def test_what_cannot_be_trained_is_refused_in_words(tmp_path):
    bare = small_pairs(8)
    bare["label"] = [[1.0, NAN]] * 8
    path = write_pairs(tmp_path / "bare.parquet", bare)
    with pytest.raises(ValueError, match="harmlessness"):
        train(small_config(path), tmp_path / "out")
    empty = write_pairs(tmp_path / "empty.parquet", {name: bare[name][:0] for name in bare})
    with pytest.raises(ValueError, match="no pair"):
        train(small_config(empty), tmp_path / "out")
    missing = {name: column for name, column in small_pairs(8).items() if name != "label"}
    path = write_pairs(tmp_path / "missing.parquet", missing)
    with pytest.raises(InputError, match=r"missing.parquet: no column \['label'\]; dpo needs it"):
        train(small_config(path), tmp_path / "out")
    train(small_config(path, "reward_distillation", steps=1), tmp_path / "without_labels")


@pytest.mark.parametrize(
    ("method", "column", "value", "told"),
    [
        ("reward_distillation", "reward_delta", [NAN, 1.0], "nan on helpfulness is not a finite"),
        ("reward_distillation", "reward_delta", [1.0, math.inf], "inf on harmlessness is not a"),
        ("dpo", "label", [0.5, 1.5], "1.5 on harmlessness is not a probability"),
        ("dpo", "label", [1.0], r"needs a number for each of \['helpfulness', 'harmlessness'\]"),
        ("dpo", "reward_delta", [1.0, 2.0, 3.0], "needs a number for each of"),
    ],
)
def test_a_bad_row_is_named_before_work_starts(tmp_path, method, column, value, told):
    columns = small_pairs(8)
    columns[column][6] = value
    path = write_pairs(tmp_path / "bad.parquet", columns)
    with pytest.raises(InputError, match=rf"bad.parquet: row 6, column {column}: {told}"):
        train(small_config(path, method), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"adapter": "lora", "fixed_preference": [0.9, 0.9]}, "fixed_preference: needs a weight"),
        ({"adapter": "lora", "fixed_preference": [0.5]}, "fixed_preference: needs a weight"),
        ({"adapter": "lora", "fixed_preference": []}, "fixed_preference: needs a weight"),
        ({"adapter": "lora", "fixed_preference": [-0.5, 1.5]}, "fixed_preference: needs a weight"),
        ({"adapter": "lora"}, "fixed_preference: a lora needs one"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"dimensions": ["helpfulness"]}, "at least 2 items"),
    ],
)
def test_a_bad_configuration_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        small_config(Path("pairs.parquet"), **changes)


# ---- it may die anywhere


def command(config: Path, out_dir: Path) -> list[str]:
    return [sys.executable, "-m", "panacea_lib.training.train", str(config), str(out_dir)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no such file"),
        ("{", "configuration: Invalid JSON"),
        ('{"stepps": 3}', "Field required"),
        ('{"base_model": "b", "dimensions": ["a"], "pairs": "p"}', "dimensions: List should have"),
        ('{"base_model": "b", "dimensions": ["a", "b"], "pairs": "p", "adapter": "lora"}',
         "configuration: fixed_preference: a lora needs one"),
        ('{"base_model": "b", "dimensions": ["a", "b"], "pairs": "p", "seed": 0.5}', "seed: "),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_a_sentence(tmp_path, text, told):
    file = tmp_path / "config.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=told) as refused:
        read_config(file)
    assert str(refused.value).startswith(f"{file}: ")


def test_the_command_ends_with_that_sentence_and_writes_nothing(tmp_path):
    config = small_config(tmp_path / "nowhere.parquet")
    (tmp_path / "config.json").write_text(config.model_dump_json())
    wrong = command(tmp_path / "config.json", tmp_path / "out")
    ended = subprocess.run(wrong, capture_output=True, text=True)
    assert ended.returncode == 1
    told = f"{tmp_path}/nowhere.parquet: there is no such file; `pairs` names what to train on"
    assert ended.stderr.splitlines()[-1] == told
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_training_ends_with_the_adapter_of_an_uninterrupted_one(pairs, tmp_path):
    config = small_config(pairs, "reward_distillation", steps=120, checkpoint_every=10)
    text = config.model_dump_json()
    (tmp_path / "config.json").write_text(text)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config, whole)
    process = subprocess.Popen(command(tmp_path / "config.json", killed), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not last_complete_checkpoint(killed / "checkpoints"):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint in two minutes"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "result.json").exists(), "it was killed after it had finished"
    resumed_from = last_complete_checkpoint(killed / "checkpoints")
    assert resumed_from is not None and not resumed_from.endswith("-120")
    finished = subprocess.run(
        command(tmp_path / "config.json", killed), capture_output=True, text=True, check=True
    )
    assert json.loads(finished.stdout.splitlines()[-1])["steps"] == 120
    name = "adapter/adapter_model.safetensors"
    assert (killed / name).read_bytes() == (whole / name).read_bytes()
    found = [json.loads((folder / "result.json").read_text()) for folder in (whole, killed)]
    assert found[0]["curves"] == found[1]["curves"], "the curve has no gap and no seam"


def test_only_checkpoints_that_were_written_to_their_end_count(tmp_path):
    assert last_complete_checkpoint(tmp_path) is None
    for step in (5, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_complete_checkpoint(tmp_path) is None
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(STATE)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


@pytest.mark.parametrize("torn", ["", '{"epoch": 0.5, "global_'])
def test_a_state_file_that_was_torn_in_writing_does_not_count(tmp_path, torn):
    for step, text in ((5, STATE), (10, torn)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")


@pytest.fixture(scope="module")
def checkpoints(pairs, tmp_path_factory) -> Path:
    """Two real ones, of steps 2 and 4, as a training of 8 steps would have left them."""
    out_dir = tmp_path_factory.mktemp("two")
    train(small_config(pairs, "reward_distillation", checkpoint_every=2), out_dir)
    for state in out_dir.glob("checkpoints/*/trainer_state.json"):
        state.write_text(json.dumps(json.loads(state.read_text()) | {"max_steps": 8}))
    return out_dir / "checkpoints"


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
)
@pytest.mark.parametrize("left", [0.0, 0.01, 0.5, 0.999])
def test_a_file_cut_short_beside_a_whole_state_file_does_not_count(
    checkpoints, tmp_path, name, left
):
    """A power cut may keep the last file that was written and lose the end of another."""
    torn = shutil.copytree(checkpoints, tmp_path / "torn")
    assert last_complete_checkpoint(torn) == str(torn / "checkpoint-4")
    content = (torn / "checkpoint-4" / name).read_bytes()
    (torn / "checkpoint-4" / name).write_bytes(content[: int(left * len(content))])
    assert last_complete_checkpoint(torn) == str(torn / "checkpoint-2")


def test_the_time_before_a_training_was_resumed_counts(checkpoints, pairs, tmp_path):
    shutil.copytree(checkpoints, tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / "checkpoint-4" / "trainer_state.json"
    state = json.loads(path.read_text())
    assert state["log_history"][-1]["step"] == 4 and state["log_history"][-1]["seconds"] > 0
    state["log_history"][-1]["seconds"] = 1000.0
    path.write_text(json.dumps(state))
    config = small_config(pairs, "reward_distillation", steps=8, checkpoint_every=2)
    details = train(config, tmp_path).details
    assert details["steps"] == 8 and 1000 < details["seconds"] < 2000


# ---- more than one process


@pytest.mark.slow
def test_two_processes_of_4_rows_train_what_one_of_8_does(tmp_path):
    """λ goes with the row, whichever process has it; and once more, byte for byte. 14 pairs: some
    batch ends one pass and begins the next."""
    method, pairs = "reward_distillation", write_pairs(tmp_path / "few.parquet", small_pairs(14))
    config = small_config(pairs, method)
    train(config, tmp_path / "one")
    (tmp_path / "config.json").write_text(config.model_dump_json())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "2", *command(tmp_path / "config.json", tmp_path / "two")[1:]]
    first = subprocess.run(launch, capture_output=True, text=True, timeout=200)
    assert first.returncode == 0, first.stderr[-2000:]
    found = (tmp_path / "two" / "adapter" / "adapter_model.safetensors").read_bytes()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=2e-5), name
    told = [json.loads((tmp_path / n / "result.json").read_text()) for n in ("one", "two")]
    assert told[0]["details"]["tokens"] == told[1]["details"]["tokens"]
    launch[-1] = str(tmp_path / "again")
    subprocess.run(launch, capture_output=True, check=True, timeout=200)
    again = tmp_path / "again" / "adapter" / "adapter_model.safetensors"
    assert again.read_bytes() == found
