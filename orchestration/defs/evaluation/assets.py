"""What was gained: answers to held-out prompts, fronts, and a page to read."""

from pathlib import Path

import dagster as dg

from orchestration.columns import table_metadata
from orchestration.defs.dataset.assets import base_model, prompts
from orchestration.defs.evaluation.answers import answer_one
from orchestration.defs.evaluation.challenge import challenge
from orchestration.defs.evaluation.fronts import measure
from orchestration.defs.evaluation.model_folders import publish_models
from orchestration.defs.evaluation.page import write_report
from orchestration.defs.evaluation.sliders import with_sliders
from orchestration.defs.policies.assets import baseline_policies, panacea_policy
from orchestration.defs.preferences.assets import preference_labels
from orchestration.defs.rewards.assets import response_rewards, reward_models
from orchestration.following import follows
from orchestration.partitions import OWNERS, PROBLEMS, WEEKLY
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.shown import picture, small_table
from orchestration.stage import Made, StageRun
from panacea_lib.disk import fsync
from panacea_lib.plan_content import STAGE_VERSIONS

_SAMPLES = """
select method, preference, prompt, response, rewards from sample_responses_history
where problem = ? and list_contains(?, key) and sample = 0
qualify row_number() over (partition by method order by prompt_id, point) <= 2
order by method
"""
_DRAWN = ("front_rewards", "front_values")
_LEADERBOARD = """
select method, judge, value_ratio, value_ratio_low, value_ratio_high, charged_hypervolume,
    hypervolume, inner_product, sparsity, spacing, kl, n
from leaderboard_history where problem = ? and key = ?
order by value_ratio desc nulls last
"""
_DECISIONS = """
select strftime(decided_at, '%Y-%m-%d %H:%M') as decided, action, left(policy_key, 8) as policy,
    left(incumbent_key, 8) as champion, difference, low, high, reason, decided_by
from champion_history where problem = ? order by decided_at desc limit 10
"""


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="evaluation",
    kinds={"pytorch", "duckdb"},
    owners=OWNERS,
    deps=[
        prompts,
        base_model,
        preference_labels,
        reward_models,
        response_rewards,
        panacea_policy,
        baseline_policies,
    ],
    metadata=table_metadata("generations"),
    code_version=str(STAGE_VERSIONS["generations"]),
)
def generations(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """What the reference and every policy answer to held-out prompts over a fixed grid of λ, at
    temperature 1, with rewards by the learned models (proxy) and in the embedded world by the true
    scores (gold). Also facts.preference_grid and facts.generation_rewards."""
    run = StageRun(context, "generations", workspace, settings)
    outcomes = [
        run.make_rows(method, lambda method=method: answer_one(run, method))
        for method in run.plan.parts("generations")
    ]
    run.retire_other_parts()
    keys = [outcome.key for outcome in outcomes]
    samples = run.warehouse.read(_SAMPLES, [run.problem.name, keys]).to_pylist(
        maps_as_pydicts="strict"
    )
    lines = [
        f"| {row['method']} | {_weights(row['preference'])} | {row['prompt']} | {row['response']} |"
        for row in samples
    ]
    table = "\n".join(["| method | λ | prompt | answer |", "|---|---|---|---|", *lines])
    return run.result(outcomes, {"samples": dg.MetadataValue.md(table)})


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="evaluation",
    kinds={"python", "duckdb"},
    owners=OWNERS,
    deps=[prompts, base_model, preference_labels, generations],
    metadata=table_metadata("front_values"),
    code_version=str(STAGE_VERSIONS["pareto_front"]),
    freshness_policy=WEEKLY,
    automation_condition=follows("pareto_front"),
)
def pareto_front(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """Mean rewards, KL and value of every method at every λ, against the optimum: exact in the
    embedded world, estimated otherwise. Also facts.front_rewards, front_metrics, front_comparisons
    and answering_costs."""
    run = StageRun(context, "pareto_front", workspace, settings)

    outcome = run.make_rows("", lambda: Made(with_sliders(run, measure(run))))
    from panacea_lib.report import evaluation_pictures

    leaderboard = run.warehouse.read(_LEADERBOARD, [run.problem.name, outcome.key])
    points, values = (run.rows(name, "pareto_front") for name in _DRAWN)
    drawn = evaluation_pictures(points, values, run.problem.dimension_names, run.problem.beta)
    pictures = {one.name: picture(one.png, one.caption) for one in drawn}
    return run.result([outcome], {**pictures, "leaderboard": small_table(leaderboard)})


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="evaluation",
    kinds={"html"},
    owners=OWNERS,
    deps=[reward_models, panacea_policy, baseline_policies, generations, pareto_front],
    metadata=table_metadata("products"),
    code_version=str(STAGE_VERSIONS["report"]),
    automation_condition=follows("report"),
)
def report(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """One page to read and to send: leaderboard, pictures, answers, and how to make it again; and
    a folder per trained policy, with a model card, to hand on."""
    run = StageRun(context, "report", workspace, settings)

    def build(folder: Path, _checkpoints: Path) -> Made:
        (folder / "report.html").write_text(write_report(run), encoding="utf-8")
        return Made({})

    outcome = run.make_artifact("", build)
    page = run.workspace.reports / f"{run.problem.name}.html"
    _publish(run.artifact("report") / "report.html", page)
    models = dg.MetadataValue.path(str(publish_models(run)))
    return run.result([outcome], {"report": dg.MetadataValue.path(str(page)), "models": models})


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="evaluation",
    kinds={"pytorch", "duckdb"},
    owners=OWNERS,
    deps=[
        prompts,
        base_model,
        preference_labels,
        reward_models,
        response_rewards,
        panacea_policy,
        generations,
        pareto_front,
    ],
    metadata=table_metadata("champion_events"),
    code_version=str(STAGE_VERSIONS["champion"]),
    freshness_policy=WEEKLY,
)
def champion(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """Today's policy against the champion, on the same prompts: promoted if it is better beyond the
    paired interval and no dimension is below its floor, else refused and kept, with the reason. A
    refusal fails nothing. What the champion answers today is kept as generations are."""
    run = StageRun(context, "champion", workspace, settings)
    decided = challenge(run)
    history = run.warehouse.read(_DECISIONS, [run.problem.name])
    compared = decided.comparison
    return run.result(
        decided.outcomes,
        {
            "decision": decided.told,
            "history": small_table(history),
            **({} if compared is None else {"comparison": small_table(compared)}),
        },
    )


def _publish(source: Path, target: Path) -> None:
    """Copy, then rename: a reader never sees half a page."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(source.read_bytes())
    fsync(partial)
    partial.replace(target)


def _weights(preference: dict[str, float] | None) -> str:
    if not preference:
        return "any"
    return ", ".join(f"{name} {weight:.2g}" for name, weight in preference.items())
