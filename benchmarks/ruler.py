"""The estimated ruler against the exact one, in the embedded world: a Markdown page.

    .venv/bin/python -m benchmarks.ruler

Both are asked about the same policy, whose exact value is known too: the reference tilted towards
λ·r with part of the optimum's strength. Every round draws prompts anew from the held-out ones (with
replacement: they are the population here), n reference answers to each and 8 of the policy at every
λ, and asks whether the interval that a report would show holds the true value ratio.
"""

import argparse
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks.methods import WORK
from benchmarks.methods_world import BenchmarkWorld
from panacea_lib.evaluation import estimated_ruler, exact_ruler, preference_grid
from panacea_lib.evaluation.bootstrap import figure, resamples
from panacea_lib.evaluation.figures import value_ratio
from panacea_lib.evaluation.ruler import LEAST_EFFECTIVE, Ruler
from panacea_lib.workspace import PROJECT_ROOT
from panacea_lib.world.exact import Enumeration

PAGE = PROJECT_ROOT / "benchmarks" / "ruler.md"
PROBLEMS = {2: "demo", 3: "demo3", 10: "all ten dimensions"}
SAMPLES = (16, 64, 256)
POLICY_SAMPLES = 8
STRENGTH = 0.6  # a policy between the reference and the optimum
BOOTSTRAP = 500
BINS = ((0.0, 3.0), (3.0, LEAST_EFFECTIVE), (LEAST_EFFECTIVE, 10.0), (10.0, np.inf))


@dataclass(frozen=True)
class Round:
    """What one draw of prompts and answers shows."""

    attainable: float  # mean over λ and prompts of V* − V_ref, over its exact value: 1 is right
    ratio: float  # value ratio of the policy by the estimated ruler
    exact_ratio: float  # of the very same answers by the exact one
    covered: bool
    exact_covered: bool
    effective: np.ndarray  # (G,)
    error: np.ndarray  # (G,) mean over dimensions of |estimated − exact| mean optimal reward


def draw(rng: np.random.Generator, logprob: np.ndarray, samples: int) -> np.ndarray:
    """Positions of answers drawn from each row of log probabilities (R, A), shape (R, samples)."""
    cumulative = np.exp(logprob).cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    uniform = rng.random((len(logprob), samples))
    return np.stack([np.searchsorted(c, u) for c, u in zip(cumulative, uniform, strict=True)])


def tilted(world: Enumeration, grid: np.ndarray, beta: float) -> np.ndarray:
    """log probabilities of the policy that is measured, shape (G, P, A)."""
    logits = STRENGTH * np.einsum("gm,pam->gpa", grid, world.reward) / beta + world.logprob
    return logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)


def true_ratio(world: Enumeration, ruler: Ruler, grid: np.ndarray, beta: float) -> float:
    """The policy's value ratio over all prompts, nothing sampled."""
    policy = tilted(world, grid, beta)
    gain = np.einsum("gm,pam->gpa", grid, world.reward) - beta * (policy - world.logprob)
    value_G_P = (np.exp(policy) * gain).sum(axis=2)
    return float(value_ratio(ruler, value_G_P, resamples(value_G_P.shape[1], 0, 0))[0])


def one_round(
    world: Enumeration, grid: np.ndarray, beta: float, samples: int, truth: float, seed: int
) -> Round:
    """Draw prompts and answers, and hold both rulers to them."""
    rng = np.random.default_rng(seed)
    prompts = len(world.logprob)
    chosen = rng.integers(prompts, size=prompts)
    part = Enumeration(world.logprob[chosen], world.reward[chosen])
    exact = exact_ruler(part, grid, beta)
    drawn = draw(rng, part.logprob, samples)
    reference = np.take_along_axis(part.reward, drawn[:, :, None], axis=1)
    estimated = estimated_ruler(reference, grid, beta)
    value_G_P = _policy_values(rng, part, grid, beta)
    weights = resamples(prompts, BOOTSTRAP, seed)
    ours, theirs = (figure(value_ratio(r, value_G_P, weights)) for r in (estimated, exact))
    attainable = [(r.optimal_value - r.reference_value).mean() for r in (estimated, exact)]
    error = estimated.optimal_reward.mean(axis=1) - exact.optimal_reward.mean(axis=1)
    assert ours.value is not None and theirs.value is not None and estimated.effective is not None
    return Round(
        attainable=attainable[0] / attainable[1],
        ratio=ours.value,
        exact_ratio=theirs.value,
        covered=_holds(ours.low, truth, ours.high),
        exact_covered=_holds(theirs.low, truth, theirs.high),
        effective=estimated.effective,
        error=np.abs(error).mean(axis=1),
    )


def _policy_values(
    rng: np.random.Generator, part: Enumeration, grid: np.ndarray, beta: float
) -> np.ndarray:
    """V(λ) per point and prompt from a few answers, shape (G, P)."""
    policy = tilted(part, grid, beta)
    values = np.empty(policy.shape[:2])
    for g, logprob in enumerate(policy):
        answer = draw(rng, logprob, POLICY_SAMPLES)
        reward = np.take_along_axis(part.reward, answer[:, :, None], axis=1) @ grid[g]
        ratio = np.take_along_axis(logprob - part.logprob, answer, axis=1)
        values[g] = (reward - beta * ratio).mean(axis=1)
    return values


def _holds(low: float | None, truth: float, high: float | None) -> bool:
    return low is not None and high is not None and low <= truth <= high


def measure(world: BenchmarkWorld, m: int, samples: int, rounds: int) -> tuple[float, list[Round]]:
    """The true value ratio, and the rounds."""
    whole, grid, beta = world.enumeration(m), preference_grid(m), world.problem.beta
    truth = true_ratio(whole, exact_ruler(whole, grid, beta), grid, beta)
    found = [one_round(whole, grid, beta, samples, truth, seed) for seed in range(rounds)]
    return truth, found


def values_row(m: int, samples: int, truth: float, rounds: list[Round]) -> str:
    """A line of the first table."""
    ratio, exact_ratio = (
        np.array([getattr(r, name) for r in rounds]) for name in ("ratio", "exact_ratio")
    )
    low, high = np.percentile(ratio - exact_ratio, [2.5, 97.5])
    cells = [
        PROBLEMS[m],
        f"{samples}",
        f"{np.mean([r.attainable for r in rounds]):.3f}",
        f"{truth:.3f}",
        f"{ratio.mean():.3f}",
        f"{(ratio - exact_ratio).mean():+.3f} ({low:+.3f} to {high:+.3f})",
        f"{np.mean([r.covered for r in rounds]):.0%}",
        f"{np.mean([r.exact_covered for r in rounds]):.0%}",
    ]
    return "| " + " | ".join(cells) + " |"


def front_rows(rounds: list[Round]) -> list[str]:
    """The lines of the second table: the front's error by effective sample size."""
    effective = np.concatenate([r.effective for r in rounds])
    error = np.concatenate([r.error for r in rounds])
    rows = []
    for low, high in BINS:
        inside = (effective >= low) & (effective < high)
        if not inside.any():
            continue
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
        refused = "refused" if high <= LEAST_EFFECTIVE else "shown"
        worst = np.quantile(error[inside], 0.95)
        cells = [name, refused, f"{inside.mean():.0%}"]
        cells += [f"{error[inside].mean():.3f}", f"{worst:.3f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


_PAGE = """# The estimated ruler, against the exact one

`python -m benchmarks.ruler --rounds {rounds}`, {today}; embedded world, {prompts} prompts,
β = {beta}.

The policy that is measured is the reference tilted to {strength:.0%} of the optimum's strength,
with 8 answers a prompt and λ. *Attainable*: the estimated mean of V* − V_ref over the exact one;
below 1 is the bias. *Bias*: the value ratio by the estimated ruler less that of the same answers by
the exact one, and its central 95 % over the rounds. *Coverage*: how often the 95 % interval over
prompts of a report holds the true value ratio.

| problem | n | attainable | true ratio | estimated | bias | coverage | coverage, exact |
| --- | --- | --- | --- | --- | --- | --- | --- |
{values}

## The importance-weighted front

Error of the optimum's mean rewards, in normalised units and averaged over dimensions, by the
effective sample size of the point (all rounds of all rows above).

| effective samples | | share of points | mean error | 95th percentile |
| --- | --- | --- | --- | --- |
{fronts}
"""


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--work", type=Path, default=WORK, help="where the world is kept")
    given = parser.parse_args()
    world = BenchmarkWorld(given.work)
    world.prepare()
    values, everything = [], []
    for m in PROBLEMS:
        for samples in SAMPLES:
            truth, rounds = measure(world, m, samples, given.rounds)
            values.append(values_row(m, samples, truth, rounds))
            everything += rounds
            print(values[-1], flush=True)
    page = _PAGE.format(
        rounds=given.rounds,
        today=date.today().isoformat(),
        prompts=len(world.held_out),
        beta=world.problem.beta,
        strength=STRENGTH,
        values="\n".join(values),
        fronts="\n".join(front_rows(everything)),
    )
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
