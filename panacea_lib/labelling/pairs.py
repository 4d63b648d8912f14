"""Which responses are compared with which, where the data does not say."""

from collections import defaultdict

import numpy as np

from panacea_lib.records import PairRecord, PromptRecord, ResponseRecord, pair_id


def random_pairs(
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
