"""Which of two responses is preferred, on every dimension."""

import dagster as dg

from orchestration.columns import table_metadata
from orchestration.defs.dataset.assets import REFERENCE, prompts, responses
from orchestration.inputs import pair_records, prompt_records, response_records
from orchestration.partitions import OWNERS, PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.shown import small_table
from orchestration.stage import Made, StageRun
from panacea_lib.data import load_preference_data
from panacea_lib.plan import STAGE_VERSIONS
from panacea_lib.problem import WorldData
from panacea_lib.records import LabelRecord, PairRecord, to_table

_LABEL_QUALITY = "select * exclude (key, created_at, is_current) from label_quality_history"


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="preferences",
    kinds={"python", "duckdb"},
    owners=OWNERS,
    deps=[prompts, responses],
    metadata=table_metadata("pairs"),
    code_version=str(STAGE_VERSIONS["pairs"]),
)
def pairs(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """Two responses to one prompt: those of the data, or in the embedded world pairs of samples."""
    run = StageRun(context, "pairs", workspace, settings)

    def build() -> Made:
        data = run.problem.data
        if isinstance(data, WorldData):
            from panacea_lib.world.data import world_pairs

            records = world_pairs(
                prompt_records(run), response_records(run), data.pairs, run.plan.seed
            )
        else:
            records = load_preference_data(run.problem, run.problem_file).pairs
        return Made({"pairs": to_table(records, PairRecord)})

    outcome = run.make_rows("", build)
    sides = run.rows("pairs", "pairs")["split"].value_counts().to_pylist()
    return run.result(
        [outcome],
        {"splits": dg.MetadataValue.json({side["values"]: side["counts"] for side in sides})},
    )


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="preferences",
    kinds={"python", "duckdb"},
    owners=OWNERS,
    deps=[prompts, responses, pairs],
    metadata=table_metadata("preference_labels"),
    code_version=str(STAGE_VERSIONS["preference_labels"]),
)
def preference_labels(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """P(a preferred over b) per pair and dimension: read from the data, or given by the embedded
    world's noisy annotators. An absent row is unknown, never guessed."""
    run = StageRun(context, "preference_labels", workspace, settings)

    def build() -> Made:
        data = run.problem.data
        if isinstance(data, WorldData):
            return _world_labels(run, data.annotators)
        labels = load_preference_data(run.problem, run.problem_file).labels
        return Made({"preference_labels": to_table(labels, LabelRecord)})

    outcome = run.make_rows("", build)
    name = run.problem.name
    quality = run.warehouse.read(
        f"{_LABEL_QUALITY} where problem = ? and key = ?", [name, outcome.key]
    )
    conflicts = run.warehouse.read(
        "select dimension_a, dimension_b, pairs, disagreement from preference_conflicts_history "
        "where problem = ? and key = ? order by disagreement desc",
        [name, outcome.key],
    )
    return run.result(
        [outcome],
        {
            "quality": small_table(quality.drop_columns(["problem", "sources"])),
            "conflicts": small_table(conflicts),
        },
    )


def _world_labels(run: StageRun, annotators: int) -> Made:
    """Labels of the world's annotators, and the scale of the gold rewards that they judge by."""
    from panacea_lib.rewards.scale import RewardScale
    from panacea_lib.world.annotators import annotate, gold_raw

    prompts, responses = prompt_records(run), response_records(run)
    names = run.problem.dimension_names
    reference = [response for response in responses if response.source == REFERENCE]
    raw = gold_raw(prompts, reference, names)
    scale = RewardScale.fit([response.prompt_id for response in reference], raw)
    labels = annotate(
        prompts, responses, pair_records(run), names, scale, annotators, run.plan.seed
    )
    return Made(
        {"preference_labels": to_table(labels, LabelRecord)}, {"gold_scale": scale.to_dict()}
    )
