"""What a problem begins with: its prompts, its base model, and what the base model answers."""

from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from orchestration.columns import table_metadata
from orchestration.curves import curves_table
from orchestration.defs.dataset.generated import (
    generated_responses,
    numbered_responses,
    prompts_to_answer,
)
from orchestration.inputs import prompt_records, read_data
from orchestration.partitions import OWNERS, PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.shown import picture
from orchestration.stage import Made, StageRun
from panacea_lib.data import load_preference_data
from panacea_lib.plan_content import STAGE_VERSIONS
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_files import expand_hub_id
from panacea_lib.problem_models import PretrainedModel, ScratchModel
from panacea_lib.records import (
    PromptRecord,
    PromptTopicRecord,
    ResponseRecord,
    to_table,
)

REFERENCE = "reference"  # the source of responses that the base model gave


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="dataset",
    kinds={"python", "duckdb"},
    owners=OWNERS,
    metadata=table_metadata("prompts"),
    code_version=str(STAGE_VERSIONS["prompts"]),
)
def prompts(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """Every prompt and its side of the split (train, validation, test), told by a hash of its text.

    From the problem's file or hub data set, or drawn in the embedded world. Also the dimensions, in
    the order of λ.
    """
    run = StageRun(context, "prompts", workspace, settings)
    outcome = run.make_rows("", lambda: _prompts(run))
    sides = run.rows("prompts", "prompts")["split"].value_counts().to_pylist()
    return run.result(
        [outcome],
        {
            "splits": dg.MetadataValue.json({side["values"]: side["counts"] for side in sides}),
            "source": dg.MetadataValue.json(run.details("prompts")["counts"]),
        },
    )


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="dataset",
    kinds={"huggingface", "pytorch"},
    owners=OWNERS,
    deps=[prompts],
    metadata=table_metadata("training_curves"),
    code_version=str(STAGE_VERSIONS["base_model"]),
)
def base_model(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """The model to be aligned, and the reference policy: pretrained, or trained from scratch.

    A scratch model learns the training side's own texts. Of a pretrained one only its name and
    revision are kept; the weights stay in the hub's cache.
    """
    run = StageRun(context, "base_model", workspace, settings)

    def build(folder: Path, _checkpoints: Path) -> Made:
        from panacea_lib.models.base import build_base_model

        config = run.problem.base_model
        if isinstance(config, PretrainedModel):
            source = expand_hub_id(config.model, run.problem_file)
            config = config.model_copy(update={"model": source})
        corpus = _corpus(run, config) if isinstance(config, ScratchModel) else []
        listener = run.reporter.listener("")
        result = build_base_model(config, corpus, folder, run.plan.seed, listener)
        curves = curves_table("base_model", result.curves)
        return Made({"training_curves": curves}, result.details)

    outcome = run.make_artifact("", build)
    curves = run.rows("training_curves", "base_model")
    return run.result([outcome], run.details("base_model") | _curves_metadata(curves))


@dg.asset(
    partitions_def=PROBLEMS,
    group_name="dataset",
    kinds={"pytorch", "duckdb"},
    owners=OWNERS,
    deps=[prompts, base_model],
    metadata=table_metadata("responses"),
    code_version=str(STAGE_VERSIONS["responses"]),
)
def responses(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.MaterializeResult:
    """Samples of the base model at temperature 1, on training and validation prompts, the
    responses that came with the data, and those that are generated to be labelled.

    The samples fix the scale of all rewards; in the embedded world they are what pairs are made of.
    """
    run = StageRun(context, "responses", workspace, settings)

    def build() -> Made:
        records = _reference_responses(run)
        if run.problem.pairs is not None:
            records += generated_responses(run, run.problem.pairs)
        records += read_data(run).responses
        return Made({"responses": to_table(records, ResponseRecord)})

    outcome = run.make_rows("", build)
    table = run.rows("responses", "responses")
    examples = table.filter(pc.field("source") == REFERENCE)["text"][:5].to_pylist()
    shown = "\n".join(f"- {text}" for text in examples)
    return run.result([outcome], {"samples of the base model": dg.MetadataValue.md(shown)})


def _prompts(run: StageRun) -> Made:
    """Prompts, their topics and the dimensions, and what was counted of the data."""
    data, topics = run.problem.data, list[PromptTopicRecord]()
    if isinstance(data, WorldData):
        from panacea_lib.world.data import world_prompts

        records = world_prompts(data, run.plan.seed)
        counts: dict[str, Any] = {"prompts": len(records)}
    else:
        found = load_preference_data(run.problem, run.problem_file)
        records, topics = found.prompts, found.topics
        counts = {**found.counts, **found.part_counts}
    tables = {
        "prompts": to_table(records, PromptRecord),
        "prompt_topics": to_table(topics, PromptTopicRecord),
        "dimensions": _dimensions(run),
    }
    return Made(tables, {"counts": counts})


def _dimensions(run: StageRun) -> pa.Table:
    dimensions = run.problem.dimensions
    return pa.table(
        {
            "position": list(range(len(dimensions))),
            "dimension": [dimension.name for dimension in dimensions],
            "description": [dimension.description for dimension in dimensions],
        }
    )


def _corpus(run: StageRun, config: ScratchModel) -> list[tuple[str, str]]:
    """(prompt, response) texts of the training side."""
    records = prompt_records(run)
    if isinstance(run.problem.data, WorldData):
        from panacea_lib.world.data import world_corpus

        return world_corpus(config, records, run.plan.seed)
    text_of = {record.prompt_id: record.text for record in records if record.split == "train"}
    responses = load_preference_data(run.problem, run.problem_file).responses
    return [(text_of[r.prompt_id], r.text) for r in responses if r.prompt_id in text_of]


def _reference_responses(run: StageRun) -> list[ResponseRecord]:
    from panacea_lib.generation import sample_responses
    from panacea_lib.models.base import load_base_model

    config, base = run.problem.reference, run.problem.base_model
    asked = prompts_to_answer(run, config.prompts)
    model, tokenizer = load_base_model(run.artifact("base_model"), base.quantization)
    texts = sample_responses(
        model,
        tokenizer,
        [record.text for record in asked],
        config.per_prompt,
        config.max_new_tokens,
        config.batch_size,
        run.plan.seed,
        run.reporter.listener(""),
        base.max_length,
    )
    return numbered_responses(asked, texts, REFERENCE)


def _curves_metadata(curves: pa.Table) -> dict[str, Any]:
    if not curves.num_rows:
        return {}
    from panacea_lib.report import curves_picture

    return {"loss": picture(curves_picture(curves), "loss by training step")}
