"""Annotators of the embedded world: honest, and as noisy as Bradley-Terry says people are."""

import numpy as np

from panacea_lib.records import AnnotationRecord, PairRecord, PromptRecord, ResponseRecord
from panacea_lib.rewards.scale import RewardScale
from panacea_lib.world.gold import gold_scores
from panacea_lib.world.grammar import all_prompts


def gold_raw_texts(prompts: list[str], texts: list[str], dimensions: list[str]) -> np.ndarray:
    """Raw gold scores of answers, one prompt text beside each; shape (N, m)."""
    known = all_prompts()
    rows = [gold_scores(known[p], [t], dimensions)[0] for p, t in zip(prompts, texts, strict=True)]
    return np.array(rows).reshape(len(texts), len(dimensions))


def gold_raw(
    prompts: list[PromptRecord], responses: list[ResponseRecord], dimensions: list[str]
) -> np.ndarray:
    """Raw gold scores of responses, shape (N, m)."""
    text_of = {prompt.prompt_id: prompt.text for prompt in prompts}
    asked = [text_of[response.prompt_id] for response in responses]
    return gold_raw_texts(asked, [response.text for response in responses], dimensions)


def preference_probability(
    prompts: list[PromptRecord],
    responses: list[ResponseRecord],
    pairs: list[PairRecord],
    dimensions: list[str],
    scale: RewardScale,
) -> np.ndarray:
    """P(a preferred over b) = sigmoid(Δr) of the normalised gold reward; shape (pairs, m)."""
    reward = scale.apply(gold_raw(prompts, responses, dimensions))
    row_of = {response.response_id: i for i, response in enumerate(responses)}
    a = reward[[row_of[pair.response_a] for pair in pairs]]
    b = reward[[row_of[pair.response_b] for pair in pairs]]
    return 1.0 / (1.0 + np.exp(b - a))


def annotate(
    prompts: list[PromptRecord],
    responses: list[ResponseRecord],
    pairs: list[PairRecord],
    dimensions: list[str],
    scale: RewardScale,
    annotators: int,
    seed: int,
) -> list[AnnotationRecord]:
    """One per pair and dimension: the share of `annotators` votes for a, each drawn from
    `preference_probability` on its own."""
    probability = preference_probability(prompts, responses, pairs, dimensions, scale)
    votes = [
        # A stream per dimension: its labels are the same whichever others there are.
        np.random.default_rng((seed, 4, int.from_bytes(dimension.encode()))).binomial(annotators, p)
        for dimension, p in zip(dimensions, probability.T, strict=True)
    ]
    label = np.stack(votes, axis=1) / annotators
    who = f"{annotators} simulated"
    return [
        AnnotationRecord(
            pair_id=pair.pair_id,
            dimension=dimension,
            source="world",
            annotator=who,
            label=float(label[i, j]),
            score_a=None,
            score_b=None,
            shown_first=None,
            status="ok",
            reason=None,
        )
        for i, pair in enumerate(pairs)
        for j, dimension in enumerate(dimensions)
    ]
