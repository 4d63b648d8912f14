"""What answers for a preference vector: Panacea, and what a user would pick instead."""

from pathlib import Path

import dagster as dg
import pyarrow as pa

from orchestration.columns import table_metadata
from orchestration.curves import curves_table, last_values
from orchestration.defs.dataset.assets import base_model, prompts, responses
from orchestration.defs.policies.launch import train_beside
from orchestration.defs.preferences.assets import pairs, preference_labels
from orchestration.defs.rewards.assets import response_rewards
from orchestration.inputs import demonstration_table, reward_source, training_table
from orchestration.partitions import OWNERS, PROBLEMS, WEEKLY
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.shown import picture, small_table
from orchestration.stage import Made, Outcome, StageRun
from orchestration.training_job import TrainingJob, train_here, write_pairs
from panacea_lib.plan_content import STAGE_VERSIONS, needs_rewards

_UPSTREAM = [prompts, base_model, responses, pairs, preference_labels, response_rewards]
_COST = ("steps", "seconds", "tokens", "trained_parameters", "stored_parameters")


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="policies",
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    deps=_UPSTREAM,
    metadata=table_metadata("policies"),
    code_version=str(STAGE_VERSIONS["panacea_policy"]),
    freshness_policy=WEEKLY,
)
def panacea_policy(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """One adapter for every preference vector (Panacea, arXiv 2402.02030), trained by the problem's
    own method: reward distillation, DPO, SFT or RLOO."""
    run = StageRun(context, "panacea_policy", workspace, settings)
    return _result(run, _train_all(run))


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="policies",
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    deps=_UPSTREAM,
    metadata=table_metadata("policies"),
    code_version=str(STAGE_VERSIONS["baseline_policies"]),
)
def baseline_policies(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """The baselines that the problem names, from the same labels, by the same code and with as many
    steps: Panacea with DPO as in the paper, rewarded soups, MOD, a LoRA per λ, λ in the prompt."""
    run = StageRun(context, "baseline_policies", workspace, settings)
    outcomes = _train_all(run)
    run.retire_other_parts()
    return _result(run, outcomes)


def _train_all(run: StageRun) -> list[Outcome]:
    return [
        run.make_artifact(
            method,
            lambda folder, checkpoints, method=method: _train_one(run, method, folder, checkpoints),
        )
        for method in run.plan.parts(run.stage)
    ]


def _train_one(run: StageRun, method: str, folder: Path, checkpoints: Path) -> Made:
    rewarded = needs_rewards(run.problem, method)
    shown = run.problem.demonstrated and run.problem.training_of(method).method == "sft"
    table = demonstration_table(run) if shown else training_table(run, with_rewards=rewarded)
    job = TrainingJob(
        problem=run.problem,
        method=method,
        base_folder=run.artifact("base_model"),
        pairs=write_pairs(table, checkpoints),
        checkpoints=checkpoints,
        seed=run.plan.seed,
        max_steps=run.plan.max_steps,
        rewards=reward_source(run) if rewarded else None,
    )
    if run.problem.launch.training == "subprocess":
        result = train_beside(run, job, folder)
    else:
        result = train_here(job, folder, run.reporter.listener(method))
    cost = {name: [result.details[name]] for name in _COST}
    return Made(
        {
            "policies": pa.table({"method": [method], **cost}),
            "training_curves": curves_table(method, result.curves),
        },
        result.details,
    )


def _result(run: StageRun, outcomes: list[Outcome]) -> dg.MaterializeResult:
    """With the cost of each policy, how its loss went, and where its training ended."""
    parts = run.plan.parts(run.stage)
    if not parts:  # a problem may do without baselines
        return run.result(outcomes)
    from panacea_lib.report import curves_picture

    cost = pa.concat_tables([run.rows("policies", run.stage, part) for part in parts])
    curves = pa.concat_tables([run.rows("training_curves", run.stage, part) for part in parts])
    return run.result(
        outcomes,
        {
            "loss": picture(curves_picture(curves), "loss by step"),
            "at the end": small_table(last_values(curves)),
            "cost": small_table(cost),
        },
    )
