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

    Fails where no model manages. Where some do, it warns of the others: real dimensions may be too
    noisy for a small model, and the rest of the chain can still be worth having.
    """
    run = StageRun(context, "reward_models", workspace, settings)
    figures, short = {}, []
    for name in run.plan.parts("reward_models"):
        rows = run.rows("reward_model_metrics", "reward_models", name).to_pylist()
        metric = {row["metric"]: row for row in rows}
        accuracy, majority = metric["accuracy"]["value"], metric["majority"]["value"]
        if accuracy is None:
            figures[name] = "no validation pair has a winner"
        else:
            n = metric["accuracy"]["n"]
            figures[name] = f"{accuracy:.3f} against {majority:.3f} on {n} pairs"
        if accuracy is None or accuracy <= majority:
            short.append(name)
    none_does = len(short) == len(figures)
    told = "; ".join(f"{name}: {figures[name]}" for name in short)
    return dg.AssetCheckResult(
        passed=not short,
        severity=dg.AssetCheckSeverity.ERROR if none_does else dg.AssetCheckSeverity.WARN,
        metadata=figures,
        description=f"not better than the majority on {told}. Train longer (rewards.steps), or "
        "look for more or cleaner labels"
        if short
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
