"""Content keys: stable for equal inputs, and moved by exactly what a product follows from."""

from typing import Any

import pytest

from panacea_lib.plan import Plan, is_offline, key_of
from panacea_lib.plan_content import STAGE_VERSIONS
from panacea_lib.problem import Problem
from panacea_lib.problem_files import find_problems, load_problem
from panacea_lib.workspace import Workspace

LIBRARIES = "torch transformers tokenizers peft trl numpy moocore bitsandbytes"
VERSIONS = dict.fromkeys(LIBRARIES.split(), "1.0")
# Every number spelled out, so that a new default elsewhere moves no golden key.
VALUES: dict[str, Any] = {
    "name": "golden",
    "beta": 0.5,
    "dimensions": [{"name": "helpfulness"}, {"name": "harmlessness"}],
    "data": {
        "kind": "world",
        "prompts": 100,
        "pairs": 500,
        "annotators": 1,
        "split": {"validation": 0.1, "test": 0.1},
    },
    "base_model": {
        "kind": "scratch",
        "tokenizer": "words",
        "vocab_size": 512,
        "hidden_size": 64,
        "layers": 2,
        "heads": 4,
        "steps": 100,
        "batch_size": 32,
        "learning_rate": 0.01,
        "temperature": 1.0,
        "max_length": 64,
    },
    "reference": {"prompts": 20, "per_prompt": 4, "max_new_tokens": 40, "batch_size": 64},
    "rewards": {
        "steps": 60,
        "batch_size": 32,
        "learning_rate": 0.003,
        "rank": 8,
        "trained": "lora",
        "trunk": "separate",
        "margin": 0.0,
    },
    "training": {
        "method": "reward_distillation",
        "steps": 100,
        "batch_size": 32,
        "accumulation": 1,
        "learning_rate": 0.003,
        "warmup": 0.1,
        "rank": 8,
        "alpha": 16.0,
        "preferences": {"concentration": 1.0, "vertex_probability": 0.1, "per": "row"},
        "checkpoint_every": 50,
        "gradient_checkpointing": False,
    },
    "baselines": {"methods": ["dpo", "rewarded_soups"]},
    "evaluation": {
        "prompts": 8,
        "samples": 4,
        "max_new_tokens": 40,
        "batch_size": 64,
        "bootstrap": 100,
    },
    "champion": {"metric": "value_ratio", "floors": {}},
}
# The first digits. A change here makes every team train everything again: is that meant?
GOLDEN = {
    "prompts": "cf98e6238fed",
    "base_model": "82ff06bb7a0a",
    "responses": "85016d3e1eec",
    "pairs": "d972ea573f8b",
    "annotations/helpfulness by data": "3be6f21a968c",
    "annotations/harmlessness by data": "a8824d7bcd8a",
    "preference_labels": "b7dcfc749bd4",
    "reward_models/helpfulness": "ca0406e24ff6",
    "reward_models/harmlessness": "c5d2666aa417",
    "response_rewards/helpfulness": "970f4e78a04a",
    "response_rewards/harmlessness": "a7555250ae06",
    "panacea_policy/panacea": "be53b6cc13df",
    "baseline_policies/panacea_dpo": "d393bcce988f",
    "baseline_policies/rewarded_soups": "7c9418c4105f",
    "generations/reference": "d70aaab0452e",
    "generations/panacea": "40e4044d20ec",
    "generations/panacea_dpo": "a2e0c04052a7",
    "generations/rewarded_soups": "bbc576c7628f",
    "pareto_front": "2e60f97d4599",
    "report": "7f452f1db9bf",
    "champion": "9c5dbf530aee",
}
GENERATIONS = {"reference", "panacea", "panacea_dpo", "rewarded_soups"}
POLICIES = {"panacea_policy", "baseline_policies/panacea_dpo", "baseline_policies/rewarded_soups"}
SOUPS = {"baseline_policies/rewarded_soups", "generations/rewarded_soups"}
DPO = {"baseline_policies/panacea_dpo", "generations/panacea_dpo"} | SOUPS
ANSWERS = {f"generations/{method}" for method in GENERATIONS}
END = {"pareto_front", "report"}
GATE = {"champion"}
COMPARED = {"generations/panacea", "generations/reference"}
REWARDS = {"reward_models", "response_rewards"}
EVERYTHING = set(STAGE_VERSIONS)


def plan(changes: dict[str, Any] | None = None, **settings: Any) -> Plan:
    """The plan of VALUES with `changes` ("section.key": value) under fake versions."""
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in VALUES.items()}
    for path, value in (changes or {}).items():
        section, _, key = path.partition(".")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    given = {
        "seed": 0,
        "max_steps": None,
        "data_fingerprint": "0" * 64,
        "model_fingerprint": "scratch",
        "versions": VERSIONS,
    }
    return Plan(problem=Problem.model_validate(values), **(given | settings))


def all_keys(of: Plan) -> dict[str, str]:
    return {
        f"{stage}/{part}" if part else stage: key
        for stage in STAGE_VERSIONS
        for part, key in of.keys(stage).items()
    }


def what_changes(case: Any) -> str:
    """A case's name; not of its set, which two processes would spell differently."""
    return ",".join(case) if isinstance(case, dict) else ""


def changed(before: Plan, after: Plan) -> set[str]:
    """What is made anew, as "stage/part"; "stage" alone where that is all its parts."""
    old, new = all_keys(before), all_keys(after)
    moved = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    for stage in STAGE_VERSIONS:
        parts = {name for name in old if name.split("/")[0] == stage}
        if parts <= moved and len(parts) > 1 and stage not in ("generations", "baseline_policies"):
            moved = moved - parts | {stage}
    return {name.removesuffix("/panacea") if "policy" in name else name for name in moved}


def test_keys_of_equal_inputs_never_change(monkeypatch):
    for stage in STAGE_VERSIONS:  # those may be raised
        monkeypatch.setitem(STAGE_VERSIONS, stage, 1)
    assert {name: key[:12] for name, key in all_keys(plan()).items()} == GOLDEN


@pytest.mark.parametrize(
    ("change", "remade"),
    [
        ({"description": "other words"}, {"report"}),
        ({"name": "other"}, {"report"}),
        ({"data.license": "mit", "base_model.license": "mit"}, set()),
        ({"training.checkpoint_every": 10}, set()),
        ({"retrain": {"cron": "0 4 * * *", "enabled": True, "seed": "fresh"}}, set()),
        ({"evaluation.bootstrap": 200}, END | GATE),
        ({"champion": {"floors": {"harmlessness": 0.0}}}, GATE),
        ({"evaluation.samples": 5}, ANSWERS | END),
        ({"training.steps": 50}, POLICIES | ANSWERS - {"generations/reference"} | END),
        ({"training.method": "dpo"}, {"panacea_policy", "generations/panacea"} | END),
        (
            {"training.distillation_loss": "logistic"},
            {"panacea_policy", "generations/panacea"} | END,
        ),
        ({"training.tail_penalty": 1.0}, {"panacea_policy", "generations/panacea"} | END),
        ({"training.rollouts": {"group": 4}}, set()),
        ({"training.scalarization": {"temperature": 0.2}}, DPO | END),
        ({"baselines.objective": "reward_distillation"}, SOUPS | END),
        ({"baselines.preferences": [[0.5, 0.5]]}, set()),
        ({"beta": 0.4}, POLICIES | ANSWERS - {"generations/reference"} | END),
        ({"baselines": {"methods": ["dpo"]}}, END),
        (
            {"baselines.learning_rates": {"dpo": 1e-3}},
            {"baseline_policies/panacea_dpo", "generations/panacea_dpo"} | END,
        ),
        # the baselines learn from labels alone
        ({"rewards.steps": 50}, REWARDS | {"panacea_policy"} | ANSWERS | END),
        ({"data.pairs": 400}, EVERYTHING - {"prompts", "base_model", "responses"}),
        (
            {"data.annotators": 3},
            EVERYTHING - {"prompts", "base_model", "responses", "pairs"},
        ),
        ({"reference.prompts": 10}, EVERYTHING - {"prompts", "base_model"}),
        ({"base_model.quantization": "nf4"}, EVERYTHING - {"prompts", "base_model"}),
        ({"base_model.steps": 50}, EVERYTHING - {"prompts"}),
        ({"data.prompts": 90}, EVERYTHING),
    ],
    ids=what_changes,
)
def test_a_change_remakes_what_follows_from_it_and_nothing_else(change, remade):
    assert changed(plan(), plan(change)) == _in_parts(remade)


def _in_parts(stages: set[str]) -> set[str]:
    """EVERYTHING names stages; `changed` names the parts of two of them."""
    found = set(stages)
    for stage, parts in (("generations", ANSWERS), ("baseline_policies", POLICIES)):
        if stage in found:
            found = found - {stage} | {part for part in parts if part.startswith(stage)}
    return found | (GATE if found & COMPARED else set())  # it follows from those answers


@pytest.mark.parametrize(
    ("settings", "remade"),
    [
        ({"seed": 1}, EVERYTHING),
        ({"data_fingerprint": "1" * 64}, EVERYTHING),
        ({"max_steps": 1000}, set()),
        ({"max_steps": 50}, REWARDS | POLICIES | ANSWERS | END),
        ({"max_steps": 80}, POLICIES | ANSWERS - {"generations/reference"} | END),
        ({"versions": VERSIONS | {"moocore": "2.0"}}, END | GATE),
        ({"versions": VERSIONS | {"torch": "2.0"}}, EVERYTHING - {"prompts"}),
        ({"versions": VERSIONS | {"bitsandbytes": "2.0"}}, set()),
    ],
    ids=what_changes,
)
def test_settings_data_and_libraries_remake_what_follows_from_them(settings, remade):
    assert changed(plan(), plan(**settings)) == _in_parts(remade)


def test_a_new_dimension_keeps_the_reward_models_of_the_others():
    names = [*VALUES["dimensions"], {"name": "conciseness"}]
    remade = changed(plan(), plan({"dimensions": names}))
    kept = {"base_model", "responses", "pairs", "reward_models", "response_rewards"}
    assert not {name.split("/")[0] for name in remade} & kept
    assert {"prompts", "preference_labels", "panacea_policy", "pareto_front"} <= remade


SHARED = {"rewards.trunk": "shared"}


def test_a_shared_trunk_is_one_part_and_follows_from_all_labels_in_their_order():
    shared = plan(SHARED)
    assert shared.parts("reward_models") == ["all"]
    assert shared.parts("response_rewards") == shared.problem.dimension_names
    assert len(set(shared.keys("response_rewards").values())) == 2, "one key for each dimension"
    assert {shared.reward_model_of(name) for name in shared.problem.dimension_names} == {"all"}
    assert plan().reward_model_of("helpfulness") == "helpfulness"
    turned = {"dimensions": VALUES["dimensions"][::-1]}
    assert "reward_models" not in {n.split("/")[0] for n in changed(plan(), plan(turned))}
    assert "reward_models/all" in changed(shared, plan(SHARED | turned))


def test_what_reward_models_are_made_of_is_in_their_keys_alone():
    named = {"kind": "pretrained", "model": "org/small", "quantization": "none"}
    own = plan({"rewards.model": named}, reward_fingerprint="org/small@main")
    downstream = {"response_rewards", "panacea_policy"} | ANSWERS | END | GATE
    assert changed(plan(), own) == {"reward_models"} | downstream
    newer = plan({"rewards.model": named}, reward_fingerprint="org/small@2")
    assert "reward_models" in changed(own, newer)
    elsewhere = plan({"rewards.model": named | {"model": "/a/copy", "license": "mit"}})
    there = plan({"rewards.model": named | {"model": "/b/copy"}})
    assert not changed(elsewhere, there) - {"report"}, "the files count, not where they lie"
    quantized = {"rewards.model": named | {"quantization": "nf4"}}
    newer_bnb = plan(quantized, versions=VERSIONS | {"bitsandbytes": "2.0"})
    moved = changed(plan(quantized), newer_bnb)
    assert "reward_models" in moved and "responses" not in moved


@pytest.mark.parametrize("change", [{"trained": "head"}, {"margin": 1.0}])
def test_how_reward_models_are_trained_is_in_their_keys(change):
    ((name, value),) = change.items()
    assert "reward_models" in changed(plan(), plan({f"rewards.{name}": value}))


def test_a_raised_stage_version_remakes_the_stage_and_what_follows(monkeypatch):
    before = plan()
    all_keys(before)  # planned before the version was raised
    monkeypatch.setitem(STAGE_VERSIONS, "response_rewards", 2)
    expected = {"response_rewards", "panacea_policy"} | ANSWERS | END | GATE
    assert changed(before, plan()) == expected


def test_quantised_problems_share_the_base_model_but_depend_on_bitsandbytes():
    nf4 = {"base_model.quantization": "nf4"}
    assert plan(nf4).key("base_model") == plan().key("base_model")
    newer = plan(nf4, versions=VERSIONS | {"bitsandbytes": "2.0"})
    assert "responses" in changed(plan(nf4), newer)


def test_an_earlier_policy_s_answers_have_the_key_that_its_own_evaluation_gave_them():
    """So that a champion need not answer again what it answered when it was evaluated."""
    before, now = plan(), plan({"training.steps": 50})
    champion = before.key("panacea_policy", "panacea")
    assert key_of(before.answers_content(champion)) == before.key("generations", "panacea")
    assert key_of(now.answers_content(champion)) == before.key("generations", "panacea")
    asked_more = plan({"training.steps": 50, "evaluation.samples": 5})
    assert key_of(asked_more.answers_content(champion)) != before.key("generations", "panacea")


def test_unknown_stages_and_parts_are_refused():
    for stage, part in (("judge", ""), ("reward_models", ""), ("generations", "ppo")):
        with pytest.raises(ValueError, match="no stage"):
            plan().key(stage, part)


JUDGED = {
    "labels": {
        "helpfulness": [{"kind": "data"}, {"kind": "judge", "judge": "j"}],
        "harmlessness": [{"kind": "length"}],
    },
    "judges": {"j": {"endpoint": "http://a/v1", "model": "m"}},
}


def test_a_source_of_labels_asks_no_other_again_and_where_a_judge_lives_does_not_matter():
    more = {
        **JUDGED["labels"],
        "harmlessness": [{"kind": "length"}, {"kind": "matches", "pattern": "no"}],
    }
    remade = changed(plan(JUDGED), plan(JUDGED | {"labels": more}))
    assert {name for name in remade if name.startswith("annotations")} <= {
        "annotations/harmlessness by matches"
    }
    assert "reward_models/harmlessness" in remade and "reward_models/helpfulness" not in remade
    moved = {"j": {"endpoint": "http://b/v1", "model": "m", "in_flight": 8, "max_tokens": 100}}
    assert not changed(plan(JUDGED), plan(JUDGED | {"judges": moved}))


def test_what_a_judge_labels_follows_from_what_others_have_labelled():
    names = all_keys(plan(JUDGED))
    more = names | all_keys(plan({**JUDGED, "data.annotators": 5}))
    assert more["annotations/helpfulness by judge j"] != names["annotations/helpfulness by judge j"]
    assert more["annotations/harmlessness by length"] == names["annotations/harmlessness by length"]


def test_every_shipped_problem_has_keys_that_name_no_path(monkeypatch, tmp_path):
    data = tmp_path / "pairs.jsonl"
    data.write_text("{}\n")
    for variable in ("HELPSTEER2_PAIRS", "HH_HELPFUL", "HH_HARMLESS"):
        monkeypatch.setenv(variable, str(data))
    for path in find_problems(Workspace.current()).values():
        problem = load_problem(path)
        keys = all_keys(Plan.of(problem, path))
        assert len(set(keys.values())) == len(keys)
        assert all(len(key) == 32 for key in keys.values())
        assert is_offline(problem) == (problem.name != "smollm2-helpsteer2")


def test_the_same_file_in_another_place_has_the_same_keys(monkeypatch, tmp_path):
    path = find_problems(Workspace.current())["helpsteer2-tiny"]
    found = []
    for folder in ("a", "b"):
        data = tmp_path / folder / "pairs.jsonl"
        data.parent.mkdir()
        data.write_text("{}\n")
        monkeypatch.setenv("HELPSTEER2_PAIRS", str(data))
        found.append(all_keys(Plan.of(load_problem(path), path)))
    assert found[0] == found[1]
