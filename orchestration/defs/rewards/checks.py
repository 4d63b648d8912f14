"""Have the reward models learned anything, and is there a unit to measure rewards in?"""

import dagster as dg
import numpy as np

from orchestration.defs.rewards.assets import response_rewards, reward_models
from orchestration.inputs import proxy_scale
from orchestration.partitions import PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.stage import StageRun


@dg.asset_check(asset=reward_models, blocking=True, partitions_def=PROBLEMS)
def reward_models_beat_the_majority(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Held-out accuracy above the majority's.

    Fails where a model is worse than the majority beyond doubt (the whole interval of its accuracy
    is below); warns where it is not better, as on few or very noisy pairs.
    """
    run = StageRun(context, "reward_models", workspace, settings)
    worse, unclear, figures = [], [], {}
    for name in run.plan.parts("reward_models"):
        rows = run.rows("reward_model_metrics", "reward_models", name).to_pylist()
        metric = {row["metric"]: row for row in rows}
        accuracy, majority = metric["accuracy"], metric["majority"]["value"]
        figures[name] = f"{accuracy['value']} against {majority} on {accuracy['n']} pairs"
        if accuracy["value"] is None or accuracy["value"] <= majority:
            beyond_doubt = accuracy["high"] is not None and accuracy["high"] < majority
            (worse if beyond_doubt else unclear).append(name)
    failed = worse or len(unclear) == len(figures)
    listed = ", ".join([*worse, *unclear])
    return dg.AssetCheckResult(
        passed=not worse and not unclear,
        severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
        metadata=figures,
        description=f"not better than the majority: {listed}; train longer (rewards.steps), or "
        "look for more or cleaner labels"
        if listed
        else "every reward model beats the majority",
    )


@dg.asset_check(asset=response_rewards, blocking=True, partitions_def=PROBLEMS)
def reward_scale_is_finite(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Mean and spread of the reference samples are finite, the spread is positive, and so is every
    reward a number."""
    run = StageRun(context, "response_rewards", workspace, settings)
    scale = proxy_scale(run)
    rewards = np.concatenate(
        [
            run.rows("response_rewards", "response_rewards", name)["reward"].to_numpy()
            for name in run.plan.parts("response_rewards")
        ]
    )
    good = np.isfinite(scale.mean).all() and (scale.scale > 0).all() and np.isfinite(rewards).all()
    return dg.AssetCheckResult(
        passed=bool(good),
        metadata={"scale": scale.scale.tolist(), "mean": scale.mean.tolist()},
        description="mean, spread and all rewards are finite numbers"
        if good
        else "a mean, a spread or a reward is not a finite number",
    )
