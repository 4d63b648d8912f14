"""The embedded world's data: prompts, the base model's corpus, and the pairs to be labelled."""

from collections import defaultdict

import numpy as np

from panacea_lib.data.split import split_of
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_models import ScratchModel
from panacea_lib.records import PairRecord, PromptRecord, ResponseRecord, pair_id, prompt_id
from panacea_lib.world.grammar import all_prompts, render, sample_answers


def world_prompts(data: WorldData, seed: int) -> list[PromptRecord]:
    """A draw of `data.prompts` distinct prompts (at most as many as the world has)."""
    texts = list(all_prompts())
    chosen = np.random.default_rng((seed, 1)).permutation(len(texts))[: data.prompts]
    return [
        PromptRecord(prompt_id(texts[i]), split_of(texts[i], data.split), texts[i]) for i in chosen
    ]


def world_corpus(
    config: ScratchModel, prompts: list[PromptRecord], seed: int
) -> list[tuple[str, str]]:
    """(prompt, answer) texts as the world's writers gave them, a fresh answer for every row that
    training sees; training-side prompts only."""
    known = all_prompts()
    side = [known[prompt.text] for prompt in prompts if prompt.split == "train"]
    rng = np.random.default_rng((seed, 2))
    rows = config.steps * config.batch_size
    asked = rng.integers(len(side), size=rows)
    answers = sample_answers(rng, rows)
    return [
        (side[i].text, render(side[i], answer)) for i, answer in zip(asked, answers, strict=True)
    ]


def world_pairs(
    prompts: list[PromptRecord], responses: list[ResponseRecord], count: int, seed: int
) -> list[PairRecord]:
    """`count` random pairs of different texts, or as many as there are; each at most once."""
    by_prompt: dict[str, dict[str, ResponseRecord]] = defaultdict(dict)
    for response in responses:
        by_prompt[response.prompt_id].setdefault(response.text, response)
    candidates = []
    rng = np.random.default_rng((seed, 3))
    for prompt in prompts:
        distinct = list(by_prompt[prompt.prompt_id].values())
        for i, a in enumerate(distinct):
            for b in distinct[i + 1 :]:
                first, second = (a, b) if rng.random() < 0.5 else (b, a)
                candidates.append((prompt, first.response_id, second.response_id))
    kept = rng.permutation(len(candidates))[:count]
    return [
        PairRecord(pair_id(a, b), prompt.prompt_id, prompt.split, a, b)
        for prompt, a, b in (candidates[i] for i in kept)
    ]
