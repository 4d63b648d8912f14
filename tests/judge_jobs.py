"""Jobs for a judge at the tests' own gateway; as a script, a job in a process that can be killed.

python tests/judge_jobs.py JOB.json OUT.parquet
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from panacea_lib.labelling.judge import judge_pairs
from panacea_lib.labelling.judge_job import JudgeJob
from panacea_lib.labelling.rubric import find_rubric
from panacea_lib.problem_labelling import Judge

PATIENCE = {"attempts": 3, "timeout": 30.0, "in_flight": 4}


def write_texts(path: Path, texts: list[tuple[str, str, str]]) -> Path:
    """A file of pairs p0, p1, … of (prompt, response a, response b)."""
    prompts, a, b = zip(*texts, strict=True)
    ids = [f"p{i}" for i in range(len(texts))]
    table = pa.table({"pair_id": ids, "prompt": prompts, "response_a": a, "response_b": b})
    pq.write_table(table, path)
    return path


def lengths(count: int) -> list[tuple[str, str, str]]:
    """Distinct pairs whose first response is now the longer, now the shorter one."""
    return [(f"prompt {i}", f"a{i}" * (1 + i % 2), f"b{i}" * (2 - i % 2)) for i in range(count)]


def make_job(
    folder: Path,
    endpoint: str,
    texts: list[tuple[str, str, str]],
    model: str = "honest",
    rubric: str = "helpfulness",
    temperature: float | None = None,
    **judge: Any,
) -> JudgeJob:
    """A job with its pairs and its cache in the folder."""
    return JudgeJob(
        judge=Judge(endpoint=endpoint, model=model, **{**PATIENCE, **judge}),
        annotator="the-judge",
        rubric=find_rubric(rubric, folder / "problem.yaml"),
        dimension="helpful",
        description="does what was asked",
        temperature=temperature,
        pairs=write_texts(folder / "pairs.parquet", texts),
        cache=folder / "judge.sqlite",
    )


def run_job(job: JudgeJob, folder: Path) -> tuple[list[dict[str, Any]], Any]:
    """The annotations of a job that is run here, and what it cost."""
    out = folder / "annotations.parquet"
    cost = judge_pairs(job, out)
    return pq.read_table(out).to_pylist(), cost


@contextmanager
def started_job(job: JudgeJob, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The job in a process of its own, and of its own session; killed at the end."""
    file = folder / "job.json"
    file.write_text(job.model_dump_json())
    command = [sys.executable, __file__, str(file), str(folder / "annotations.parquet")]
    process = subprocess.Popen(
        command,
        start_new_session=True,
        stderr=subprocess.PIPE,
        # A shell's background job, as these tests may be part of, ignores SIGINT and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    judge_pairs(JudgeJob.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
