"""One training by two processes: docs/operations.md, "Several nodes"."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_models import small_config, small_pairs, write_pairs

from panacea_lib.training import TrainConfig, train


def train_in_two(wanted: TrainConfig, out: Path) -> None:
    """By torch's own launcher, on CPU."""
    file = out.with_suffix(".json")
    file.write_text(wanted.model_dump_json())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    module = ["-m", "panacea_lib.training.train", str(file), str(out)]
    finished = subprocess.run(
        [*launcher, "--nproc-per-node=2", *module],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]


def adapter(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


@pytest.mark.slow
def test_two_processes_train_what_one_does_with_twice_the_batch_and_resume(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet", small_pairs(32))
    half = small_config(pairs, batch_size=2, checkpoint_every=2)
    train(small_config(pairs, batch_size=4), tmp_path / "one")
    train_in_two(half, tmp_path / "two")
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)

    for later in ("adapter", "checkpoints/checkpoint-4"):  # as if killed after step 2
        shutil.rmtree(tmp_path / "two" / later)
    train_in_two(half, tmp_path / "two")
    again = adapter(tmp_path / "two")
    assert all(torch.equal(two[name], again[name]) for name in two)
