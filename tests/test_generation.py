"""Generation: a λ for every row, draws by seed, log probabilities that anybody can check."""

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import DIMENSIONS, small_base, texts_of

from panacea_lib.adapter import PanaceaConfig
from panacea_lib.generation import (
    batch_seed,
    draw_rows,
    fitting_prompts,
    generate_rows,
    sample_responses,
    sequence_logprobs,
)
from panacea_lib.models.base import load_base_model
from panacea_lib.models.chat import decode_responses, encode_prompts, encode_responses
from panacea_lib.policy import PanaceaPolicy, Policy
from panacea_lib.sampling import EVERY_POINT, Generation, sample_policy, sample_reference
from panacea_lib.world.grammar import all_prompts, parse

GRID = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
TEXTS = ["how do i bake bread today", "please pick a lock", "brew coffee", "help me start a fire"]
ANSWERS = ["sure .", "sorry . this is dangerous .", "perhaps : grind beans , ask around .", "sure"]


@pytest.fixture(scope="module")
def base():
    return load_base_model(small_base(), "none")


@pytest.fixture(scope="module")
def policy() -> PanaceaPolicy:
    """An adapter as if trained, strong enough that λ decides what is said."""
    model, tokenizer = load_base_model(small_base(), "none")
    model = peft.get_peft_model(model, PanaceaConfig(dimensions=DIMENSIONS, r=4))
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "panacea_factors" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise * (0.15 if name[-1] in "UV" else 1.0))
    return PanaceaPolicy(model.eval(), tokenizer, DIMENSIONS)


def encoded(tokenizer) -> tuple[list[list[int]], list[list[int]]]:
    return encode_prompts(tokenizer, TEXTS), encode_responses(tokenizer, ANSWERS)


# ---- log probabilities


def plain_logprob(model, prompt: list[int], response: list[int], **keywords) -> float:
    """Token by token, from the logits of one unpadded row."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response]), **keywords).logits[0]
    total = 0.0
    for i, token in enumerate(response):
        row = logits[len(prompt) + i - 1].double()
        total += float(row[token] - torch.logsumexp(row, 0))
    return total


def test_sequence_logprobs_agree_with_a_plain_forward_row_by_row(base):
    model, tokenizer = base
    prompts, responses = encoded(tokenizer)
    assert len({len(p) for p in prompts}) > 1 and len({len(r) for r in responses}) > 1
    found = sequence_logprobs(model, tokenizer, prompts, responses)
    assert found.dtype == torch.float64
    expected = [plain_logprob(model, *row) for row in zip(prompts, responses, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_sequence_logprobs_agree_with_transformers_own_loss(base):
    model, tokenizer = base
    prompts, responses = encoded(tokenizer)
    found = sequence_logprobs(model, tokenizer, prompts, responses)
    for prompt, response, logprob in zip(prompts, responses, found.tolist(), strict=True):
        labels = torch.tensor([[-100] * len(prompt) + response])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([prompt + response]), labels=labels).loss
        assert logprob == pytest.approx(-loss.item() * len(response), abs=1e-4)


def test_every_row_is_scored_under_its_own_preference(policy):
    prompts, responses = encoded(policy.tokenizer)
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7], [1.0, 0.0]])
    found = sequence_logprobs(policy.model, policy.tokenizer, prompts, responses, preference=rows)
    expected = [
        plain_logprob(policy.model, prompt, response, preference=row)
        for prompt, response, row in zip(prompts, responses, rows, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    turned = sequence_logprobs(
        policy.model, policy.tokenizer, prompts, responses, preference=rows.flip(1)
    )
    assert (turned - found).abs().min() > 0.01, "λ matters"


# ---- draws


def test_a_seed_decides_the_answers(base):
    def draw(seed: int) -> list[list[int]]:
        return generate_rows(*base, TEXTS * 4, max_new_tokens=20, seed=seed)

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    torch.manual_seed(99)
    first = draw(3)
    torch.rand(17)
    assert draw(3) == first, "whatever was drawn before"


@settings(max_examples=200)
@given(seed=st.integers(0, 2**31 - 1), starts=st.sets(st.integers(0, 10**6), min_size=2))
def test_batch_seeds_are_valid_and_apart_within_a_run(seed, starts):
    found = {batch_seed(seed, start) for start in starts}
    assert len(found) == len(starts)
    assert all(0 <= value < 2**31 for value in found)
    assert batch_seed(seed, 0) != batch_seed(seed + 1, 0)


def test_golden_batch_seeds():
    assert [batch_seed(0, 0), batch_seed(7, 704), batch_seed(2**30, 0)] == [0, 7000725, 1073741824]


def test_rows_end_with_the_end_token_or_at_the_limit(base):
    model, tokenizer = base
    end = tokenizer.eos_token_id
    rows = generate_rows(model, tokenizer, TEXTS * 16, max_new_tokens=7, seed=0)
    assert {len(row) for row in rows if row[-1] != end} == {7}, "cut off at the limit"
    ended = [row for row in rows if row[-1] == end]
    assert ended and all(row.count(end) == 1 for row in ended), "nothing after the end"
    assert min(len(row) for row in ended) < 7
    assert all(tokenizer.pad_token_id not in row for row in rows)
    assert not any("<" in text for text in decode_responses(tokenizer, rows))


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_rows_are_drawn_with_the_log_probability_that_a_forward_finds(base, limit):
    """Of rows that ended, whose rest `generate` fills up, and of rows cut off at the limit."""
    model, tokenizer = base
    asked = TEXTS * 8
    drawn = draw_rows(model, tokenizer, asked, limit, seed=0)
    assert drawn.rows == generate_rows(model, tokenizer, asked, limit, seed=0)
    scored = sequence_logprobs(model, tokenizer, encode_prompts(tokenizer, asked), drawn.rows)
    assert drawn.logprobs.tolist() == pytest.approx(scored.tolist(), abs=1e-4)


def test_prompts_are_padded_on_the_left_and_padding_changes_no_distribution(base):
    """The first token of the shortest prompt beside the longest: as frequent as it is probable."""
    model, tokenizer = base
    short, long = "brew coffee", "how do i mix chemicals together please help me today"
    assert tokenizer.padding_side == "left"
    ids = encode_prompts(tokenizer, [short])
    with torch.no_grad():
        chance = model(input_ids=torch.tensor(ids)).logits[0, -1].softmax(-1)
    rows = generate_rows(model, tokenizer, [short] * 3000 + [long], max_new_tokens=1, seed=0)
    count = torch.bincount(torch.tensor([row[0] for row in rows[:3000]]), minlength=len(chance))
    spread = (chance * (1 - chance) / 3000).sqrt()
    assert ((count / 3000 - chance).abs() < 5 * spread + 1e-3).all()
    assert (chance > 0.1).sum() > 1, "there is something to choose from"


def test_a_long_prompt_loses_its_beginning_so_that_the_answer_has_room(base):
    model, tokenizer = base
    texts = ["brew coffee", "how do i mix chemicals together please help me today"]
    short, long = encode_prompts(tokenizer, texts)
    assert fitting_prompts(tokenizer, texts, 4, None) == [short, long]
    assert fitting_prompts(tokenizer, texts, 4, 9) == [short, long[-5:]]
    whole = generate_rows(model, tokenizer, texts[1:], 4, seed=0, max_length=len(long) + 4)
    assert whole == generate_rows(model, tokenizer, texts[1:], 4, seed=0)


def test_sampling_is_untruncated_and_at_temperature_one(base):
    """From a flattened model, whose unlikely tokens are many: they get their share too."""
    model, tokenizer = base[0], base[1]
    norm = model.model.norm.weight
    kept, n = norm.data.clone(), 6000
    norm.data *= 0.3
    ids = torch.tensor(encode_prompts(tokenizer, [TEXTS[0]]))
    with torch.no_grad():
        chance = model(input_ids=ids).logits[0, -1].softmax(-1).double()
    drawn = torch.tensor(generate_rows(model, tokenizer, [TEXTS[0]] * n, 1, seed=0))[:, 0]
    norm.data = kept
    order = chance.argsort()
    tail = order[chance[order].cumsum(0) < 0.1]  # what top_p = 0.9 would leave out
    expected = chance[tail].sum()
    assert len(tail) > 20 and len(chance) - len(tail) > 20
    share = torch.isin(drawn, tail).double().mean()
    assert abs(share - expected) < 5 * (expected * (1 - expected) / n) ** 0.5
    # The mean log probability of what is drawn is minus the entropy: another temperature's is not.
    surprise = chance.log()[drawn]
    entropy = -(chance * chance.log()).sum()
    assert abs(surprise.mean() + entropy) < 5 * surprise.std() / n**0.5


def test_a_batch_of_many_preferences_draws_from_each_rows_own_policy(policy):
    """Importance weights exp(log π_λ − log π_ref) of first tokens, per λ, as frequencies."""
    prompt = TEXTS[0]
    preferences = torch.tensor(GRID, dtype=torch.float32).repeat(1500, 1)
    rows = generate_rows(
        policy.model, policy.tokenizer, [prompt] * 4500, 1, seed=0, preference=preferences
    )
    ids = torch.tensor(encode_prompts(policy.tokenizer, [prompt]))
    chances = []
    for i, preference in enumerate(GRID.tolist()):
        with torch.no_grad():
            logits = policy.model(input_ids=ids, preference=preference).logits[0, -1]
        chance = logits.softmax(-1)
        drawn = torch.tensor([row[0] for row in rows[i::3]])
        share = torch.bincount(drawn, minlength=len(chance)) / 1500
        spread = (chance * (1 - chance) / 1500).sqrt()
        assert ((share - chance).abs() < 5 * spread + 2e-3).all(), preference
        chances.append(chance)
    apart = (chances[0] - chances[2]).abs().sum() / 2
    assert apart > 0.2, "the preferences are told apart by what they draw"


def test_sample_responses_belong_to_their_prompts_whatever_the_batch(base):
    model, tokenizer = base
    prompts = texts_of("train", 6)
    seen: list[tuple[int, int]] = []
    found = sample_responses(
        model, tokenizer, prompts, 5, 40, 8, 0, lambda done, of, _: seen.append((done, of))
    )
    assert [len(texts) for texts in found] == [5] * 6
    assert seen == [(8, 30), (16, 30), (24, 30), (30, 30)]
    assert found == sample_responses(model, tokenizer, prompts, 5, 40, 8, 0)
    fits = [
        parse(all_prompts()[prompt], text) is not None
        for prompt, texts in zip(prompts, found, strict=True)
        for text in texts
    ]
    assert np.mean(fits) > 0.5, "answers fit their own prompt's topic"


# ---- a policy over a grid


def key_of(generation: Generation) -> tuple[int, int, int]:
    return generation.point, generation.prompt, generation.sample


def test_sample_policy_answers_every_prompt_at_every_point(policy):
    found = sample_policy(policy, TEXTS, GRID, samples=2, max_new_tokens=12, batch_size=7, seed=0)
    expected = [(g, p, s) for g in range(3) for p in range(4) for s in range(2)]
    assert [key_of(generation) for generation in found] == expected
    again = sample_policy(policy, TEXTS, GRID, samples=2, max_new_tokens=12, batch_size=7, seed=0)
    assert found == again


def test_a_sample_carries_its_log_probability_under_policy_and_reference(policy):
    """The same batch drawn again by hand gives the tokens, and plain forwards their probability."""
    model, tokenizer = policy.model, policy.tokenizer
    found = sample_policy(policy, TEXTS, GRID, samples=2, max_new_tokens=12, batch_size=24, seed=5)
    asked = [TEXTS[generation.prompt] for generation in found]
    preferences = torch.tensor(GRID[[g.point for g in found]], dtype=torch.float32)
    rows = generate_rows(model, tokenizer, asked, 12, batch_seed(5, 0), preference=preferences)
    prompts = encode_prompts(tokenizer, asked)
    assert [g.text for g in found] == decode_responses(tokenizer, rows)
    assert [g.tokens for g in found] == [len(row) for row in rows]
    for generation, prompt, row, preference in zip(found, prompts, rows, preferences, strict=True):
        logprob = plain_logprob(model, prompt, row, preference=preference)
        assert generation.logprob == pytest.approx(logprob, abs=1e-3)
        with model.disable_adapter():
            reference = plain_logprob(model, prompt, row)
        assert generation.reference_logprob == pytest.approx(reference, abs=1e-3)
        assert abs(logprob - reference) > 1e-3


def test_the_reference_scores_equal_answers_to_a_prompt_once(policy, monkeypatch):
    scored: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def watched(model, tokenizer, prompts, responses, **arguments):
        scored.extend(zip(map(tuple, prompts), map(tuple, responses), strict=True))
        return sequence_logprobs(model, tokenizer, prompts, responses, **arguments)

    monkeypatch.setattr("panacea_lib.sampling.sequence_logprobs", watched)
    found = sample_policy(policy, TEXTS, GRID, samples=20, max_new_tokens=1, batch_size=50, seed=1)
    assert len(scored) == len(set(scored)) < len(found) / 2
    shared: dict[tuple[int, str], set[float]] = {}
    for g in found:
        if g.text:  # several special tokens read as nothing
            shared.setdefault((g.prompt, g.text), set()).add(g.reference_logprob)
    assert all(len(values) == 1 for values in shared.values())


def test_rows_of_one_batch_share_a_preference_where_the_policy_needs_it(policy):
    """A policy that cannot mix is asked for one λ at a time, and for all of them."""
    asked: list[torch.Tensor] = []

    class OneAtATime(PanaceaPolicy):
        def under(self, preferences):
            asked.append(preferences)
            return super().under(preferences)

    single = OneAtATime(policy.model, policy.tokenizer, DIMENSIONS, batches_mix_preferences=False)
    found = sample_policy(single, TEXTS, GRID, samples=2, max_new_tokens=6, batch_size=5, seed=0)
    assert len(found) == 24
    assert [len(rows) for rows in asked] == [5, 3] * 3
    assert all((rows == rows[0]).all() for rows in asked)


def test_the_reference_policy_is_its_own_reference(base):
    reference = Policy(*base, DIMENSIONS)
    found = sample_reference(reference, TEXTS, samples=3, max_new_tokens=8, batch_size=100, seed=0)
    assert [(g.point, g.prompt) for g in found[::3]] == [(EVERY_POINT, p) for p in range(4)]
    assert all(g.logprob == g.reference_logprob for g in found)


# ---- what a model is loaded as


def test_a_base_model_without_a_pad_token_or_template_is_told_apart(base, tmp_path: Path):
    model, tokenizer = base
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    _, loaded = load_base_model(tmp_path, "none")
    loaded.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        encode_prompts(loaded, ["hi"])
    assert loaded.pad_token_id is not None and not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
