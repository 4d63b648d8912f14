"""Is there enough to learn every dimension from?"""

import dagster as dg
import numpy as np

from orchestration.defs.preferences.assets import pairs, preference_labels
from orchestration.inputs import label_matrix, pair_texts
from orchestration.partitions import PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.stage import StageRun


@dg.asset_check(asset=pairs, blocking=True, partitions_def=PROBLEMS)
def pairs_join_their_texts(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Every pair finds its prompt and both responses, which differ; training has some pairs."""
    run = StageRun(context, "pairs", workspace, settings)
    joined = pair_texts(run).to_pydict()
    stored = run.rows("pairs", "pairs").num_rows
    same = sum(a == b for a, b in zip(joined["response_a"], joined["response_b"], strict=True))
    training = sum(split == "train" for split in joined["split"])
    return dg.AssetCheckResult(
        passed=len(joined["pair_id"]) == stored and not same and training > 0,
        metadata={"pairs": stored, "training pairs": training, "of one text": same},
        description=f"{len(joined['pair_id'])} of {stored} pairs have all their texts, "
        f"{training} are for training, {same} compare a text with itself",
    )


@dg.asset_check(asset=preference_labels, blocking=True, partitions_def=PROBLEMS)
def labels_cover_every_dimension(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Every dimension has training labels for both sides: some prefer a, some prefer b."""
    run = StageRun(context, "preference_labels", workspace, settings)
    found = pair_texts(run)
    names = run.problem.dimension_names
    labels = label_matrix(run, found["pair_id"].to_pylist(), names)
    labels = labels[np.array(found["split"].to_pylist()) == "train"]
    one_sided = [
        name
        for name, column in zip(names, labels.T, strict=True)
        if not (column > 0.5).any() or not (column < 0.5).any()
    ]
    inside = np.isnan(labels) | ((labels >= 0) & (labels <= 1))
    coverage = np.isfinite(labels).mean(axis=0)
    return dg.AssetCheckResult(
        passed=not one_sided and bool(inside.all()),
        metadata={f"coverage {n}": float(c) for n, c in zip(names, coverage, strict=True)},
        description=f"no training labels for both sides on: {', '.join(one_sided)}"
        if one_sided
        else "every dimension has training labels for both sides",
    )
