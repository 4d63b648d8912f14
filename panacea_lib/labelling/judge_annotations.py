"""From the answers in the cache to annotations of the pairs, in a file, a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from panacea_lib.labelling.judge_answers import Verdict, read_answer
from panacea_lib.labelling.judge_cache import Distinct, JudgeCache
from panacea_lib.labelling.judge_job import JudgeJob, Pair, Questions, Request, read_pairs
from panacea_lib.labelling.scores import label_of_scores
from panacea_lib.records import AnnotationRecord, arrow_schema, to_table

_ROWS = 4096  # of a row group


@dataclass
class Totals:
    """Over a job's distinct requests: those without a verdict, and the tokens of all."""

    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


def write_annotations(job: JudgeJob, out: Path) -> Totals:
    """Write what the cache knows of every pair; `out` appears whole or not at all.

    RuntimeError: a request was never asked.
    """
    import pyarrow.parquet as pq

    totals = Totals()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    with (
        JudgeCache(job.cache, read_only=True) as cache,
        pq.ParquetWriter(partial, arrow_schema(AnnotationRecord)) as writer,
    ):
        records = _annotations(job, cache, totals)
        while batch := list(islice(records, _ROWS)):
            writer.write_table(to_table(batch, AnnotationRecord))
    partial.replace(out)
    return totals


def _annotations(job: JudgeJob, cache: JudgeCache, totals: Totals) -> Iterator[AnnotationRecord]:
    questions, seen = Questions(job), Distinct()

    def verdict(request: Request) -> Verdict:
        answer = cache.find(request.key)
        if answer is None:
            raise RuntimeError(f"{job.cache}: nothing is known of the request {request.key}")
        if answer.failure is not None:
            found = Verdict(None, answer.failure)
        else:
            found = read_answer(job.rubric, answer.content, answer.finish)
        if seen.add(request.key):
            totals.failed += found.value is None
            totals.input_tokens += answer.input_tokens
            totals.output_tokens += answer.output_tokens
        return found

    for pair in read_pairs(job.pairs):
        first, second = (verdict(request) for request in questions.of(pair))
        if job.rubric.mode == "pair":
            yield _compared(job, pair, "a", first)
            yield _compared(job, pair, "b", second)
        else:
            yield _scored(job, pair, first, second)


def _compared(job: JudgeJob, pair: Pair, shown_first: str, verdict: Verdict) -> AnnotationRecord:
    value = verdict.value
    return AnnotationRecord(
        pair_id=pair.pair_id,
        dimension=job.dimension,
        source="judge",
        annotator=job.annotator,
        label=1 - value if value is not None and shown_first == "b" else value,
        score_a=None,
        score_b=None,
        shown_first=shown_first,
        status="failed" if value is None else "ok",
        reason=verdict.reason,
    )


def _scored(job: JudgeJob, pair: Pair, a: Verdict, b: Verdict) -> AnnotationRecord:
    label = None
    if a.value is not None and b.value is not None:
        label = float(label_of_scores(np.float64(a.value), np.float64(b.value), job.temperature))
    return AnnotationRecord(
        pair_id=pair.pair_id,
        dimension=job.dimension,
        source="judge",
        annotator=job.annotator,
        label=label,
        score_a=a.value,
        score_b=b.value,
        shown_first=None,
        status="failed" if label is None else "ok",
        reason=a.reason or b.reason,
    )
