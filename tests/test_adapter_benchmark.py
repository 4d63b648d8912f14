"""The quantised models of `benchmarks.adapter --gpu`, tiny and on the CPU: the code must run."""

import bitsandbytes as bnb
import pytest
import torch
from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit

from benchmarks.adapter_gpu import quantised, sharing, steps
from benchmarks.adapter_steps import Shape, lora, panacea, preferences, training_step

TINY = Shape(64, 96, 2, 4, 2, 100, rows=2, tokens=8)


@pytest.fixture(scope="module")
def base():
    return quantised(TINY, torch.device("cpu"))


def test_only_the_projections_are_quantised_and_nothing_is_left_on_no_device(base):
    layers = [module for module in base.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(layers) == 14
    assert all(layer.weight.dtype == torch.uint8 for layer in layers)
    tensors = [*base.parameters(), *base.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert base.lm_head.weight.dtype == base.model.norm.weight.dtype == torch.bfloat16


def test_two_models_share_every_weight_but_not_their_adapters(base):
    ours, theirs = panacea(sharing(base)), lora(sharing(base))

    def at(model, trained):
        return {p.data_ptr() for p in model.parameters() if p.requires_grad is trained}

    assert at(ours, False) == at(theirs, False) == at(base, False)
    assert not at(ours, True) & at(theirs, True)
    assert isinstance(base.model.layers[0].mlp.up_proj, bnb.nn.Linear4bit)  # not wrapped itself
    wrapped = theirs.get_base_model().model.layers[0].mlp.up_proj
    assert type(wrapped) is LoraLinear4bit  # PEFT's own way with 4 bits: QLoRA
    for model in (ours, theirs):
        assert model.get_base_model().model.gradient_checkpointing


def test_both_models_train_in_turns(base):
    step_of_ours, step_of_theirs = (make() for make in steps(base, TINY))
    for _ in range(2):
        step_of_ours()
        step_of_theirs()


def test_a_step_trains_every_weight_of_the_adapter(base):
    model = panacea(sharing(base))
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    training_step(model, TINY, 2)()
    after = dict(model.named_parameters())
    assert len(before) == 14 * 4
    assert all(not torch.equal(after[name], value) for name, value in before.items())


def test_both_adapters_have_one_rank(base):
    ours = panacea(sharing(base)).get_base_model().model.layers[0].mlp.up_proj
    theirs = lora(sharing(base)).get_base_model().model.layers[0].mlp.up_proj
    assert ours.factors("default").U.shape[1] == theirs.lora_B["default"].weight.shape[1] == 10


def test_each_row_has_its_own_preference():
    given = preferences(32, 2)
    assert given.shape == (32, 2)
    assert len({tuple(row.tolist()) for row in given}) == 32
