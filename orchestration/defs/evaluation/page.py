"""The report of one problem: asked of the views, laid out by the library."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from orchestration.stage import StageRun
from panacea_lib.plan import library_versions

_LEADERBOARD = """
select * exclude (problem, key, created_at, is_current) from leaderboard_history
where problem = $problem and key = $front order by value_ratio desc nulls last
"""
_FRONT = """
with answers as (
    select point, prompt, response from sample_responses_history
    where problem = $problem and key = $answers and sample = 0
        and prompt_id = (
            -- the held-out prompt whose answers differ most over λ
            select prompt_id from sample_responses_history
            where problem = $problem and key = $answers and sample = 0
            group by prompt_id order by count(distinct response) desc, prompt_id limit 1)
)
select f.preference, f.rewards, f.kl, f.value, f.optimal_value, a.prompt, a.response
from pareto_front_history f left join answers a using (point)
where f.problem = $problem and f.key = $front and f.method = 'panacea'
    and f.judge = (select min(judge) from facts.front_values where key = $front)
order by f.point
"""
_REWARD_MODELS = """
select dimension, accuracy, accuracy_low, accuracy_high, majority, best_possible, n
from reward_model_quality_history where problem = $problem and list_contains($models, key)
"""
_QUERIES = {
    "Which method is best, and how sure are we?": "from leaderboard where problem = '{name}';",
    "What does every preference vector get?": (
        "select preference, rewards, kl, value, optimal_value from pareto_front\n"
        "where problem = '{name}' and method = 'panacea';"
    ),
    "What does it answer?": (
        "select method, preference, prompt, response from sample_responses\n"
        "where problem = '{name}' and sample = 0;"
    ),
    "Do the dimensions conflict?": "from preference_conflicts where problem = '{name}';",
}
_ESTIMATED = (
    "The optimum of a real model is estimated from samples of the reference policy, and the "
    "estimate is too low: value ratios read high. Rewards are the learned models' own (proxy)."
)


def read_leaderboard(run: StageRun) -> pa.Table:
    """Rows of the view leaderboard for this run's keys."""
    return run.warehouse.read(_LEADERBOARD, _keys(run, "problem", "front"))


def read_front(run: StageRun) -> list[dict[str, Any]]:
    """A row per λ: preference, rewards by the best judge, kl, and one sample answer."""
    answer = run.warehouse.read(_FRONT, _keys(run, "problem", "front", "answers"))
    return answer.to_pylist(maps_as_pydicts="strict")


def write_report(run: StageRun) -> str:
    """The page; MissingUpstreamError where something that it shows has not been made."""
    from panacea_lib.report import (
        curves_picture,
        front_picture,
        report_page,
        reward_models_picture,
    )

    problem = run.problem
    leaderboard = read_leaderboard(run).to_pylist()
    models = run.warehouse.read(_REWARD_MODELS, _keys(run, "problem", "models")).to_pylist()
    judge = leaderboard[0]["judge"]
    curves = [
        run.rows("training_curves", stage, part)
        for stage in ("panacea_policy", "baseline_policies")
        for part in run.plan.parts(stage)
    ]
    points = run.rows("front_rewards", "pareto_front")
    return report_page(
        title=f"{problem.name}: one model for every preference",
        description=problem.description,
        card=_card(run),
        leaderboard=leaderboard,
        front=read_front(run),
        reward_models=models,
        pictures={
            "Fronts: mean rewards over the grid of λ": front_picture(
                points, problem.dimension_names, judge
            ),
            "Held-out accuracy of the reward models": reward_models_picture(models),
            "Training loss": curves_picture(pa.concat_tables(curves)),
        },
        queries={what: sql.format(name=problem.name) for what, sql in _QUERIES.items()},
        notes=[] if judge == "gold" else [_ESTIMATED],
    )


def _keys(run: StageRun, *names: str) -> dict[str, Any]:
    """The parameters that a query names (DuckDB refuses others)."""
    parameters: Mapping[str, Any] = {
        "problem": run.problem.name,
        "front": run.made("pareto_front"),
        "answers": run.made("generations", "panacea"),
        "models": [run.made("reward_models", name) for name in run.plan.parts("reward_models")],
    }
    return {name: parameters[name] for name in names}


def _card(run: StageRun) -> dict[str, str]:
    problem, plan = run.problem, run.plan
    base = problem.base_model
    name = getattr(base, "model", "a small Llama trained from scratch")
    settings = f" --seed {plan.seed}" + (f" --max-steps {plan.max_steps}" if plan.max_steps else "")
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    return {
        "dimensions": ", ".join(problem.dimension_names),
        "data": f"{problem.data.kind} ({plan.data_fingerprint[:12]})",
        "base model": f"{name}, quantisation {base.quantization}",
        "method": f"{problem.training.method}, {plan.steps(problem.training.steps)} steps",
        "β": f"{problem.beta:g}",
        "owner": problem.owner,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "to make it again": f"panacea materialize {problem.name}{settings}",
        "key of the front": plan.key("pareto_front"),
        "libraries": versions,
    }
