"""One method's answers to the held-out prompts, with their rewards."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from orchestration.inputs import (
    gold_scale,
    prompt_records,
    proxy_scale,
    reward_base,
    reward_folders,
)
from orchestration.stage import Made, StageRun
from panacea_lib.plan_content import policy_stage
from panacea_lib.problem_data import WorldData
from panacea_lib.records import PromptRecord, content_id

if TYPE_CHECKING:
    from panacea_lib.policy import Policy
    from panacea_lib.sampling import Generation


def held_out_prompts(run: StageRun) -> list[PromptRecord]:
    """The prompts that every method is asked, in one fixed order."""
    test = [record for record in prompt_records(run) if record.split == "test"]
    # Ids are hashes: their order is a draw that the same prompts always win.
    return sorted(test, key=lambda record: record.prompt_id)[: run.problem.evaluation.prompts]


def answer_one(run: StageRun, method: str) -> Made:
    """What a method of the plan answers, as `answers_of`."""
    stored = None if method == "reference" else run.artifact(policy_stage(method), method)
    return answers_of(run, method, stored)


def answers_of(run: StageRun, method: str, stored: Path | None) -> Made:
    """Rows of preference_grid, generations and generation_rewards, and what an answer costs.

    `stored` is the policy's folder, which may be of an earlier training; None for the reference.
    """
    from panacea_lib.evaluation import preference_grid

    problem = run.problem
    asked = held_out_prompts(run)
    grid = preference_grid(len(problem.dimensions))
    policy = _open(run, method, stored)
    found = _sample(run, method, policy, [record.text for record in asked], grid)
    prompt_ids = [asked[g.prompt].prompt_id for g in found]
    ids = [
        content_id("generation", method, str(g.point), prompt, str(g.sample))
        for g, prompt in zip(found, prompt_ids, strict=True)
    ]
    table = pa.table(
        {
            "generation_id": ids,
            "method": [method] * len(found),
            "point": [g.point for g in found],
            "prompt_id": prompt_ids,
            "sample": [g.sample for g in found],
            "text": [g.text for g in found],
            "tokens": [g.tokens for g in found],
            "logprob": [g.logprob for g in found],
            "reference_logprob": [g.reference_logprob for g in found],
        }
    )
    texts = [asked[g.prompt].text for g in found], [g.text for g in found]
    rewards = {"proxy": _proxy_rewards(run, *texts)}
    if isinstance(problem.data, WorldData):
        rewards["gold"] = _gold_rewards(run, *texts)
    return Made(
        {
            "preference_grid": _grid_table(grid, problem.dimension_names),
            "generations": table,
            "generation_rewards": _rewards_table(ids, problem.dimension_names, rewards),
        },
        {"forwards_per_token": policy.forwards_per_token, "adapters": policy.adapters},
    )


def _open(run: StageRun, method: str, stored: Path | None) -> "Policy":
    from panacea_lib.policy import open_policy

    return open_policy(
        method,
        stored,
        run.artifact("base_model"),
        run.problem.base_model.quantization,
        run.problem.dimension_names,
    )


def _sample(
    run: StageRun, method: str, policy: "Policy", prompts: list[str], grid: np.ndarray
) -> "list[Generation]":
    from panacea_lib.sampling import sample_policy, sample_reference

    config = run.problem.evaluation
    how = (
        config.max_new_tokens,
        config.batch_size,
        run.plan.seed,
        run.reporter.listener(method),
        run.problem.base_model.max_length,
    )
    if method == "reference":
        # As many answers in all as any other method gives: the estimated ruler rests on them.
        return sample_reference(policy, prompts, config.samples * len(grid), *how)
    return sample_policy(policy, prompts, grid, config.samples, *how)


def _proxy_rewards(run: StageRun, prompts: list[str], texts: list[str]) -> np.ndarray:
    """Normalised rewards by the learned models, shape (N, m)."""
    from panacea_lib.rewards.score import RewardModels, once_each

    loaded = run.problem.rewards.model or run.problem.base_model
    how = (loaded.quantization, reward_folders(run), loaded.max_length)
    models = RewardModels(reward_base(run), *how)
    return proxy_scale(run).apply(once_each(models.scores, prompts, texts))


def _gold_rewards(run: StageRun, prompts: list[str], texts: list[str]) -> np.ndarray:
    """Normalised true scores, shape (N, m); every different answer is judged once."""
    from panacea_lib.world.annotators import gold_raw_texts

    pairs = list(zip(prompts, texts, strict=True))
    unique = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    raw = gold_raw_texts(
        [p for p, _ in unique], [t for _, t in unique], run.problem.dimension_names
    )
    return gold_scale(run).apply(raw)[[unique[pair] for pair in pairs]]


def _grid_table(grid: np.ndarray, dimensions: list[str]) -> pa.Table:
    points, m = grid.shape
    return pa.table(
        {
            "point": np.repeat(np.arange(points), m),
            "dimension": dimensions * points,
            "weight": grid.ravel(),
        }
    )


def _rewards_table(
    ids: list[str], dimensions: list[str], rewards: dict[str, np.ndarray]
) -> pa.Table:
    m = len(dimensions)
    tables = [
        pa.table(
            {
                "generation_id": [i for i in ids for _ in range(m)],
                "dimension": dimensions * len(ids),
                "judge": [judge] * (len(ids) * m),
                "reward": by_answer.ravel(),
            }
        )
        for judge, by_answer in rewards.items()
    ]
    return pa.concat_tables(tables)
