"""Stored answers → samples, a ruler, and the tables of every front."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from orchestration.defs.evaluation.answers import held_out_prompts
from orchestration.inputs import gold_scale
from orchestration.stage import StageRun
from panacea_lib.problem import WorldData
from panacea_lib.records import PromptRecord

if TYPE_CHECKING:
    from panacea_lib.evaluation import PolicySamples, Ruler

FRONT_TABLES = ("front_rewards", "front_values", "front_metrics")
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
    from panacea_lib.evaluation import estimated_ruler, evaluate_fronts, preference_grid

    problem, asked = run.problem, held_out_prompts(run)
    grid = preference_grid(len(problem.dimensions))
    found = []
    for judge in judges(run):
        samples = [_samples(run, method, judge, asked) for method in run.plan.methods]
        ruler = (
            _exact_ruler(run, asked, grid)
            if judge == "gold"
            else estimated_ruler(_by_prompt(samples[0], len(asked)), grid, problem.beta)
        )
        found.append(
            evaluate_fronts(
                samples,
                grid,
                problem.dimension_names,
                problem.beta,
                ruler,
                judge,
                problem.evaluation.bootstrap,
                run.plan.seed,
            )
        )
    return {name: pa.concat_tables([getattr(f, name) for f in found]) for name in FRONT_TABLES}


def _samples(run: StageRun, method: str, judge: str, asked: list[PromptRecord]) -> "PolicySamples":
    """One method's stored answers; the reference is the first of `plan.methods`."""
    from panacea_lib.evaluation import PolicySamples, reference_samples

    key = run.made("generations", method)
    rows = run.rows("generations", "generations", method)
    reward = np.stack(
        [
            run.warehouse.read(_REWARDS, [key, judge, dimension])["reward"].to_numpy()
            for dimension in run.problem.dimension_names
        ],
        axis=1,
    )
    position = {record.prompt_id: i for i, record in enumerate(asked)}
    prompt = np.array([position[prompt] for prompt in rows["prompt_id"].to_pylist()])
    if method == "reference":
        return reference_samples(prompt, reward)
    log_ratio = rows["logprob"].to_numpy() - rows["reference_logprob"].to_numpy()
    outside = None
    if judge == "gold":
        outside = _outside([asked[i].text for i in prompt], rows["text"].to_pylist())
    return PolicySamples(method, rows["point"].to_numpy(), prompt, reward, log_ratio, outside)


def _outside(prompts: list[str], texts: list[str]) -> np.ndarray:
    """Which answers the embedded world's grammar does not know."""
    from panacea_lib.world.grammar import all_prompts, parse

    known = all_prompts()
    return np.array(
        [parse(known[prompt], text) is None for prompt, text in zip(prompts, texts, strict=True)]
    )


def _exact_ruler(run: StageRun, asked: list[PromptRecord], grid: np.ndarray) -> "Ruler":
    from panacea_lib.evaluation import exact_ruler
    from panacea_lib.models.base import load_base_model
    from panacea_lib.world.exact import enumerate_reference
    from panacea_lib.world.grammar import all_prompts

    known = all_prompts()
    base, scale = run.problem.base_model, gold_scale(run)
    model, tokenizer = load_base_model(run.artifact("base_model"), base.quantization)
    enumeration = enumerate_reference(
        model,
        tokenizer,
        [known[record.text] for record in asked],
        run.problem.dimension_names,
        scale.mean,
        scale.scale,
    )
    return exact_ruler(enumeration, grid, run.problem.beta)


def _by_prompt(reference: "PolicySamples", prompts: int) -> np.ndarray:
    """Rewards of the reference samples, shape (P, n, m); every prompt has as many."""
    order = np.argsort(reference.prompt, kind="stable")
    return reference.reward[order].reshape(prompts, -1, reference.reward.shape[1])
