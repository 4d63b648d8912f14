"""Which of two responses is preferred, on every dimension."""

import dagster as dg

from orchestration.columns import table_metadata
from orchestration.defs.dataset.assets import REFERENCE, base_model, prompts, responses
from orchestration.defs.dataset.generated import GENERATED
from orchestration.defs.preferences.labels import annotate, world_gold_scale
from orchestration.defs.preferences.shown import annotations_metadata, labels_metadata
from orchestration.inputs import prompt_records, read_data, response_records
from orchestration.partitions import OWNERS, PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.stage import Made, StageRun
from panacea_lib.labelling.agreement import AgreementRecord, agreement
from panacea_lib.labelling.pairs import random_pairs
from panacea_lib.labelling.resolve import resolve_labels
from panacea_lib.plan_content import STAGE_VERSIONS
from panacea_lib.problem_data import WorldData
from panacea_lib.records import PairRecord, to_table


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
    """Two responses to one prompt: those of the data, pairs of generated ones, or in the embedded
    world pairs of the base model's samples."""
    run = StageRun(context, "pairs", workspace, settings)

    def build() -> Made:
        data, generated = run.problem.data, run.problem.pairs
        in_world = isinstance(data, WorldData)
        records, details = list[PairRecord](), {}
        if generated is not None:
            records = _random_pairs(run, GENERATED, generated.count)
        elif in_world:
            records = _random_pairs(run, REFERENCE, data.pairs)
        if in_world or generated is None:
            found = read_data(run)
            records += found.pairs
            details = {"of files": found.counts} if in_world and data.files else {}
        return Made({"pairs": to_table(records, PairRecord)}, details)

    outcome = run.make_rows("", build)
    sides = run.rows("pairs", "pairs")["split"].value_counts().to_pylist()
    shown = {name: dg.MetadataValue.json(told) for name, told in run.details("pairs").items()}
    splits = dg.MetadataValue.json({side["values"]: side["counts"] for side in sides})
    return run.result([outcome], {"splits": splits, **shown})


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
    outcomes = [
        run.make_rows(part, lambda part=part: annotate(run, part)) for part in run.plan.label_parts
    ]
    run.retire_other_parts()
    return run.result(outcomes, annotations_metadata(run))


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
        tables = {
            "preference_labels": resolve_labels(said),
            "label_agreement": to_table(agreement(said), AgreementRecord),
        }
        return Made(tables, details)

    outcome = run.make_rows("", build)
    return run.result([outcome], labels_metadata(run, outcome.key))


def _random_pairs(run: StageRun, source: str, count: int) -> list[PairRecord]:
    answers = [record for record in response_records(run) if record.source == source]
    return random_pairs(prompt_records(run), answers, count, run.plan.seed)
