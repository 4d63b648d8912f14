"""Stored answers → samples, a ruler, and the tables of every front."""

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from orchestration.defs.evaluation.answers import held_out_prompts
from orchestration.inputs import gold_scale
from orchestration.stage import StageRun
from panacea_lib.errors import InputError
from panacea_lib.problem_data import WorldData
from panacea_lib.records import PromptRecord

if TYPE_CHECKING:
    from panacea_lib.evaluation import PromptMeans, Ruler

_REWARDS = """
select r.reward from facts.generations g
join facts.generation_rewards r on r.key = g.key and r.generation_id = g.generation_id
where g.key = ? and r.judge = ? and r.dimension = ?
order by g.rowid
"""


def judges(run: StageRun) -> list[str]:
    """Who scores the answers, the best first."""
    return ["gold", "proxy"] if isinstance(run.problem.data, WorldData) else ["proxy"]


def measure(run: StageRun) -> dict[str, pa.Table]:
    """The rows of all front tables: every method, by every judge."""
    from panacea_lib.evaluation import FrontTables, evaluate_fronts, preference_grid

    problem, asked = run.problem, held_out_prompts(run)
    grid = preference_grid(len(problem.dimensions))
    found = []
    drawn_by = {judge: reference_rewards(run, judge, asked) for judge in judges(run)}
    for judge, drawn in drawn_by.items():
        tables = evaluate_fronts(
            _policies(run, judge, asked, grid, drawn, drawn_by["proxy"]),
            grid,
            problem.dimension_names,
            problem.beta,
            ruler_of(run, judge, asked, grid, drawn),
            judge,
            problem.evaluation.bootstrap,
            run.plan.seed,
        )
        found.append({table.name: getattr(tables, table.name) for table in fields(FrontTables)})
    made = {name: pa.concat_tables([tables[name] for tables in found]) for name in found[0]}
    return made | {"answering_costs": _answering_costs(run)}


def _policies(
    run: StageRun,
    judge: str,
    asked: list[PromptRecord],
    grid: np.ndarray,
    drawn: np.ndarray,
    selecting: np.ndarray,
) -> "list[PromptMeans]":
    """Everything that is compared. The best of n is selected by the learned rewards, as a user
    would have to, whoever judges it.

    drawn, selecting: (P, n, m), the reference samples' rewards by the judge and by the models.
    """
    from panacea_lib.evaluation import BEST_OF, best_of_n

    made = {method: run.made("generations", method) for method in run.plan.methods}
    means = [means_of(run, key, method, judge, asked, grid) for method, key in made.items()]
    if drawn.shape[1] < BEST_OF:
        return means
    return [*means, best_of_n(selecting, drawn, grid)]


def means_of(
    run: StageRun,
    key: str,
    method: str,
    judge: str,
    asked: list[PromptRecord],
    grid: np.ndarray,
) -> "PromptMeans":
    """The answers that are stored under a key, averaged; `method` is what they are called."""
    from panacea_lib.evaluation import PolicySamples, prompt_means, reference_samples

    rows = run.warehouse.rows("generations", key)
    prompt = prompt_positions(rows, method, asked)
    reward = _rewards(run, key, judge)
    if method == "reference":
        samples = reference_samples(prompt, reward)
    else:
        log_ratio = rows["logprob"].to_numpy() - rows["reference_logprob"].to_numpy()
        outside = None
        if judge == "gold":
            outside = _outside([asked[i].text for i in prompt], rows["text"].to_pylist())
        point = rows["point"].to_numpy()
        samples = PolicySamples(method, point, prompt, reward, log_ratio, outside)
    return prompt_means(samples, len(grid), len(asked), reward.shape[1])


def prompt_positions(rows: pa.Table, method: str, asked: list[PromptRecord]) -> np.ndarray:
    """The position of each answer's prompt among those asked; InputError if others were."""
    position = {record.prompt_id: i for i, record in enumerate(asked)}
    answered = rows["prompt_id"].to_pylist()
    if set(answered) != set(position):
        raise InputError(
            f"{method} answered {len(set(answered))} prompts, which are not the {len(position)} "
            "that its rivals answered: they are not comparable; materialize generations again "
            "with force"
        )
    return np.array([position[prompt] for prompt in answered])


def _rewards(run: StageRun, key: str, judge: str) -> np.ndarray:
    """Rewards of the answers under a key by one judge, shape (N, m)."""
    return np.stack(
        [
            run.warehouse.read(_REWARDS, [key, judge, dimension])["reward"].to_numpy()
            for dimension in run.problem.dimension_names
        ],
        axis=1,
    )


def reference_rewards(run: StageRun, judge: str, asked: list[PromptRecord]) -> np.ndarray:
    """Rewards of the reference samples, shape (P, n, m); every prompt has as many."""
    rows = run.rows("generations", "generations", "reference")
    reward = _rewards(run, run.made("generations", "reference"), judge)
    order = np.argsort(prompt_positions(rows, "reference", asked), kind="stable")
    return reward[order].reshape(len(asked), -1, reward.shape[1])


def _answering_costs(run: StageRun) -> pa.Table:
    """The rows of facts.answering_costs: what an answer costs, once a policy is trained."""
    from panacea_lib.evaluation import BEST_OF

    told = {method: run.details("generations", method) for method in run.plan.methods}
    told[f"best_of_{BEST_OF}"] = {"forwards_per_token": BEST_OF, "adapters": 0}
    names = ("forwards_per_token", "adapters")
    return pa.table(
        {"method": list(told)} | {name: [costs[name] for costs in told.values()] for name in names}
    )


def _outside(prompts: list[str], texts: list[str]) -> np.ndarray:
    """Which answers the embedded world's grammar does not know."""
    from panacea_lib.world.grammar import all_prompts, parse

    known = all_prompts()
    return np.array(
        [parse(known[prompt], text) is None for prompt, text in zip(prompts, texts, strict=True)]
    )


def ruler_of(
    run: StageRun, judge: str, asked: list[PromptRecord], grid: np.ndarray, drawn: np.ndarray
) -> "Ruler":
    """By the true rewards of the embedded world exact, else estimated from reference samples."""
    from panacea_lib.evaluation import estimated_ruler, exact_ruler
    from panacea_lib.models.base import load_base_model
    from panacea_lib.world.exact import enumerate_reference
    from panacea_lib.world.grammar import all_prompts

    problem = run.problem
    if judge != "gold":
        return estimated_ruler(drawn, grid, problem.beta)
    known, scale = all_prompts(), gold_scale(run)
    model, tokenizer = load_base_model(run.artifact("base_model"), problem.base_model.quantization)
    enumeration = enumerate_reference(
        model,
        tokenizer,
        [known[record.text] for record in asked],
        problem.dimension_names,
        scale.mean,
        scale.scale,
    )
    return exact_ruler(enumeration, grid, problem.beta)
