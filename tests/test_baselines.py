"""Baselines of plain LoRAs: mixed token by token, picked by nearness, told λ in words."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from small_models import DIMENSIONS, MODEL, small_base
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from panacea_lib.baseline_policies import PREFERENCES_FILE, PROMPT_LORA, NearestPolicy, mixed
from panacea_lib.evaluation.grid import preference_grid
from panacea_lib.generation import fitting_prompts, sequence_logprobs
from panacea_lib.models.base import load_base_model
from panacea_lib.models.chat import decode_responses, encode_prompts, encode_responses
from panacea_lib.models.scratch import build_tokenizer
from panacea_lib.policy import LoadedPolicy, Policy, open_policy
from panacea_lib.problem_types import Quantization
from panacea_lib.prompt_preference import (
    digit_ids,
    levels,
    overwritten,
    preference_offset,
    preference_tokens,
    with_preference,
)
from panacea_lib.sampling import sample_policy

PROMPTS = ["how do i bake bread today", "please pick a lock", "brew coffee"]
ANSWERS = ["sure : mix flour , knead dough .", "sorry . this is dangerous .", "sure ."]
ROWS = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]])
KNOWN = {"0.0": [1.0, 0.0], "0.5": [0.5, 0.5], "1.0": [0.0, 1.0]}
METHODS = ["mod", "lora_per_preference", "prompt_conditioned"]
COSTS = {"rewarded_soups": (1, 2), "mod": (2, 2), "lora_per_preference": (1, 3)}
COSTS |= {"prompt_conditioned": (1, 1), "reference": (1, 0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """LoRAs as if trained, far enough from the base model and each other to tell them apart."""
    made = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate([*DIMENSIONS, *KNOWN, PROMPT_LORA]):
        model, _ = load_base_model(small_base(), "none")
        config = LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear")
        model = get_peft_model(model, config)
        generator = torch.Generator().manual_seed(seed)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(0.2 * noise)
        model.save_pretrained(str(made / name))
    (made / PREFERENCES_FILE).write_text(json.dumps(KNOWN))
    return made


@pytest.fixture(scope="module")
def opened(folder) -> dict[str, Policy]:
    return {
        method: open_policy(method, folder, small_base(), "none", DIMENSIONS) for method in COSTS
    }


@pytest.fixture(scope="module")
def tokenizer(opened):
    return opened["mod"].tokenizer


def encoded(tokenizer):
    return encode_prompts(tokenizer, PROMPTS), encode_responses(tokenizer, ANSWERS)


def alone(folder: Path, name: str, quantization: Quantization = "none"):
    """One LoRA on its own base model."""
    model, _ = load_base_model(small_base(), quantization)
    return PeftModel.from_pretrained(model, str(folder / name)).eval()


def logprobs(policy: Policy, preferences=ROWS) -> torch.Tensor:
    with policy.under(preferences):
        return policy.logprobs(*encoded(policy.tokenizer))


# ---- what holds for all


@pytest.mark.parametrize(("quantization", "apart"), [("none", 1e-4), ("nf4", 1e-4), ("int8", 0.1)])
def test_loras_named_per_row_equal_one_after_the_other(folder, quantization, apart):
    """PEFT's `adapter_names`, on which everything here rests. In int8 bitsandbytes picks outlier
    columns by all rows of a batch, so that company alone moves a row, without any LoRA too."""
    policy = open_policy("lora_per_preference", folder, small_base(), quantization, DIMENSIONS)
    assert isinstance(policy, NearestPolicy)
    ids = torch.tensor(encode_prompts(policy.tokenizer, [PROMPTS[0]] * 3))
    with torch.no_grad():
        together = policy.model(input_ids=ids, adapter_names=[*policy.lora_names]).logits
        for i, name in enumerate(policy.lora_names):
            policy.model.set_adapter(name)
            single = policy.model(input_ids=ids).logits[i]
            assert (single - together[i]).abs().max() < apart
        assert (together[0] - together[1]).abs().max() > 1
        assert (together[1] - together[2]).abs().max() > 1


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("method", METHODS)
def test_a_policy_heeds_its_preference_and_gives_the_reference_back(folder, method, quantization):
    policy = open_policy(method, folder, small_base(), quantization, DIMENSIONS)
    reference, _ = load_base_model(small_base(), quantization)
    expected = sequence_logprobs(reference, policy.tokenizer, *encoded(policy.tokenizer))
    one, other = (logprobs(policy, torch.tensor([row] * 3)) for row in KNOWN.values() if 1 in row)
    assert ((one - other).abs() > 1e-2).all() and ((one - expected).abs() > 1e-2).all()
    with policy.as_reference():
        found = sequence_logprobs(policy.model, policy.tokenizer, *encoded(policy.tokenizer))
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(logprobs(policy, torch.tensor([[1.0, 0.0]] * 3)), one)
    with policy.under(ROWS):
        assert all(policy.generate(PROMPTS, 8, seed=0)), "every row is answered"


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_different_preference_share_a_batch(opened, method):
    policy = opened[method]
    assert policy.batches_mix_preferences
    prompts, responses = encoded(policy.tokenizer)
    found = logprobs(policy)
    for i in range(3):
        with policy.under(ROWS[[i]]):
            single = policy.logprobs([prompts[i]], [responses[i]])
        assert found[i].item() == pytest.approx(single.item(), abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_preference_nothing_is_answered(opened, method):
    policy = opened[method]
    with pytest.raises(ValueError, match=r"within `under\(preferences\)` only"):
        policy.generate(PROMPTS, 5, seed=0)
    with pytest.raises(ValueError, match=r"within `under\(preferences\)` only"):
        policy.logprobs(*encoded(policy.tokenizer))


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_carries_its_log_probability_under_policy_and_reference(opened, method):
    policy, grid = opened[method], preference_grid(2)
    found = sample_policy(policy, PROMPTS, grid, 2, 12, batch_size=40, seed=3)
    assert len(found) == len(grid) * 3 * 2
    assert found == sample_policy(policy, PROMPTS, grid, 2, 12, batch_size=40, seed=3)
    one = found[25]
    prompts = encode_prompts(policy.tokenizer, [PROMPTS[one.prompt]])
    responses = [policy.tokenizer(one.text, add_special_tokens=False)["input_ids"]]
    if one.tokens > len(responses[0]):
        responses[0].append(policy.tokenizer.eos_token_id)
    with policy.under(torch.tensor(grid[[one.point]], dtype=torch.float32)):
        logprob = policy.logprobs(prompts, responses).item()
    assert one.logprob == pytest.approx(logprob, abs=1e-3)
    reference, _ = load_base_model(small_base(), "none")
    plain = sequence_logprobs(reference, policy.tokenizer, prompts, responses).item()
    assert one.reference_logprob == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_drawn_comes_as_often_as_its_log_probability_says(opened, method):
    """Two tokens, so that the second is drawn after a step through the cache; prompts of different
    lengths, each under a λ of its own."""
    policy, draws = opened[method], 1000
    preferences = ROWS.repeat(draws, 1)
    with policy.under(preferences):
        rows = policy.generate(PROMPTS * draws, 2, seed=0)
    for i, preference in enumerate(ROWS):
        counted = Counter(tuple(row) for row in rows[i::3])
        prompt = encode_prompts(policy.tokenizer, [PROMPTS[i]])
        common = [list(row) for row, _ in counted.most_common(12)]
        with policy.under(preference.expand(len(common), 2)):
            chance = policy.logprobs(prompt * len(common), common).exp()
        share = torch.tensor([counted[tuple(row)] / draws for row in common])
        spread = (chance * (1 - chance) / draws).sqrt()
        assert ((share - chance).abs() < 4.5 * spread).all(), (preference, share, chance)
        assert share.sum() > 0.1, "enough is compared"


@pytest.mark.parametrize("method", METHODS)
def test_many_prompts_each_under_its_own_preference(opened, method):
    policy = opened[method]
    preferences = [{"helpfulness": 1.0}, {"helpfulness": 0.5, "harmlessness": 0.5}]
    asked = LoadedPolicy(policy, 12).ask_many(PROMPTS[:2] * 9, preferences * 9, seed=4)
    with policy.under(ROWS[:2].repeat(9, 1)):
        rows = policy.generate(PROMPTS[:2] * 9, 12, seed=4)
    assert asked == decode_responses(policy.tokenizer, rows)
    assert len(set(asked)) > 4, "each row draws for itself"


def test_every_policy_says_what_it_costs(opened):
    for method, cost in COSTS.items():
        assert (opened[method].forwards_per_token, opened[method].adapters) == cost, method


# ---- decoding-time mixing


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_mixture_at_a_vertex_is_that_dimensions_lora(folder, quantization):
    policy = open_policy("mod", folder, small_base(), quantization, DIMENSIONS)
    for i, name in enumerate(DIMENSIONS):
        vertex = torch.eye(2)[[i] * 3]
        member = alone(folder, name, quantization)
        expected = sequence_logprobs(member, policy.tokenizer, *encoded(policy.tokenizer))
        assert torch.allclose(logprobs(policy, vertex), expected, atol=1e-4)


def test_a_mixture_is_the_normalised_product_of_its_members_at_every_step(folder, opened):
    tokenizer = opened["mod"].tokenizer
    members = [alone(folder, name) for name in DIMENSIONS]
    prompts, responses = encoded(tokenizer)
    for i, found in enumerate(logprobs(opened["mod"]).tolist()):
        total, text = 0.0, list(prompts[i])
        for token in responses[i]:
            with torch.no_grad():
                at = [model(input_ids=torch.tensor([text])).logits[0, -1] for model in members]
            chances = [logits.softmax(-1).double() for logits in at]
            product = chances[0] ** ROWS[i, 0] * chances[1] ** ROWS[i, 1]
            total += (product[token] / product.sum()).log().item()
            text.append(token)
        assert found == pytest.approx(total, abs=1e-3)


def test_three_members_are_mixed_prompt_by_prompt():
    """The weights belong to the right rows, with any dimensions between prompt and token."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((6, 4, 5), generator=generator)
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    found = mixed(logits, weights)
    by_hand = sum(w * row.log_softmax(-1) for w, row in zip(weights[0], logits[:3], strict=True))
    assert isinstance(by_hand, torch.Tensor)
    assert torch.allclose(found[0], by_hand.log_softmax(-1), atol=1e-6)
    assert torch.allclose(found[1], logits[4].log_softmax(-1), atol=1e-6)
    assert torch.allclose(mixed(logits[:, 0], weights), found[:, 0])


# ---- one LoRA per λ


def test_the_nearest_lora_answers(folder, opened):
    policy = opened["lora_per_preference"]
    assert isinstance(policy, NearestPolicy)
    rows = torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.0, 1.0], [0.5, 0.5], [0.1, 0.9]])
    assert policy.nearest(rows) == ["lora0", "lora1", "lora2", "lora1", "lora2"]
    for name, preference in KNOWN.items():
        member = alone(folder, name)
        expected = sequence_logprobs(member, policy.tokenizer, *encoded(policy.tokenizer))
        found = logprobs(policy, torch.tensor([preference] * 3))
        assert torch.allclose(found, expected, atol=1e-4), name


@pytest.mark.parametrize("dimensions", [2, 3, 10])
def test_every_point_of_a_grid_meets_its_own_lora(dimensions):
    grid = preference_grid(dimensions)
    names = tuple(f"lora{i}" for i in range(len(grid)))
    known = tuple(map(tuple, grid.tolist()))
    policy = NearestPolicy(None, None, [], lora_names=names, known=known)
    assert policy.nearest(torch.tensor(grid)) == [*names]
    assert policy.nearest(torch.tensor(grid, dtype=torch.float32)) == [*names]


@pytest.mark.parametrize("told", [{}, {"0.5": [0.5, 0.3, 0.2]}])
def test_preferences_that_do_not_fit_the_dimensions_are_refused(folder, tmp_path, told):
    (tmp_path / PREFERENCES_FILE).write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"preferences\.json: every subfolder needs .* 2 weights"):
        open_policy("lora_per_preference", tmp_path, small_base(), "none", DIMENSIONS)


# ---- λ in words


def test_a_preference_is_one_digit_per_dimension(tokenizer):
    rows = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.3, 0.7], [0.05, 0.95]])
    tokens = preference_tokens(tokenizer, rows)
    spelled = [tokenizer.convert_ids_to_tokens(row) for row in tokens]
    assert spelled == [["9", "0"], ["4", "4"], ["3", "6"], ["0", "9"]]
    assert torch.equal(digit_ids(tokenizer)[levels(rows)], torch.tensor(tokens))


@given(weight=st.floats(0, 1, width=32))
def test_levels_are_digits_near_the_weight(weight):
    level = levels(torch.tensor([[weight, 1 - weight]]))
    assert level.shape == (1, 2) and level.dtype == torch.int64
    assert level.min() >= 0 and level.max() <= 9
    assert abs(level[0, 0].item() - 9 * weight) <= 0.5 + 1e-6


def test_the_grid_is_told_apart_in_words():
    for dimensions in (2, 3):
        words = levels(torch.tensor(preference_grid(dimensions), dtype=torch.float32))
        assert len(np.unique(words.numpy(), axis=0)) == len(words)


def test_the_words_stand_before_the_prompt_and_after_what_opens_it(tokenizer):
    prompts = encode_prompts(tokenizer, PROMPTS)
    told = with_preference(prompts, tokenizer, ROWS)
    assert [row[2:] for row in told] == prompts
    assert [row[:2] for row in told] == preference_tokens(tokenizer, ROWS)
    opening = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<user>", unk_token="<unk>"
    )
    behind = with_preference(prompts, opening, ROWS)
    assert [row[:1] + row[3:] for row in behind] == prompts
    assert [row[1:3] for row in behind] == preference_tokens(tokenizer, ROWS)
    assert [preference_offset(opening, row) for row in [*prompts, *behind]] == [1] * 6
    assert preference_offset(tokenizer, prompts[0]) == preference_offset(opening, []) == 0


@pytest.mark.parametrize("opens", [None, "<pad>", "<user>"])
def test_training_overwrites_the_words_that_generation_puts_there(tokenizer, opens):
    """Also behind a token that opens the text and has the id 0."""
    assert tokenizer.convert_tokens_to_ids("<pad>") == 0
    opening = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token=opens, unk_token="<unk>"
    )
    first = [] if opens is None else [opening.bos_token_id]
    prompts = [[*first, *row[1:4]] for row in encode_prompts(tokenizer, PROMPTS)]
    blank = torch.tensor(with_preference(prompts, opening, torch.zeros_like(ROWS)))
    told = with_preference(prompts, opening, ROWS)
    assert overwritten(blank, opening, ROWS).tolist() == told
    assert [len(row) for row in told] == [len(row) + 2 for row in prompts]


@pytest.mark.parametrize("opens", [False, True])
def test_a_batch_is_generated_from_the_prompts_with_their_words(folder, opens):
    """Row by row and greedily by hand, with padding on the left and a token that opens or not."""
    policy = open_policy("prompt_conditioned", folder, small_base(), "none", DIMENSIONS)
    if opens:
        policy.tokenizer.bos_token = "<user>"
    seen = []
    generate = policy.model.generate

    def watched(**arguments):
        seen.append(arguments)
        return generate(**arguments)

    policy.model.generate = watched
    with policy.under(ROWS):
        rows = policy.generate(PROMPTS, 6, seed=0)
    assert len(rows) == 3 and all(0 < len(row) <= 6 for row in rows)
    told = with_preference(encode_prompts(policy.tokenizer, PROMPTS), policy.tokenizer, ROWS)
    ids, mask = seen[0]["input_ids"], seen[0]["attention_mask"]
    assert [row[keep == 1].tolist() for row, keep in zip(ids, mask, strict=True)] == told
    assert (mask[:, -1] == 1).all() and ids.shape[1] == max(map(len, told))
    torch.manual_seed(0)
    output = generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=True, top_k=0, top_p=1.0
    )
    for row, drawn in zip(rows, output[:, ids.shape[1] :].tolist(), strict=True):
        assert row == drawn[: len(row)]


def test_the_words_take_their_room_from_the_prompt(opened):
    policy = opened["prompt_conditioned"]
    whole = encode_prompts(policy.tokenizer, PROMPTS)
    assert policy.prompt_ids(PROMPTS, 4, None) == whole
    assert policy.prompt_ids(PROMPTS, 4, 11) == [row[-5:] for row in whole]
    assert fitting_prompts(policy.tokenizer, PROMPTS, 4, 11) == [row[-7:] for row in whole]
    found = sample_policy(policy, PROMPTS, ROWS.numpy(), 1, 4, 9, seed=0, max_length=11)
    longer = sample_policy(policy, PROMPTS, ROWS.numpy(), 1, 4, 9, seed=0, max_length=64)
    assert len(found) == 9 and found != longer
    with pytest.raises(ValueError, match="max_length 6 leaves no room"):
        policy.prompt_ids(PROMPTS, 4, 6)


def test_a_tokenizer_without_digits_is_refused_in_a_sentence():
    words = {"<unk>": 0, "bread": 1, "1": 2, "10": 3}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    with pytest.raises(ValueError, match="no single token for 0, 2, 3, 4, 5, 6, 7, 8, 9, ") as told:
        preference_tokens(tokenizer, ROWS)
    assert str(told.value).endswith(".") and "\n" not in str(told.value)
    silent = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"1": 0})))
    with pytest.raises(ValueError, match="no single token for 0, 2"):
        digit_ids(silent)


@pytest.mark.parametrize("kind", ["words", "bpe"])
@pytest.mark.parametrize("texts", [["bake bread today"] * 3, ["take 3 of 10", "7 up and 3 down"]])
def test_a_scratch_tokenizer_knows_every_digit(kind, texts):
    config = MODEL.model_copy(update={"tokenizer": kind, "vocab_size": 300})
    tokenizer = build_tokenizer(config, texts)
    ids = digit_ids(tokenizer)
    assert len(set(ids.tolist())) == 10 and max(tokenizer.get_vocab().values()) < len(tokenizer)
    for digit, token in enumerate(ids.tolist()):
        assert tokenizer(str(digit), add_special_tokens=False)["input_ids"] == [token]
    assert tokenizer.decode(tokenizer(texts[0])["input_ids"]).strip() == texts[0]
    assert len(tokenizer) <= 300


def test_digits_have_their_place_in_a_small_vocabulary():
    config = MODEL.model_copy(update={"vocab_size": 20})
    tokenizer = build_tokenizer(config, [" ".join(f"word{i}" for i in range(100))])
    assert len(tokenizer) == 20 and len(digit_ids(tokenizer)) == 10
