"""`panacea export`: the trained policy at one λ, loaded by plain PEFT."""

import json
from pathlib import Path

import pytest
import torch
from conftest import Finished, panacea
from peft import PeftModel
from transformers import AutoModelForCausalLM

from panacea_lib.policy import load_policy

WEIGHTS = {"helpfulness": 0.2, "harmlessness": 0.8}
PREFER = "helpfulness=.2,harmlessness=.8"


@pytest.mark.parametrize(
    ("method", "prefer"), [("panacea", PREFER), ("panacea_dpo", "helpfulness=.2")]
)
def test_the_printed_lines_load_the_same_policy(chain: Finished, tmp_path, method, prefer):
    out = tmp_path / "new" / "lora"
    finished = panacea("export", "tiny", "--prefer", prefer, "--out", str(out), "--method", method)
    assert finished.code == 0, finished.err
    first, *lines = finished.out.splitlines()
    assert first.startswith(f"wrote {out}") and len(lines) == 2
    names = {"AutoModelForCausalLM": AutoModelForCausalLM, "PeftModel": PeftModel}
    exec("\n".join(lines), names)
    lora = names["model"]
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and Path(config["base_model_name_or_path"]).is_dir()

    model = load_policy("tiny", method)._policy.model
    ids = torch.randint(5, 30, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = lora(input_ids=ids).logits
        expected = model(input_ids=ids, preference=WEIGHTS).logits
        other = model(input_ids=ids, preference={"helpfulness": 1.0}).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (expected - other).abs().max() > 10 * (expected - found).abs().max()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tiny", "--prefer", "warmth=1"], "no dimension is named 'warmth'"),
        (["tiny", "--prefer", "helpfulness=.9,harmlessness=.9"], "sum to 1.8, not to 1"),
        (["tiny", "--prefer", "helpfulness"], "is not NAME=WEIGHT"),
        (["nonesuch", "--prefer", PREFER], "nonesuch"),
        (["tiny", "--prefer", PREFER, "--method", "rewarded_soups"], "no Panacea adapter"),
        (["tiny"], "--prefer"),
    ],
)
def test_bad_input_is_refused_and_writes_nothing(chain: Finished, tmp_path, arguments, told):
    finished = panacea("export", *arguments, "--out", str(tmp_path / "lora"))
    assert finished.code == 2 and told in finished.err, finished.err
    assert "Traceback" not in finished.err
    assert not list(tmp_path.iterdir())


def test_a_full_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("keep")
    for out in (tmp_path, tmp_path / "mine"):
        finished = panacea("export", "tiny", "--prefer", PREFER, "--out", str(out))
        assert finished.code == 2 and "exists and is not empty" in finished.err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["keep"]


def test_what_was_not_made_names_the_command(tmp_path):
    out = str(tmp_path / "lora")
    finished = panacea("export", "demo3", "--prefer", "helpfulness=1", "--out", out)
    assert finished.code == 1 and "panacea materialize demo3" in finished.err
    assert not list(tmp_path.iterdir())
