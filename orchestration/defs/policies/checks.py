"""Did training change the adapters, and into numbers?"""

from pathlib import Path

import dagster as dg
import numpy as np

from orchestration.defs.policies.assets import baseline_policies, panacea_policy
from orchestration.partitions import PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.stage import StageRun
from orchestration.weights import read_weights

# Zero before training: Panacea's σ and s, and the B of a LoRA.
_ZERO_AT_FIRST = (".sigma", ".scale", ".lora_B.weight")


@dg.asset_check(asset=panacea_policy, blocking=True, partitions_def=PROBLEMS)
def adapter_changed_and_is_finite(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Every number of the adapter is finite, and σ and s, which start at 0, are not 0."""
    return _check(StageRun(context, "panacea_policy", workspace, settings))


@dg.asset_check(asset=baseline_policies, blocking=True, partitions_def=PROBLEMS)
def adapters_changed_and_are_finite(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """As `adapter_changed_and_is_finite`, for every baseline."""
    return _check(StageRun(context, "baseline_policies", workspace, settings))


def _check(run: StageRun) -> dg.AssetCheckResult:
    wrong: list[str] = []
    largest: dict[str, float] = {}
    for part in run.plan.parts(run.stage):
        files = sorted(run.artifact(run.stage, part).rglob("*.safetensors"))
        wrong += [] if files else [f"{part} has no weights"]
        for file in files:
            name = f"{part} {file.parent.name}"
            finite, largest[name] = _inspect(file)
            if not finite:
                wrong.append(f"{name} has a number that is not finite")
            elif largest[name] == 0:
                wrong.append(f"{name} is as it was before training")
    return dg.AssetCheckResult(
        passed=not wrong,
        metadata=largest,
        description="; ".join(wrong) or "every adapter changed and is finite",
    )


def _inspect(file: Path) -> tuple[bool, float]:
    """Whether all numbers are finite, and the largest among those that start at zero."""
    weights = read_weights(file)
    moved = [float(abs(w).max()) for name, w in weights.items() if name.endswith(_ZERO_AT_FIRST)]
    return all(bool(np.isfinite(w).all()) for w in weights.values()), max(moved, default=0.0)
