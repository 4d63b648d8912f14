"""Is there something to learn from, and does the base model speak the problem's language?"""

import dagster as dg
import numpy as np

from orchestration.defs.dataset.assets import REFERENCE, base_model, prompts, responses
from orchestration.inputs import prompt_records, response_texts
from orchestration.partitions import PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.stage import StageRun
from orchestration.weights import read_weights
from panacea_lib.intervals import wilson_interval
from panacea_lib.problem_data import WorldData

OUTSIDE_LIMIT = 0.01  # DESIGN §5: above it, ⊥ weighs in every figure


@dg.asset_check(asset=prompts, blocking=True, partitions_def=PROBLEMS)
def no_prompt_on_two_sides(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Every side of the split has prompts, and no text is on two of them."""
    run = StageRun(context, "prompts", workspace, settings)
    sides: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
    for record in prompt_records(run):
        sides[record.split].add(" ".join(record.text.split()))
    shared = (
        sides["train"] & sides["validation"]
        | sides["train"] & sides["test"]
        | sides["validation"] & sides["test"]
    )
    return dg.AssetCheckResult(
        passed=all(sides.values()) and not shared,
        metadata={side: len(texts) for side, texts in sides.items()} | {"shared": len(shared)},
        description=f"{len(shared)} prompts on two sides"
        if shared
        else "no prompt on two sides; a side without prompts fails too",
    )


@dg.asset_check(asset=base_model, blocking=True, partitions_def=PROBLEMS)
def base_model_is_finite(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Every weight that was trained here is a finite number, and so is the loss it ended with."""
    run = StageRun(context, "base_model", workspace, settings)
    files = sorted(run.artifact("base_model").rglob("*.safetensors"))
    weights = [array for file in files for array in read_weights(file).values()]
    loss = run.rows("training_curves", "base_model")["value"].to_numpy()
    finite = all(bool(np.isfinite(array).all()) for array in [*weights, loss])
    count = sum(array.size for array in weights)
    return dg.AssetCheckResult(
        passed=finite,
        metadata={"weights": count, "files": len(files)},
        description=f"{count:,} weights" if files else "pretrained: its weights lie elsewhere",
    )


@dg.asset_check(asset=responses, blocking=True, partitions_def=PROBLEMS)
def reference_samples_are_usable(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """In the embedded world at most 1 % of what the base model says lies outside the grammar, as
    far as its samples can tell (a 95 % interval); elsewhere the samples to a prompt differ, as
    their spread is the unit of all rewards."""
    run = StageRun(context, "responses", workspace, settings)
    rows = response_texts(run).to_pydict()
    found = [
        (prompt, text)
        for source, prompt, text in zip(rows["source"], rows["prompt"], rows["text"], strict=True)
        if source == REFERENCE
    ]
    if isinstance(run.problem.data, WorldData):
        from panacea_lib.world.grammar import all_prompts, parse

        known = all_prompts()
        outside = sum(parse(known[prompt], text) is None for prompt, text in found)
        low, _ = wilson_interval(outside, len(found))
        return dg.AssetCheckResult(
            passed=low <= OUTSIDE_LIMIT,
            metadata={"outside the grammar": outside / len(found), "samples": len(found)},
            description=f"{outside} of {len(found)} samples lie outside the grammar, "
            f"{outside / len(found):.2%}; at most {OUTSIDE_LIMIT:.0%} may. If more do, train the "
            "base model longer (base_model.steps)",
        )
    distinct = len(set(found)) / len(found)
    return dg.AssetCheckResult(
        passed=len(set(found)) > len({prompt for prompt, _ in found}),
        metadata={"distinct": distinct, "samples": len(found)},
        description=f"{distinct:.0%} of {len(found)} samples differ",
    )
