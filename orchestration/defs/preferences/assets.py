"""Which of two responses is preferred, on every dimension."""

import dagster as dg

from orchestration.columns import table_metadata
from orchestration.defs.dataset.assets import base_model, prompts, responses
from orchestration.defs.preferences.labels import annotate, world_gold_scale
from orchestration.inputs import prompt_records, response_records
from orchestration.partitions import OWNERS, PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.shown import small_table
from orchestration.stage import Made, StageRun
from panacea_lib.data import load_preference_data
from panacea_lib.labelling.resolve import resolve_labels
from panacea_lib.plan import STAGE_VERSIONS
from panacea_lib.problem_data import WorldData
from panacea_lib.records import PairRecord, to_table

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
    deps=[prompts, base_model, responses, pairs],
    metadata=table_metadata("annotations"),
    code_version=str(STAGE_VERSIONS["annotations"]),
)
def annotations(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """What every source said of the pairs, on every dimension: columns of the data, rules, models,
    judges, people. A product per dimension and source, so that a new source asks no other again."""
    run = StageRun(context, "annotations", workspace, settings)
    outcomes = []
    for part, (dimension, source) in run.plan.label_parts.items():
        outcomes.append(run.make_rows(part, lambda d=dimension, s=source: annotate(run, d, s)))
    run.retire_other_parts()
    return run.result(outcomes)


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="preferences",
    kinds={"python", "duckdb"},
    owners=OWNERS,
    deps=[prompts, responses, pairs, annotations],
    metadata=table_metadata("preference_labels"),
    code_version=str(STAGE_VERSIONS["preference_labels"]),
)
def preference_labels(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """P(a preferred over b) per pair and dimension, by the most trusted source that knows it. An
    absent row is unknown, never guessed."""
    run = StageRun(context, "preference_labels", workspace, settings)

    def build() -> Made:
        said = [run.rows("annotations", "annotations", part) for part in run.plan.label_parts]
        details = {}
        if isinstance(run.problem.data, WorldData):
            scale = world_gold_scale(run, run.problem.dimension_names)
            details["gold_scale"] = scale.to_dict()
        return Made({"preference_labels": resolve_labels(said)}, details)

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
