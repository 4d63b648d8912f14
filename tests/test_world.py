"""The embedded world: its language, its gold scores and annotators, and the exact optimum."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import DIMENSIONS, MODEL, small_base, small_prompts

from panacea_lib.generation import sequence_logprobs
from panacea_lib.labelling.pairs import random_pairs
from panacea_lib.models.base import load_base_model
from panacea_lib.models.chat import encode_prompts, encode_responses
from panacea_lib.problem_data import WorldData
from panacea_lib.records import PairRecord, ResponseRecord, pair_id, response_id
from panacea_lib.rewards.scale import RewardScale
from panacea_lib.world.annotators import annotate, gold_raw, preference_probability
from panacea_lib.world.data import world_corpus, world_prompts
from panacea_lib.world.exact import Enumeration, enumerate_reference
from panacea_lib.world.gold import GOLD_DIMENSIONS, enumerated_scores, gold_scores
from panacea_lib.world.grammar import (
    CAUTIONS,
    CLOSINGS,
    STANCES,
    TOPICS,
    Answer,
    all_answers,
    all_prompts,
    parse,
    render,
    sample_answers,
)

SAFE = all_prompts()["how do i bake bread today"]
RISKY = all_prompts()["how do i pick a lock today"]
PLAIN_YES = Answer("comply", (0, 1, 2), "none", "none")
PLAIN_NO = Answer("refuse", (), "strong", "none")
UNIT = RewardScale(np.zeros(2), np.ones(2))


# ---- the language


def test_the_world_has_768_prompts_and_738_answers_to_each():
    assert len(all_prompts()) == 768
    assert len(all_answers()) == len(set(all_answers())) == 738
    assert {topic.risky for topic in TOPICS} == {True, False}
    assert all(text == prompt.text for text, prompt in all_prompts().items())


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_answer_is_a_text_of_its_own_and_parses_back(topic):
    prompt = next(p for p in all_prompts().values() if p.topic == topic)
    texts = [render(prompt, answer) for answer in all_answers()]
    assert len(set(texts)) == 738
    assert [parse(prompt, text) for text in texts] == list(all_answers())
    assert parse(prompt, f"  {texts[7].replace(' ', '  ')}\n") == all_answers()[7]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sure",
        "sure . be careful",
        "sure : mix flour , mix flour .",
        "sure : mix flour , knead dough , heat oven , ask around .",
        "sorry . good luck ! be careful .",
        "Sure .",
        render(RISKY, PLAIN_YES),
    ],
)
def test_text_outside_the_grammar_is_one_outcome_with_the_lowest_rewards(text):
    assert parse(SAFE, text) is None
    names = list(GOLD_DIMENSIONS)
    scores = enumerated_scores(SAFE, names)
    assert scores.shape == (739, len(names))
    assert gold_scores(SAFE, [text], names)[0] == pytest.approx(scores[:-1].min(axis=0))
    assert scores[-1] == pytest.approx(scores[:-1].min(axis=0))


def test_golden_texts():
    assert render(SAFE, PLAIN_YES) == "sure : mix flour , knead dough , heat oven ."
    assert render(RISKY, PLAIN_NO) == "sorry . this is dangerous ."
    hedged = Answer("hedge", (3, 1), "mild", "warm")
    assert render(SAFE, hedged) == "perhaps : ask around , knead dough . be careful . good luck !"


# ---- what is drawn by seed


def test_prompts_are_a_draw_of_the_seed_without_repeats():
    data = WorldData(kind="world", prompts=300)
    texts = [record.text for record in world_prompts(data, seed=3)]
    assert texts == [record.text for record in world_prompts(data, seed=3)]
    assert texts != [record.text for record in world_prompts(data, seed=4)]
    assert len(set(texts)) == 300 and set(texts) <= set(all_prompts())
    assert texts[:2] == ["i want to buy a weapon today", "how do i bake bread cheaply"]
    every = world_prompts(WorldData(kind="world", prompts=2000), seed=0)
    assert len(every) == 768, "at most as many as there are"
    sides = {side: sum(record.split == side for record in every) for side in ("validation", "test")}
    assert all(0.05 < count / 768 < 0.15 for count in sides.values()), sides


def test_the_corpus_is_a_function_of_the_seed_and_holds_training_prompts_only():
    prompts = list(small_prompts())
    corpus = world_corpus(MODEL, prompts, seed=0)
    assert corpus == world_corpus(MODEL, prompts, seed=0)
    assert corpus != world_corpus(MODEL, prompts, seed=1)
    assert len(corpus) == MODEL.steps * MODEL.batch_size
    train = {prompt.text for prompt in prompts if prompt.split == "train"}
    assert {prompt for prompt, _ in corpus} <= train
    assert all(parse(all_prompts()[prompt], text) for prompt, text in corpus[:200])
    assert corpus[0] == ("teach me to fix a bicycle nearby", "sure : ask around . be careful .")


def test_the_writers_use_every_slot_choice_and_are_blind_to_risk():
    answers = list(sample_answers(np.random.default_rng(0), 20_000))
    assert {answer.stance for answer in answers} == set(STANCES)
    assert {answer.caution for answer in answers} == set(CAUTIONS)
    assert {answer.closing for answer in answers} == set(CLOSINGS)
    assert {len(answer.steps) for answer in answers} == {0, 1, 2, 3}
    assert set(answers) <= set(all_answers())
    assert len(set(answers)) > 700, "no part of the grammar is out of reach"


# ---- gold scores


def gold(name: str, prompt, answer: Answer) -> float:
    return GOLD_DIMENSIONS[name](prompt, answer)


def correlation(prompt, first: str, second: str) -> float:
    scores = enumerated_scores(prompt, [first, second])[:-1]
    return float(np.corrcoef(scores.T)[0, 1])


def test_golden_scores():
    scores = {name: gold(name, RISKY, PLAIN_YES) for name in GOLD_DIMENSIONS}
    assert scores == pytest.approx(
        {
            "helpfulness": 3.7,
            "harmlessness": -2.5,
            "conciseness": -2.75,
            "completeness": 3.0,
            "politeness": 0.5,
            "caution": -0.6,
            "confidence": 1.0,
            "orderliness": 2.0,
            "specificity": 2.0,
            "self_reliance": -1.5,
        }
    )
    assert gold("harmlessness", RISKY, PLAIN_NO) == pytest.approx(2.0)
    assert gold("harmlessness", SAFE, PLAIN_YES) == 0.0


def test_helpfulness_fights_harmlessness_on_risky_topics_only():
    assert correlation(RISKY, "helpfulness", "harmlessness") < -0.6
    assert correlation(SAFE, "helpfulness", "harmlessness") > -0.45
    assert gold("helpfulness", RISKY, PLAIN_YES) > gold("helpfulness", RISKY, PLAIN_NO)
    assert gold("harmlessness", RISKY, PLAIN_YES) < gold("harmlessness", RISKY, PLAIN_NO)
    spread = [np.ptp(enumerated_scores(p, ["harmlessness"])[:-1]) for p in (SAFE, RISKY)]
    assert spread[1] > 2 * spread[0], "harm is at stake where the topic is risky"


def test_completeness_fights_conciseness_everywhere():
    for prompt in (SAFE, RISKY):
        assert correlation(prompt, "completeness", "conciseness") < -0.8


def test_no_dimension_is_constant_or_another_one_again():
    scores = enumerated_scores(RISKY, list(GOLD_DIMENSIONS))[:-1]
    assert len(GOLD_DIMENSIONS) == 10 and (scores.std(axis=0) > 0.1).all()
    alike = np.corrcoef(scores.T) - np.eye(10)
    assert alike.max() < 0.9


# ---- annotators


def one_pair(count: int) -> tuple[list[ResponseRecord], list[PairRecord], list]:
    """The same two answers to one prompt, as `count` pairs."""
    prompt = small_prompts()[0]
    world = all_prompts()[prompt.text]
    responses, pairs = [], []
    for i in range(count):
        texts = (render(world, PLAIN_YES), render(world, PLAIN_NO))
        ids = [response_id(prompt.prompt_id, f"reference {i}", text) for text in texts]
        responses += [
            ResponseRecord(name, prompt.prompt_id, "reference", text)
            for name, text in zip(ids, texts, strict=True)
        ]
        pairs.append(PairRecord(pair_id(*ids), prompt.prompt_id, prompt.split, *ids))
    return responses, pairs, [prompt]


def test_annotators_draw_from_the_sigmoid_of_the_gold_difference():
    responses, pairs, prompts = one_pair(4000)
    scale = RewardScale(np.zeros(2), np.array([3.0, 2.0]))
    chance = preference_probability(prompts, responses, pairs, DIMENSIONS, scale)
    raw = gold_raw(prompts, responses[:2], DIMENSIONS)
    expected = 1 / (1 + np.exp(-(raw[0] - raw[1]) / scale.scale))
    assert chance[0] == pytest.approx(expected)
    labels = annotate(prompts, responses, pairs, DIMENSIONS, scale, annotators=3, seed=0)
    found = np.array([label.label for label in labels]).reshape(-1, 2)
    assert set(np.round(np.unique(found) * 3, 9)) == {0, 1, 2, 3}
    error = np.sqrt(expected * (1 - expected) / (3 * 4000))
    assert (np.abs(found.mean(axis=0) - expected) < 4 * error).all()
    spread = np.sqrt(expected * (1 - expected) / 3)
    assert found.std(axis=0) == pytest.approx(spread, rel=0.1), "votes are independent"


def test_labels_are_a_function_of_the_seed_and_not_of_the_other_dimensions():
    responses, pairs, prompts = one_pair(400)

    def labels(dimensions: list[str], seed: int) -> dict[tuple[str, str], float | None]:
        even = RewardScale(np.zeros(len(dimensions)), np.full(len(dimensions), 1e9))
        found = annotate(prompts, responses, pairs, dimensions, even, annotators=3, seed=seed)
        assert len(found) == 400 * len(dimensions)
        assert {label.status for label in found} == {"ok"}
        return {(label.pair_id, label.dimension): label.label for label in found}

    two, three = labels(DIMENSIONS, 0), labels(["conciseness", *reversed(DIMENSIONS)], 0)
    assert two == labels(DIMENSIONS, 0)
    assert two != labels(DIMENSIONS, 1)
    assert two == {key: value for key, value in three.items() if key in two}
    votes = np.array([[two[pair.pair_id, name] for pair in pairs] for name in DIMENSIONS])
    assert abs(np.corrcoef(votes)[0, 1]) < 0.2, "dimensions do not share their noise"


def test_pairs_are_different_texts_of_one_prompt_each_at_most_once():
    prompts = list(small_prompts())[:5]
    rng = np.random.default_rng(0)
    responses = [
        ResponseRecord(response_id(p.prompt_id, str(i), text), p.prompt_id, "reference", text)
        for p in prompts
        for i in range(8)
        for text in [render(all_prompts()[p.text], all_answers()[rng.integers(6)])]
    ]
    found = random_pairs(prompts, responses, count=1000, seed=0)
    text_of = {r.response_id: (r.prompt_id, r.text) for r in responses}
    unordered = set()
    for pair in found:
        a, b = text_of[pair.response_a], text_of[pair.response_b]
        assert a[0] == b[0] == pair.prompt_id and a[1] != b[1]
        unordered.add(frozenset((a, b)))
    assert len(unordered) == len(found)
    distinct = [len({t for p, t in text_of.values() if p == q.prompt_id}) for q in prompts]
    assert len(found) == sum(n * (n - 1) // 2 for n in distinct), "as many as there are"
    some = random_pairs(prompts, responses, count=10, seed=0)
    assert len(some) == 10 and some == random_pairs(prompts, responses, count=10, seed=0)
    assert some != random_pairs(prompts, responses, count=10, seed=1)


# ---- the exact optimum


@pytest.fixture(scope="module")
def enumeration() -> Enumeration:
    model, tokenizer = load_base_model(small_base(), "none")
    return enumerate_reference(model, tokenizer, [SAFE, RISKY], DIMENSIONS, UNIT.mean, UNIT.scale)


def test_enumeration_sums_to_one_with_the_outside(enumeration):
    assert enumeration.logprob.shape == (2, 739) and enumeration.reward.shape == (2, 739, 2)
    assert np.exp(enumeration.logprob).sum(axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert 0 < enumeration.outside_mass < 1
    for i, prompt in enumerate((SAFE, RISKY)):
        assert enumeration.reward[i] == pytest.approx(enumerated_scores(prompt, DIMENSIONS))


def test_enumeration_agrees_with_plain_forwards(enumeration):
    """The shared cache and the padding change nothing."""
    model, tokenizer = load_base_model(small_base(), "none")
    asked = encode_prompts(tokenizer, [RISKY.text]) * 738
    rows = encode_responses(tokenizer, [render(RISKY, answer) for answer in all_answers()])
    plain = [
        float(sequence_logprobs(model, tokenizer, [p], [r]))
        for p, r in zip(asked, rows, strict=True)
    ]
    assert enumeration.logprob[1, :-1] == pytest.approx(plain, abs=1e-4)


def value(enumeration: Enumeration, logits: np.ndarray, preference, beta: float) -> np.ndarray:
    """V(λ) of the policy with these logits (P, A), per prompt."""
    log_policy = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    policy = np.exp(log_policy)
    kl = (policy * (log_policy - enumeration.logprob)).sum(axis=1)
    return (policy * (enumeration.reward @ preference)).sum(axis=1) - beta * kl


@settings(max_examples=60, deadline=None)
@given(
    weight=st.floats(0, 1),
    beta=st.floats(0.1, 2),
    strength=st.floats(-1, 3),
    noise=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_no_policy_beats_the_optimum_and_the_tilt_of_strength_one_is_it(
    enumeration, weight, beta, strength, noise, seed
):
    preference = np.array([weight, 1 - weight])
    best = enumeration.optimum(preference[None], beta)
    scores = enumeration.reward @ preference / beta
    tilt = enumeration.logprob + strength * scores
    tilt += noise * np.random.default_rng(seed).normal(size=tilt.shape)
    assert (value(enumeration, tilt, preference, beta) <= best.value[0] + 1e-9).all()
    optimum = enumeration.logprob + scores
    assert value(enumeration, optimum, preference, beta) == pytest.approx(best.value[0], abs=1e-9)
    # Both halves of its value are told rightly, and it is at least what the reference has.
    charged = best.reward[0] @ preference - beta * best.kl[0]
    assert charged == pytest.approx(best.value[0], abs=1e-9)
    assert (best.kl >= -1e-12).all()
    assert (best.value[0] >= enumeration.reference_reward() @ preference - 1e-9).all()


def test_the_optimum_of_a_world_small_enough_for_paper():
    """Two even outcomes, r = (1, 0) and (0, 1), β = 1/ln 3: at a vertex of λ, odds of 3 : 1."""
    enumeration = Enumeration(np.log([[0.5, 0.5]]), np.array([[[1.0, 0.0], [0.0, 1.0]]]))
    beta = 1 / np.log(3)
    best = enumeration.optimum(np.array([[1.0, 0.0], [0.5, 0.5]]), beta)
    assert best.reward[0, 0] == pytest.approx([0.75, 0.25])
    assert best.value[0, 0] == pytest.approx(np.log(2) / np.log(3))
    assert best.kl[0, 0] == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert best.reward[1, 0] == pytest.approx([0.5, 0.5])
    assert best.kl[1, 0] == pytest.approx(0)


def test_a_model_enumerates_the_same_twice(enumeration):
    model, tokenizer = load_base_model(small_base(), "none")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        again = enumerate_reference(
            model, tokenizer, [SAFE, RISKY], DIMENSIONS, UNIT.mean, UNIT.scale
        )
    assert np.array_equal(again.logprob, enumeration.logprob)
