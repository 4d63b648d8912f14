"""Does the calibrated slider walk evenly? Fresh answers at λ in equal steps and at its positions.

    .venv/bin/panacea materialize demo && \\
        .venv/bin/python benchmarks/slider.py demo --seed 1 --out benchmarks/slider.md

The slider was fitted to the evaluation's answers (the problem's own seed). Here the same policy
answers the same held-out prompts anew, with another seed, at eleven λ in equal steps and at the
slider's eleven positions in equal steps; gold rewards of the embedded world judge both.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from panacea_lib.evaluation.slider import step_lengths
from panacea_lib.evaluation.steering import evenness
from panacea_lib.policy import Policy, load_policy
from panacea_lib.problem import Problem
from panacea_lib.problem_files import load_problem_named
from panacea_lib.rewards.scale import RewardScale
from panacea_lib.sampling import sample_policy
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace
from panacea_lib.world.annotators import gold_raw_texts

POSITIONS = 11
PROMPTS = """
select distinct p.text from facts.current c
join facts.generations g on g.key = c.key
join facts.current d on d.problem = c.problem and d.stage = 'prompts'
join facts.prompts p on p.key = d.key and p.prompt_id = g.prompt_id
where c.problem = ? and c.stage = 'generations' and c.part = 'panacea' order by p.text
"""
SCALE = """
select (p.details->'gold_scale')::varchar as scale from facts.current c
join facts.products p using (key) where c.problem = ? and c.stage = 'preference_labels'
"""


@dataclass(frozen=True)
class Walk:
    """Eleven λ₁, and the mean gold reward of every prompt at each, shape (G, P, m)."""

    first: np.ndarray
    by_prompt: np.ndarray

    def points(self, weights: np.ndarray) -> np.ndarray:
        """Mean rewards (G, m) under shares of the prompts (P,)."""
        return np.einsum("p,gpm->gm", weights, self.by_prompt)


def walk(
    policy: Policy, problem: Problem, prompts: list[str], scale: RewardScale, grid: np.ndarray,
    samples: int, seed: int,
) -> Walk:  # fmt: skip
    """Ask every prompt `samples` times at every λ of the grid (G, 2)."""
    how = problem.evaluation.max_new_tokens, problem.evaluation.batch_size
    found = sample_policy(policy, prompts, grid, samples, *how, seed)
    raw = gold_raw_texts(
        [prompts[g.prompt] for g in found], [g.text for g in found], problem.dimension_names
    )
    reward = scale.apply(raw).reshape(len(grid), len(prompts), samples, -1)
    return Walk(grid[:, 0], reward.mean(axis=2))


def resampled(walks: list[Walk], seed: int, bootstrap: int = 2000) -> np.ndarray:
    """Evenness of every walk under the same resamples of prompts, shape (bootstrap, walks)."""
    prompts = walks[0].by_prompt.shape[1]
    shares = np.random.default_rng(seed).multinomial(
        prompts, np.full(prompts, 1 / prompts), size=bootstrap
    )
    return np.array(
        [[evenness(step_lengths(w.points(s / prompts))) for w in walks] for s in shares], float
    )


def page(walks: list[Walk], samples: int, seed: int, command: str) -> str:
    """The whole Markdown page."""
    prompts = walks[0].by_prompt.shape[1]
    even = np.full(prompts, 1 / prompts)
    draws = resampled(walks, seed)
    draws = np.column_stack([draws, draws[:, 1] - draws[:, 0]])
    told = [evenness(step_lengths(w.points(even))) or 0.0 for w in walks]
    told.append(told[1] - told[0])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    names = ["λ in equal steps", "the slider in equal steps", "difference"]
    summary = [
        f"| {n} | {v:.3f} | {a:.3f} to {b:.3f} |"
        for n, v, a, b in zip(names, told, low, high, strict=True)
    ]
    steps = [step_lengths(w.points(even)) for w in walks]
    rows = [
        f"| {i} | {walks[0].first[i]:.3f} to {walks[0].first[i + 1]:.3f} | {steps[0][i]:.3f} "
        f"| {walks[1].first[i]:.3f} to {walks[1].first[i + 1]:.3f} | {steps[1][i]:.3f} |"
        for i in range(POSITIONS - 1)
    ]
    return "\n".join(
        [
            "# The slider, measured",
            "",
            f"`{command}`, {date.today()}.",
            f"{POSITIONS} positions, {prompts} held-out prompts, {samples} answers to each at "
            f"each position, seed {seed},",
            "gold rewards. The slider was fitted to other answers to the same prompts, those of",
            "the evaluation. One policy; the intervals are paired bootstraps over prompts.",
            "",
            "Evenness is Jain's index of the ten step lengths in reward: 1 where all are equal.",
            "Noise makes steps less even, and resamples are noisier: figures lie high in their",
            "intervals.",
            "",
            "| | evenness | 95 % |",
            "|---|---:|---|",
            *summary,
            "",
            "| step | λ₁ | length | λ₁ of the slider | length |",
            "|---:|---|---:|---|---:|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Ask, judge, and write the page."""
    parser = argparse.ArgumentParser(description="How evenly λ and the slider walk the front.")
    parser.add_argument("problem")
    parser.add_argument("--samples", type=int, default=32, help="answers per prompt and position")
    parser.add_argument("--seed", type=int, default=1, help="another one than the evaluation's")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"), help="the page's file")
    given = parser.parse_args()
    workspace = Workspace.current()
    problem = load_problem_named(workspace, given.problem)
    if given.seed == problem.seed:
        sys.exit(f"seed {given.seed} is the evaluation's own; name another with --seed")
    warehouse, loaded = Warehouse(workspace.warehouse), load_policy(given.problem)
    prompts = warehouse.read(PROMPTS, [given.problem])["text"].to_pylist()
    scale = RewardScale.from_dict(
        json.loads(warehouse.read(SCALE, [given.problem])["scale"][0].as_py())
    )
    equal = np.linspace(0, 1, POSITIONS)
    slid = np.array([loaded.slider(t)[problem.dimension_names[0]] for t in equal])
    walks = [
        walk(
            loaded._policy,
            problem,
            prompts,
            scale,
            np.column_stack([first, 1 - first]),
            given.samples,
            given.seed,
        )
        for first in (equal, slid)
    ]
    command = f"python benchmarks/slider.py {given.problem} --samples {given.samples} "
    command += f"--seed {given.seed}"
    given.out.write_text(page(walks, given.samples, given.seed, command), encoding="utf-8")


if __name__ == "__main__":
    main()
