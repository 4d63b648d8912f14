"""Every operation on every kind of base model, with one λ and with one λ per row.

Each cell compares with a reference of its own (dense weights, rows alone, an untouched model). The
tolerance is the base model's rounding: the adapter is float32 on every kind.
"""

import copy
import logging
from collections.abc import Callable

import bitsandbytes as bnb
import peft
import pytest
import torch
from adapter_models import (
    DIMENSIONS,
    IDS,
    LAMBDA,
    ROWS,
    TARGETS,
    adapter_layers,
    logits,
    randomised,
    tiny_llama,
)
from peft import PeftModel, PeftModelForCausalLM
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from panacea_lib.adapter import PanaceaConfig, export_lora, load_adapter

KINDS = ["fp32", "bf16", "nf4", "int8"]
TYPES = {
    "fp32": nn.Linear,
    "bf16": nn.Linear,
    "nf4": bnb.nn.Linear4bit,
    "int8": bnb.nn.Linear8bitLt,
}
PREFERENCES = {"(m,)": torch.tensor(LAMBDA), "(B, m)": ROWS}
OTHER = {"dimensions": ["a", "b"], "r": 2, "target_modules": ["q_proj", "up_proj"]}


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    logger.setLevel(logging.ERROR)  # MatMul8bitLt warns of its casts on every call
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, nn.Module]:
    """One base model of each kind; `fresh` copies them."""
    folder = tmp_path_factory.mktemp("base")
    tiny_llama().save_pretrained(folder)
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    # By default the columns that stay unrounded depend on the batch's other rows, adapter or not.
    eight_bit = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    options = {
        "fp32": {"dtype": torch.float32},
        "bf16": {"dtype": torch.bfloat16},
        "nf4": {"dtype": torch.float32, "quantization_config": four_bit},
        "int8": {
            "dtype": torch.float32,
            "quantization_config": eight_bit,
        },
    }
    found = {}
    for kind in KINDS:
        model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", **options[kind])
        layers = [m for n, m in model.named_modules() if n.endswith("_proj")]
        assert len(layers) == TARGETS and all(type(layer) is TYPES[kind] for layer in layers)
        for layer in layers:
            layer.support_avx512bf16_for_cpu = False  # as panacea_lib.models.base does
        found[kind] = model.eval()
    return found


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def fresh(bases, kind) -> Callable[[], nn.Module]:
    return lambda: copy.deepcopy(bases[kind])


@pytest.fixture
def model(fresh) -> PeftModelForCausalLM:
    return wrapped(fresh())


@pytest.fixture(params=PREFERENCES)
def preference(request) -> Tensor:
    return PREFERENCES[request.param]


def wrapped(base: nn.Module) -> PeftModelForCausalLM:
    """A tenth of the usual noise: what bfloat16 rounds stays small beside what is compared."""
    found = peft.get_peft_model(base, PanaceaConfig(dimensions=DIMENSIONS, r=4))
    randomised(found)
    for layer in adapter_layers(found):
        factors = layer.factors("default")
        factors.sigma.data *= 0.3
        factors.scale.data *= 0.3
    return found


def assert_close(found: Tensor, expected: Tensor, kind: str) -> None:
    """Up to float32's rounding; up to bfloat16's, in the norm, where the model computes in it."""
    if kind == "bf16":
        found, expected = found.float(), expected.float()
        assert (found - expected).norm() < 0.02 * expected.norm()
    else:
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def gradients(model: nn.Module, preference: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model.train()
    model(input_ids=IDS, labels=IDS, preference=preference).loss.backward()
    model.eval()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_forward_equals_dense_weights(model, kind, preference):
    """Layer by layer, so that the rounding of an int8 layer's inputs is in both."""
    rows = preference.expand(3, -1)
    for layer in adapter_layers(model)[:7]:
        base = layer.base_layer
        x = torch.randn(3, 5, base.in_features, generator=torch.Generator().manual_seed(0))
        x = x.to(torch.bfloat16 if kind == "bf16" else torch.float32)
        with torch.no_grad(), model.preference(preference):
            found = layer(x)
        assert found.dtype == x.dtype
        f = layer.factors("default")
        for i in range(3):
            diagonal = torch.diag(torch.cat((f.sigma, f.scale * rows[i])))
            dense = (16.0 / 4) * f.U @ diagonal @ f.V.T
            with torch.no_grad():
                expected = base(x)[i].float() + x[i].float() @ dense.T
            assert_close(found[i].float(), expected, kind)


def test_rows_together_equal_rows_alone(model, kind, preference):
    together = logits(model, preference=preference)
    for i, row in enumerate(preference.expand(3, -1)):
        alone = logits(model, IDS[i : i + 1], preference=row)
        assert_close(together[i : i + 1], alone, kind)
    with model.disable_adapter():
        assert (together - logits(model)).abs().max() > 0.1


def test_backward_reaches_every_factor(model, preference):
    found = gradients(model, preference)
    assert len(found) == TARGETS * 4
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32, name
        assert gradient.isfinite().all() and gradient.abs().max() > 0, name


def test_saved_and_loaded(model, fresh, tmp_path, preference):
    model.save_pretrained(tmp_path)
    expected = logits(model, preference=preference)
    for loaded in (
        PeftModel.from_pretrained(fresh(), tmp_path),
        load_adapter(fresh(), tmp_path),
    ):
        assert torch.equal(logits(loaded, preference=preference), expected)


def test_disabled_is_the_base_model(model, fresh, preference):
    model.set_preference(preference)
    expected, before = logits(fresh()), logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model), before)


def test_switched_to_another_adapter_and_back(model, preference):
    expected = logits(model, preference=preference)
    model.add_adapter("other", PanaceaConfig(**OTHER))
    for layer in adapter_layers(model):
        if "other" in layer.panacea_factors:
            nn.init.ones_(layer.factors("other").scale)
    model.set_adapter("other")
    with pytest.raises(ValueError, match="after set_adapter"), model.preference([0.5, 0.5]):
        model.set_adapter("default")
        logits(model)
    model.set_adapter("other")
    two = [0.5, 0.5] if preference.dim() == 1 else torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1.0]])
    assert (logits(model, preference=two) - expected).abs().max() > 0.01
    model.set_adapter("default")
    assert torch.equal(logits(model, preference=preference), expected)


@pytest.mark.filterwarnings("ignore:Adapter default was active")
def test_deleted(model, fresh, preference):
    model.add_adapter("twin", PanaceaConfig(dimensions=DIMENSIONS, r=1))
    model.delete_adapter("default")
    assert not any(".default." in name for name in model.state_dict())
    expected = logits(fresh())
    assert torch.equal(logits(model, preference=preference), expected), "a new adapter adds 0"


def test_merged_and_unmerged(model, kind, preference):
    before = logits(model, preference=preference)
    model.set_preference(preference)
    if preference.dim() == 2 or kind == "nf4":
        with pytest.raises(ValueError, match=r"one preference vector|4-bit"):
            model.merge_adapter(safe_merge=True)
        assert torch.equal(logits(model), before)
        return
    with model.disable_adapter():
        base = logits(model)
    model.merge_adapter(safe_merge=True)
    merged = logits(model)
    model.unmerge_adapter()
    away = (base - before).float().norm()
    share = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.3}[kind]  # merged weights are rounded anew
    for found in (merged, logits(model)):
        assert (found - before).float().norm() < share * away


def test_exported_to_a_plain_lora(model, kind, fresh, tmp_path, preference):
    """A λ per row is a LoRA per row."""
    expected = logits(model, preference=preference)
    for i, row in enumerate(preference.expand(3, -1)):
        export_lora(model, row, tmp_path / str(i))
        lora = PeftModel.from_pretrained(fresh(), tmp_path / str(i))
        assert_close(logits(lora)[i], expected[i], kind)


def test_generated_rows_equal_rows_alone(model, kind, preference):
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    options["num_return_sequences"] = options["num_beams"] = 2
    together = model.generate(IDS, preference=preference, **options)
    assert together.shape == (6, IDS.shape[1] + 4)
    for i, row in enumerate(preference.expand(3, -1)):
        alone = model.generate(IDS[i : i + 1], preference=row, **options)
        if kind != "bf16":  # where ties are decided by how a batch is rounded
            assert torch.equal(together[2 * i : 2 * i + 2], alone)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_changes_no_gradient(model, preference, use_reentrant):
    expected = gradients(model, preference)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    torch.testing.assert_close(gradients(model, preference), expected)


def test_a_step_after_an_evaluation_equals_one_without(model, fresh, preference):
    logits(model.eval(), preference=preference)
    expected = gradients(wrapped(fresh()), preference)
    torch.testing.assert_close(gradients(model, preference), expected, rtol=0, atol=0)
