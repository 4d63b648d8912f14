"""Answers to be paired and labelled: of the base model, or of a policy under every preference."""

import numpy as np
import torch

from panacea_lib.generation import batch_seed, tell
from panacea_lib.models.chat import decode_responses
from panacea_lib.policy import Policy
from panacea_lib.problem_labelling import GeneratedPairs
from panacea_lib.train_result import StepListener


def generate_answers(
    policy: Policy,
    prompts: list[str],
    config: GeneratedPairs,
    seed: int,
    on_step: StepListener | None = None,
    max_length: int | None = None,
) -> list[list[str]]:
    """`config.per_prompt` answers to every prompt, each under a λ of its own: Dirichlet(1), so
    spread evenly over the simplex. The reference policy heeds none."""
    asked = [prompt for prompt in prompts for _ in range(config.per_prompt)]
    m = len(policy.dimensions)
    spread = np.random.default_rng((seed, 5)).dirichlet(np.ones(m), size=len(asked))
    texts: list[str] = []
    for start in range(0, len(asked), config.batch_size):
        chunk = asked[start : start + config.batch_size]
        preferences = torch.tensor(spread[start : start + len(chunk)], dtype=torch.float32)
        with policy.under(preferences):
            drawn_by = batch_seed(seed, start)
            rows = policy.generate(chunk, config.max_new_tokens, drawn_by, max_length)
        texts += decode_responses(policy.tokenizer, rows)
        tell(on_step, len(texts), len(asked))
    n = config.per_prompt
    return [texts[i : i + n] for i in range(0, len(texts), n)]
