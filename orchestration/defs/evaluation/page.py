"""The report of one problem: asked of the views, laid out by the library."""

from datetime import UTC, datetime
from platform import python_version

import pyarrow as pa

from orchestration.stage import StageRun
from orchestration.summary import comparison_rows, front_rows, leaderboard_rows, telling_answers
from orchestration.trust import (
    estimated_optimum,
    refused_points,
    ruler_quality,
    unseen_points,
)
from panacea_lib.plan import library_versions

_REWARD_MODELS = """
select dimension, accuracy, accuracy_low, accuracy_high, majority, length_only, best_possible, n
from reward_model_quality_history where problem = ? and list_contains(?, key)
"""
_PROMPTS = 6  # beside the slider
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


def write_report(run: StageRun) -> str:
    """The page; MissingUpstreamError where something that it shows has not been made."""
    from panacea_lib.report import (
        curves_picture,
        evaluation_pictures,
        report_page,
        reward_models_picture,
        slider_data,
    )

    problem = run.problem
    dimensions = problem.dimension_names
    front_key, answers_keys = run.made("pareto_front"), _answers_keys(run)
    leaderboard = leaderboard_rows(run.warehouse, problem.name, front_key)
    model_keys = [run.made("reward_models", name) for name in run.plan.parts("reward_models")]
    models = run.warehouse.read(_REWARD_MODELS, [problem.name, model_keys]).to_pylist()
    curves = [
        run.rows("training_curves", stage, part)
        for stage in ("panacea_policy", "baseline_policies")
        for part in run.plan.parts(stage)
    ]
    points, values = (run.rows(name, "pareto_front") for name in ("front_rewards", "front_values"))
    drawn = evaluation_pictures(points, values, dimensions, problem.beta)
    answers = telling_answers(run.warehouse, problem.name, answers_keys, _PROMPTS)
    return report_page(
        title=f"{problem.name}: one model for every preference",
        description=problem.description,
        card=_card(run),
        leaderboard=leaderboard,
        comparisons=comparison_rows(run.warehouse, problem.name, front_key),
        slider=slider_data(points, values, dimensions, answers),
        front=front_rows(run.warehouse, problem.name, front_key, answers_keys["panacea"]),
        reward_models=models,
        pictures={
            **{one.caption: one.png for one in drawn},
            "Held-out accuracy of the reward models": reward_models_picture(models),
            "Training loss": curves_picture(pa.concat_tables(curves)),
        },
        queries={what: sql.format(name=problem.name) for what, sql in _QUERIES.items()},
        notes=_notes(run, front_key, leaderboard[0]["judge"]),
    )


def _notes(run: StageRun, front_key: str, judge: str) -> list[str]:
    """What a reader must know before believing the figures."""
    ruler = ruler_quality(run.warehouse, run.problem.name, front_key, judge)
    told = [estimated_optimum(ruler), refused_points(ruler)] if ruler else []
    return [note for note in [*told, unseen_points(run.warehouse, front_key, judge)] if note]


def _reward_models(run: StageRun) -> str:
    rewards = run.problem.rewards
    kind = "one per dimension" if rewards.trunk == "separate" else "one, with a head per dimension"
    of = f", of {rewards.model.model}" if rewards.model else ""
    return f"{kind}{of}, {run.plan.steps(rewards.steps)} steps each"


def _answers_keys(run: StageRun) -> dict[str, str]:
    """Method -> key of its answers."""
    return {method: run.made("generations", method) for method in run.plan.parts("generations")}


def _card(run: StageRun) -> dict[str, str]:
    """Data, models, method, keys, versions, date and the command that makes it all again."""
    problem, plan = run.problem, run.plan
    base = problem.base_model
    name = getattr(base, "model", "a small Llama trained from scratch")
    settings = f" --seed {plan.seed}" + (f" --max-steps {plan.max_steps}" if plan.max_steps else "")
    versions = {"Python": python_version(), **library_versions()}
    return {
        "dimensions": ", ".join(problem.dimension_names),
        "data": f"{problem.data.kind}, fingerprint {plan.data_fingerprint[:16]}",
        "base model": f"{name}, quantisation {base.quantization}",
        "reward models": _reward_models(run),
        "method": f"{problem.training.method}, {plan.steps(problem.training.steps)} steps",
        "other methods": ", ".join(plan.parts("baseline_policies")) or "none",
        "β": f"{problem.beta:g}, the price of a nat of KL in normalised reward",
        "seed": str(plan.seed),
        "owner": problem.owner,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "to make it again": f"panacea materialize {problem.name}{settings}",
        "key of the base model": plan.key("base_model"),
        "key of the policy": plan.key("panacea_policy", "panacea"),
        "key of the front": plan.key("pareto_front"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
