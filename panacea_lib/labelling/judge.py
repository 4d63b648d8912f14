"""Labels from a language model that reads a rubric, behind any OpenAI-compatible endpoint.

    job = JudgeJob(judge=…, annotator="gpt", rubric=find_rubric("helpfulness", problem_file), …)
    print(estimate(job))
    cost = judge_pairs(job, Path("annotations.parquet"))

The asking is done by a process of its own (`panacea_lib.labelling.judge_process`), so that killing
the job loses no answer that is already on its way.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from yarl import URL

from panacea_lib.errors import InputError
from panacea_lib.labelling.judge_annotations import write_annotations
from panacea_lib.labelling.judge_asking import Progress, count_needed
from panacea_lib.labelling.judge_cache import JudgeCache
from panacea_lib.labelling.judge_client import read_key
from panacea_lib.labelling.judge_job import JudgeError, JudgeJob, open_pairs
from panacea_lib.problem_labelling import Price
from panacea_lib.records import LabelCostRecord
from panacea_lib.workspace import PROJECT_ROOT

_SHOWN = 2000


@dataclass(frozen=True)
class Estimate:
    """What a job would take, before anything is asked.

    requests: all distinct ones; cached: those that are answered already. input_tokens: of the
    others, four characters a token; output_tokens: at most, at `max_answer_tokens` each. cost: of
    these tokens, so a bound as far as the input's estimate holds; None without prices.
    """

    pairs: int
    requests: int
    cached: int
    input_tokens: int
    output_tokens: int
    cost: float | None


def estimate(job: JudgeJob) -> Estimate:
    """The dry run: reads pairs and cache, asks nothing, writes nothing, needs no key.

    InputError as `judge_pairs`, but for the key.
    """
    _check(job)
    with JudgeCache(job.cache, read_only=True) as cache:
        needed = count_needed(job, cache, stopped=lambda: False)
    output_tokens = needed.uncached * job.judge.max_answer_tokens
    return Estimate(
        pairs=needed.pairs,
        requests=needed.requests,
        cached=needed.requests - needed.uncached,
        input_tokens=needed.input_tokens,
        output_tokens=output_tokens,
        cost=cost_of(job.judge.price, needed.input_tokens, output_tokens),
    )


def judge_pairs(
    job: JudgeJob, out: Path, on_progress: Callable[[Progress], None] = lambda _: None
) -> LabelCostRecord:
    """Label all pairs: `out` becomes a Parquet file in the columns of `AnnotationRecord`.

    Mode pair: two rows per pair, asked with a shown first and with b shown first; mode response:
    one row per pair. Rows stand in the order of the pairs. A label that could not be had is
    "failed" with a reason. What is in the cache is not asked again.

    InputError, before anything is sent: the key's variable is not set, the pairs or the cache are
    bad, the endpoint is no address, a temperature for a rubric of mode pair, or more requests than
    `max_requests`. JudgeError: the judge cannot be asked any further (it refuses the key or knows
    no such model, nobody answers, `max_tokens` is spent), or the asking process died; answers so
    far are kept, `out` is not written.
    """
    _check(job)
    read_key(job.judge)
    # A run of its own: what failed in an earlier one is asked again.
    job = job.model_copy(update={"run": uuid4().hex})
    progress = _ask(job, on_progress)
    totals = write_annotations(job, out)
    return LabelCostRecord(
        dimension=job.dimension,
        source="judge",
        annotator=job.annotator,
        requests=progress.sent,
        cached=progress.cached,
        failed=totals.failed,
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        cost=cost_of(job.judge.price, totals.input_tokens, totals.output_tokens),
    )


def cost_of(price: Price | None, input_tokens: int, output_tokens: int) -> float | None:
    """What so many tokens cost, in the currency of the prices; None without prices."""
    if price is None:
        return None
    return (input_tokens * price.input + output_tokens * price.output) / 1e6


def _check(job: JudgeJob) -> None:
    if job.rubric.mode == "pair" and job.temperature is not None:
        raise InputError(
            f"{job.annotator} on {job.dimension}: the rubric {job.rubric.name} compares pairs and "
            "gives no scores that a temperature could act on; delete `temperature`"
        )
    try:
        host = URL(job.judge.endpoint).host
    except ValueError:
        host = None
    if not host:
        raise InputError(f"{job.judge.endpoint!r} is no address; write https://HOST/v1")
    open_pairs(job.pairs).close()


def _ask(job: JudgeJob, on_progress: Callable[[Progress], None]) -> Progress:
    """Run the asking process to its end; stop it gently if we are interrupted."""
    job = job.model_copy(update={"pairs": job.pairs.resolve(), "cache": job.cache.resolve()})
    path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
    progress, error = Progress(), None
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "panacea_lib.labelling.judge_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # a Ctrl-C at the terminal is for us alone
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            # If it dies at once, its exit status says so.
            with suppress(BrokenPipeError):
                process.stdin.write(job.model_dump_json().encode() + b"\n")
                process.stdin.flush()
            for line in process.stdout:
                message = json.loads(line)
                if "error" in message:
                    error = message
                else:
                    progress = Progress(**message["progress"])
                    on_progress(progress)
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()  # if we were interrupted: take in what is in flight, and end
            process.wait()
            process.stdout.close()
        if error is not None:
            raise _error(error)
        if process.returncode != 0:
            raise _death(job, process.returncode, log)
    return progress


def _error(message: dict[str, Any]) -> Exception:
    return (InputError if message["input"] else JudgeError)(message["error"])


def _death(job: JudgeJob, status: int, log: IO[bytes]) -> JudgeError:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - _SHOWN))
    last = log.read().decode("utf-8", "replace").strip()
    if key := read_key(job.judge):
        last = last.replace(key, "[key]")
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return JudgeError(
        f"the process that asks the judge {how}. Answers so far are kept in {job.cache}; those in "
        f"flight are lost and will be asked again. Run again{': ' + last if last else ''}"
    )
