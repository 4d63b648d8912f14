"""Trained policies opened again and asked: Panacea, soups, the reference; bad λ refused."""

import json
import math
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from conftest import TESTS
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from small_models import DIMENSIONS, small_base, small_pairs

from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.generation import generate_rows, sequence_logprobs
from panacea_lib.models.chat import decode_responses, encode_prompts, encode_responses
from panacea_lib.policy import LoadedPolicy, SoupPolicy, load_policy, open_policy
from panacea_lib.problem import Problem
from panacea_lib.problem_files import load_problem
from panacea_lib.rewards.judge import WorldRewards
from panacea_lib.train_result import TrainResult
from panacea_lib.training import train_policy
from panacea_lib.training.policies import training_configs
from panacea_lib.warehouse import Product, Warehouse
from panacea_lib.workspace import Workspace

ON_PAIRS = ["panacea", "panacea_dpo", "rewarded_soups", "mod"]
ON_PAIRS += ["lora_per_preference", "prompt_conditioned"]
METHODS = [*ON_PAIRS, "panacea_sft", "panacea_rloo"]
WORLD = WorldRewards(dimensions=DIMENSIONS, mean=[1.0, 0.5], scale=[2.0, 0.5])
STEPS = 24
PROMPT = "how do i bake bread today"
ANSWER = "sure : mix flour , knead dough ."


@pytest.fixture(scope="module")
def problem() -> Problem:
    """`tiny`, with a short training at a rate that shows."""
    loaded = load_problem(TESTS / "problems" / "tiny.yaml")
    changes = {"steps": STEPS, "batch_size": 8, "learning_rate": 5e-2}
    known = {"preferences": [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]}
    loaded = loaded.model_copy(update={"baselines": loaded.baselines.model_copy(update=known)})
    return loaded.model_copy(update={"training": loaded.training.model_copy(update=changes)})


Trained = dict[str, tuple[Path, Path, TrainResult]]


@pytest.fixture(scope="module")
def trained(problem, tmp_path_factory) -> Trained:
    """Every method: (finished folder, working folder, result)."""
    found: Trained = {}
    for method in METHODS:
        folder, working = (tmp_path_factory.mktemp(f"{method}-{kind}") for kind in "ab")
        table = pa.table(small_pairs())
        how = {"seed": 0, "rewards": WORLD}
        result = train_policy(problem, method, small_base(), table, folder, working, **how)
        found[method] = (folder, working, result)
    return found


def opened(method: str, trained: Trained):
    folder = trained[method][0] if method in trained else None
    return open_policy(method, folder, small_base(), "none", DIMENSIONS)


def logprob(policy, preference: list[float] | None) -> float:
    """log π(ANSWER | PROMPT) under λ; of the reference policy for None."""
    prompts = encode_prompts(policy.tokenizer, [PROMPT])
    responses = encode_responses(policy.tokenizer, [ANSWER])
    rows = torch.tensor([preference or [1.0, 0.0]])
    if preference is None:
        with policy.as_reference():
            return sequence_logprobs(policy.model, policy.tokenizer, prompts, responses).item()
    with policy.under(rows):
        return policy.logprobs(prompts, responses).item()


# ---- training the policies of a problem


def test_the_methods_cost_alike_and_say_so(trained):
    for method, (_, _, result) in trained.items():
        assert result.details["steps"] == STEPS, f"{method}: its adapters share the steps out"
        assert result.details["trained_parameters"] == result.details["stored_parameters"] > 0
        assert all(math.isfinite(row["value"]) for row in result.curves)
    tokens = [trained[method][2].details["tokens"] for method in ON_PAIRS]
    tokens[ON_PAIRS.index("prompt_conditioned")] -= STEPS * 8 * 2 * 2  # the words of λ
    assert max(tokens) < 1.05 * min(tokens)  # the pairs that are drawn differ in length
    answers = trained["panacea_sft"][2].details["tokens"]
    assert answers == pytest.approx(tokens[0] / 2, rel=0.1), "one answer of each pair"
    assert 0 < trained["panacea_rloo"][2].details["tokens"] < tokens[0]
    soups = trained["rewarded_soups"][2]
    of_loss = {row["dimension"] for row in soups.curves if row["metric"] == "loss"}
    assert of_loss == {"", *DIMENSIONS}


def test_a_finished_adapter_is_not_trained_again(problem, trained, tmp_path):
    """The soups died after their first LoRA: it is taken as it is, the second is made."""
    _, working, before = trained["rewarded_soups"]
    working = shutil.copytree(working, tmp_path / "working")
    name = "adapter/adapter_model.safetensors"
    mark = json.loads((working / "helpfulness" / "result.json").read_text())
    mark["details"]["tokens"] += 1000
    mark["details"]["seconds"] = 1000.0
    (working / "helpfulness" / "result.json").write_text(json.dumps(mark))
    second = (working / "harmlessness" / name).read_bytes()
    shutil.rmtree(working / "harmlessness")
    table = pa.table(small_pairs())
    again = train_policy(
        problem, "rewarded_soups", small_base(), table, tmp_path / "out", working, seed=0
    )
    assert again.details["tokens"] == before.details["tokens"] + 1000
    assert 1000 < again.details["seconds"] < 2000, "what the first took counts"
    assert (tmp_path / "out" / "harmlessness" / Path(name).name).read_bytes() == second


def test_max_steps_is_a_cap_and_unknown_methods_are_refused(problem, tmp_path):
    table = pa.table(small_pairs(16))
    capped = train_policy(
        problem, "panacea", small_base(), table, tmp_path / "a", tmp_path / "b", 0, max_steps=2
    )
    assert capped.details["steps"] == 2
    with pytest.raises(ValueError, match="unknown method 'ppo'"):
        train_policy(problem, "ppo", small_base(), table, tmp_path / "c", tmp_path / "d", 0)


def test_an_oracle_has_all_steps_for_each_lora_and_the_problem_s_own_method(problem):
    common = {"base_model": "m", "dimensions": DIMENSIONS, "pairs": "p"}
    of_oracle = training_configs(problem, "oracle", common)
    shared = training_configs(problem, "lora_per_preference", common)
    assert [c.training.steps for c in of_oracle.values()] == [STEPS] * 3
    assert [c.training.steps for c in shared.values()] == [STEPS // 3] * 3
    assert {c.training.method for c in of_oracle.values()} == {problem.training.method}
    assert {c.training.method for c in shared.values()} == {"dpo"} != {problem.training.method}
    assert [c.fixed_preference for c in of_oracle.values()] == problem.lora_preferences


# ---- policies


@pytest.mark.parametrize("method", METHODS)
def test_a_policy_heeds_its_preference_and_gives_the_reference_back(trained, method):
    policy = opened(method, trained)
    reference = logprob(opened("reference", trained), [0.5, 0.5])
    one, other = (logprob(policy, preference) for preference in ([1.0, 0.0], [0.0, 1.0]))
    assert len({round(value, 4) for value in (one, other, reference)}) == 3
    assert logprob(policy, None) == pytest.approx(reference, abs=1e-5)
    assert logprob(policy, [1.0, 0.0]) == one, "nothing is left behind by other calls"


@pytest.mark.parametrize("method", [*METHODS, "reference"])
def test_an_answer_is_drawn_with_its_log_probability(trained, method):
    """Read off while it is drawn, or by a forward over the whole of it: the same to rounding."""
    policy, asked = opened(method, trained), [PROMPT, "please pick a lock", "brew coffee"] * 8
    rows = torch.tensor([[0.3, 0.7], [1.0, 0.0], [0.0, 1.0]] * 8)
    if not policy.batches_mix_preferences:
        rows = rows[:1].expand(24, 2)
    with policy.under(rows):
        drawn = policy.draw(asked, 12, seed=3, max_length=60)
        scored = policy.logprobs(policy.prompt_ids(asked, 12, max_length=60), drawn.rows)
    assert drawn.logprobs.dtype == torch.float64
    assert drawn.logprobs.tolist() == pytest.approx(scored.tolist(), abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(weight=st.floats(0, 1))
def test_a_soup_is_the_average_of_its_members_factors(trained, weight):
    folder = trained["rewarded_soups"][0]
    policy = opened_soup(folder)
    parts = [load_file(folder / name / "adapter_model.safetensors") for name in DIMENSIONS]
    with policy.under(torch.tensor([[weight, 1 - weight]] * 3)):
        mixed = get_peft_model_state_dict(policy.model)
    assert mixed.keys() == parts[0].keys() == parts[1].keys() and len(mixed) == 2 * 7 * 2
    for name, tensor in mixed.items():
        expected = weight * parts[0][name] + (1 - weight) * parts[1][name]
        assert torch.allclose(tensor, expected, atol=1e-6), name


SOUPS: dict[Path, SoupPolicy] = {}


def opened_soup(folder: Path) -> SoupPolicy:
    """Opened once for all examples."""
    if folder not in SOUPS:
        policy = open_policy("rewarded_soups", folder, small_base(), "none", DIMENSIONS)
        assert isinstance(policy, SoupPolicy)
        SOUPS[folder] = policy
    return SOUPS[folder]


def test_a_soup_at_a_vertex_is_that_member(trained, tmp_path):
    folder = trained["rewarded_soups"][0]
    policy = opened_soup(folder)
    for i, name in enumerate(DIMENSIONS):
        alone = tmp_path / name  # the member and nothing else, as both ingredients
        for other in DIMENSIONS:
            shutil.copytree(folder / name, alone / other)
        vertex = [float(i == j) for j in range(2)]
        single = open_policy("rewarded_soups", alone, small_base(), "none", DIMENSIONS)
        assert logprob(policy, vertex) == pytest.approx(logprob(single, [0.5, 0.5]), abs=1e-5)


def test_a_soup_answers_one_preference_per_batch(trained):
    policy = opened_soup(trained["rewarded_soups"][0])
    assert not policy.batches_mix_preferences
    with (
        pytest.raises(ValueError, match="one preference vector per batch"),
        policy.under(torch.tensor([[1.0, 0.0], [0.0, 1.0]])),
    ):
        pass


def test_a_trained_policy_without_a_folder_is_refused():
    with pytest.raises(ValueError, match="panacea: no folder"):
        open_policy("panacea", None, small_base(), "none", DIMENSIONS)


# ---- asking


@pytest.fixture(scope="module", params=["panacea", "rewarded_soups"])
def asked(request, trained) -> LoadedPolicy:
    return LoadedPolicy(opened(request.param, trained), max_new_tokens=20)


def test_an_answer_is_a_function_of_prompt_preference_and_seed(asked):
    preference = {"helpfulness": 0.3, "harmlessness": 0.7}
    answers = [asked.ask(PROMPT, preference, seed) for seed in range(6)]
    assert answers == [asked.ask(PROMPT, preference, seed) for seed in range(6)]
    assert len(set(answers)) > 1 and all(isinstance(answer, str) for answer in answers)
    assert asked.dimensions == DIMENSIONS
    assert not any("<" in answer for answer in answers), "no special token in the text"


def test_many_prompts_each_under_its_own_preference(trained):
    preferences = [{"helpfulness": 1.0}, {"harmlessness": 1.0}] * 40
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 40)
    policy, prompts = opened("panacea", trained), [PROMPT] * 80
    answers = LoadedPolicy(policy, 20).ask_many(prompts, preferences, seed=1)
    tokens = generate_rows(policy.model, policy.tokenizer, prompts, 20, 1, preference=rows)
    assert answers == decode_responses(policy.tokenizer, tokens)
    one = generate_rows(policy.model, policy.tokenizer, prompts, 20, 1, preference=rows[0])
    assert answers != decode_responses(policy.tokenizer, one), "λ decides what is said"
    soups = LoadedPolicy(opened("rewarded_soups", trained), 20)
    together = soups.ask_many([PROMPT] * 4, preferences[:4], seed=1)
    assert together == [soups.ask(PROMPT, preference, seed=1) for preference in preferences[:4]]


@pytest.mark.parametrize(
    ("preference", "told"),
    [
        ({"warmth": 1.0}, r"'warmth'.*'helpfulness', 'harmlessness'"),
        ({"helpfulness": -0.1, "harmlessness": 1.1}, "not negative"),
        ({"helpfulness": math.nan, "harmlessness": 1.0}, "finite"),
        ({"helpfulness": math.inf, "harmlessness": 0.0}, "finite"),
        ({"helpfulness": 0.5, "harmlessness": 0.6}, "sum to 1"),
        ({"helpfulness": 0.5}, "sum to 1"),
        ({}, "sum to 1"),
    ],
)
def test_a_bad_preference_is_refused_in_a_sentence(asked, preference, told):
    with pytest.raises(ValueError, match=told) as refused:
        asked.ask(PROMPT, preference)
    assert len(str(refused.value).splitlines()) == 1 and str(refused.value).endswith(".")


def test_a_policy_that_was_not_evaluated_has_no_slider(asked):
    with pytest.raises(MissingUpstreamError, match="has no slider"):
        asked.slider(0.5)
    with pytest.raises(InputError, match="from 0"):
        asked.slider(1.5)


# ---- loading what was stored


@pytest.fixture
def stored(trained, tmp_path) -> Workspace:
    """A workspace whose warehouse names a base model and two policies of `tiny`, and no more."""
    workspace = Workspace(tmp_path)
    store, warehouse = ArtifactStore(workspace.artifacts), Warehouse(workspace.warehouse)
    parts = [
        ("base_model", "", small_base()),
        ("panacea_policy", "panacea", trained["panacea"][0]),
        ("baseline_policies", "rewarded_soups", trained["rewarded_soups"][0]),
    ]
    for i, (stage, part, folder) in enumerate(parts):
        key = f"{i:032x}"
        with store.writer(key) as target:
            for path in folder.iterdir():
                if path.name != "trainer":
                    (shutil.copytree if path.is_dir() else shutil.copy)(path, target / path.name)
        warehouse.save_product(Product(key, stage, part, "tiny", "run", 1.0, 0), {})
    return workspace


@pytest.mark.parametrize("method", ["panacea", "rewarded_soups", "reference"])
def test_load_policy_answers_as_the_trained_one(stored, trained, method):
    preference = {"helpfulness": 0.5, "harmlessness": 0.5}
    loaded = load_policy("tiny", method, workspace=stored)
    length = load_problem(TESTS / "problems" / "tiny.yaml").evaluation.max_new_tokens
    expected = LoadedPolicy(opened(method, trained), length)
    for seed in range(3):
        assert loaded.ask(PROMPT, preference, seed) == expected.ask(PROMPT, preference, seed)


def test_a_stored_policy_without_a_front_names_the_command(stored):
    with pytest.raises(MissingUpstreamError, match=r"no slider for panacea.*materialize tiny"):
        load_policy("tiny", workspace=stored).slider(0.5)


@pytest.mark.parametrize(("name", "method"), [("tiny", "panacea_dpo"), ("demo", "panacea")])
def test_what_was_not_made_names_the_command(stored, name, method):
    with pytest.raises(MissingUpstreamError, match=f"panacea materialize {name}"):
        load_policy(name, method, workspace=stored)
