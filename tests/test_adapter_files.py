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


def misnamed(tensors: dict[str, Tensor]) -> None:
    """The factors of a layer that this adapter does not touch."""
    key = next(key for key in tensors if key.endswith("q_proj.panacea_factors.U"))
    tensors[key.replace("q_proj", "x_proj")] = tensors[key].clone()


DAMAGES: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "missing": lambda tensors: tensors.popitem(),
    "stray": lambda tensors: tensors.update(stray=torch.zeros(1)),
    "misnamed": misnamed,
    "shape": lambda tensors: tensors.update({next(iter(tensors)): torch.zeros(2, 2)}),
}


def refusal(loader: str, damage: str) -> tuple[type[Exception], str]:
    if (loader, damage) == ("transformers", "shape"):
        return RuntimeError, "ignore_mismatched_sizes"  # its own error, which is as good
    return ValueError, "does not fit this base model: 1 tensors"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("loader", LOADERS)
def test_loading_is_strict(saved, tmp_path, loader, damage):
    base, path, _ = saved
    error, told = refusal(loader, damage)
    with pytest.raises(error, match=told):
        LOADERS[loader](base, damaged(path, tmp_path, DAMAGES[damage]))


def test_an_adapter_that_does_not_fit_leaves_the_base_model_as_it_was(saved, tmp_path):
    path = damaged(saved[1], tmp_path, DAMAGES["missing"])
    for load in (load_adapter, lambda model, path: model.load_adapter(str(path))):
        base_model = tiny_llama()
        with pytest.raises(ValueError, match="does not fit"):
            load(base_model, path)
        assert torch.equal(logits(base_model), logits(tiny_llama()))
    assert not adapter_layers(load_failing(path))


def load_failing(path: Path) -> nn.Module:
    base_model = tiny_llama()
    with pytest.raises(ValueError, match="does not fit"):
        load_adapter(base_model, path)
    return base_model


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["peft", "transformers"])
def test_a_second_adapter_is_loaded_strictly_too(saved, tmp_path, kind, damage):
    base, path, expected = saved
    model = LOADERS["PeftModel" if kind == "peft" else "transformers"](base, path)
    bad = str(damaged(path, tmp_path, DAMAGES[damage]))
    error, told = refusal(kind, damage)
    with pytest.raises(error, match=told):
        model.load_adapter(bad, adapter_name="second")
    set_preference(model, ROWS)
    assert torch.equal(logits(model), expected), "the first is as it was"


def test_other_methods_of_transformers_are_as_lenient_as_before(saved, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(saved[0])
    lora = peft.get_peft_model(base, LoraConfig(target_modules=["q_proj"]))
    lora.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensors.popitem()
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    AutoModelForCausalLM.from_pretrained(tmp_path)


def test_only_panacea_safetensors_are_loaded(saved, tmp_path):
    (tmp_path / "adapter_config.json").write_bytes((saved[1] / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        load_adapter(tiny_llama(), tmp_path)
    lora = peft.get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    lora.save_pretrained(tmp_path / "lora")
    with pytest.raises(ValueError, match="not a Panacea one"):
        load_adapter(tiny_llama(), tmp_path / "lora")
