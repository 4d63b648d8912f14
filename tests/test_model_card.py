"""Model cards: whatever a problem file says stays in its place, figures are the views', and what
is published loads as it lies there."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Finished, panacea
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM

import panacea_lib.adapter  # noqa: F401  makes the method known to PEFT
from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.disk import folder_aside
from panacea_lib.evaluation.choose import Estimate, FrontPoint
from panacea_lib.policy import load_policy
from panacea_lib.problem import Problem
from panacea_lib.problem_files import load_problem
from panacea_lib.report.model_card import Evaluated, model_card
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import PROJECT_ROOT, Workspace

METHODS = ["panacea", "panacea_dpo", "rewarded_soups"]
ROW = {
    "judge": "proxy", "value_ratio": 0.5, "value_ratio_low": 0.4, "value_ratio_high": 0.6,
    "kl": 1.25, "charged_hypervolume": 7.0, "n": 1234, "steps": 200, "tokens": 10_000,
    "seconds": 12.0, "stored_parameters": 500,
}  # fmt: skip


@cache
def shipped(name: str) -> Problem:
    return load_problem(PROJECT_ROOT / "assets_data" / "problems" / f"{name}.yaml")


def evaluated(problem: Problem) -> Evaluated:
    names = problem.dimension_names
    points = [
        FrontPoint(
            point=i,
            preference=dict(zip(names, np.eye(len(names))[i], strict=True)),
            rewards=dict.fromkeys(names, Estimate(-0.5, -0.6, -0.4)),
            kl=Estimate(1.0, None, None),
            n=9,
        )
        for i in range(len(names))
    ]
    return Evaluated(ROW, points)


def described(text: str) -> Problem:
    problem = shipped("demo")
    first, second = problem.dimensions
    changes = {"description": text, "dimensions": [first.model_copy(update={"description": text})]}
    changes["dimensions"].append(second)
    return problem.model_copy(update=changes)


# ---- the text


def test_a_hub_problem_s_front_matter_is_what_a_hub_reads():
    problem = shipped("smollm2-helpsteer2")
    text = model_card(problem, "panacea", problem.base_model.model, evaluated(problem))
    data = ModelCard(text).data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data.library_name == "peft" and data.pipeline_tag == "text-generation"
    assert data.datasets == ["nvidia/HelpSteer2"] and "panacea" in data.tags
    assert data.license is None, "model and data differ: not for a program to say"
    assert "| apache-2.0 |" in text and "| cc-by-4.0 |" in text
    assert 'bnb_4bit_quant_type="nf4"' in text and 'revision="main"' in text
    for limit in ("reads high", "flattered", "no safety that the data"):
        assert limit in text
    assert "| -0.500 (-0.600 to -0.400) |" in text, "a sign is no list"


def test_a_world_problem_names_no_hub_model():
    problem = shipped("demo")
    text = model_card(problem, "rewarded_soups", "../base_model", None, has_slider=True)
    data = ModelCard(text).data
    assert data.base_model is None and data.license == "apache-2.0"
    assert "It was not evaluated." in text and "slider.json" not in text
    assert "toy" not in data.tags and "lora" in data.tags
    assert "reads high" not in text, "its optimum is exact"


def test_the_lora_of_one_preference_says_which_and_takes_none():
    problem, frozen = shipped("demo"), {"helpfulness": 0.25, "harmlessness": 0.75}
    text = model_card(problem, "panacea", "base", evaluated(problem), frozen)
    assert "helpfulness 0.25, harmlessness 0.75" in text and "was not evaluated itself" in text
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    assert "preference" not in code and "panacea_lib" not in code
    exact = model_card(problem, "panacea", "base", evaluated(problem), {"helpfulness": 1.0})
    assert "is one of those that were evaluated" in exact


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_no_description_leaves_its_place(words):
    for text in (words, f"---\nlicense: mit\n---\n| a | <b>{words}", f"```\n# {words}\n- x | y"):
        plain = model_card(described("words"), "panacea", "base", None)
        card = model_card(described(text), "panacea", "base", None)
        assert card.split("---\n")[1] == plain.split("---\n")[1]
        (row,) = (line for line in card.splitlines() if line.startswith("| helpfulness |"))
        assert row.count("|") == 3 and "<" not in row
        headings = [[x for x in c.splitlines() if x.startswith("#")] for c in (card, plain)]
        assert headings[0] == headings[1]
        assert card.count("```") - text.count("```") * 2 <= plain.count("```")


# ---- the published folders


@pytest.fixture(scope="module")
def folders(chain: Finished) -> Path:
    """var/models/tiny, as the whole chain left it."""
    return Workspace.current().models / "tiny"


def code_of(folder: Path) -> str:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[0]


def row_of(method: str) -> dict:
    rows = Warehouse(Workspace.current().warehouse).read(
        "from leaderboard where problem = 'tiny' and method = ?", [method]
    )
    return rows.to_pylist()[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_card_s_code_runs_and_its_figures_are_the_view_s(folders, method, monkeypatch, capsys):
    folder, row = folders / method, row_of(method)
    card = (folder / "README.md").read_text()
    assert ModelCard.load(folder / "README.md").data.library_name == "peft"
    ratio = f"{row['value_ratio']:.3f} ({row['value_ratio_low']:.3f} to "
    assert f"| {ratio}{row['value_ratio_high']:.3f}) |" in card
    for told in (f"{row['kl']:.3f}", f"{row['charged_hypervolume']:.3f}", f"{row['n']:,}"):
        assert f"| {told} |" in card
    assert f"| stored parameters | {row['stored_parameters']:,} |" in card
    monkeypatch.chdir(folder)
    exec(compile(code_of(folder), "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_peft_loads_the_folder_as_the_trained_policy(folders):
    base = AutoModelForCausalLM.from_pretrained(folders / "base_model")
    model = PeftModel.from_pretrained(base, str(folders / "panacea")).eval()
    weights = {"helpfulness": 0.3, "harmlessness": 0.7}
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        found = model(input_ids=ids, preference=weights).logits
        expected = load_policy("tiny")._policy.model(input_ids=ids, preference=weights).logits
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_files_are_the_artifact_s_and_the_slider_is_the_policy_s(folders):
    workspace = Workspace.current()
    keys = Warehouse(workspace.warehouse).read(
        "select key from facts.current where problem = 'tiny' and part = 'panacea' "
        "and stage = 'panacea_policy'"
    )
    artifact = ArtifactStore(workspace.artifacts).fetch(keys["key"][0].as_py()) / "panacea"
    weights, config = "adapter_model.safetensors", "adapter_config.json"
    assert (folders / "panacea" / weights).read_bytes() == (artifact / weights).read_bytes()
    told, trained = (json.loads((f / config).read_text()) for f in (folders / "panacea", artifact))
    assert told == trained | {"base_model_name_or_path": "../base_model"}
    texts = [path for path in folders.rglob("*") if path.suffix in (".json", ".md")]
    assert [path for path in texts if str(workspace.root) in path.read_text()] == []
    assert {path.name for path in folders.iterdir()} == {"base_model", *METHODS}
    assert not list(folders.rglob("product.json")) and not list(folders.rglob("COMPLETE"))
    told = json.loads((folders / "panacea" / "slider.json").read_text())
    first = [preference["helpfulness"] for preference in told["preference"]]
    expected = load_policy("tiny").slider(0.4)["helpfulness"]
    assert np.interp(0.4, told["position"], first) == pytest.approx(expected)


@pytest.mark.slow
def test_a_published_folder_that_was_spoilt_comes_back(folders):
    card = folders / "panacea" / "README.md"
    before = card.read_text()
    card.write_text("gone")
    (folders / "panacea" / "stray").write_text("x")
    again = panacea("materialize", "tiny", "--select", "report")
    assert again.code == 0, again.err
    assert card.read_text() == before and not (folders / "panacea" / "stray").exists()


@pytest.mark.slow
def test_an_exported_lora_has_a_card_that_runs(chain, tmp_path, monkeypatch, capsys):
    out = tmp_path / "lora"
    finished = panacea("export", "tiny", "--prefer", "helpfulness=.2", "--out", str(out))
    assert finished.code == 0, finished.err
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]
    text = (out / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert "lora" in front["tags"] and "helpfulness 0.2, harmlessness 0.8" in text
    assert "is one of those that were evaluated" in text
    assert f"{row_of('panacea')['value_ratio']:.3f}" in text
    monkeypatch.chdir(out)
    exec(compile(code_of(out), "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


# ---- putting a folder in its place


def test_a_folder_takes_its_place_whole_or_not_at_all(tmp_path):
    target = tmp_path / "models" / "mine"
    with folder_aside(target) as aside:
        (aside / "a").write_text("1")
        assert not target.exists()
    with pytest.raises(RuntimeError), folder_aside(target) as aside:
        (aside / "a").write_text("half")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["a"] and (target / "a").read_text() == "1"
    with folder_aside(target) as aside:
        assert not list(aside.iterdir()), "what an attempt left is cleared"
        (aside / "b").write_text("2")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in target.parent.iterdir()] == ["mine"]


def test_no_method_is_called_as_the_base_model_s_folder():
    from orchestration.defs.evaluation.model_folders import BASE
    from panacea_lib.problem_training import BASELINE_METHODS

    assert BASE not in {"panacea", *BASELINE_METHODS.values()}
