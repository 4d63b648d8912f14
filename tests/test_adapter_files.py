"""Saving and loading the Panacea adapter: plain files, strict loading."""

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from adapter_models import (
    DIMENSIONS,
    ROWS,
    TARGETS,
    adapted,
    adapter_layers,
    logits,
    tiny_llama,
)
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
)

from panacea_lib.adapter import (
    find_preference_state,
    load_adapter,
    set_preference,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, Path, Tensor]:
    """A base model, an adapter and the logits of both together, under `ROWS`."""
    root = tmp_path_factory.mktemp("saved")
    tiny_llama().save_pretrained(root / "base")
    model = adapted(AutoModelForCausalLM.from_pretrained(root / "base"))
    model.save_pretrained(root / "adapter")
    return root / "base", root / "adapter", logits(model, preference=ROWS)


LOADERS: dict[str, Callable[[Path, Path], nn.Module]] = {
    "PeftModel": lambda base, path: PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), path
    ),
    "AutoPeftModel": lambda base, path: AutoPeftModelForCausalLM.from_pretrained(path),
    "transformers": lambda base, path: AutoModelForCausalLM.from_pretrained(path),
    "load_adapter": lambda base, path: load_adapter(
        AutoModelForCausalLM.from_pretrained(base), path
    ),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_saved_and_loaded(saved, loader):
    base, path, expected = saved
    model = LOADERS[loader](base, path)
    set_preference(model, ROWS)
    assert torch.equal(logits(model), expected)
    assert find_preference_state(model).dimensions == DIMENSIONS
    assert not model.training
    assert not any(p.requires_grad for n, p in model.named_parameters() if "panacea_" in n)


def test_the_saved_files_are_plain_and_repeatable(saved, tmp_path):
    base, path, _ = saved
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["dimensions"] == DIMENSIONS
    assert config["target_modules"] == sorted(config["target_modules"])
    keys = load_file(path / "adapter_model.safetensors")
    assert len(keys) == TARGETS * 4
    prefix = "base_model.model.model.layers.0.self_attn.q_proj.panacea_factors."
    assert keys[prefix + "U"].shape == (64, 4 + 3)
    load_adapter(AutoModelForCausalLM.from_pretrained(base), path).save_pretrained(tmp_path)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / name).read_bytes() == (path / name).read_bytes()


def test_a_loaded_adapter_can_be_trained_on_when_asked(saved):
    base, path, _ = saved
    model = load_adapter(AutoModelForCausalLM.from_pretrained(base), path, trainable=True)
    assert model.training
    assert all(p.requires_grad == ("panacea_" in n) for n, p in model.named_parameters())


def damaged(path: Path, to: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    tensors = load_file(path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, to / "adapter_model.safetensors")
    (to / "adapter_config.json").write_bytes((path / "adapter_config.json").read_bytes())
    return to


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.popitem(),
        lambda tensors: tensors.update(stray=torch.zeros(1)),
        lambda tensors: tensors.update({next(iter(tensors)): torch.zeros(2, 2)}),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_loading_is_strict(saved, tmp_path, change):
    base_model = tiny_llama()
    with pytest.raises(ValueError, match="does not fit this base model: 1 tensors"):
        load_adapter(base_model, damaged(saved[1], tmp_path, change))
    assert torch.equal(logits(base_model), logits(tiny_llama()))
    assert not adapter_layers(base_model)


def test_only_panacea_safetensors_are_loaded(saved, tmp_path):
    (tmp_path / "adapter_config.json").write_bytes((saved[1] / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        load_adapter(tiny_llama(), tmp_path)
    lora = peft.get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    lora.save_pretrained(tmp_path / "lora")
    with pytest.raises(ValueError, match="not a Panacea one"):
        load_adapter(tiny_llama(), tmp_path / "lora")
