"""Answers of a policy over a grid of preference vectors, with their log probabilities."""

from dataclasses import dataclass

import numpy as np
import torch

from panacea_lib.generation import batch_seed, sequence_logprobs, tell
from panacea_lib.models.chat import decode_responses
from panacea_lib.policy import Policy
from panacea_lib.trainers import StepListener

EVERY_POINT = -1  # the point of a sample that heeds no λ


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer: its λ's position on the grid, its prompt's position, log probabilities in
    nats of the whole response under the policy and under the reference."""

    point: int
    prompt: int
    sample: int
    text: str
    tokens: int
    logprob: float
    reference_logprob: float


def sample_policy(
    policy: Policy,
    prompts: list[str],
    grid: np.ndarray,
    samples: int,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    on_step: StepListener | None = None,
    max_length: int | None = None,
) -> list[Generation]:
    """`samples` answers to every prompt for every λ of the grid (G, m).

    Rows of different λ share a batch where the policy allows it. A batch's draws depend on the
    seed and its position alone. `max_length` as in `panacea_lib.generation.fitting_prompts`.
    """
    rows = [
        (point, prompt, sample)
        for point in range(len(grid))
        for prompt in range(len(prompts))
        for sample in range(samples)
    ]
    batches = _batches(rows, batch_size, mixed=policy.batches_mix_preferences)
    found: list[Generation] = []
    for batch in batches:
        drawn_by = batch_seed(seed, len(found))
        found += _answer(policy, prompts, grid, batch, max_new_tokens, drawn_by, max_length)
        tell(on_step, len(found), len(rows))
    return found


def sample_reference(
    policy: Policy,
    prompts: list[str],
    samples: int,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    on_step: StepListener | None = None,
    max_length: int | None = None,
) -> list[Generation]:
    """`samples` answers of the reference policy to every prompt, at the point `EVERY_POINT`."""
    no_grid = np.zeros((1, len(policy.dimensions)))
    found = sample_policy(
        policy, prompts, no_grid, samples, max_new_tokens, batch_size, seed, on_step, max_length
    )
    return [
        Generation(EVERY_POINT, g.prompt, g.sample, g.text, g.tokens, g.logprob, g.logprob)
        for g in found
    ]


def _batches(
    rows: list[tuple[int, int, int]], size: int, mixed: bool
) -> list[list[tuple[int, int, int]]]:
    """Batches of at most `size` rows; unless `mixed`, of one λ each."""
    batches: list[list[tuple[int, int, int]]] = []
    for row in rows:
        if not batches or len(batches[-1]) == size or (not mixed and batches[-1][0][0] != row[0]):
            batches.append([])
        batches[-1].append(row)
    return batches


def _answer(
    policy: Policy,
    prompts: list[str],
    grid: np.ndarray,
    batch: list[tuple[int, int, int]],
    max_new_tokens: int,
    seed: int,
    max_length: int | None,
) -> list[Generation]:
    asked = [prompts[prompt] for _, prompt, _ in batch]
    preferences = torch.tensor(grid[[point for point, _, _ in batch]], dtype=torch.float32)
    prompt_ids = policy.prompt_ids(asked, max_new_tokens, max_length)
    with policy.under(preferences):
        responses = policy.generate(asked, max_new_tokens, seed, max_length)
        logprobs = policy.logprobs(prompt_ids, responses)
    with policy.as_reference():
        reference = sequence_logprobs(policy.model, policy.tokenizer, prompt_ids, responses)
    texts = decode_responses(policy.tokenizer, responses)
    return [
        Generation(*row, texts[i], len(responses[i]), float(logprobs[i]), float(reference[i]))
        for i, row in enumerate(batch)
    ]
