"""The Panacea tuner on bitsandbytes layers, on the CPU."""

import copy
import logging

import bitsandbytes as bnb
import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from panacea_lib.adapter import PanaceaConfig, load_adapter

LAMBDA = [0.3, 0.7]
ROWS = torch.tensor([[1.0, 0.0], [0.3, 0.7]])
IDS = torch.randint(0, 64, (2, 7), generator=torch.Generator().manual_seed(1))
QUANTISED = {"nf4": bnb.nn.Linear4bit, "int8": bnb.nn.Linear8bitLt}


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    logger.setLevel(logging.ERROR)  # MatMul8bitLt warns of its casts on every call
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory) -> str:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    path = tmp_path_factory.mktemp("base")
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


def quantised_llama(base_dir: str, kind: str) -> nn.Module:
    quantization = (
        BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
        )
        if kind == "nf4"
        else BitsAndBytesConfig(load_in_8bit=True)
    )
    model = AutoModelForCausalLM.from_pretrained(
        base_dir, quantization_config=quantization, device_map="cpu", dtype=torch.float32
    )
    layers = [module for module in model.modules() if isinstance(module, QUANTISED[kind])]
    assert len(layers) == 14
    return model


def adapted(base: nn.Module) -> peft.PeftModelForCausalLM:
    model = peft.get_peft_model(base, PanaceaConfig(dimensions=["a", "b"], r=4))
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise * 0.1)
    return model


def logits(model: nn.Module, **kwargs) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, **kwargs).logits


@pytest.mark.parametrize("kind", QUANTISED)
def test_forward_adds_the_same_delta_as_on_plain_weights(base_dir, kind):
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(3))
    model = adapted(quantised_llama(base_dir, kind))
    wrapped = model.get_base_model().model.layers[0].mlp.up_proj
    assert isinstance(wrapped.base_layer, QUANTISED[kind])
    with model.preference(ROWS):
        added = wrapped(x) - wrapped.base_layer(x)
    f = wrapped.factors("default")
    for row, x_row, added_row in zip(ROWS, x, added, strict=True):
        torch.testing.assert_close(added_row, x_row @ f.delta_weight(row).T, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", QUANTISED)
def test_a_training_step_after_an_eval_equals_one_without(base_dir, kind):
    def gradients(evaluate_first: bool) -> list[Tensor]:
        model = adapted(quantised_llama(base_dir, kind))
        if evaluate_first:
            model.eval()
            logits(model, preference=LAMBDA)
        model.train()
        model(input_ids=IDS, labels=IDS, preference=ROWS).loss.backward()
        trainable = [p for p in model.parameters() if p.requires_grad]
        assert len(trainable) == 14 * 4
        assert all(p.dtype == torch.float32 and p.grad.abs().max() > 0 for p in trainable)
        return [p.grad for p in trainable]

    torch.testing.assert_close(gradients(True), gradients(False), rtol=0, atol=0)


def test_repacked_four_bit_weights_answer_but_are_not_trained(base_dir):
    """As bitsandbytes leaves them after an evaluation on a CPU with avx512_bf16."""
    base = quantised_llama(base_dir, "nf4")
    base.model.layers[1].mlp.up_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(ValueError, match=r"repacked .*layers\.1\.mlp\.up_proj.* before the base"):
        adapted(base)
    frozen = PanaceaConfig(dimensions=["a", "b"], inference_mode=True)
    assert peft.get_peft_model(base, frozen)
    adapted(fresh := quantised_llama(base_dir, "nf4"))
    assert not any(getattr(m, "support_avx512bf16_for_cpu", False) for m in fresh.modules())


@pytest.mark.parametrize("kind", QUANTISED)
def test_saved_and_loaded_on_a_quantised_base(base_dir, kind, tmp_path):
    model = adapted(quantised_llama(base_dir, kind)).eval()
    model.save_pretrained(tmp_path)
    loaded = load_adapter(quantised_llama(base_dir, kind), tmp_path)
    assert torch.equal(logits(loaded, preference=ROWS), logits(model, preference=ROWS))
    with model.disable_adapter(), loaded.disable_adapter():
        assert torch.equal(logits(loaded), logits(model))


def test_four_bit_weights_are_never_merged_into(base_dir):
    model = adapted(quantised_llama(base_dir, "nf4"))
    model.set_preference(LAMBDA)
    before = copy.deepcopy(model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match="4-bit"):
            merge()
    after = model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight
    assert torch.equal(before, after)


def test_eight_bit_weights_are_merged_up_to_their_rounding(base_dir):
    model = adapted(quantised_llama(base_dir, "int8")).eval()
    expected = logits(model, preference=LAMBDA)
    with model.disable_adapter():
        base = logits(model)
    model.set_preference(LAMBDA)
    model.merge_adapter(safe_merge=True)
    merged = logits(model)
    assert (merged - expected).norm() < 0.2 * (base - expected).norm()
