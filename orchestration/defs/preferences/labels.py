"""Each source of a dimension's labels, asked: what `annotations` is made of."""

from typing import TYPE_CHECKING

import pyarrow as pa

from orchestration.defs.dataset.assets import REFERENCE
from orchestration.inputs import pair_records, prompt_records, response_records
from orchestration.stage import Made, StageRun
from panacea_lib.data import load_preference_data
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_labelling import DataLabels, LabelSource
from panacea_lib.records import AnnotationRecord, to_table

if TYPE_CHECKING:
    from panacea_lib.rewards.scale import RewardScale


def annotate(run: StageRun, dimension: str, source: LabelSource) -> Made:
    """What one source says of the pairs, on one dimension."""
    match source:
        case DataLabels():
            return Made({"annotations": _labels_of_the_data(run, dimension)})
    raise AssertionError(source)


def world_gold_scale(run: StageRun, dimensions: list[str]) -> "RewardScale":
    """The scale of the embedded world's gold rewards, by which its annotators judge."""
    from panacea_lib.rewards.scale import RewardScale
    from panacea_lib.world.annotators import gold_raw

    reference = [r for r in response_records(run) if r.source == REFERENCE]
    raw = gold_raw(prompt_records(run), reference, dimensions)
    return RewardScale.fit([response.prompt_id for response in reference], raw)


def _labels_of_the_data(run: StageRun, dimension: str) -> pa.Table:
    data = run.problem.data
    if isinstance(data, WorldData):
        from panacea_lib.world.annotators import annotate as annotate_world

        records = annotate_world(
            prompt_records(run),
            response_records(run),
            pair_records(run),
            [dimension],
            world_gold_scale(run, [dimension]),
            data.annotators,
            run.plan.seed,
        )
    else:
        found = load_preference_data(run.problem, run.problem_file).annotations
        records = [record for record in found if record.dimension == dimension]
    return to_table(records, AnnotationRecord)
