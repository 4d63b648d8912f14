"""What was preferred, as a number for any response: one reward model per dimension."""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pyarrow as pa

from orchestration.columns import table_metadata
from orchestration.curves import curves_table
from orchestration.defs.dataset.assets import REFERENCE, base_model, prompts, responses
from orchestration.defs.preferences.assets import pairs, preference_labels
from orchestration.inputs import (
    gold_scale,
    label_matrix,
    pair_records,
    pair_texts,
    prompt_records,
    response_records,
    response_texts,
)
from orchestration.partitions import OWNERS, PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.shown import picture, small_table
from orchestration.stage import Made, StageRun
from panacea_lib.plan import STAGE_VERSIONS
from panacea_lib.problem_data import WorldData
from panacea_lib.rewards.scale import RewardScale

if TYPE_CHECKING:
    from panacea_lib.rewards.train import LabelledPair

_QUALITY = """
select dimension, accuracy, accuracy_low, accuracy_high, majority, best_possible, n
from reward_model_quality_history
where problem = ? and list_contains(?, key)
"""


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
    """One reward model per dimension, learned from the training pairs and tried on the validation
    pairs: accuracy beside the majority's and, where it is known, the best possible."""
    run = StageRun(context, "reward_models", workspace, settings)
    outcomes = [
        run.make_artifact(
            name,
            lambda folder, checkpoints, name=name: _train_one(run, name, folder, checkpoints),
        )
        for name in run.plan.parts("reward_models")
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
    outcomes = [
        run.make_rows(name, lambda name=name: _score_one(run, name))
        for name in run.plan.parts("response_rewards")
    ]
    run.retire_other_parts()
    scales = {
        name: run.details("response_rewards", name)["scale"] for name in run.plan.parts(run.stage)
    }
    return run.result(outcomes, {"scales": dg.MetadataValue.json(scales)})


def _train_one(run: StageRun, dimension: str, folder: Path, checkpoints: Path) -> Made:
    from panacea_lib.rewards.score import reward_model_metrics, score_responses
    from panacea_lib.rewards.train import train_reward_model

    base, base_folder = run.problem.base_model, run.artifact("base_model")
    config = run.problem.rewards
    config = config.model_copy(update={"steps": run.plan.steps(config.steps)})
    pairs = pair_texts(run)
    labels = label_matrix(run, pairs["pair_id"].to_pylist(), [dimension])[:, 0]
    result = train_reward_model(
        config,
        base_folder,
        base.quantization,
        base.max_length,
        _training_pairs(pairs, labels),
        folder,
        checkpoints,
        run.plan.seed,
        run.reporter.listener(dimension),
    )
    held_out = np.array(pairs["split"].to_pylist()) == "validation"
    held_out &= np.isfinite(labels)
    tried = pairs.filter(pa.array(held_out))
    scores = [
        score_responses(
            base_folder,
            base.quantization,
            folder,
            base.max_length,
            tried["prompt"].to_pylist(),
            tried[column].to_pylist(),
        )
        for column in ("response_a", "response_b")
    ]
    gold = _gold_probability(run, dimension)
    rows = reward_model_metrics(
        scores[0] - scores[1], labels[held_out], None if gold is None else gold[held_out]
    )
    return Made(
        {
            "reward_model_metrics": _metrics_table(dimension, rows),
            "training_curves": curves_table("reward_model", result.curves, dimension),
        },
        result.details,
    )


def _training_pairs(pairs: pa.Table, labels: np.ndarray) -> "list[LabelledPair]":
    """The training side's pairs that have a label."""
    from panacea_lib.rewards.train import LabelledPair

    columns = (pairs[name].to_pylist() for name in ("split", "prompt", "response_a", "response_b"))
    return [
        LabelledPair(prompt, a, b, float(label))
        for split, prompt, a, b, label in zip(*columns, labels, strict=True)
        if split == "train" and np.isfinite(label)
    ]


def _gold_probability(run: StageRun, dimension: str) -> np.ndarray | None:
    """The true P(a preferred) of every pair where the embedded world knows it, shape (N,)."""
    if not isinstance(run.problem.data, WorldData):
        return None
    from panacea_lib.world.annotators import preference_probability

    names = run.problem.dimension_names
    records = (prompt_records(run), response_records(run), pair_records(run))
    known = preference_probability(*records, names, gold_scale(run))
    return known[:, names.index(dimension)]


def _metrics_table(dimension: str, rows: list[dict]) -> pa.Table:
    types = {
        "metric": pa.string(),
        "value": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
    }
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
    n = pa.array([row["n"] for row in rows], pa.int64())
    return pa.table({"dimension": pa.array([dimension] * len(rows)), **columns, "n": n})


def _score_one(run: StageRun, dimension: str) -> Made:
    from panacea_lib.rewards.score import score_responses

    base = run.problem.base_model
    responses = response_texts(run)
    raw = score_responses(
        run.artifact("base_model"),
        base.quantization,
        run.artifact("reward_models", dimension),
        base.max_length,
        responses["prompt"].to_pylist(),
        responses["text"].to_pylist(),
        run.reporter.listener(dimension),
    )
    reference = np.array(responses["source"].to_pylist()) == REFERENCE
    asked = np.array(responses["prompt_id"].to_pylist())
    scale = RewardScale.fit(asked[reference].tolist(), raw[reference, None])
    table = pa.table(
        {
            "response_id": responses["response_id"],
            "dimension": pa.array([dimension] * responses.num_rows, pa.string()),
            "raw": raw,
            "reward": scale.apply(raw[:, None])[:, 0],
        }
    )
    return Made({"response_rewards": table}, {"scale": scale.to_dict()})


def _quality_metadata(run: StageRun) -> dict[str, dg.MetadataValue]:
    from panacea_lib.report import reward_models_picture

    keys = list(run.plan.keys("reward_models").values())
    quality = run.warehouse.read(_QUALITY, [run.problem.name, keys])
    chart = reward_models_picture(quality.to_pylist())
    return {"accuracy": picture(chart, "accuracy"), "quality": small_table(quality)}
