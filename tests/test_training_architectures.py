"""Trainings of models whose layers are not named as Llama's: GPT-2, which has `Conv1D`s."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_models import small_base, small_config, small_pairs, write_pairs
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from panacea_lib.adapter import PanaceaLayer, load_adapter
from panacea_lib.problem_training import Method
from panacea_lib.training import train
from panacea_lib.training.train import load_base_model

LAYERS, LINEAR = 2, 4  # linear maps in each: c_attn, c_proj, c_fc, c_proj


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    """An untrained GPT-2 with the small base's tokenizer."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = AutoTokenizer.from_pretrained(small_base())
    sizes = {"n_embd": 16, "n_layer": LAYERS, "n_head": 2, "n_positions": 64}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet", small_pairs(16))


@pytest.mark.parametrize("method", ["dpo", "reward_distillation", "sft"])
def test_all_linear_layers_but_the_output_s_are_trained(gpt2, pairs, tmp_path, method: Method):
    penalty = {"tail_penalty": 1.0} if method == "reward_distillation" else {}
    result = train(small_config(pairs, method, base_model=str(gpt2), **penalty), tmp_path)
    assert result.details["steps"] == 4
    model = load_adapter(load_base_model(gpt2, "none")[0], tmp_path / "adapter")
    layers = [module for module in model.modules() if isinstance(module, PanaceaLayer)]
    assert len(layers) == LAYERS * LINEAR
    assert all((layer.factors("default").sigma != 0).any() for layer in layers), "they have learned"


def test_a_lora_has_the_same_layers(gpt2, pairs, tmp_path):
    of_one = {"adapter": "lora", "fixed_preference": [0.5, 0.5]}
    train(small_config(pairs, base_model=str(gpt2), **of_one), tmp_path)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 2 * LAYERS * LINEAR, "A and B of each"


@pytest.mark.parametrize("adapter", ["panacea", "lora"])
def test_layers_are_chosen_by_name(gpt2, pairs, tmp_path, adapter):
    chosen = {"adapter": adapter, "target_modules": ["c_attn"], "steps": 1}
    chosen |= {"fixed_preference": [0.5, 0.5]} if adapter == "lora" else {}
    train(small_config(pairs, base_model=str(gpt2), **chosen), tmp_path)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert tensors and all(".attn.c_attn." in name for name in tensors)
