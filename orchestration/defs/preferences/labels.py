"""Each source of a dimension's labels, asked: what `annotations` is made of."""

from typing import TYPE_CHECKING

import pyarrow as pa

from orchestration.defs.dataset.assets import REFERENCE
from orchestration.inputs import (
    pair_records,
    pair_texts,
    prompt_records,
    read_data,
    response_records,
)
from orchestration.judging import judge_job, write_pairs_for
from orchestration.stage import Made, StageRun
from orchestration.upstream import Upstream
from panacea_lib.labelling.people import answers_folder, people_annotations
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_files import expand_hub_id
from panacea_lib.problem_labelling import (
    DataLabels,
    JudgeLabels,
    ModelLabels,
    PeopleLabels,
    Rule,
    counts_tokens,
)
from panacea_lib.records import AnnotationRecord, LabelCostRecord, to_table

AtOnce = DataLabels | PeopleLabels | Rule

if TYPE_CHECKING:
    from panacea_lib.rewards.scale import RewardScale


def annotate(run: StageRun, part: str) -> Made:
    """What one source says of the pairs, on one dimension."""
    dimension, source = run.plan.label_parts[part]
    if isinstance(source, JudgeLabels):
        return _labels_of_a_judge(run, part)
    if isinstance(source, ModelLabels):
        return Made({"annotations": _labels_of_a_model(run, part, dimension, source)})
    return Made({"annotations": annotate_at_once(run, dimension, source)})


def annotate_at_once(run: Upstream, dimension: str, source: AtOnce) -> pa.Table:
    """What a source says that costs no more than a look: data, people, rules."""
    match source:
        case DataLabels():
            return _labels_of_the_data(run, dimension)
        case PeopleLabels():
            folder = answers_folder(run.problem, run.problem_file, run.workspace, dimension)
            return people_annotations(folder, dimension, pair_texts(run))
        case _:
            return _labels_of_a_rule(run, dimension, source)


def world_gold_scale(run: Upstream, dimensions: list[str]) -> "RewardScale":
    """The scale of the embedded world's gold rewards, by which its annotators judge."""
    from panacea_lib.rewards.scale import RewardScale
    from panacea_lib.world.annotators import gold_raw

    reference = [r for r in response_records(run) if r.source == REFERENCE]
    raw = gold_raw(prompt_records(run), reference, dimensions)
    return RewardScale.fit([response.prompt_id for response in reference], raw)


def _labels_of_the_data(run: Upstream, dimension: str) -> pa.Table:
    """What columns of files say; in the embedded world first its annotators, of its own pairs."""
    found = read_data(run)
    records = [record for record in found.annotations if record.dimension == dimension]
    data = run.problem.data
    if isinstance(data, WorldData):
        from panacea_lib.world.annotators import annotate as annotate_world

        of_files = {pair.pair_id for pair in found.pairs}
        own = annotate_world(
            prompt_records(run),
            response_records(run),
            [pair for pair in pair_records(run) if pair.pair_id not in of_files],
            [dimension],
            world_gold_scale(run, [dimension]),
            data.annotators,
            run.plan.seed,
        )
        records = own + records
    return to_table(records, AnnotationRecord)


def _labels_of_a_rule(run: Upstream, dimension: str, rule: Rule) -> pa.Table:
    from panacea_lib.labelling.rules import rule_annotations

    tokenizer = None
    if counts_tokens(rule):
        from panacea_lib.models.base import load_tokenizer

        tokenizer = load_tokenizer(run.artifact("base_model"))
    return rule_annotations(rule, dimension, pair_texts(run), tokenizer)


def _labels_of_a_model(run: StageRun, part: str, dimension: str, source: ModelLabels) -> pa.Table:
    from panacea_lib.labelling.model import model_annotations

    location = expand_hub_id(source.model, run.problem_file)
    listener = run.reporter.listener(part)
    return model_annotations(source, location, dimension, pair_texts(run), listener)


def _labels_of_a_judge(run: StageRun, part: str) -> Made:
    import pyarrow.parquet as parquet

    from panacea_lib.labelling.judge import judge_pairs

    earlier = [run.rows("annotations", "annotations", p) for p in run.plan.more_trusted(part)]
    folder = run.working_dir(part)
    pairs = write_pairs_for(run.plan, part, pair_texts(run), earlier, folder)
    listener = run.reporter.listener(part)
    cost = judge_pairs(
        judge_job(run.plan, part, run.problem_file, pairs, run.workspace),
        folder / "annotations.parquet",
        lambda p: listener(p.cached + p.answered + p.failed, p.needed, {}),
    )
    said = parquet.read_table(folder / "annotations.parquet")
    return Made({"annotations": said, "label_costs": to_table([cost], LabelCostRecord)})
