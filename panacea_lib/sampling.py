"""Answers of a policy over a grid of preference vectors, with their log probabilities."""

from dataclasses import dataclass

import numpy as np
import torch

from panacea_lib.batches import BATCH_TOKENS, by_length
from panacea_lib.generation import Drawn, TokenRows, batch_seed, sequence_logprobs, tell
from panacea_lib.models.chat import decode_responses
from panacea_lib.policy import Policy
from panacea_lib.train_result import StepListener

EVERY_POINT = -1  # the point of a sample that heeds no λ
_Row = tuple[int, int, int]  # point, prompt, sample


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
    how = (max_new_tokens, batch_size, seed, on_step, max_length)
    rows, answers = _answers(policy, prompts, grid, samples, *how)
    prompt_ids = policy.prompt_ids(prompts, max_new_tokens, max_length)
    reference = _reference_logprobs(
        policy, [prompt_ids[prompt] for _, prompt, _ in rows], answers.rows
    )
    return _generations(policy, rows, answers, reference)


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
    how = (max_new_tokens, batch_size, seed, on_step, max_length)
    rows, answers = _answers(policy, prompts, no_grid, samples, *how)
    everywhere = [(EVERY_POINT, prompt, sample) for _, prompt, sample in rows]
    return _generations(policy, everywhere, answers, answers.logprobs)


def _answers(
    policy: Policy,
    prompts: list[str],
    grid: np.ndarray,
    samples: int,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    on_step: StepListener | None,
    max_length: int | None,
) -> tuple[list[_Row], Drawn]:
    """What is asked, and what the policy answers."""
    rows = [
        (point, prompt, sample)
        for point in range(len(grid))
        for prompt in range(len(prompts))
        for sample in range(samples)
    ]
    answers: TokenRows = []
    logprobs = []
    for batch in _batches(rows, batch_size, mixed=policy.batches_mix_preferences):
        asked = [prompts[prompt] for _, prompt, _ in batch]
        preferences = torch.tensor(grid[[point for point, _, _ in batch]], dtype=torch.float32)
        drawn_by = batch_seed(seed, len(answers))
        with policy.under(preferences):
            drawn = policy.draw(asked, max_new_tokens, drawn_by, max_length)
        answers += drawn.rows
        logprobs.append(drawn.logprobs)
        tell(on_step, len(answers), len(rows))
    return rows, Drawn(answers, torch.cat(logprobs))


def _batches(rows: list[_Row], size: int, mixed: bool) -> list[list[_Row]]:
    """Batches of at most `size` rows; unless `mixed`, of one λ each."""
    batches: list[list[_Row]] = []
    for row in rows:
        if not batches or len(batches[-1]) == size or (not mixed and batches[-1][0][0] != row[0]):
            batches.append([])
        batches[-1].append(row)
    return batches


def _reference_logprobs(
    policy: Policy, prompt_ids: TokenRows, responses: TokenRows
) -> torch.Tensor:
    """log π_ref of every response, shape (N,), float64.

    The reference heeds no λ, so that equal answers to a prompt, of which a small world has many,
    are scored once; rows of like length share a batch.
    """
    pairs = [(tuple(p), tuple(r)) for p, r in zip(prompt_ids, responses, strict=True)]
    unique = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    texts = [(list(p), list(r)) for p, r in unique]
    scores = torch.empty(len(texts), dtype=torch.float64)
    with policy.as_reference():
        for batch in by_length([len(p) + len(r) for p, r in texts], BATCH_TOKENS):
            p, r = ([texts[i][side] for i in batch] for side in (0, 1))
            scores[batch] = sequence_logprobs(policy.model, policy.tokenizer, p, r)
    return scores[[unique[pair] for pair in pairs]]


def _generations(
    policy: Policy, rows: list[_Row], answers: Drawn, reference: torch.Tensor
) -> list[Generation]:
    texts = decode_responses(policy.tokenizer, answers.rows)
    logprobs, references = answers.logprobs.tolist(), reference.tolist()
    return [
        Generation(*row, texts[i], len(answers.rows[i]), logprobs[i], references[i])
        for i, row in enumerate(rows)
    ]
