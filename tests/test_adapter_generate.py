"""`generate` with one λ per prompt: every way of decoding answers each row as if it were alone."""

import pytest
import torch
from adapter_models import IDS, LAMBDA, ROWS, adapted, tiny_gpt2, tiny_llama
from transformers import GenerationConfig

from panacea_lib.adapter import find_preference_state, set_preference

MASK = torch.ones_like(IDS)
MASK[0, :3] = 0
MASK[2, :1] = 0
LENGTH = {"max_new_tokens": 6, "min_new_tokens": 6}
OPTIONS = {
    "greedy": {"do_sample": False},
    "no_cache": {"do_sample": False, "use_cache": False},
    "static_cache": {"do_sample": False, "cache_implementation": "static"},
    "beams": {"num_beams": 3, "do_sample": False},
    "beams_returned": {"num_beams": 3, "num_return_sequences": 2, "do_sample": False},
    "beams_no_cache": {"num_beams": 2, "do_sample": False, "use_cache": False},
    "penalty": {"do_sample": False, "repetition_penalty": 1.3},
    "guidance": {"do_sample": False, "guidance_scale": 1.5},
}


@pytest.fixture(scope="module")
def model():
    return adapted()


def new_tokens(model, ids=IDS, mask=MASK, **options):
    width = ids.shape[1]
    return model.generate(input_ids=ids * mask, attention_mask=mask, **LENGTH, **options)[:, width:]


@pytest.mark.parametrize("name", OPTIONS)
def test_rows_together_equal_rows_alone(model, name):
    options = OPTIONS[name]
    together = new_tokens(model, preference=ROWS, **options)
    for i, row in enumerate(ROWS):
        alone = new_tokens(model, IDS[i : i + 1], MASK[i : i + 1], preference=row, **options)
        rows = len(alone)
        assert together[i * rows : (i + 1) * rows].tolist() == alone.tolist()
    other = new_tokens(model, preference=ROWS.flip(0), **options)
    assert not torch.equal(together, other), "λ decides"
    assert find_preference_state(model).value is None


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("returned", [1, 3])
def test_sampled_rows_equal_repeated_prompts(model, returned, use_cache):
    options = {"do_sample": True, "temperature": 1.5, "use_cache": use_cache}
    torch.manual_seed(3)
    found = new_tokens(model, preference=ROWS, num_return_sequences=returned, **options)
    torch.manual_seed(3)
    ids, mask, rows = (tensor.repeat_interleave(returned, 0) for tensor in (IDS, MASK, ROWS))
    assert torch.equal(found, new_tokens(model, ids, mask, preference=rows, **options))
    assert len(found) == 3 * returned


def test_sampling_beams(model):
    """Beams and samples at once: rows of one λ each, so that a mix-up of λ shows."""
    options = {"num_beams": 4, "num_return_sequences": 2, "do_sample": True}
    torch.manual_seed(5)
    found = new_tokens(model, preference=torch.tensor(LAMBDA).repeat(3, 1), **options)
    torch.manual_seed(5)
    assert torch.equal(found, new_tokens(model, preference=LAMBDA, **options))


def test_prompt_lookup_is_greedy_decoding_only_faster(model):
    ids = IDS[:1].repeat(1, 3)  # repeats itself, so that candidates are found
    greedy = model.generate(ids, preference=ROWS[:1], do_sample=False, **LENGTH)
    looked_up = model.generate(
        ids, preference=ROWS[:1], do_sample=False, prompt_lookup_num_tokens=3, **LENGTH
    )
    assert torch.equal(looked_up, greedy)


def test_a_plain_assistant_leaves_the_answer_as_it_is(model):
    greedy = model.generate(IDS[:1], preference=LAMBDA, do_sample=False, **LENGTH)
    assisted = model.generate(
        IDS[:1], preference=LAMBDA, do_sample=False, assistant_model=tiny_llama(), **LENGTH
    )
    assert torch.equal(assisted, greedy)


def test_an_adapted_assistant_needs_a_preference_of_its_own(model):
    assistant = adapted().get_base_model()
    options = {"do_sample": False, "assistant_model": assistant, **LENGTH}
    with pytest.raises(ValueError, match="no preference vector"):
        model.generate(IDS[:1], preference=LAMBDA, **options)
    set_preference(assistant, [1, 0, 0])
    greedy = model.generate(IDS[:1], preference=LAMBDA, do_sample=False, **LENGTH)
    assert torch.equal(model.generate(IDS[:1], preference=LAMBDA, **options), greedy)


@pytest.mark.parametrize("rows", [2, 6])
def test_rows_that_do_not_match_the_prompts_are_refused(model, rows):
    preference = torch.tensor(LAMBDA).repeat(rows, 1)
    with pytest.raises(ValueError, match=f"{2 * rows} rows but the batch has 6"):
        model.generate(IDS, preference=preference, num_return_sequences=2, do_sample=True)
    assert find_preference_state(model).value is None


def test_beams_named_by_a_generation_config_count_too(model):
    config = GenerationConfig(num_beams=3, do_sample=False, pad_token_id=0, **LENGTH)
    found = model.generate(IDS, config, preference=ROWS)
    by_name = model.generate(IDS, preference=ROWS, num_beams=3, do_sample=False, **LENGTH)
    assert torch.equal(found, by_name)
    model.generation_config.num_beams = 3
    try:
        kept = model.generate(IDS, preference=ROWS, do_sample=False, **LENGTH)
    finally:
        model.generation_config.num_beams = 1
    assert torch.equal(kept, by_name)


def test_rows_of_gpt2():
    model = adapted(tiny_gpt2(), target_modules=["c_attn", "c_fc"])
    options = {"do_sample": False, "pad_token_id": 0}
    together = new_tokens(model, preference=ROWS, **options)
    alone = [
        new_tokens(model, IDS[i : i + 1], MASK[i : i + 1], preference=ROWS[i], **options)
        for i in range(3)
    ]
    assert torch.equal(together, torch.cat(alone))
