"""What a judge's job costs beside the judge: requests a second, processor time, memory.

    .venv/bin/python -m benchmarks.judge --out benchmarks/judge.md

The judge is the tests' own server in a process of its own, which answers after 50 ms. A job and
plain aiohttp, which posts messages of the same length and keeps nothing, are run in turns against
it. Memory is the peak of either process of a job whose answers are all in the cache (every pair is
read, hashed, looked up and written, nothing is asked), and of one that asks everything.
"""

import argparse
import asyncio
import multiprocessing
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median

import aiohttp
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from panacea_lib.labelling.judge import judge_pairs
from panacea_lib.labelling.judge_asking import Asking
from panacea_lib.labelling.judge_cache import JudgeCache
from panacea_lib.labelling.judge_job import JudgeJob, Pair, Questions, read_pairs
from panacea_lib.labelling.rubric import find_rubric
from panacea_lib.problem_labelling import Judge
from panacea_lib.workspace import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "tests"))
from judge_gateway import (  # pyright: ignore[reportMissingImports]
    Gateway,
    running_gateway,
)

LATENCY, IN_FLIGHT, TARGET = 0.05, 32, 0.9
IDEAL = IN_FLIGHT / LATENCY
ROW_GROUP = 10_000
ANSWER = '{"preferred": "first"}'


@dataclass(frozen=True)
class Speed:
    """One run: requests a second, and milliseconds of our processor time per request."""

    rate: float
    processor: float


@dataclass(frozen=True)
class Memory:
    """A job's seconds and the peaks of its two processes in MiB."""

    pairs: int
    seconds: float
    job: float
    asking: float


def texts(count: int) -> Iterator[list[Pair]]:
    """Pairs of about 1,000 characters, a row group at a time."""
    for start in range(0, count, ROW_GROUP):
        yield [
            Pair(f"p{i}", f"prompt {i} " * 20, f"first {i} " * 30, f"second {i} " * 30)
            for i in range(start, min(count, start + ROW_GROUP))
        ]


def make_job(folder: Path, endpoint: str, pairs: int) -> JudgeJob:
    """A job with its file of pairs."""
    folder.mkdir()
    schema = pa.schema([(name, pa.string()) for name in Pair._fields])
    with pq.ParquetWriter(folder / "pairs.parquet", schema) as writer:
        for rows in texts(pairs):
            columns = [pa.array(column) for column in zip(*rows, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return JudgeJob(
        judge=Judge(endpoint=endpoint, model="first", in_flight=IN_FLIGHT),
        annotator="stub",
        rubric=find_rubric("helpfulness", folder / "problem.yaml"),
        dimension="helpfulness",
        description="does what was asked",
        temperature=None,
        pairs=folder / "pairs.parquet",
        cache=folder / "judge.sqlite",
    )


# ---- speed


def ours(job: JudgeJob) -> Speed:
    """The asking of a job with an empty cache, as its own process does it, counting included."""
    started, processor = time.perf_counter(), time.process_time()
    with JudgeCache(job.cache) as cache:
        asking = Asking(job, cache, None, stopped=lambda: False, report=lambda _: None)
        answered = asyncio.run(asking.run()).answered
    return _speed(answered, started, processor)


def alone(job: JudgeJob) -> Speed:
    """aiohttp posting as many messages of the same length, and reading the answers as JSON."""
    questions = Questions(job)
    first = next(read_pairs(job.pairs))
    content = questions.message(questions.of(first)[0])
    count = 2 * pq.read_metadata(job.pairs).num_rows
    url = f"{job.judge.endpoint}/chat/completions"

    async def work(session: aiohttp.ClientSession, numbers: Iterator[int]) -> None:
        for number in numbers:
            body = {"model": "first", "messages": [{"role": "user", "content": content}]}
            headers = {"Idempotency-Key": f"alone {number}"}
            async with session.post(url, json=body, headers=headers) as response:
                await response.json()

    async def run() -> None:
        numbers = iter(range(count))
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(work(session, numbers) for _ in range(IN_FLIGHT)))

    started, processor = time.perf_counter(), time.process_time()
    asyncio.run(run())
    return _speed(count, started, processor)


def _speed(requests: int, started: float, processor: float) -> Speed:
    seconds = time.perf_counter() - started
    return Speed(requests / seconds, 1000 * (time.process_time() - processor) / requests)


def measure_speed(pairs: int, turns: int, folder: Path) -> list[tuple[Speed, Speed]]:
    """(ours, alone) of each turn; which comes first alternates."""
    found = []
    for turn in range(turns):
        with running_gateway(LATENCY) as gateway:
            job = make_job(folder / f"turn{turn}", gateway.endpoint, pairs)
            if turn % 2:
                second = alone(job)
                found.append((ours(job), second))
            else:
                first = ours(job)
                found.append((first, alone(job)))
            print(found[-1], os.getloadavg(), file=sys.stderr, flush=True)
    return found


# ---- memory


def measure_memory(pairs: int, folder: Path, cached: bool) -> Memory:
    """The peaks of a whole job, in processes of their own."""
    with running_gateway() as gateway, multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_run_whole, (pairs, folder, gateway, cached))
    print(found, os.getloadavg(), file=sys.stderr, flush=True)
    return found


def _run_whole(pairs: int, folder: Path, gateway: Gateway, cached: bool) -> Memory:
    job = make_job(folder / f"memory{pairs}{cached}", gateway.endpoint, pairs)
    if cached:
        _fill(job)
    asking = 0.0

    def look(_: object) -> None:
        nonlocal asking
        for child in psutil.Process().children():
            asking = max(asking, _peak(child.pid))

    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making all this
    started = time.perf_counter()
    judge_pairs(job, job.pairs.with_name("annotations.parquet"), look)
    seconds = time.perf_counter() - started
    return Memory(pairs, seconds, _peak(os.getpid()), asking)


def _fill(job: JudgeJob) -> None:
    """Put an answer to everything into the cache, as one transaction."""
    JudgeCache(job.cache).__exit__()
    questions = Questions(job)
    rows = (
        (request.key, ANSWER, "stop", None, 300, 10, "earlier")
        for pair in read_pairs(job.pairs)
        for request in questions.of(pair)
    )
    with sqlite3.connect(job.cache) as cache:
        cache.executemany("insert into answers values (?, ?, ?, ?, ?, ?, ?)", rows)
    cache.close()


def _peak(pid: int) -> float:
    """The most resident memory of a process since it began or its peak was forgotten, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# ---- the page


def page(
    command: str, loads: list[str], speeds: list[tuple[Speed, Speed]], memories: dict[str, Memory]
) -> str:
    """The measurements as Markdown."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "tenacity", "pyarrow"))
    rates = [first.rate for first, _ in speeds]
    lines = [
        "# A judge",
        "",
        f"`{command}`, {date.today()}. {os.cpu_count()} cores, load average {loads[0]} before and "
        f"{loads[1]} after; Python {platform.python_version()}, {libraries}.",
        "",
        "## Speed",
        "",
        f"A server that answers after {1000 * LATENCY:.0f} ms, {IN_FLIGHT} requests in flight: the "
        f"ideal is {IDEAL:.0f} requests/s. Processor time is the client's own, per request.",
        "",
        "| turn | judge, requests/s | of the ideal | processor, ms | aiohttp alone, requests/s "
        "| processor, ms |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for turn, (first, second) in enumerate(speeds, 1):
        lines.append(
            f"| {turn} | {first.rate:.0f} | {first.rate / IDEAL:.2f} | {first.processor:.2f} "
            f"| {second.rate:.0f} | {second.processor:.2f} |"
        )
    share = median(rates) / IDEAL
    lines += [
        "",
        f"The median is {median(rates):.0f} requests/s, {share:.2f} of the ideal (wanted: "
        f"{TARGET}), and {median(a.rate / b.rate for a, b in speeds):.2f} of aiohttp alone in the "
        "same turn. It includes counting what is needed before the first request. Server and "
        "client share the cores, with whatever else the load average tells of.",
        "",
        "## Memory",
        "",
        "Peak resident memory of the two processes of a job.",
        "",
        "| job | pairs | s | job, MiB | asking process, MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, memory in memories.items():
        lines.append(
            f"| {name} | {memory.pairs:,} | {memory.seconds:.1f} | {memory.job:.0f} "
            f"| {memory.asking:.0f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2500, help="of one turn; two requests each")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--cached", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--asked", type=int, nargs="*", default=[2_000, 10_000])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    loads = [f"{os.getloadavg()[0]:.1f}"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speeds = measure_speed(options.pairs, options.turns, folder)
        memories = {}
        for count in options.asked:
            memories[f"all {2 * count:,} requests asked"] = measure_memory(count, folder, False)
        for count in options.cached:
            memories[f"all {2 * count:,} answers cached"] = measure_memory(count, folder, True)
    loads.append(f"{os.getloadavg()[0]:.1f}")
    command = " ".join(["python -m benchmarks.judge", *sys.argv[1:]])
    options.out.write_text(page(command, loads, speeds, memories), encoding="utf-8")


if __name__ == "__main__":
    main()
