"""The report of one problem: asked of the views, laid out by the library."""

from datetime import UTC, datetime

import pyarrow as pa

from orchestration.stage import StageRun
from orchestration.summary import front_rows, leaderboard_rows
from panacea_lib.plan import library_versions

_REWARD_MODELS = """
select dimension, accuracy, accuracy_low, accuracy_high, majority, best_possible, n
from reward_model_quality_history where problem = ? and list_contains(?, key)
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


def write_report(run: StageRun) -> str:
    """The page; MissingUpstreamError where something that it shows has not been made."""
    from panacea_lib.report import (
        curves_picture,
        evaluation_pictures,
        report_page,
        reward_models_picture,
    )

    problem = run.problem
    front_key, answers_key = run.made("pareto_front"), run.made("generations", "panacea")
    leaderboard = leaderboard_rows(run.warehouse, problem.name, front_key)
    model_keys = [run.made("reward_models", name) for name in run.plan.parts("reward_models")]
    models = run.warehouse.read(_REWARD_MODELS, [problem.name, model_keys]).to_pylist()
    judge = leaderboard[0]["judge"]
    curves = [
        run.rows("training_curves", stage, part)
        for stage in ("panacea_policy", "baseline_policies")
        for part in run.plan.parts(stage)
    ]
    points, values = (run.rows(name, "pareto_front") for name in ("front_rewards", "front_values"))
    drawn = evaluation_pictures(points, values, problem.dimension_names)
    return report_page(
        title=f"{problem.name}: one model for every preference",
        description=problem.description,
        card=_card(run),
        leaderboard=leaderboard,
        front=front_rows(run.warehouse, problem.name, front_key, answers_key),
        reward_models=models,
        pictures={
            **{one.caption: one.png for one in drawn},
            "Held-out accuracy of the reward models": reward_models_picture(models),
            "Training loss": curves_picture(pa.concat_tables(curves)),
        },
        queries={what: sql.format(name=problem.name) for what, sql in _QUERIES.items()},
        notes=[] if judge == "gold" else [_ESTIMATED],
    )


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
