"""Several adapters in one model, each with its own dimensions and rank; and one for each loader."""

import copy
import subprocess
import sys

import peft
import pytest
import torch
from adapter_models import DIMENSIONS, IDS, LAMBDA, ROWS, adapted, logits, randomised, tiny_llama
from peft import PeftModel
from transformers import AutoModelForCausalLM

import panacea_lib
from panacea_lib.adapter import (
    PanaceaConfig,
    find_preference_state,
    load_adapter,
    set_preference,
)

OTHERS = ["brevity", "warmth"]
TWO = [0.6, 0.4]
OTHER = {"dimensions": OTHERS, "r": 2, "target_modules": ["q_proj", "up_proj"]}


def alone() -> peft.PeftModelForCausalLM:
    """Adapter "default" of two dimensions, in some layers."""
    return randomised(peft.get_peft_model(tiny_llama(), PanaceaConfig(**OTHER)))


def both(base=None) -> peft.PeftModelForCausalLM:
    """Adapter "default" of three dimensions everywhere, and the one of `alone` as "other"."""
    model = adapted(base)
    model.add_adapter("other", PanaceaConfig(**OTHER))
    source = alone().state_dict()
    for name, parameter in model.named_parameters():
        if ".other." in name:
            parameter.data.copy_(source[name.replace(".other.", ".default.")])
    return model


def test_each_adapter_answers_for_its_own_dimensions():
    model = both()
    first = logits(model, preference=dict(zip(DIMENSIONS, LAMBDA, strict=True)))
    assert torch.equal(first, logits(adapted(), preference=LAMBDA))
    model.set_adapter("other")
    second = logits(model, preference=dict(zip(OTHERS, TWO, strict=True)))
    assert torch.equal(second, logits(alone(), preference=TWO))
    assert (first - second).abs().max() > 0.1
    model.set_adapter("default")
    assert torch.equal(logits(model, preference=LAMBDA), first)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(tiny_llama()))


def test_a_preference_stays_with_the_dimensions_it_was_given_for():
    model = both()
    model.set_preference(LAMBDA)
    expected = logits(model)
    model.set_adapter("other")
    told = r"given for \['helpfulness'.*dimensions are \['brevity', 'warmth'\].*after set_adapter"
    with pytest.raises(ValueError, match=told):
        logits(model)
    with pytest.raises(ValueError, match=told):
        model.generate(IDS, max_new_tokens=1)
    with pytest.raises(ValueError, match=told):
        model.merge_adapter()
    with pytest.raises(ValueError, match=r"2 weights, one for each of \['brevity', 'warmth'\]"):
        model.set_preference(LAMBDA)
    model.set_adapter("default")
    assert torch.equal(logits(model), expected), "it is still the λ of its adapter"


def test_the_same_number_of_other_dimensions_is_refused_too():
    model = adapted()
    model.add_adapter("other", PanaceaConfig(dimensions=["a", "b", "c"]))
    model.set_preference(LAMBDA)
    model.set_adapter("other")
    with pytest.raises(ValueError, match="after set_adapter"):
        logits(model)


def test_two_active_adapters_add_up_where_their_dimensions_agree():
    model = adapted()
    model.add_adapter("twin", PanaceaConfig(dimensions=DIMENSIONS, r=2))
    randomised(model)
    model.base_model.set_adapter(["default", "twin"])
    model.set_preference(LAMBDA)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0))
    weight = layer.weight + layer.get_delta_weight("default") + layer.get_delta_weight("twin")
    torch.testing.assert_close(layer(x), x @ weight.T, atol=1e-4, rtol=1e-4)
    model = both()
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(ValueError, match="no preference vector fits them all"):
        model.set_preference(LAMBDA)


def test_a_deleted_adapter_takes_its_dimensions_along():
    model = both()
    with pytest.warns(UserWarning, match="Setting active adapter to other"):
        model.delete_adapter("default")
    assert find_preference_state(model).dimensions == OTHERS
    state = model.state_dict()
    assert not any(".default." in name for name in state) and any(".other." in n for n in state)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    assert list(layer.panacea_factors) == ["other"]
    assert torch.equal(logits(model, preference=TWO), logits(alone(), preference=TWO))
    model.add_adapter("default", PanaceaConfig(dimensions=["x", "y"]))
    model.set_adapter("default")
    assert find_preference_state(model).dimensions == ["x", "y"], "the name is free again"


def test_without_an_active_adapter_there_is_nothing_to_prefer():
    model = adapted()
    model.delete_adapter("default")
    with pytest.raises(ValueError, match="No Panacea adapter is active"):
        model.set_preference(LAMBDA)


def test_training_moves_the_active_adapter_only():
    model = both()
    model.set_adapter("other")
    model(input_ids=IDS, labels=IDS, preference=TWO).loss.backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    assert moved and all(".other." in name for name in moved)
    assert len(moved) == 2 * 2 * 4


def test_checkpointing_recomputes_with_the_dimensions_of_its_forward():
    model = both().train()
    model.set_adapter("other")
    model.gradient_checkpointing_enable()
    model(input_ids=IDS, labels=IDS, preference=TWO).loss.backward()
    assert find_preference_state(model).value_dimensions == []


# ---- saved and loaded


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A base model and two adapters of different dimensions, in folders "default" and "other"."""
    root = tmp_path_factory.mktemp("saved")
    tiny_llama().save_pretrained(root / "base")
    base = AutoModelForCausalLM.from_pretrained(root / "base")
    both(base).save_pretrained(root)
    (root / "default").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (root / name).rename(root / "default" / name)
    return root


def test_two_saved_adapters_load_beside_each_other(saved):
    base = AutoModelForCausalLM.from_pretrained(saved / "base")
    model = PeftModel.from_pretrained(base, saved / "other", adapter_name="other")
    model.load_adapter(str(saved / "default"), "default")
    assert torch.equal(logits(model, preference=TWO), logits(alone(), preference=TWO))
    model.set_adapter("default")
    assert torch.equal(logits(model, preference=ROWS), logits(adapted(), preference=ROWS))


def test_transformers_loads_switches_and_deletes_them(saved):
    model = AutoModelForCausalLM.from_pretrained(saved / "other", adapter_name="other")
    panacea_lib.set_preference(model, TWO)
    expected = logits(alone(), preference=TWO)
    assert torch.equal(logits(model), expected)
    model.load_adapter(str(saved / "default"), adapter_name="default")
    with pytest.raises(ValueError, match="after set_adapter"):
        logits(model)
    set_preference(model, ROWS)
    assert torch.equal(logits(model), logits(adapted(), preference=ROWS))
    with panacea_lib.under_preference(model, LAMBDA):
        assert torch.equal(logits(model), logits(adapted(), preference=LAMBDA))
    assert torch.equal(logits(model), logits(adapted(), preference=ROWS)), "and back"
    model.set_adapter("other")
    set_preference(model, TWO)
    assert torch.equal(logits(model), expected)
    model.disable_adapters()
    assert torch.equal(logits(model), logits(tiny_llama()))
    model.enable_adapters()
    model.delete_adapter("default")
    assert torch.equal(logits(model), expected)
    model.delete_adapter("other")
    assert torch.equal(logits(model), logits(tiny_llama()))


def test_one_of_several_is_saved_alone(saved, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(saved / "base")
    model = load_adapter(base, saved / "default")
    model.load_adapter(str(saved / "other"), "other")
    model.save_pretrained(tmp_path, selected_adapters=["other"])
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "other" / name).read_bytes() == (saved / "other" / name).read_bytes()
    assert not (tmp_path / "adapter_model.safetensors").exists()


def test_a_copy_switches_on_its_own():
    model = both()
    twin = copy.deepcopy(model)
    twin.set_adapter("other")
    twin.set_preference(TWO)
    assert find_preference_state(model).dimensions == DIMENSIONS


# ---- the package


def test_the_package_stays_light_and_its_names_register_the_method():
    code = (
        "import sys, panacea_lib; assert 'torch' not in sys.modules;"
        "assert 'PanaceaConfig' in dir(panacea_lib);"
        "panacea_lib.PanaceaConfig;"
        "from peft import PeftType; assert PeftType('PANACEA') == 'PANACEA'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = panacea_lib.nonesuch
    for name in panacea_lib.__all__:
        assert getattr(panacea_lib, name) is getattr(panacea_lib.adapter, name)
