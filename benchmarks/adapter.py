"""What the Panacea adapter costs beside PEFT's LoRA of the same rank: a Markdown page of ratios.

    .venv/bin/python -m benchmarks.adapter --out benchmarks/adapter.md
    .venv/bin/python -m benchmarks.adapter --only train-512 --pairs 100
    .venv/bin/python -m benchmarks.adapter --gpu

Both sides of a row run in one process, in turns (see `benchmarks.ratios`).
"""

import argparse
import gc
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import adapter_gpu
from benchmarks.adapter_steps import (
    ANSWER,
    PROMPT,
    RANK,
    REQUESTS,
    Shape,
    Step,
    llama,
    lora,
    merges,
    one_batch,
    one_lora,
    panacea,
    switches,
    training_step,
)
from benchmarks.ratios import MIN_PAIRS, Ratio, measure_ratio

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")

# A small vocabulary: the layers that carry an adapter take the time, not the output matrix.
SMALL = Shape(512, 1408, 2, 8, 8, 1000, rows=8, tokens=128)
LARGE = Shape(2048, 5632, 2, 32, 4, 1000, rows=4, tokens=128)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What `--only` calls it.
        what: What is compared with what.
        target: The most that ours / theirs may be; None where the ratio is only told.
        make: Builds the two calls (ours, theirs) that are timed.
        faster: Tell how many times faster ours is, not the share of time it takes.
    """

    name: str
    what: str
    target: float | None
    make: Callable[[], tuple[Step, Step]]
    faster: bool = False


def _training(shape: Shape) -> tuple[Step, Step]:
    ours = training_step(panacea(llama(shape)), shape, 2)
    return ours, training_step(lora(llama(shape)), shape, None)


def _control(shape: Shape) -> tuple[Step, Step]:
    first, second = (training_step(lora(llama(shape)), shape, None) for _ in range(2))
    return first, second


def _dimensions(shape: Shape) -> tuple[Step, Step]:
    ten, two = (training_step(panacea(llama(shape), m), shape, m) for m in (10, 2))
    return ten, two


def _rows_of(s: Shape) -> list[Row]:
    """The rows with a target at one size."""
    size = f"hidden size {s.hidden}"
    batch = f"{size}, {s.rows} × {s.tokens} tokens"
    requests = f"{REQUESTS} rows, {REQUESTS} λ; the same rows under one LoRA; {size}"
    return [
        Row(f"train-{s.hidden}", f"step; LoRA step; {batch}", 1.05, lambda: _training(s)),
        Row(f"dimensions-{s.hidden}", f"m = 10; m = 2; {batch}", 1.15, lambda: _dimensions(s)),
        Row(f"generate-{s.hidden}", requests, 1.05, lambda: (one_batch(s), one_lora(s))),
    ]


ROWS = [
    Row("control", "LoRA step; the same; hidden size 512", None, lambda: _control(SMALL)),
    *_rows_of(SMALL),
    *_rows_of(LARGE),
    Row(
        "merges",
        f"{REQUESTS} λ in one batch; {REQUESTS} × (merge, one row, unmerge); hidden size 512",
        None,
        lambda: (one_batch(SMALL), merges(SMALL)),
        faster=True,
    ),
    Row(
        "switches",
        f"{REQUESTS} λ in one batch; {REQUESTS} × (switch LoRA, one row); hidden size 512",
        None,
        lambda: (one_batch(SMALL), switches(SMALL)),
        faster=True,
    ),
]


def measure(row: Row, pairs: int) -> str:
    """Time one row; its line of the table."""
    ours, theirs = row.make()
    ratio = measure_ratio(ours, theirs, pairs)
    del ours, theirs
    gc.collect()
    return line(row, ratio)


def line(row: Row, ratio: Ratio) -> str:
    """A measured row as a line of Markdown."""
    shown, unit = (ratio.inverse(), "× faster") if row.faster else (ratio, "")
    digits = 1 if row.faster else 3
    target = "–" if row.target is None else f"≤ {row.target:g}"
    cells = [
        row.name,
        row.what,
        f"{ratio.ours * 1e3:.0f}",
        f"{ratio.theirs * 1e3:.0f}",
        f"{shown.value:.{digits}f}{unit} ({shown.low:.{digits}f} to {shown.high:.{digits}f})",
        str(ratio.pairs),
        target,
        "–" if row.target is None else ratio.verdict(row.target),
    ]
    return f"| {' | '.join(cells)} |"


HEADER = """\
| row | ours; theirs; where | ours, ms | theirs, ms | ratio (95 % interval) | pairs | target | |
|---|---|---:|---:|---|---:|---:|---|"""


ABOUT_CPU = f"""\
Models: Llama, random float32 weights, two layers, a vocabulary of 1,000; all seven projections
adapted, Panacea with k = {RANK}, LoRA of rank k + m, m = 2 where nothing else is said. A step is
forward, backward and AdamW (fused, as in transformers' Trainer), λ (B, m): one per row.
Generation: {REQUESTS} prompts of {PROMPT} tokens, greedy, {ANSWER} new tokens each, KV cache.
The control row, LoRA against itself, shows what the machine adds.

Not run: the rows of `--gpu` (a Llama of 8B's shape in nf4, bf16, gradient checkpointing, sequence
1,024: a step's time and peak memory against QLoRA of the same rank, targets 1.05 and 1.02). They
need a CUDA device; where there is one, `.venv/bin/python -m benchmarks.adapter --gpu` prints them.
Their models and steps are run by the tests, tiny and on the CPU; the memory count is not."""

ABOUT_GPU = f"""\
Random weights, linear layers in nf4, the rest bfloat16, autocast to bfloat16; all seven projections
adapted, Panacea with k = {RANK} and m = 2, QLoRA of rank k + m, adapters in float32. A step is
forward, backward and AdamW, λ (B, m): one per row. Peak memory is what torch allocated in three
steps of a model that was alone with its base."""


def page(lines: list[str], command: str, machine: str, about: str) -> str:
    """The Markdown page."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    text = "\n".join([HEADER, *lines])
    return f"""# The adapter beside LoRA

`{command}`, {date.today()}. {machine}; Python {platform.python_version()}, {libraries}.

{text}

A ratio is the median of the ratios of interleaved pairs (ABBA, garbage collector off, warmed up),
its interval the order statistics that hold that median with at least 95 %. Met: the upper bound is
within the target; missed: the lower one is above it; else undecided. The times are medians too.

{about}
"""


def machine_in_words(load_before: float) -> str:
    """Processor, cores, threads used, and how busy the machine was (its one-minute load)."""
    cores = len(os.sched_getaffinity(0))
    names = [
        text.partition(":")[2].strip()
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if text.startswith("model name")
    ]
    load = f"{load_before:.1f} before and {os.getloadavg()[0]:.1f} after"
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    threads = torch.get_num_threads()
    return f"{gpu}{names[0]}, {cores} cores, {threads} used, load average {load}"


def main() -> None:
    """Measure, print each row as it comes, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [row.name for row in ROWS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ROW")
    parser.add_argument("--pairs", type=int, default=30, help=f"at least {MIN_PAIRS}")
    parser.add_argument("--threads", type=int, default=1, help="that torch computes with")
    parser.add_argument("--gpu", action="store_true", help="the 8B rows, on a CUDA device, alone")
    parser.add_argument("--out", type=Path, help="the page's file")
    given = parser.parse_args()
    if given.pairs < MIN_PAIRS:
        parser.error(f"--pairs must be at least {MIN_PAIRS}: fewer decide nothing.")
    if given.gpu and not torch.cuda.is_available():
        parser.error("--gpu needs a CUDA device, and torch finds none here.")
    torch.set_num_threads(given.threads)
    load_before = os.getloadavg()[0]
    print(HEADER, flush=True)
    lines = []
    chosen = (measure(row, given.pairs) for row in ROWS if row.name in given.only)
    for text in adapter_gpu.measured(given.pairs) if given.gpu else chosen:
        print(text, flush=True)
        lines.append(text)
    machine = machine_in_words(load_before)
    print(machine)
    if given.out:
        command = " ".join(["python -m benchmarks.adapter", *sys.argv[1:]])
        about = ABOUT_GPU if given.gpu else ABOUT_CPU
        given.out.write_text(page(lines, command, machine, about), encoding="utf-8")


if __name__ == "__main__":
    main()
