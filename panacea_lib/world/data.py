"""The embedded world's data: prompts, and the base model's corpus."""

import numpy as np

from panacea_lib.data.split import split_of
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_models import ScratchModel
from panacea_lib.records import PromptRecord, prompt_id
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
