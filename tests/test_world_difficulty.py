"""The committed difficulty of the embedded world: neither trivial nor hopeless (DESIGN §5).

Grammar, noise and β are fixed before any method is tuned; what fails here says that every figure
must be measured again. The base model is the demo's own, really trained.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from panacea_lib.evaluation.grid import preference_grid
from panacea_lib.generation import sample_responses
from panacea_lib.labelling.pairs import random_pairs
from panacea_lib.models.base import build_base_model, load_base_model
from panacea_lib.problem import Problem
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_files import load_problem
from panacea_lib.problem_models import ScratchModel
from panacea_lib.records import PromptRecord, ResponseRecord, response_id
from panacea_lib.rewards.quality import reward_model_metrics
from panacea_lib.rewards.scale import RewardScale
from panacea_lib.workspace import PROJECT_ROOT
from panacea_lib.world.annotators import annotate, gold_raw, preference_probability
from panacea_lib.world.data import world_corpus, world_prompts
from panacea_lib.world.exact import Enumeration, enumerate_reference
from panacea_lib.world.gold import enumerated_scores
from panacea_lib.world.grammar import WorldPrompt, all_prompts

pytestmark = pytest.mark.slow
NAMES = ("demo", "demo3")
TEST_PROMPTS = 32


@dataclass(frozen=True)
class World:
    """A shipped problem's world as the pipeline makes it, up to its pairs."""

    problem: Problem
    prompts: list[PromptRecord]
    responses: list[ResponseRecord]
    scale: RewardScale
    enumeration: Enumeration  # of held-out prompts


def shipped(name: str) -> Problem:
    return load_problem(PROJECT_ROOT / "assets_data" / "problems" / f"{name}.yaml")


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory) -> Path:
    """The demo's base model, trained as the demo trains it."""
    problem = shipped("demo")
    assert isinstance(problem.data, WorldData) and isinstance(problem.base_model, ScratchModel)
    folder = tmp_path_factory.mktemp("demo-base")
    prompts = world_prompts(problem.data, problem.seed)
    corpus = world_corpus(problem.base_model, prompts, problem.seed)
    build_base_model(problem.base_model, corpus, folder, problem.seed)
    return folder


@pytest.fixture(scope="module")
def sampled(base_folder) -> tuple[list[PromptRecord], list[ResponseRecord], np.ndarray]:
    """The demo's prompts, its reference samples, and log π_ref (P, 739) on held-out prompts."""
    problem = shipped("demo")
    assert isinstance(problem.data, WorldData)
    model, tokenizer = load_base_model(base_folder, "none")
    prompts = world_prompts(problem.data, problem.seed)
    asked = sorted((p for p in prompts if p.split != "test"), key=lambda p: p.prompt_id)
    asked = asked[: problem.reference.prompts]
    drawn = sample_responses(
        model,
        tokenizer,
        [prompt.text for prompt in asked],
        problem.reference.per_prompt,
        problem.reference.max_new_tokens,
        problem.reference.batch_size,
        problem.seed,
    )
    responses = [
        ResponseRecord(response_id(p.prompt_id, str(i), text), p.prompt_id, "reference", text)
        for p, texts in zip(asked, drawn, strict=True)
        for i, text in enumerate(texts)
    ]
    names = problem.dimension_names
    m = len(names)
    exact = enumerate_reference(model, tokenizer, held_out(prompts), names, np.zeros(m), np.ones(m))
    return prompts, responses, exact.logprob


def held_out(prompts: list[PromptRecord]) -> list[WorldPrompt]:
    return [all_prompts()[p.text] for p in prompts if p.split == "test"][:TEST_PROMPTS]


@pytest.fixture(params=NAMES)
def world(request, sampled) -> World:
    prompts, responses, logprob = sampled
    problem = shipped(request.param)
    names = problem.dimension_names
    raw = gold_raw(prompts, responses, names)
    scale = RewardScale.fit([response.prompt_id for response in responses], raw)
    scores = np.stack([enumerated_scores(prompt, names) for prompt in held_out(prompts)])
    exact = Enumeration(logprob, (scores - scale.mean) / scale.scale)
    return World(problem, prompts, responses, scale, exact)


def test_demo3_is_the_demo_with_a_dimension_more():
    demo, demo3 = shipped("demo"), shipped("demo3")
    assert demo3.base_model == demo.base_model and demo3.data == demo.data
    assert demo3.seed == demo.seed and demo3.reference == demo.reference
    assert len(demo.dimensions) == 2 and len(demo3.dimensions) == 3


def test_the_base_model_keeps_to_the_grammar(world):
    assert world.enumeration.outside_mass < 0.01


def test_the_optimum_is_one_to_three_nats_away(world):
    grid = preference_grid(len(world.problem.dimensions))
    kl = world.enumeration.optimum(grid, world.problem.beta).kl
    assert 1 < kl.mean() < 3, f"E_λ KL(π*_λ‖π_ref) = {kl.mean():.2f} nats"


def test_a_perfect_reward_model_agrees_with_seven_to_eight_labels_in_ten(world):
    """Of the labels that the pipeline trains on and measures with: the annotators' majority."""
    problem = world.problem
    names = problem.dimension_names
    pairs = random_pairs(world.prompts, world.responses, problem.data.pairs, problem.seed)
    assert len(pairs) > 0.8 * problem.data.pairs, "the base model's answers are diverse"
    known = (world.prompts, world.responses, pairs, names, world.scale)
    chance = preference_probability(*known)
    votes = annotate(*known, problem.data.annotators, problem.seed)
    labels = np.array([label.label for label in votes]).reshape(chance.shape)
    for name, label, probability in zip(names, labels.T, chance.T, strict=True):
        margins = np.log(probability / (1 - probability))
        found = {r["metric"]: r["value"] for r in reward_model_metrics(margins, label, probability)}
        assert 0.7 <= found["best_possible"] <= 0.8, f"{name}: {found}"
        assert found["majority"] < 0.6, f"{name}: one side must not be commoner, {found}"
