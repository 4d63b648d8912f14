"""One λ frozen into a plain LoRA, which PEFT loads without anything of ours."""

import json
import subprocess
import sys

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
    tiny_gpt2,
    tiny_llama,
)
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from panacea_lib.adapter import PanaceaConfig, export_lora

NAMED = dict(zip(DIMENSIONS, LAMBDA, strict=True))


def test_the_lora_answers_as_the_adapter_at_that_preference(tmp_path):
    model = adapted(alpha=6.0)
    model.set_preference([1, 0, 0])
    out = export_lora(model, NAMED, tmp_path / "new" / "lora")
    assert out == tmp_path / "new" / "lora"
    assert sorted(path.name for path in out.parent.iterdir()) == ["lora"], "nothing left aside"
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    lora = PeftModel.from_pretrained(tiny_llama(), out)
    expected = logits(model, preference=LAMBDA)
    torch.testing.assert_close(logits(lora), expected, atol=1e-4, rtol=1e-4)
    assert (expected - logits(model)).abs().max() > 0.1, "the current λ is another, and stays"


def test_the_files_are_those_of_a_plain_lora(tmp_path):
    model = adapted(target_modules=["q_proj", "down_proj"], exclude_modules=["layers.0.mlp"])
    model.peft_config["default"].base_model_name_or_path = "some/base"
    for folder in ("a", "b"):
        export_lora(model, LAMBDA, tmp_path / folder)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    rank = 4 + len(DIMENSIONS)
    expected = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "base_model_name_or_path": "some/base",
        "target_modules": ["down_proj", "q_proj"],
        "exclude_modules": ["layers.0.mlp"],
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    assert {name: config[name] for name in expected} == expected
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert len(tensors) == 2 * len(adapter_layers(model)) == 2 * 4
    prefix = "base_model.model.model.layers.1.mlp.down_proj.lora_"
    assert tensors[prefix + "A.weight"].shape == (rank, 96)
    assert tensors[prefix + "B.weight"].shape == (64, rank)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_process_that_never_saw_this_project_loads_it(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    model = adapted(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    export_lora(model, LAMBDA, tmp_path / "lora")
    code = (
        "import sys, torch\n"
        "from peft import AutoPeftModelForCausalLM\n"
        "model = AutoPeftModelForCausalLM.from_pretrained('lora')\n"
        f"logits = model(input_ids=torch.tensor({IDS.tolist()})).logits.detach()\n"
        "torch.save(logits, 'logits.pt')\n"
        "assert not any(name.startswith('panacea') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    expected = logits(model, preference=LAMBDA)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_one_of_several_adapters_inside_wrappers_or_loaded_by_transformers(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    model = adapted(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    model.add_adapter("other", PanaceaConfig(dimensions=["a", "b"], r=2))
    model.save_pretrained(tmp_path / "adapter", selected_adapters=["default"])
    export_lora(model, [0.5, 0.5], tmp_path / "other", adapter_name="other")
    fresh = PeftModel.from_pretrained(tiny_llama(), tmp_path / "other")
    assert torch.equal(logits(fresh), logits(tiny_llama()))
    sources = {
        "peft": model,
        "parallel": nn.DataParallel(model),
        "compiled": torch.compile(model, backend="eager"),
        "transformers": AutoModelForCausalLM.from_pretrained(tmp_path / "adapter"),
    }
    written = {
        (export_lora(source, LAMBDA, tmp_path / name) / "adapter_model.safetensors").read_bytes()
        for name, source in sources.items()
    }
    assert len(written) == 1


def test_gpt2_s_transposed_layers(tmp_path):
    model = adapted(tiny_gpt2(), target_modules=["c_attn", "c_proj", "c_fc"])
    export_lora(model, LAMBDA, tmp_path / "lora")
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] is True
    lora = PeftModel.from_pretrained(tiny_gpt2(), tmp_path / "lora")
    expected = logits(model, preference=LAMBDA)
    torch.testing.assert_close(logits(lora), expected, atol=1e-4, rtol=1e-4)
    assert (expected - logits(tiny_gpt2())).abs().max() > 0.01


def test_bad_exports_are_refused_and_write_nothing(tmp_path):
    model = adapted()
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("keep")
    for out in (full, full / "mine"):
        with pytest.raises(FileExistsError, match="exists and is not empty"):
            export_lora(model, LAMBDA, out)
    new = tmp_path / "new"
    with pytest.raises(ValueError, match="holds one preference vector; got 3"):
        export_lora(model, ROWS, new)
    with pytest.raises(ValueError, match="sum to 1"):
        export_lora(model, [1, 1, 1], new)
    with pytest.raises(ValueError, match="no Panacea adapter named 'nonesuch'"):
        export_lora(model, LAMBDA, new, adapter_name="nonesuch")
    with pytest.raises(ValueError, match="no Panacea adapter"):
        export_lora(tiny_llama(), LAMBDA, new)
    adapter_layers(model)[3].factors("default").V.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"not finite in layer .*layers\.0"):
        export_lora(model, LAMBDA, new)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.read_text() for path in full.iterdir()] == ["keep"]


def test_an_empty_folder_is_written_into(tmp_path):
    (tmp_path / "lora").mkdir()
    export_lora(adapted(), LAMBDA, tmp_path / "lora")
    assert len(load_file(tmp_path / "lora" / "adapter_model.safetensors")) == 2 * TARGETS
