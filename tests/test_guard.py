"""A training that goes wrong stops, says where, and spoils nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_models import small_config, small_pairs, write_pairs
from torch import nn

from panacea_lib.trainers import last_complete_checkpoint
from panacea_lib.training import train
from panacea_lib.training.guard import FiniteGuard
from panacea_lib.training.train import _build_trainer

NAN = float("nan")


def test_the_batch_of_a_loss_that_is_no_number_is_written_aside_and_the_checkpoint_kept(tmp_path):
    """One bad row among sixteen, two rows a step: it comes up in the second half of the epoch."""
    columns = small_pairs(16)
    columns["reward_delta"][5] = [1e30, 1e30]  # its square is no float32
    pairs = write_pairs(tmp_path / "pairs.parquet", columns)
    numbers = {"steps": 8, "batch_size": 2, "checkpoint_every": 1, "seed": 3}
    config = small_config(pairs, "reward_distillation", **numbers)
    with pytest.raises(FloatingPointError, match="look at the rows of its batch, which are in"):
        train(config, tmp_path / "out")
    (aside,) = (tmp_path / "out" / "checkpoints").glob("not_finite_step_*.json")
    told = json.loads(aside.read_text())
    assert told["what"] == "loss" and 5 in told["batches"][0]["row"]
    assert not (tmp_path / "out" / "result.json").exists()
    step = told["step"]
    assert step > 0, "or there is no checkpoint to keep: choose another seed"
    kept = last_complete_checkpoint(tmp_path / "out" / "checkpoints")
    assert kept is not None and kept.endswith(f"checkpoint-{step}")
    good = load_file(Path(kept) / "adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in good.values())


@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_a_finite_loss_with_an_infinite_gradient_takes_no_step(tmp_path, method):
    pairs = write_pairs(tmp_path / "pairs.parquet", small_pairs(16))
    config = small_config(pairs, method, steps=3, accumulation=2)
    trainer = _build_trainer(config, tmp_path / "checkpoints", None, [])
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    trained[0].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(FloatingPointError, match="gradient at step 0"):
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, trained, strict=True))
    (aside,) = (tmp_path / "checkpoints").glob("*.json")
    assert len(json.loads(aside.read_text())["batches"]) == 2, "both parts of the step"


def test_what_was_seen_before_the_step_is_not_written(tmp_path):
    guard, model = FiniteGuard(tmp_path), nn.Linear(1, 1)
    guard.check(torch.tensor(1.0), {"row": torch.tensor([1])})

    class State:
        global_step = 7

    guard.on_step_begin(None, State(), None)
    guard.check(torch.tensor(2.0), {"row": torch.tensor([2]), "prompt": ["why"]})
    model.weight.grad = torch.tensor([[NAN]])
    with pytest.raises(FloatingPointError, match="step 7"):
        guard.on_pre_optimizer_step(None, State(), None, model=model)
    told = json.loads((tmp_path / "not_finite_step_7.json").read_text())
    assert told["batches"] == [{"row": [2], "prompt": ["why"]}]
