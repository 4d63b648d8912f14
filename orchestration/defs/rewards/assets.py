"""What was preferred, as a number for any response: one reward model per dimension."""

from typing import Any

import dagster as dg

from orchestration.columns import table_metadata
from orchestration.defs.dataset.assets import base_model, prompts, responses
from orchestration.defs.preferences.assets import pairs, preference_labels
from orchestration.defs.rewards.scoring import ResponseScores
from orchestration.defs.rewards.training import train_part
from orchestration.partitions import OWNERS, PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.shown import picture, small_table
from orchestration.stage import StageRun
from panacea_lib.plan_content import STAGE_VERSIONS

_QUALITY = """
select * exclude (problem, key, created_at, is_current) from reward_model_quality_history
where problem = ? and list_contains(?, key)
"""
_CALIBRATION = """
select * from reward_calibration_history where problem = ? and list_contains(?, key)
order by dimension, scaled, bin
"""
_CORRELATIONS = "select * exclude problem from reward_correlations where problem = ?"
_LENGTHS = "select * exclude problem from reward_lengths where problem = ?"


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="rewards",
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    deps=[prompts, base_model, responses, pairs, preference_labels],
    metadata=table_metadata("reward_model_metrics"),
    code_version=str(STAGE_VERSIONS["reward_models"]),
)
def reward_models(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """A score for every dimension, learned from the training pairs and tried on the validation
    pairs: accuracy beside what is trivial and what is possible, and calibration."""
    run = StageRun(context, "reward_models", workspace, settings)
    outcomes = [
        run.make_artifact(
            part, lambda folder, checkpoints, part=part: train_part(run, part, folder, checkpoints)
        )
        for part in run.plan.parts("reward_models")
    ]
    run.retire_other_parts()
    return run.result(outcomes, _quality_metadata(run))


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="rewards",
    kinds={"pytorch", "duckdb"},
    owners=OWNERS,
    deps=[prompts, base_model, responses, reward_models],
    metadata=table_metadata("response_rewards"),
    code_version=str(STAGE_VERSIONS["response_rewards"]),
)
def response_rewards(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """Every response scored on every dimension, raw and on one scale: 0 is the mean and 1 the
    spread within prompts of the base model's own samples."""
    run = StageRun(context, "response_rewards", workspace, settings)
    scores = ResponseScores(run)
    outcomes = [
        run.make_rows(name, lambda name=name: scores.rows(name))
        for name in run.plan.parts("response_rewards")
    ]
    run.retire_other_parts()
    scales = {
        name: run.details("response_rewards", name)["scale"] for name in run.plan.parts(run.stage)
    }
    return run.result(outcomes, {"scales": dg.MetadataValue.json(scales), **_rewards_metadata(run)})


def _quality_metadata(run: StageRun) -> dict[str, Any]:
    from panacea_lib.report import calibration_picture, reward_models_picture

    asked = [run.problem.name, list(run.plan.keys("reward_models").values())]
    quality = run.warehouse.read(_QUALITY, asked)
    bins = run.warehouse.read(_CALIBRATION, asked).to_pylist()
    found: dict[str, Any] = {
        "accuracy": picture(reward_models_picture(quality.to_pylist()), "accuracy"),
        "quality": small_table(quality),
    }
    if bins:
        found["calibration"] = picture(calibration_picture(bins), "observed against predicted")
    return found


def _rewards_metadata(run: StageRun) -> dict[str, Any]:
    from panacea_lib.report import correlations_picture

    name, names = [run.problem.name], run.problem.dimension_names
    drawn = correlations_picture(run.warehouse.read(_CORRELATIONS, name).to_pylist(), names)
    return {
        "correlations": picture(drawn, "how the dimensions' rewards go together"),
        "length": small_table(run.warehouse.read(_LENGTHS, name)),
    }
