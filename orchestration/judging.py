"""What a judge is asked: for the stage that asks it, and for the dry run that only counts."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from panacea_lib.labelling.judge_job import JudgeJob
from panacea_lib.labelling.rubric import find_rubric
from panacea_lib.plan import Plan
from panacea_lib.problem_labelling import JudgeLabels
from panacea_lib.workspace import Workspace


def judge_job(
    plan: Plan, part: str, problem_file: Path, pairs: Path, workspace: Workspace
) -> JudgeJob:
    """The job of a part of `annotations` whose source is a judge; `pairs` is a Parquet file."""
    dimension, source = plan.label_parts[part]
    assert isinstance(source, JudgeLabels)
    described = next(d for d in plan.problem.dimensions if d.name == dimension)
    return JudgeJob(
        judge=plan.problem.judges[source.judge],
        annotator=source.judge,
        rubric=find_rubric(source.rubric or dimension, problem_file),
        dimension=dimension,
        description=described.description or dimension,
        temperature=source.temperature,
        pairs=pairs,
        cache=workspace.judged / "answers.sqlite",
    )


def write_pairs_for(
    plan: Plan, part: str, pairs: pa.Table, earlier: Sequence[pa.Table], folder: Path
) -> Path:
    """The pairs that a judge is asked about, as a file: those that no earlier source has labelled,
    then some that one has, so that they can be compared.

    pairs: pair_id, prompt, response_a, response_b; earlier: annotations of more trusted sources.
    """
    _, source = plan.label_parts[part]
    assert isinstance(source, JudgeLabels)
    # Ids are hashes: their order is a draw that the same pairs always win.
    pairs = pairs.sort_by("pair_id").select(["pair_id", "prompt", "response_a", "response_b"])
    answered = [table.filter(pc.field("status") == "ok")["pair_id"] for table in earlier]
    known = {pair for column in answered for pair in column.to_pylist()}
    labelled = pa.array([pair in known for pair in pairs["pair_id"].to_pylist()], pa.bool_())
    pairs = pairs.append_column("known", labelled)
    open_pairs = pairs.filter(~pc.field("known"))
    compared = pairs.filter(pc.field("known")).slice(0, source.overlap)
    asked = pa.concat_tables([open_pairs, compared]).drop_columns("known")
    path = folder / "pairs.parquet"
    parquet.write_table(asked.slice(0, source.limit), path, row_group_size=4096)
    return path
