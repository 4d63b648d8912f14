"""Tiny Llama models with a Panacea adapter, for the tests of the adapter."""

import peft
import torch
from peft import PeftModelForCausalLM
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from panacea_lib.adapter import (
    Linear,
    PanaceaConfig,
)

DIMENSIONS = ["helpfulness", "harmlessness", "conciseness"]
LAMBDA = [0.2, 0.5, 0.3]
ROWS = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.5, 0.3], [0.0, 0.1, 0.9]])
IDS = torch.randint(3, 64, (3, 7), generator=torch.Generator().manual_seed(1))
TARGETS = 7 * 2  # adapted matrices: seven in each of two layers


def tiny_llama(**changes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,  # wide, so that greedy choices are no near-ties
        "pad_token_id": 0,
        "eos_token_id": 2,
    }
    config = LlamaConfig(**{**sizes, **changes})
    return LlamaForCausalLM(config).eval()


def tiny_gpt2() -> GPT2LMHeadModel:
    """Its `Conv1D`s keep their weights transposed."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64,
        n_positions=32,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    return GPT2LMHeadModel(config).eval()


def randomised(model: nn.Module) -> nn.Module:
    """As if trained: σ and s away from 0."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "panacea_factors" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise * (0.1 if name[-1] in "UV" else 1.0))
    return model


def adapted(base: nn.Module | None = None, **changes) -> PeftModelForCausalLM:
    config = PanaceaConfig(dimensions=DIMENSIONS, **{"r": 4, **changes})
    return randomised(peft.get_peft_model(base or tiny_llama(), config))


def logits(model: nn.Module, ids: Tensor = IDS, **kwargs) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **kwargs).logits


def adapter_layers(model: nn.Module) -> list[Linear]:
    return [module for module in model.modules() if isinstance(module, Linear)]
