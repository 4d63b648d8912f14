"""What it costs to evaluate a policy, beside plain `generate` of as many tokens: a Markdown page.

    .venv/bin/panacea materialize demo
    .venv/bin/python -m benchmarks.evaluation --out benchmarks/evaluation.md

Evaluating is what the pipeline does for one policy, without the ruler: answers over a grid of λ
with their log probabilities under policy and reference, proxy and gold rewards, and the front's
figures with their intervals. The policy, its base model and its reward models are those that the
demo left in the workspace; loading them is not timed. Plain generating is transformers' own
`generate` of the base model, with the same prompts, sampling and limit, for as many answers.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.adapter import machine_in_words
from benchmarks.evaluation_page import (
    HEADER,
    PARTS,
    POINTS,
    SAMPLES,
    Measured,
    line,
    page,
    parts_table,
    scoring_share,
)
from benchmarks.ratios import MIN_PAIRS, Ratio, measure_ratio, median_interval
from orchestration.environment import keep_freed_memory
from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.errors import MissingUpstreamError
from panacea_lib.evaluation import (
    PolicySamples,
    Ruler,
    estimated_ruler,
    evaluate_fronts,
    prompt_means,
)
from panacea_lib.generation import fitting_prompts
from panacea_lib.policy import PanaceaPolicy, open_policy
from panacea_lib.problem import Problem
from panacea_lib.problem_files import load_problem_named
from panacea_lib.rewards.scale import RewardScale
from panacea_lib.rewards.score import RewardModels, once_each
from panacea_lib.sampling import Generation, sample_policy
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace
from panacea_lib.world.annotators import gold_raw_texts

PROBLEM, METHOD = "demo", "panacea"
PROMPTS = 200
SHARE = 10  # a pair has so many times fewer prompts
BATCH_SIZES = (64, 128, 256, 512, 704, 1024)


class Watched(PanaceaPolicy):
    """A policy that counts the seconds it spends as the reference."""

    seconds = 0.0

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """As `Policy.as_reference`."""
        started = time.perf_counter()
        with super().as_reference():
            yield
        self.seconds += time.perf_counter() - started


class Demo:
    """What the demo left in the workspace, opened."""

    def __init__(self, workspace: Workspace) -> None:
        self._warehouse = Warehouse(workspace.warehouse)
        self._store = ArtifactStore(workspace.artifacts)
        self.problem: Problem = load_problem_named(workspace, PROBLEM)
        names = self.problem.dimension_names
        base, how = self._artifact("base_model"), self.problem.base_model
        adapter = self._artifact("panacea_policy", METHOD)
        opened = open_policy(METHOD, adapter, base, how.quantization, names)
        self.policy = Watched(opened.model, opened.tokenizer, names)
        self.plain = open_policy("reference", None, base, how.quantization, names)
        rewarders = [self._artifact("reward_models", name) for name in names]
        self.rewarders = RewardModels(base, how.quantization, rewarders, how.max_length)
        scales = [self._details("response_rewards", name)["scale"] for name in names]
        parts = [np.concatenate([s[part] for s in scales]) for part in ("mean", "scale")]
        self.proxy_scale = RewardScale(*parts)
        self.gold_scale = RewardScale.from_dict(self._details("preference_labels")["gold_scale"])
        sql = "select text from facts.prompts where key = ? order by prompt_id limit ?"
        texts = self._warehouse.read(sql, [self._key("prompts"), PROMPTS])
        self.prompts: list[str] = texts["text"].to_pylist()

    def _key(self, stage: str, part: str = "") -> str:
        sql = "select key from facts.current where problem = ? and stage = ? and part = ?"
        found = self._warehouse.read(sql, [PROBLEM, stage, part])["key"].to_pylist()
        if not found:
            raise MissingUpstreamError(f"run `panacea materialize {PROBLEM}` first")
        return found[0]

    def _artifact(self, stage: str, part: str = "") -> Path:
        return self._store.fetch(self._key(stage, part))

    def _details(self, stage: str, part: str = "") -> dict[str, Any]:
        sql = "select details from facts.products where key = ?"
        found = self._warehouse.read(sql, [self._key(stage, part)])
        return json.loads(found["details"][0].as_py())


@dataclass(frozen=True)
class Size:
    """How much is asked, and how."""

    prompts: int
    batch_size: int
    grid: np.ndarray  # (G, m)

    @property
    def answers(self) -> int:
        """Of the policy, and of plain generating."""
        return self.prompts * len(self.grid) * SAMPLES


class Evaluation:
    """The evaluation of the policy, the same each time that it is called.

    Attributes:
        spent: Seconds of each of PARTS, for every call.
        tokens, distinct: Tokens drawn by a call, and different answers among them.
    """

    def __init__(self, demo: Demo, size: Size) -> None:
        self._demo, self._size = demo, size
        self._prompts = demo.prompts[: size.prompts]
        self._ruler: Ruler | None = None
        self.spent: list[dict[str, float]] = []
        self.tokens = self.distinct = 0

    def __call__(self) -> None:
        """Everything from the draws to the figures."""
        self.spent.append({})
        policy = self._demo.policy
        policy.seconds = 0.0
        found = self._timed("answers", self._sample)
        self.spent[-1]["answers"] -= policy.seconds
        self.spent[-1]["reference"] = policy.seconds
        asked = [self._prompts[g.prompt] for g in found]
        texts = [g.text for g in found]
        self.tokens = sum(g.tokens for g in found)
        self.distinct = len(set(zip(asked, texts, strict=True)))
        proxy = self._timed("proxy", lambda: self._proxy(asked, texts))
        gold = self._timed("gold", lambda: self._gold(asked, texts))
        if self._ruler is None:  # not a part of it
            self._ruler = self._estimate(gold)
        self._timed("metrics", lambda: self._measure(found, {"proxy": proxy, "gold": gold}))

    def _timed(self, part: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        self.spent[-1][part] = time.perf_counter() - started
        return result

    def _sample(self) -> list[Generation]:
        problem, size = self._demo.problem, self._size
        length = problem.evaluation.max_new_tokens
        how = (SAMPLES, length, size.batch_size, 0, None, problem.base_model.max_length)
        return sample_policy(self._demo.policy, self._prompts, size.grid, *how)

    def _proxy(self, asked: list[str], texts: list[str]) -> np.ndarray:
        return self._demo.proxy_scale.apply(once_each(self._demo.rewarders.scores, asked, texts))

    def _gold(self, asked: list[str], texts: list[str]) -> np.ndarray:
        names = self._demo.problem.dimension_names
        raw = once_each(lambda p, r: gold_raw_texts(p, r, names), asked, texts)
        return self._demo.gold_scale.apply(raw)

    def _estimate(self, reward: np.ndarray) -> Ruler:
        """Any ruler will do for timing: these rewards as if they were the reference's."""
        by_prompt = reward.reshape(len(self._size.grid), self._size.prompts, SAMPLES, -1)
        by_prompt = by_prompt.swapaxes(0, 1).reshape(self._size.prompts, -1, reward.shape[1])
        return estimated_ruler(by_prompt, self._size.grid, self._demo.problem.beta)

    def _measure(self, found: list[Generation], rewards: dict[str, np.ndarray]) -> None:
        point, prompt = (
            np.array([getattr(g, name) for g in found]) for name in ("point", "prompt")
        )
        log_ratio = np.array([g.logprob - g.reference_logprob for g in found])
        assert self._ruler is not None
        for judge, reward in rewards.items():
            samples = PolicySamples(METHOD, point, prompt, reward, log_ratio)
            points, prompts = len(self._size.grid), self._size.prompts
            evaluate_fronts(
                [prompt_means(samples, points, prompts, reward.shape[1])],
                self._size.grid,
                self._demo.problem.dimension_names,
                self._demo.problem.beta,
                self._ruler,
                judge,
                self._demo.problem.evaluation.bootstrap,
            )


class Plain:
    """`generate` of transformers on the base model, the same each time that it is called."""

    def __init__(self, demo: Demo, size: Size) -> None:
        self._model, self._tokenizer = demo.plain.model, demo.plain.tokenizer
        self._size = size
        self._length = demo.problem.evaluation.max_new_tokens
        limit = demo.problem.base_model.max_length
        asked = fitting_prompts(self._tokenizer, demo.prompts[: size.prompts], self._length, limit)
        # In the evaluation's order: all prompts for one λ, then for the next.
        self._rows = [row for _ in size.grid for row in asked for _ in range(SAMPLES)]
        self.tokens = 0

    @torch.inference_mode()
    def __call__(self) -> None:
        """Answer every row."""
        torch.manual_seed(0)
        self.tokens = 0
        pad = self._tokenizer.pad_token_id
        for start in range(0, len(self._rows), self._size.batch_size):
            rows = self._rows[start : start + self._size.batch_size]
            batch = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt")
            output = self._model.generate(
                **batch,
                max_new_tokens=self._length,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=pad,
            )
            self.tokens += int((output[:, batch["input_ids"].shape[1] :] != pad).sum())


def best_batch_size(demo: Demo, size: Size) -> dict[int, float]:
    """Tokens per second of plain generating at each batch size; the best of two."""
    found = {}
    for batch_size in BATCH_SIZES:
        plain = Plain(demo, replace(size, batch_size=batch_size))
        plain()
        found[batch_size] = plain.tokens / min(_seconds(plain) for _ in range(2))
        print(f"plain generate, {batch_size} rows: {found[batch_size]:,.0f} tokens/s", flush=True)
    return found


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure_pairs(demo: Demo, ours: Size, theirs: Size, pairs: int) -> Measured:
    """The ratio by the project's rule."""
    evaluation, plain = Evaluation(demo, ours), Plain(demo, theirs)
    timed = measure_ratio(evaluation, plain, pairs, warm_up=1)
    spent = evaluation.spent[-pairs:]
    shares = [scoring_share(seconds) for seconds in spent]
    return Measured(
        ours.answers,
        evaluation.distinct,
        evaluation.tokens,
        _per_token(timed, evaluation.tokens / plain.tokens),
        (float(np.median(shares)), *median_interval(shares)),
        {part: float(np.median([seconds[part] for seconds in spent])) for part in PARTS},
    )


def measure_once(demo: Demo, ours: Size, theirs: Size) -> Measured:
    """The full size, both once: figures without an interval."""
    evaluation, plain = Evaluation(demo, ours), Plain(demo, theirs)
    seconds, plain_seconds = _seconds(evaluation), _seconds(plain)
    value = seconds / plain_seconds
    timed = Ratio(value, value, value, 1, seconds, plain_seconds)
    share = scoring_share(evaluation.spent[0])
    return Measured(
        ours.answers,
        evaluation.distinct,
        evaluation.tokens,
        _per_token(timed, evaluation.tokens / plain.tokens),
        (share, share, share),
        evaluation.spent[0],
    )


def _per_token(timed: Ratio, more: float) -> Ratio:
    """The ratio, had plain generating drawn `more` times as many tokens."""
    return Ratio(
        timed.value / more,
        timed.low / more,
        timed.high / more,
        timed.pairs,
        timed.ours,
        timed.theirs * more,
    )


def main() -> None:
    """Measure, print each row as it comes, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=30, help=f"at least {MIN_PAIRS}")
    parser.add_argument("--threads", type=int, default=1, help="that torch computes with")
    parser.add_argument("--out", type=Path, help="the page's file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as in the pipeline; it serves both sides
    load_before = os.getloadavg()[0]
    demo = Demo(Workspace.current())
    batch_size = demo.problem.evaluation.batch_size
    grid = np.stack([np.linspace(0, 1, POINTS), np.linspace(1, 0, POINTS)], axis=1)
    full = Size(PROMPTS, batch_size, grid)
    small = replace(full, prompts=PROMPTS // SHARE)
    speeds = best_batch_size(demo, small)
    best = max(speeds, key=speeds.__getitem__)
    print(HEADER, flush=True)
    sizes = {}
    for size in (small, full):
        theirs = replace(size, batch_size=best)
        if size is small:
            found = measure_pairs(demo, size, theirs, given.pairs)
        else:
            found = measure_once(demo, size, theirs)
        sizes[str(size.prompts)] = found
        print(line(str(size.prompts), found), flush=True)
    print(parts_table(sizes))
    if given.out:
        command = " ".join(["python -m benchmarks.evaluation", *sys.argv[1:]])
        text = page(sizes, speeds, batch_size, command, machine_in_words(load_before))
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
