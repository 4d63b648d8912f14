"""Have the reward models learned anything, and is there a unit to measure rewards in?"""

from dataclasses import dataclass

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

    Fails where a dimension is worse beyond noise (the 95 % interval of the difference, a bootstrap
    over prompts, lies below 0) or none is better. It warns of others that are not better: real
    dimensions may be too noisy for a small model, and the rest can still be worth having.
    """
    found = _against(StageRun(context, "reward_models", workspace, settings), "majority")
    return _verdict(
        found,
        fails=any(each.worse for each in found) or not any(each.better for each in found),
        short="not better than the majority on {}. Train longer (rewards.steps), or look for more "
        "or cleaner labels",
        passed="every reward model beats the majority",
    )


@dg.asset_check(asset=reward_models, blocking=False, partitions_def=PROBLEMS)
def reward_models_beat_length(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Held-out accuracy above that of always naming the longer response, or the shorter one,
    whichever won in training. Only warns: of some dimensions (conciseness) length is all there is.
    """
    found = _against(StageRun(context, "reward_models", workspace, settings), "length_only")
    return _verdict(
        found,
        fails=False,
        short="length alone does as well on {}. If length is not what the dimension means, look "
        "for pairs of like lengths, or for other labels",
        passed="every reward model beats length alone",
    )


@dataclass(frozen=True)
class _Compared:
    """One dimension beside a baseline, in words, and what follows."""

    dimension: str
    figures: str
    better: bool
    worse: bool


def _against(run: StageRun, baseline: str) -> list[_Compared]:
    """Every dimension's accuracy beside a baseline's."""
    found = []
    for part in run.plan.parts("reward_models"):
        rows = run.rows("reward_model_metrics", "reward_models", part).to_pylist()
        metric = {(row["dimension"], row["metric"]): row for row in rows}
        for name in dict.fromkeys(row["dimension"] for row in rows):
            ours, theirs = metric[name, "accuracy"], metric[name, baseline]
            apart = metric[name, f"{baseline}_difference"]
            if ours["value"] is None:
                found.append(_Compared(name, "no validation pair has a winner", False, False))
                continue
            figures = f"{ours['value']:.3f} against {theirs['value']:.3f} on {ours['n']} pairs"
            if apart["low"] is not None:
                figures += f", difference {apart['low']:+.3f} to {apart['high']:+.3f}"
            worse = apart["high"] is not None and apart["high"] < 0
            found.append(_Compared(name, figures, apart["value"] > 0, worse))
    return found


def _verdict(found: list[_Compared], fails: bool, short: str, passed: str) -> dg.AssetCheckResult:
    beaten = [each for each in found if not each.better]
    told = "; ".join(f"{each.dimension}: {each.figures}" for each in beaten)
    return dg.AssetCheckResult(
        passed=not beaten,
        severity=dg.AssetCheckSeverity.ERROR if fails else dg.AssetCheckSeverity.WARN,
        metadata={each.dimension: each.figures for each in found},
        description=short.format(told) if beaten else passed,
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
