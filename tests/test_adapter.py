"""The Panacea tuner on real, tiny Llama models: formula, λ, generation, merging."""

import copy
import importlib
from collections.abc import Callable

import peft
import pytest
import torch
from adapter_models import (
    DIMENSIONS,
    IDS,
    LAMBDA,
    ROWS,
    TARGETS,
    adapted,
    adapter_layers,
    logits,
    tiny_llama,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModelForCausalLM, PeftType
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
)
from transformers.pytorch_utils import Conv1D

import panacea_lib.adapter as adapter
from panacea_lib.adapter import (
    PanaceaConfig,
    as_preference,
    find_preference_state,
    set_preference,
    under_preference,
)

# ---- the formula


@pytest.mark.parametrize("preference", [LAMBDA, ROWS])
def test_a_new_adapter_changes_nothing(preference):
    base = tiny_llama()
    expected = logits(base)
    model = peft.get_peft_model(base, PanaceaConfig(dimensions=DIMENSIONS))
    assert torch.equal(logits(model, preference=preference), expected)
    assert len(adapter_layers(model)) == TARGETS
    assert all(p.requires_grad == ("panacea_" in n) for n, p in model.named_parameters())


def test_the_formula_against_dense_weights():
    model = adapted(alpha=6.0)
    dense = tiny_llama()
    matrices = {name: p for name, p in dense.named_parameters() if "_proj" in name}
    for name, weight in matrices.items():
        layer = model.get_base_model().get_submodule(name.removesuffix(".weight"))
        f = layer.factors("default")
        diagonal = torch.diag(torch.cat((f.sigma, f.scale * torch.tensor(LAMBDA))))
        weight.data += (6.0 / 4) * f.U.detach() @ diagonal.detach() @ f.V.detach().T
    expected = logits(dense)
    torch.testing.assert_close(logits(model, preference=LAMBDA), expected, atol=1e-4, rtol=1e-4)
    assert (expected - logits(tiny_llama())).abs().max() > 0.1


def test_one_preference_per_row_equals_row_by_row():
    model = adapted()
    together = logits(model, preference=ROWS)
    for i, row in enumerate(ROWS):
        alone = logits(model, IDS[i : i + 1], preference=row)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)
    repeated = torch.tensor(LAMBDA).repeat(3, 1)
    assert torch.equal(logits(model, preference=repeated), logits(model, preference=LAMBDA))


weights = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3).map(
    lambda w: torch.tensor(w) / sum(w)
)


@settings(max_examples=25, deadline=None)
@given(first=weights, second=weights, t=st.floats(0.0, 1.0))
def test_the_weight_is_affine_in_the_preference(first, second, t):
    torch.manual_seed(0)
    factors = adapter.Factors(5, 6, PanaceaConfig(dimensions=DIMENSIONS, r=2))
    nn.init.normal_(factors.sigma)
    nn.init.normal_(factors.scale)
    mixed = factors.delta_weight(t * first + (1 - t) * second)
    parts = t * factors.delta_weight(first) + (1 - t) * factors.delta_weight(second)
    torch.testing.assert_close(mixed, parts, atol=1e-6, rtol=1e-4)


def test_training_moves_every_factor():
    model = peft.get_peft_model(tiny_llama(), PanaceaConfig(dimensions=DIMENSIONS))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = {n: p.clone() for n, p in model.named_parameters()}
    for _ in range(2):  # U and V follow once σ and s have left 0
        model(input_ids=IDS, labels=IDS, preference=ROWS).loss.backward()
        optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if "panacea_factors" in n}


# ---- what a preference may be, and when it is needed


def test_a_disabled_adapter_needs_no_preference_and_an_enabled_one_does():
    model = adapted()
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(tiny_llama()))
    with pytest.raises(ValueError, match="set_preference"):
        logits(model)


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        ([0.5, 0.5], "has 3 weights"),
        (torch.full((1, 2, 3), 1 / 3), "has 3 weights"),
        ({"helpfulness": 0.5, "humour": 0.5}, r"Unknown preference dimension\(s\) \['humour'\]"),
        ({"helpfulness": 0.5}, "sum to 1"),
        ([0.5, 0.5, 0.5], "sum to 1"),
        ([1.5, -0.5, 0.0], "not negative"),
        ([float("nan"), 0.5, 0.5], "finite"),
        ([float("inf"), 0.0, 0.0], "finite"),
        ([[1.0, 0.0, 0.0], [0.9, 0.0, 0.0]], "sum to 1"),
    ],
)
def test_a_bad_preference_is_refused(preference, message):
    with pytest.raises(ValueError, match=message):
        as_preference(preference, DIMENSIONS)


def test_preferences_by_name_are_ordered_and_completed():
    named = {"conciseness": 0.4, "helpfulness": 0.6}
    assert as_preference(named, DIMENSIONS).tolist() == pytest.approx([0.6, 0.0, 0.4])
    given_tensor = torch.tensor(LAMBDA)
    as_preference(given_tensor, DIMENSIONS).zero_()
    assert given_tensor.tolist() == pytest.approx(LAMBDA)


@pytest.mark.parametrize("rows", [1, 2])
def test_as_many_rows_as_the_batch(rows):
    model = adapted()
    with pytest.raises(ValueError, match=f"{rows} rows but the batch has 3"):
        logits(model, preference=ROWS[:rows])


def test_a_call_a_block_and_until_further_notice():
    model = adapted()
    state = find_preference_state(model)
    by_call = logits(model, preference=LAMBDA)
    assert state.value is None
    model.set_preference(dict(zip(DIMENSIONS, LAMBDA, strict=True)))
    assert torch.equal(logits(model), by_call)
    with model.preference([1, 0, 0]):
        assert not torch.equal(logits(model), by_call)
        with pytest.raises(ValueError, match="rows"):
            logits(model, preference=ROWS[:2])
        assert state.value.tolist() == [1, 0, 0]
    assert torch.equal(logits(model), by_call)
    model.set_preference(None)
    with pytest.raises(ValueError, match="no preference vector"):
        logits(model)


def test_a_copy_has_its_own_preference():
    model = adapted()
    twin = copy.deepcopy(model)
    twin.set_preference([1, 0, 0])
    assert find_preference_state(model).value is None
    states = {id(layer.preference_state) for layer in adapter_layers(twin)}
    assert states == {id(twin.base_model.preference_state)}


# ---- generation


GREEDY = {"max_new_tokens": 8, "do_sample": False}


@pytest.mark.parametrize("beams", [1, 2])
def test_generation_with_a_preference_per_row_and_left_padding(beams):
    model = adapted()
    mask = torch.ones_like(IDS)
    mask[0, :3] = 0
    mask[2, :1] = 0
    options = {**GREEDY, "num_beams": beams, "min_new_tokens": 8}
    together = model.generate(input_ids=IDS * mask, attention_mask=mask, preference=ROWS, **options)
    for i, row in enumerate(ROWS):
        prompt = IDS[i : i + 1, mask[i].bool()]
        alone = model.generate(input_ids=prompt, preference=row, **options)
        assert together[i, IDS.shape[1] :].tolist() == alone[0, prompt.shape[1] :].tolist()
    assert find_preference_state(model).value is None
    assert len({tuple(row) for row in together[:, IDS.shape[1] :].tolist()}) == 3


@pytest.mark.parametrize("by_config", [False, True])
def test_each_returned_sequence_follows_its_prompt(by_config):
    model = adapted()
    options = {"max_new_tokens": 6, "do_sample": True, "num_return_sequences": 2}
    torch.manual_seed(3)
    if by_config:
        config = GenerationConfig(**options)
        returned = model.generate(IDS, generation_config=config, preference=ROWS)
    else:
        with model.preference(ROWS):
            returned = model.generate(IDS, **options)
    torch.manual_seed(3)
    options["num_return_sequences"] = 1
    ids, rows = IDS.repeat_interleave(2, 0), ROWS.repeat_interleave(2, 0)
    assert torch.equal(returned, model.generate(ids, preference=rows, **options))


# ---- gradient checkpointing


def gradients(
    loss: Callable[[PeftModelForCausalLM], Tensor],
    before: Callable[[LlamaForCausalLM], None] = lambda base: None,
    after: Callable[[PeftModelForCausalLM], None] = lambda model: None,
) -> list[Tensor]:
    """The adapter's gradients; `before`, `after`: what is done before and after wrapping."""
    base = tiny_llama()
    before(base)
    model = adapted(base).train()
    after(model)
    value = loss(model)
    assert find_preference_state(model).value is None
    value.backward()
    return [p.grad for p in model.parameters() if p.requires_grad]


def two_preferences(model: PeftModelForCausalLM) -> Tensor:
    first = model(input_ids=IDS, labels=IDS, preference=LAMBDA).loss
    with model.preference(ROWS):
        second = model(input_ids=IDS, labels=IDS).loss
    return first - 2 * second


@pytest.mark.parametrize(
    "enabled",
    [
        {"after": lambda model: model.gradient_checkpointing_enable()},
        {"after": lambda model: model.activation_checkpointing_enable({"use_reentrant": True})},
        {"before": lambda base: base.activation_checkpointing_enable()},
    ],
)
def test_recomputation_sees_the_preference_of_its_forward(enabled):
    torch.testing.assert_close(gradients(two_preferences, **enabled), gradients(two_preferences))


# ---- merging


def test_merged_equals_unmerged():
    model = adapted()
    expected = logits(model, preference=LAMBDA)
    model.set_preference(LAMBDA)
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    for call in (model.set_preference, lambda value: logits(model, preference=value)):
        with pytest.raises(ValueError, match="unmerge_adapter"):
            call([1, 0, 0])
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    model.set_preference([1, 0, 0])
    assert (logits(model) - expected).abs().max() > 0.1


def test_merged_and_unloaded_or_disabled():
    model = adapted()
    model.set_preference(LAMBDA)
    expected = logits(model)
    model.merge_adapter()
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(tiny_llama()), atol=1e-4, rtol=1e-4)
    plain = model.merge_and_unload()
    assert type(plain) is LlamaForCausalLM
    torch.testing.assert_close(logits(plain), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("preference", [None, ROWS])
def test_merging_needs_one_preference(preference):
    model = adapted()
    model.set_preference(preference)
    with pytest.raises(ValueError, match="merged at one preference vector"):
        model.merge_adapter()


@pytest.mark.parametrize("safe_merge", [True, False])
def test_a_merge_of_what_is_not_finite_is_refused_before_the_first_layer(safe_merge):
    model = adapted()
    layers = adapter_layers(model)
    before = [layer.get_base_weight().clone() for layer in layers]
    sigma = layers[-1].factors("default").sigma.data
    kept, sigma[0] = sigma[0].item(), float("nan")
    model.set_preference(LAMBDA)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match=r"down_proj` has NaN or infinite weights"):
            merge(safe_merge=safe_merge)
    assert not any(layer.merged for layer in layers)
    assert all(torch.equal(a, b.get_base_weight()) for a, b in zip(before, layers, strict=True))
    sigma[0] = kept
    model.merge_adapter(safe_merge=safe_merge)
    assert all(layer.merged for layer in layers)


def test_a_broken_adapter_that_is_not_active_does_not_keep_another_from_merging():
    model = adapted()
    model.add_adapter("broken", PanaceaConfig(dimensions=DIMENSIONS))
    adapter_layers(model)[0].factors("broken").sigma.data[0] = float("nan")
    model.set_preference(LAMBDA)
    model.merge_adapter(safe_merge=True)
    assert adapter_layers(model)[0].merged_adapters == ["default"]


def test_safe_merge_refuses_a_sum_that_is_not_finite():
    model = adapted(tiny_llama().half())
    adapter_layers(model)[0].factors("default").scale.data[:] = 1e6
    model.set_preference(LAMBDA)
    with pytest.raises(ValueError, match="NaNs detected"):
        model.merge_adapter(safe_merge=True)


# ---- types and several adapters


def test_a_bfloat16_model_keeps_a_float32_adapter():
    expected = logits(adapted(), preference=ROWS)
    model = adapted(tiny_llama().to(torch.bfloat16))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    got = logits(model, preference=ROWS)
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).norm() / expected.norm() < 0.05
    model(input_ids=IDS, labels=IDS, preference=ROWS).loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = logits(adapted(), preference=ROWS)
    assert (mixed.float() - expected).norm() / expected.norm() < 0.05


def test_a_reference_copied_by_name_answers_the_same():
    """TRL copies an adapter by the infix `.default.` in the names of its parameters."""
    model = adapted()
    model.add_adapter("ref", model.peft_config["default"])
    for name, parameter in list(model.named_parameters()):
        if ".default." in name:
            twin = model.get_parameter(name.replace(".default.", ".ref."))
            assert not twin.requires_grad
            twin.data.copy_(parameter.data)
    expected = logits(model, preference=LAMBDA)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()
    model.set_adapter("ref")
    assert torch.equal(logits(model, preference=LAMBDA), expected)
    with pytest.warns(UserWarning, match="Setting active adapter to default"):
        model.delete_adapter("ref")
    assert torch.equal(logits(model, preference=LAMBDA), logits(tiny_llama()))


# ---- configuration and registration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dimensions": ["one"]}, "2 to 10"),
        ({"dimensions": [str(i) for i in range(11)]}, "2 to 10"),
        ({"dimensions": ["a", "a"]}, "differ"),
        ({"dimensions": DIMENSIONS, "r": 0}, "at least 1"),
    ],
)
def test_a_bad_config_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PanaceaConfig(**changes)


def test_targets_are_chosen_or_refused():
    chosen = {
        "target_modules": ["q_proj", "down_proj"],
        "exclude_modules": ["layers.1.mlp.down_proj"],
    }
    assert len(adapter_layers(adapted(**chosen))) == 3
    with pytest.raises(TypeError, match=r"`model.embed_tokens` is a Embedding"):
        adapted(target_modules=["embed_tokens"])
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=8, n_positions=8))
    with pytest.raises(ValueError, match="no Panacea adapter"):
        set_preference(gpt2, LAMBDA)
    with pytest.raises(ValueError, match="no Panacea adapter"):
        under_preference(gpt2, LAMBDA)
    found = adapter_layers(adapted(gpt2))  # it has none of the default names
    assert len(found) == 4 and isinstance(found[0].get_base_layer(), Conv1D)


def test_registration_survives_a_second_import():
    importlib.reload(adapter)
    assert list(PeftType).count(PeftType("PANACEA")) == 1
    assert PeftType("PANACEA").value == "PANACEA" and isinstance(PeftType("PANACEA"), PeftType)
    assert peft.get_peft_config({"peft_type": "PANACEA", "dimensions": DIMENSIONS}).r == 8
