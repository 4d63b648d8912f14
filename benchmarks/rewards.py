"""One trunk with a head per dimension, against a reward model for each: speed and accuracy.

    .venv/bin/python -m benchmarks.rewards --out benchmarks/rewards.md \\
        [--helpsteer helpsteer2_pairs.jsonl.gz]

Five dimensions. In the embedded world every pair has a label on each, and again with two thirds of
the labels taken away; HelpSteer2's labels are sparse as they are. Models of both kinds are trained
with the same numbers, so that the shared trunk takes as many steps as one of the five, a fifth of
their forwards; `more steps` gives it three times as many.
"""

import argparse
import gzip
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch

from benchmarks.ratios import Ratio, measure_ratio
from panacea_lib.data.split import split_of
from panacea_lib.intervals import grouped_interval, sums_by_group
from panacea_lib.models.base import build_base_model
from panacea_lib.plan import library_versions
from panacea_lib.problem_data import Split, WorldData
from panacea_lib.problem_models import ScratchModel
from panacea_lib.problem_training import RewardTraining
from panacea_lib.rewards.scale import RewardScale
from panacea_lib.rewards.score import RewardModels, once_each
from panacea_lib.rewards.train import LabelledPair, train_reward_trunk
from panacea_lib.world.annotators import gold_raw_texts
from panacea_lib.world.data import world_corpus, world_prompts
from panacea_lib.world.grammar import all_prompts, render, sample_answers

DIMENSIONS = ["helpfulness", "harmlessness", "conciseness", "completeness", "politeness"]
HELPSTEER = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
TARGET = 1 / 4
PAIRS = 31


@dataclass(frozen=True)
class Task:
    """A base model, and pairs: `label` (N, 5), NaN unknown; `margin` (N, 5) or nothing."""

    name: str
    base: Path
    model: ScratchModel
    training: RewardTraining
    dimensions: list[str]
    texts: list[tuple[str, str, str]]
    label: np.ndarray
    held_out: np.ndarray

    def pairs(self, dimension: str) -> list[LabelledPair]:
        """The training pairs that have a label."""
        i = self.dimensions.index(dimension)
        return [
            LabelledPair(*texts, label)
            for texts, label, kept in zip(
                self.texts, self.label[:, i].tolist(), ~self.held_out, strict=True
            )
            if kept and np.isfinite(label)
        ]


def world_task(folder: Path, keep: float) -> Task:
    """9,000 pairs of the grammar's answers, three noisy votes each; `keep` of the labels known."""
    model = ScratchModel(kind="scratch", steps=400)
    prompts = world_prompts(WorldData(kind="world", prompts=400), seed=0)
    base = _base(folder / "world", model, world_corpus(model, prompts, seed=0))
    rng = np.random.default_rng(0)
    kept = [prompt for prompt in prompts if prompt.split != "test"]
    asked = [kept[i] for i in rng.integers(len(kept), size=9_000)]
    texts = [prompt.text for prompt in asked]
    sides = [_answers(texts, rng) for _ in range(2)]
    raw = [gold_raw_texts(texts, side, DIMENSIONS) for side in sides]
    scale = RewardScale.fit(texts * 2, np.concatenate(raw))
    delta = scale.apply(raw[0]) - scale.apply(raw[1])
    label = rng.binomial(3, 1 / (1 + np.exp(-delta))) / 3
    held_out = np.array([p.split == "validation" for p in asked])
    label[(rng.random(label.shape) > keep) & ~held_out[:, None]] = np.nan
    told = "every label" if keep == 1 else f"{keep:.0%} of the training labels"
    training = RewardTraining(steps=150, batch_size=48, learning_rate=6e-3)
    name = f"embedded world, {told}"
    triples = list(zip(texts, *sides, strict=True))
    return Task(name, base, model, training, DIMENSIONS, triples, label, held_out)


def _answers(prompts: list[str], rng: np.random.Generator) -> list[str]:
    """One answer of the world's writers to each prompt."""
    known = all_prompts()
    drawn = sample_answers(rng, len(prompts))
    return [render(known[text], answer) for text, answer in zip(prompts, drawn, strict=True)]


def helpsteer_task(folder: Path, file: Path) -> Task:
    """HelpSteer2's pairs, by a model trained from scratch on their texts: small, and it shows."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [(row["prompt"], row["response_a"], row["response_b"]) for row in rows]
    label = np.full((len(rows), len(HELPSTEER)), np.nan)
    for n, row in enumerate(rows):
        for name, (a, b) in row["scores"].items():
            label[n, HELPSTEER.index(name)] = 0.5 + 0.5 * np.sign(a - b)
    split = Split(validation=0.25, test=0.01)
    sides = np.array([split_of(prompt, split) for prompt, _, _ in texts])
    model = ScratchModel(
        kind="scratch", tokenizer="bpe", vocab_size=2048, steps=100, batch_size=16, max_length=128,
        learning_rate=3e-3,
    )  # fmt: skip
    corpus = [(p, a) for (p, a, _), side in zip(texts, sides, strict=True) if side == "train"]
    base = _base(folder / "helpsteer", model, (corpus * 3)[: model.steps * model.batch_size])
    training = RewardTraining(steps=120, batch_size=12, learning_rate=3e-3)
    kept = sides != "test"
    kept_texts = [triple for triple, keep in zip(texts, kept, strict=True) if keep]
    name = "HelpSteer2, sparse labels"
    held_out = (sides == "validation")[kept]
    return Task(name, base, model, training, HELPSTEER, kept_texts, label[kept], held_out)


def _base(folder: Path, model: ScratchModel, corpus: list[tuple[str, str]]) -> Path:
    if not folder.exists():
        folder.mkdir(parents=True)
        build_base_model(model, corpus, folder, seed=0)
    return folder


def train(task: Task, folder: Path, kind: str, seed: int) -> tuple[list[Path], float]:
    """The folders of one kind's models, trained, and the seconds that took."""
    config = task.training
    if kind == "shared, more steps":
        config = config.model_copy(update={"steps": 3 * config.steps})
    by_dimension = {name: task.pairs(name) for name in task.dimensions}
    trunks = [by_dimension] if kind != "separate" else [{n: p} for n, p in by_dimension.items()]
    started, folders = time.perf_counter(), []
    for number, pairs in enumerate(trunks):
        place = folder / f"{task.name}-{kind}-{seed}-{number}"
        given = (config, task.base, "none", task.model.max_length, pairs, place)
        train_reward_trunk(*given, place / "checkpoints", seed)
        folders.append(place)
    return folders, time.perf_counter() - started


def hits(task: Task, folders: list[Path]) -> np.ndarray:
    """1 where a held-out pair is ordered as its label, 0 where not, NaN for ties; (n, 5)."""
    models = RewardModels(task.base, "none", folders, task.model.max_length)
    own = [texts for texts, kept in zip(task.texts, task.held_out, strict=True) if kept]
    prompts, a, b = (list(column) for column in zip(*own, strict=True))
    scores = once_each(models.scores, prompts * 2, a + b)
    margins, label = scores[: len(own)] - scores[len(own) :], task.label[task.held_out]
    right = ((margins > 0) == (label > 0.5)).astype(float)
    return np.where(np.isfinite(label) & (label != 0.5), right, np.nan)


def accuracy_rows(task: Task, folder: Path, seeds: int) -> Iterator[str]:
    """A Markdown row per kind: accuracy by dimension, its mean, and the difference to five."""
    prompts = [t[0] for t, kept in zip(task.texts, task.held_out, strict=True) if kept]
    label = task.label[task.held_out]
    decided = np.isfinite(label) & (label != 0.5)
    first = np.where(decided, label > 0.5, np.nan)
    share = np.nanmean(first, axis=0)
    majority = np.maximum(share, 1 - share)
    yield _row([task.name, "majority", *_percent(majority), _percent([majority.mean()])[0], "", ""])
    theirs = np.zeros(0)
    for kind in ("separate", "shared", "shared, more steps"):
        found, seconds = [], []
        for seed in range(seeds):
            folders, took = train(task, folder, kind, seed)
            seconds.append(took)
            found.append(hits(task, folders))
        ours = np.mean(found, axis=0)
        told = ""
        if kind == "separate":
            theirs = ours
        else:
            told = _difference(ours - theirs, prompts)
        mean = np.nanmean(ours, axis=0)
        cells = [*_percent(mean), _percent([mean.mean()])[0], told, f"{np.mean(seconds):.0f}"]
        yield _row(["", kind, *cells])


def _difference(apart: np.ndarray, prompts: list[str]) -> str:
    """The mean over dimensions of the mean difference (n, 5), bootstrapped over prompts."""
    m = apart.shape[1]
    columns = [np.nan_to_num(apart[:, i]) for i in range(m)]
    counts = [np.isfinite(apart[:, i]).astype(float) for i in range(m)]
    sums = sums_by_group(prompts, *columns, *counts)

    def figure(totals: np.ndarray) -> np.ndarray:
        return (totals[:, :m] / totals[:, m:]).mean(axis=1)

    value = 100 * figure(sums.sum(axis=0, keepdims=True))[0]
    low, high = grouped_interval(sums, figure)
    return f"{value:+.1f} ({100 * (low or 0):+.1f} to {100 * (high or 0):+.1f})"


def speed(hidden: int, layers: int, rows: int, folder: Path) -> Ratio:
    """Scoring `rows` answers of the world: one trunk's time over that of five; hardly trained."""
    model = ScratchModel(
        kind="scratch", hidden_size=hidden, layers=layers, heads=4, steps=2, batch_size=64
    )
    prompts = world_prompts(WorldData(kind="world", prompts=400), seed=0)
    base = _base(folder / f"speed-{hidden}", model, world_corpus(model, prompts, seed=0))
    rng = np.random.default_rng(1)
    asked = [prompts[i].text for i in rng.integers(len(prompts), size=rows)]
    answers = _answers(asked, rng)
    training = RewardTraining(steps=1, batch_size=8)
    pairs = [LabelledPair(p, a, a, 1.0) for p, a in zip(asked[:8], answers[:8], strict=True)]
    few = np.array([[1.0] * len(DIMENSIONS)] * 8)
    texts = [(pair.prompt, pair.response_a, pair.response_b) for pair in pairs]
    none = np.zeros(8, bool)
    task = Task(f"speed-{hidden}", base, model, training, DIMENSIONS, texts, few, none)
    ours, theirs = (
        RewardModels(base, "none", train(task, folder, kind, 0)[0], model.max_length)
        for kind in ("shared", "separate")
    )
    return measure_ratio(
        lambda: ours.scores(asked, answers), lambda: theirs.scores(asked, answers), PAIRS
    )


def _percent(values: np.ndarray | list[float]) -> list[str]:
    return [f"{100 * value:.1f}" for value in values]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(ratios: dict[str, Ratio], tables: list[str], seeds: int, command: str) -> str:
    """The whole Markdown page."""
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    speeds = []
    for name, ratio in ratios.items():
        times = ratio.inverse()
        cells = [name, f"{times.value:.2f}", f"{times.low:.2f} to {times.high:.2f}"]
        speeds.append(_row([*cells, str(ratio.pairs), ratio.verdict(TARGET)]))
    return "\n".join(
        [
            "# One trunk with five heads, against five reward models",
            "",
            f"`{command}`, {date.today()},",
            f"{platform.machine()}, {os.cpu_count()} cores shared with others, one PyTorch thread;",
            f"{versions}.",
            "",
            "## Speed of scoring",
            "",
            "How many times faster one trunk scores 256 answers on five dimensions, tokenizer and",
            "all; the median of interleaved pairs with its 95 % interval. Target: 4.",
            "",
            "| model | times faster | 95 % | pairs | target |",
            "|---|---:|---|---:|---|",
            *speeds,
            "",
            "## Accuracy on held-out pairs",
            "",
            f"Percent, ties left out, mean of {seeds} seed(s). The difference to five models is of",
            "the mean over dimensions, with a bootstrap over prompts (which knows nothing of other",
            "seeds). Seconds of training, all dimensions together; wall clock, only to be compared",
            "where nobody else used the machine meanwhile.",
            "",
            *tables,
            "",
        ]
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description="A shared trunk against a model per dimension.")
    parser.add_argument("--helpsteer", type=Path, help="HelpSteer2's pairs, .jsonl.gz")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"), help="the page's file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ratios = {
            f"{layers} layers of {hidden}": speed(hidden, layers, 256, folder)
            for hidden, layers in ((64, 2), (128, 4))
        }
        tasks = [world_task(folder, 1.0), world_task(folder, 1 / 3)]
        if given.helpsteer:
            tasks.append(helpsteer_task(folder, given.helpsteer))
        tables: list[str] = []
        command = f"python -m benchmarks.rewards --seeds {given.seeds}"
        command += " --helpsteer helpsteer2_pairs.jsonl.gz" if given.helpsteer else ""
        for task in tasks:
            head = ["data", "models", *task.dimensions, "mean", "difference", "seconds"]
            if task.dimensions is not DIMENSIONS or not tables:
                tables += ["", _row(head), _row(["---"] * len(head))]
            for row in accuracy_rows(task, folder, given.seeds):
                tables.append(row)  # what there is so far is written, should this be stopped
                told = page(ratios, tables, given.seeds, command)
                given.out.write_text(told, encoding="utf-8")


if __name__ == "__main__":
    main()
