"""What a training step of each method costs beside DPO of a plain LoRA: a Markdown page of ratios.

    .venv/bin/python -m benchmarks.method_costs --out benchmarks/method_costs.md

The trainings are those of `benchmarks.methods`, with its world and its settings. Two run in one
process, each in a thread, and take their steps in turns (see `benchmarks.ratios`).
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from queue import Queue
from threading import Semaphore, Thread

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from benchmarks.adapter import machine_in_words
from benchmarks.methods import METHODS, WORK, Cell, problem_of
from benchmarks.methods_world import DIMENSIONS, BenchmarkWorld, Labels
from benchmarks.ratios import MIN_PAIRS, measure_ratio
from orchestration.environment import keep_freed_memory
from panacea_lib.errors import TrainingStoppedError
from panacea_lib.train_result import StepListener
from panacea_lib.training import train_policy

Training = Callable[[StepListener, Callable[[], bool]], object]
"""Called with what it tells of every step and what it asks whether to stop after it."""

THEIRS = "rewarded_soups"
ROWS: list[tuple[str, Labels]] = [
    (THEIRS, "gold"),  # the control
    ("prompt_conditioned", "gold"),
    ("dpo", "gold"),
    ("distillation_bare", "gold"),
    ("distillation", "gold"),
    ("rloo", "gold"),
    ("rloo", "noisy"),
]
WORDS = {"gold": "", "noisy": ", judged by m reward models"}


class Steps:
    """A training in a thread of its own, which rests until it is told to take a step."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._wanted, self._ended = Semaphore(0), False
        self._taken: Queue[BaseException | None] = Queue()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> None:
        """One optimiser step and all that belongs to it; raises what the training raised.

        The first also prepares the training. RuntimeError where there is no step left.
        """
        self._wanted.release()
        error = self._taken.get()
        if error is not None:
            raise error

    def end(self) -> None:
        """Stop the training where it rests."""
        self._ended = True
        self._wanted.release()
        self._thread.join()

    def _run(self) -> None:
        torch.set_flush_denormal(True)  # as the cells do; it holds for a thread
        self._wanted.acquire()
        try:
            self._training(self._rest, lambda: self._ended)
            raise RuntimeError("the training has taken all its steps")
        except TrainingStoppedError:
            return
        except BaseException as error:  # to be raised where the step was asked for
            self._taken.put(error)

    def _rest(self, *_: object) -> None:
        self._taken.put(None)
        self._wanted.acquire()


@contextmanager
def steps_of(world: BenchmarkWorld, name: str, m: int, labels: Labels) -> Iterator[Steps]:
    """The steps of a cell of 2,000; of a method of several adapters those of the first."""
    cell = Cell(name, m, 2000, labels, 0, METHODS[name].rate)
    policy = METHODS[name].policy
    with tempfile.TemporaryDirectory() as folder:

        def training(on_step: StepListener, stop_wanted: Callable[[], bool]) -> object:
            return train_policy(
                problem_of(world, cell, checkpoint_every=cell.steps),
                policy,
                world.base_folder,
                world.training_table(labels, m, cell.seed),
                Path(folder) / "policy",
                Path(folder) / "checkpoints",
                cell.seed,
                on_step=on_step,
                rewards=world.judge(labels, m, cell.seed) if "rloo" in policy else None,
                stop_wanted=stop_wanted,
            )

        steps = Steps(training)
        try:
            yield steps
        finally:
            steps.end()


def measure(world: BenchmarkWorld, name: str, m: int, labels: Labels, pairs: int) -> str:
    """Time one row; its line of the table."""
    with steps_of(world, name, m, labels) as ours, steps_of(world, THEIRS, m, labels) as theirs:
        ratio = measure_ratio(ours.take, theirs.take, pairs)
    times = f"{ratio.ours * 1e3:.0f} | {ratio.theirs * 1e3:.0f}"
    shown = f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
    return f"| `{name}`{WORDS[labels]} | {m} | {times} | {shown} | {ratio.pairs} |"


HEADER = """\
| method | m | its step, ms | a plain LoRA's, ms | ratio (95 % interval) | pairs |
|---|---:|---:|---:|---|---:|"""

ABOUT = f"""\
A step is an optimiser step of 64 pairs (RLOO: of 128 answers, sampled and judged in it), with its
data, loss, backward and update. Beside it, in turns, a step of DPO on one plain LoRA of the same
rank, which is a step of `{THEIRS}`: its rows, the controls, are that against itself. Rows are
the methods of [methods.md](methods.md), on its base model and pairs. A ratio is the median of
interleaved pairs (ABBA, warmed up), its interval the order statistics that hold that median with at
least 95 %. What the control misses 1 by is the machine's: no smaller difference means anything."""


def main() -> None:
    """Measure, print each row as it comes, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--m", nargs="+", type=int, choices=[2, 3, 10], default=[2, 10])
    parser.add_argument("--pairs", type=int, default=40, help=f"at least {MIN_PAIRS}")
    parser.add_argument("--work", type=Path, default=WORK, help="as of benchmarks.methods")
    parser.add_argument("--out", type=Path, help="the page's file")
    given = parser.parse_args()
    if given.pairs < MIN_PAIRS:
        parser.error(f"--pairs must be at least {MIN_PAIRS}: fewer decide nothing.")
    keep_freed_memory()
    load_before = os.getloadavg()[0]
    world = BenchmarkWorld(given.work)
    world.prepare()
    for name in DIMENSIONS[: max(given.m)]:
        world.train_reward_model(name, seed=0)
    print(HEADER, flush=True)
    lines = []
    for m in given.m:
        for name, labels in ROWS:
            lines.append(measure(world, name, m, labels, given.pairs))
            print(lines[-1], flush=True)
    if given.out:
        command = " ".join(["python -m benchmarks.method_costs", *sys.argv[1:]])
        made = f"`{command}`, {date.today()}. {machine_in_words(load_before)}."
        table = "\n".join([HEADER, *lines])
        text = "\n\n".join(["# What a step of each method costs", made, table, ABOUT])
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
