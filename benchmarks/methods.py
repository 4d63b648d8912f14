"""Every training method on the embedded world, measured with the exact ruler: a Markdown page.

    .venv/bin/python -m benchmarks.methods                 # all cells that are not there yet
    .venv/bin/python -m benchmarks.methods --m 2 --steps 400 --labels gold --seeds 0
    .venv/bin/python -m benchmarks.methods --search        # learning rates, at m = 2 and 400 steps
    .venv/bin/python -m benchmarks.methods --m 2 --methods rewarded_soups --rates 1e-3 3e-3
    .venv/bin/python -m benchmarks.methods --page          # only write the page anew

A cell is method × m × steps × labels × seed. Each is a line of `benchmarks/methods.jsonl` once it
is measured and is not run again; one that was stopped goes on from its checkpoints in the work
folder. Cells run side by side in processes of one thread.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.methods_page import SEARCH_SEED, value_ratio, write_page
from benchmarks.methods_world import DIMENSIONS, BenchmarkWorld, Labels, five_on_the_grid
from orchestration.environment import keep_freed_memory
from panacea_lib.workspace import PROJECT_ROOT

if TYPE_CHECKING:
    from panacea_lib.problem import Problem
    from panacea_lib.sampling import Generation

RESULTS = PROJECT_ROOT / "benchmarks" / "methods.jsonl"
PAGE = PROJECT_ROOT / "benchmarks" / "methods.md"
WORK = PROJECT_ROOT / "var" / "benchmarks" / "methods"
PAIRS_A_STEP = 64  # as the problem itself; the learning rates were searched at 32
SAMPLES = {2: 16, 3: 8, 10: 3}  # answers per prompt and λ; the grid grows with m
SEARCH_RATES = (3e-3, 6e-3, 1.5e-2, 3e-2)


@dataclass(frozen=True)
class Method:
    """How a row of the table is trained.

    Attributes:
        policy: Its name in `panacea_lib.training.policies`.
        rate: The learning rate, from the search; of plain LoRAs half of what it found, because
            at 64 pairs and 2,000 steps some of them leave the grammar at 6e-3.
        training, baselines: What differs from the problem's numbers.
        only_m: The m it is run at; None for all.
    """

    policy: str
    rate: float
    training: dict[str, Any]
    baselines: dict[str, Any]
    only_m: int | None = None


_DISTILLED = {"objective": "reward_distillation"}
METHODS = {
    "distillation": Method("panacea", 1.5e-2, {}, {}),  # with the tail penalty of `demo`
    "distillation_bare": Method("panacea", 1.5e-2, {"tail_penalty": 0.0}, {}),
    "distillation_logistic": Method("panacea", 1.5e-2, {"distillation_loss": "logistic"}, {}),
    "dpo": Method("panacea_dpo", 1.5e-2, {}, {}),
    "dpo_per_batch": Method("panacea_dpo", 1.5e-2, {"preferences": {"per": "batch"}}, {}),
    # A pair is two answers: as many rows, and so about as many tokens, in a step.
    "rloo": Method("panacea_rloo", 1.5e-2, {"batch_size": 2 * PAIRS_A_STEP}, {}),
    "rewarded_soups": Method("rewarded_soups", 3e-3, {}, {}),
    "mod": Method("mod", 3e-3, {}, {}),
    "prompt_conditioned": Method("prompt_conditioned", 3e-3, {}, {}),
    "lora_per_preference": Method(
        "lora_per_preference", 3e-3, {}, {"preferences": five_on_the_grid()}, only_m=2
    ),
    "rewarded_soups_distilled": Method("rewarded_soups", 3e-3, {}, _DISTILLED),
    "mod_distilled": Method("mod", 3e-3, {}, _DISTILLED),
    "prompt_distilled": Method("prompt_conditioned", 3e-3, {}, _DISTILLED),
    "oracle": Method(
        "lora_per_preference",
        3e-3,
        {},
        _DISTILLED | {"preferences": five_on_the_grid()},
        only_m=2,
    ),
}
SAME_ADAPTERS = {"mod": "rewarded_soups", "mod_distilled": "rewarded_soups_distilled"}
"""Methods that open the adapters of another differently: trained once."""
SEARCHED = ["distillation", "dpo", "rloo", "rewarded_soups", "prompt_conditioned"]
"""The others have the rate of the one that they vary, plain LoRAs for one λ that of the soups."""


@dataclass(frozen=True)
class Cell:
    """One training and its evaluation."""

    method: str
    m: int
    steps: int
    labels: Labels
    seed: int
    rate: float

    @property
    def name(self) -> str:
        """The name of its folder."""
        trained = SAME_ADAPTERS.get(self.method, self.method)
        numbers = f"m{self.m}-{self.steps}x{PAIRS_A_STEP}-{self.labels}-{self.seed}"
        return f"{trained}-{numbers}-{self.rate:g}"


def run_cell(work: Path, cell: Cell) -> dict[str, Any]:
    """Train, answer, measure; the line of the results."""
    import torch

    keep_freed_memory()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # a new adapter is full of them, and they are slow
    world = BenchmarkWorld(work)
    told = _train(world, cell)
    started = time.monotonic()
    figures = _measure(world, cell)
    seconds = round(time.monotonic() - started, 1)
    made = {"world": world.key, "pairs_a_step": PAIRS_A_STEP, "judges": _judges(world, cell)}
    return {**asdict(cell), **made, **told, "evaluation_seconds": seconds, **figures}


def problem_of(world: BenchmarkWorld, cell: Cell, checkpoint_every: int = 200) -> "Problem":
    """What a cell trains on, with all its numbers."""
    from panacea_lib.problem_training import BASELINE_METHODS

    method = METHODS[cell.method]
    training = {"learning_rate": cell.rate, "checkpoint_every": checkpoint_every}
    # An oracle has the steps for each of its LoRAs.
    share = len(five_on_the_grid()) if cell.method == "oracle" else 1
    training |= {"steps": cell.steps * share, "batch_size": PAIRS_A_STEP}
    baselines = {"methods": [n for n, t in BASELINE_METHODS.items() if t == method.policy]}
    return world.problem_at(cell.m, training | method.training, baselines | method.baselines)


def _judges(world: BenchmarkWorld, cell: Cell) -> str | None:
    return world.judges if cell.labels == "noisy" else None


def _folder(world: BenchmarkWorld, cell: Cell) -> Path:
    judges = _judges(world, cell)
    return world.folder / "cells" / (f"{cell.name}-by-{judges}" if judges else cell.name)


def _train(world: BenchmarkWorld, cell: Cell) -> dict[str, Any]:
    from panacea_lib.training import train_policy

    policy = METHODS[cell.method].policy
    folder = _folder(world, cell)
    if (done := folder / "result.json").exists():
        return json.loads(done.read_text())
    result = train_policy(
        problem_of(world, cell),
        policy,
        world.base_folder,
        world.training_table(cell.labels, cell.m, cell.seed),
        folder / "policy",
        folder / "checkpoints",
        cell.seed,
        rewards=world.judge(cell.labels, cell.m, cell.seed) if "rloo" in policy else None,
    )
    told = {name: result.details[name] for name in ("tokens", "stored_parameters")}
    told |= {"trained_steps": result.details["steps"]}
    told |= {"training_seconds": round(result.details["seconds"], 1)}
    done.write_text(json.dumps(told))
    return told


def _measure(world: BenchmarkWorld, cell: Cell) -> dict[str, Any]:
    """What the policy answers on the grid is worth, by gold reward and the exact ruler."""
    from panacea_lib.evaluation.grid import preference_grid
    from panacea_lib.policy import open_policy
    from panacea_lib.sampling import sample_policy

    m, names = cell.m, DIMENSIONS[: cell.m]
    folder = _folder(world, cell) / "policy"
    policy = open_policy(METHODS[cell.method].policy, folder, world.base_folder, "none", names)
    config = world.problem.evaluation
    found = sample_policy(
        policy,
        world.held_out,
        preference_grid(m),
        SAMPLES[m],
        config.max_new_tokens,
        config.batch_size // policy.forwards_per_token,
        seed=cell.seed,
        max_length=world.problem.base_model.max_length,
    )
    costs = {"forwards_per_token": policy.forwards_per_token, "adapters": policy.adapters}
    return {"n": len(found), **_figures(world, m, found), **costs}


def _figures(world: BenchmarkWorld, m: int, found: "list[Generation]") -> dict[str, Any]:
    """Gains over the reference policy: by prompt, summed over λ, and by λ, averaged over prompts.

    The value ratio and its intervals follow from them (`benchmarks.methods_page`).
    """
    import numpy as np

    from panacea_lib.evaluation.grid import preference_grid
    from panacea_lib.evaluation.samples import PolicySamples, prompt_means
    from panacea_lib.world.grammar import all_prompts, parse

    grid, ruler, known = preference_grid(m), world.ruler(m), all_prompts()
    asked, texts = [world.held_out[g.prompt] for g in found], [g.text for g in found]
    outside = [parse(known[p], t) is None for p, t in zip(asked, texts, strict=True)]
    samples = PolicySamples(
        "",
        np.array([g.point for g in found]),
        np.array([g.prompt for g in found]),
        world.gold_rewards(asked, texts, m),
        np.array([g.logprob - g.reference_logprob for g in found]),
        np.array(outside),
    )
    means = prompt_means(samples, len(grid), len(world.held_out), m)
    value_G_P = np.einsum("gm,gpm->gp", grid, means.reward)
    value_G_P -= world.problem.beta * means.log_ratio
    gain_G_P = value_G_P - ruler.reference_value
    attainable_G_P = ruler.optimal_value - ruler.reference_value

    def listed(values: np.ndarray) -> list[float]:
        return values.round(4).tolist()

    return {
        "kl": float(means.log_ratio.mean()),
        "outside_mass": float(np.mean(outside)),
        "gain_by_prompt": listed(gain_G_P.sum(0)),
        "attainable_by_prompt": listed(attainable_G_P.sum(0)),
        "gain_by_point": listed(gain_G_P.mean(1)),
        "attainable_by_point": listed(attainable_G_P.mean(1)),
    }


# ---- all cells


def cells(given: argparse.Namespace) -> Iterator[Cell]:
    """The cells that were asked for, the cheap and telling ones first."""
    if given.search:
        for method in (name for name in given.methods if name in SEARCHED):
            for rate in SEARCH_RATES:
                yield Cell(method, 2, 400, "gold", SEARCH_SEED, rate)
        return
    for seed in given.seeds:
        for steps in given.steps:
            for m in given.m:
                for labels in given.labels:
                    for name in given.methods:
                        method = METHODS[name]
                        if method.only_m in (None, m):
                            for rate in given.rates or [method.rate]:
                                yield Cell(name, m, steps, labels, seed, rate)


def finished(results: Path, world: BenchmarkWorld) -> list[dict[str, Any]]:
    """The lines that were measured in this very world and, where labels are noisy, by its judges:
    the search, and steps of today's size."""
    if not results.exists():
        return []
    rows = map(json.loads, results.read_text(encoding="utf-8").splitlines())
    judges = {"gold": None, "noisy": world.judges}
    here = (
        row
        for row in rows
        if row["world"] == world.key and row.get("judges") == judges[row["labels"]]
    )
    return [r for r in here if r["seed"] == SEARCH_SEED or r["pairs_a_step"] == PAIRS_A_STEP]


def run(wanted: Iterable[Cell], given: argparse.Namespace) -> None:
    """Run the cells that have no line yet, and append their lines as they come."""
    world = BenchmarkWorld(given.work)
    done = {tuple(row[n] for n in Cell.__annotations__) for row in finished(RESULTS, world)}
    left = [cell for cell in wanted if tuple(asdict(cell).values()) not in done]
    print(f"{len(left)} cells to run, {len(done)} there", flush=True)
    if not left:
        return
    world.prepare()
    with ProcessPoolExecutor(given.workers, max_tasks_per_child=1) as pool:
        judges = dict.fromkeys(
            (name, cell.seed)
            for cell in left
            if cell.labels == "noisy"
            for name in DIMENSIONS[: cell.m]
        )
        for future in [pool.submit(world.train_reward_model, *judge) for judge in judges]:
            future.result()
        _run_all(pool, left, given.work)


def _run_all(pool: ProcessPoolExecutor, left: list[Cell], work: Path) -> None:
    """Cells that share adapters run one after the other."""
    first = [cell for cell in left if cell.method not in SAME_ADAPTERS]
    for batch in (first, [cell for cell in left if cell not in first]):
        running: dict[Future, Cell] = {pool.submit(run_cell, work, cell): cell for cell in batch}
        for future in as_completed(running):
            row = future.result()
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{running[future]}: {value_ratio(row):.3f}", flush=True)


def main() -> None:
    """Run what is missing of what was asked for, then write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = list(METHODS)
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="METHOD")
    parser.add_argument("--m", nargs="+", type=int, choices=[2, 3, 10], default=[2, 3, 10])
    parser.add_argument("--steps", nargs="+", type=int, default=[400, 2000])
    parser.add_argument("--labels", nargs="+", choices=["gold", "noisy"], default=["gold", "noisy"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--search", action="store_true", help="learning rates instead")
    parser.add_argument("--rates", nargs="+", type=float, help="other than each method's own")
    parser.add_argument("--page", action="store_true", help="run nothing")
    parser.add_argument("--workers", type=int, default=2, help="cells side by side")
    parser.add_argument("--work", type=Path, default=WORK, help="where adapters are kept")
    given = parser.parse_args()
    if not given.page:
        run(cells(given), given)
    rows = finished(RESULTS, BenchmarkWorld(given.work))
    rates = {name: method.rate for name, method in METHODS.items()}
    write_page(sorted(rows, key=lambda row: names.index(row["method"])), rates, PAGE)


if __name__ == "__main__":
    main()
