"""The page of `benchmarks.methods`: from its lines to tables."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

Row = dict[str, Any]
SEARCH_SEED = 100
RESAMPLES = 2000
FIRST = "distillation"  # what the others are compared with
OWN_STEPS = "oracle"  # has more steps than the others
LIBRARIES = ("torch", "transformers", "trl", "peft")

ABOUT = """\
**Value ratio**: the share of the attainable improvement over the reference policy, by gold reward
and the exact ruler; 0 the reference policy, 1 the optimum. It is taken over all held-out prompts
({prompts}) and the fixed grid of λ (11, 21 and 64 at m = 2, 3 and 10), with 16, 8 and 3 answers to
each at temperature 1; n is {n}. Where one seed was run: the value and its 95 % bootstrap interval
over prompts. Where more: the mean over seeds, and the least and the greatest in brackets.

All see 64 pairs a step for the same number of steps in all (soups, MOD and the LoRAs per λ share
them out among their adapters; `oracle` has them for each of its five), at β = 0.35 and the learning
rate that the search below found best (distillation's 0.015 is as good as 0.03, within its
interval; plain LoRAs for one λ have half of theirs, 0.003: better for them in every cell that was
run at both but one, the last table). RLOO samples 128 answers a step, as many rows as 64 pairs
have. **Gold** labels are σ(Δr), and Δr for distillation; **noisy** labels are shares of three
votes, and distillation and RLOO see reward models that were trained on them. Cells of 2,000 steps
were measured before a batch could end one pass over the 26,075 pairs and begin the next: 4 of their
steps saw 27 pairs (`distillation`, m = 2, gold, seed 0, measured again since: 0.995 for 0.996).
Cells of 400 steps are within the first pass.

| row | |
|---|---|
| `distillation` | Panacea, reward distillation, squared loss, `tail_penalty: 3` |
| `distillation_bare` | the same without the penalty: the default |
| `distillation_logistic` | with the penalty and the logistic loss |
| `dpo` | Panacea, linear scalarization of DPO losses, one λ per row |
| `dpo_per_batch` | the same with one λ per batch, as in the paper |
| `rloo` | Panacea, online |
| `rewarded_soups` | a LoRA per dimension with DPO, interpolated |
| `mod` | the same LoRAs mixed token by token: m forwards a token |
| `prompt_conditioned` | one LoRA that reads λ in its prompt, DPO |
| `lora_per_preference` | a LoRA for each of five λ, DPO; the nearest answers |
| `…_distilled`, `oracle` | plain LoRAs trained with *our* objective; λ in words: no penalty |
"""

COSTS = """\
At m = 2 and {steps} steps, the mean over seeds and labels. What a step takes of each method is
measured side by side in [method_costs.md](method_costs.md): cells ran hours apart.

"""

WHY = """\
- **DPO has no word on answers that no pair has.** A policy is pushed only along the pairs it
  sees, and what it gives to all other texts is free: at a high rate, or after many steps, some
  put several percent of their answers outside the grammar, the worst more than half, where gold
  reward is lowest and the KL divergence large. The value ratio may then fall below 0. Plain LoRAs
  meet it first, some with one seed and not with another; the last table shows cells at other
  rates. Reward distillation's `tail_penalty` is about just that, and RLOO samples its own answers,
  so it sees them. Two trainings of one cell on two machines may differ by a whole LoRA here:
  floats are rounded differently, and one leaves and the other does not.
- **`dpo` stays below however long it trains**: the fixed point of weighted DPO losses mixes
  preference *probabilities*, and the optimum for λ mixes rewards.
- **`rewarded_soups`** are near the optimum where λ is near one dimension and furthest where it is
  in the middle: weights are interpolated of LoRAs that were trained apart, each with 1/m of the
  steps. `mod` mixes log probabilities instead, which costs m forwards a token.
- **`lora_per_preference`** answers most λ with its nearest neighbour's LoRA, and each has a fifth
  of the steps.
- **`prompt_conditioned`** has to learn to read numbers from the preferences it sees, m of them.
- **`rloo`** aims at the same optimum as `distillation` and is as good in most cells, for an
  answer sampled and scored for each one that it learns from. It can be lost: at m = 3, 2,000 steps
  and noisy labels (seed 0) it fell, before step 280, on answers of three tokens (KL 4.4 nats) and
  stayed there. At rate 0.006 it did not (the last table).
- **At m = 10, 400 steps and noisy labels `rloo` is ahead.** Both are short of steps there. Nothing
  that was tried for distillation with seed 0 (0.925; RLOO 0.939) closes the gap over three seeds:
  rates 0.008, 0.02 and 0.03 and tail penalties 1, 10 and 30 (0.893 to 0.933), the logistic loss
  (0.895), λ stratified or at a vertex in 30 % of the rows or both (0.922 to 0.926; RLOO with such
  vertices 0.941), four answers of a prompt under one λ, each beside each (0.938, with the other
  seeds 0.929 and 0.934; eight or sixteen: 0.917, 0.913), pairs of good answers weighted higher
  (0.866, 0.910), Adam's β₂ = 0.99 (0.924), a linear schedule (0.928). What is neither a rate nor
  a loss was measured once, by scripts that this command does not repeat.
"""


# ---- figures


def value_ratio(row: Row) -> float:
    """Σ_λ (V − V_ref) / Σ_λ (V* − V_ref) of one cell."""
    return sum(row["gain_by_prompt"]) / sum(row["attainable_by_prompt"])


def _resampled(row: Row) -> np.ndarray:
    """The value ratio under resamples of prompts, the same for all cells, shape (RESAMPLES,)."""
    gain, attainable = np.array(row["gain_by_prompt"]), np.array(row["attainable_by_prompt"])
    prompts = len(gain)
    shares = np.full(prompts, 1 / prompts)
    weights = np.random.default_rng(0).multinomial(prompts, shares, size=RESAMPLES)
    return (weights @ gain) / (weights @ attainable)


def difference(rows: Sequence[Row], others: Sequence[Row]) -> tuple[float, float, float]:
    """rows less others in value ratio, over seeds, with the paired 95 % interval over prompts."""
    pairs = list(zip(rows, others, strict=True))
    resampled = [_resampled(row) - _resampled(other) for row, other in pairs]
    low, high = np.percentile(np.mean(resampled, axis=0), [2.5, 97.5])
    value = mean(value_ratio(row) - value_ratio(other) for row, other in pairs)
    return value, float(low), float(high)


def _shown(rows: Sequence[Row]) -> str:
    if not rows:
        return "–"
    found = [value_ratio(row) for row in rows]
    if len(rows) == 1:
        low, high = np.percentile(_resampled(rows[0]), [2.5, 97.5])
        return f"{found[0]:.3f} ({low:.3f} to {high:.3f})"
    return f"**{mean(found):.3f}** [{min(found):.3f}, {max(found):.3f}], {len(found)} seeds"


def _outside(rows: Sequence[Row]) -> str:
    return f"{mean(row['outside_mass'] for row in rows):.2%}" if rows else "–"


# ---- tables


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def _by_cell(rows: Sequence[Row], shown: Callable[[list[Row]], str]) -> str:
    """A line per method, a column per m and steps."""
    columns = sorted({(row["m"], row["steps"]) for row in rows})
    header = ["method", *(f"m = {m}, {steps:,}" for m, steps in columns)]
    lines = []
    for method in _methods(rows):
        cells = [
            [r for r in rows if (r["method"], r["m"], r["steps"]) == (method, *column)]
            for column in columns
        ]
        lines.append([f"`{method}`", *map(shown, cells)])
    return _table(header, lines)


def _beaten(rows: Sequence[Row]) -> str:
    """How every other method fares against distillation in the same cells, where it is close."""
    lines = []
    ours = {_cell(row): row for row in rows if row["method"] == FIRST}
    theirs: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["method"] not in (FIRST, OWN_STEPS) and _cell(row) in ours:
            theirs.setdefault((row["method"], *_cell(row)[:-1]), []).append(row)
    for (method, m, steps, labels), found in theirs.items():
        value, low, high = difference(found, [ours[_cell(row)] for row in found])
        if high > 0:
            verdict = "better" if low > 0 else "no difference shown"
            where = f"m = {m}, {steps:,} steps, {labels}, {len(found)} seed{'s'[: len(found) > 1]}"
            told = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
            lines.append([f"`{method}`", where, told, verdict])
    better = sum(line[-1] == "better" for line in lines)
    said = f"Another method is better in {better} of {len(theirs)} comparisons."
    if not lines:
        return said
    table = _table(["method", "cell", "less `distillation`", ""], lines)
    return f"{said} All whose paired interval reaches above 0:\n\n{table}"


def _cell(row: Row) -> tuple[int, int, str, int]:
    return row["m"], row["steps"], row["labels"], row["seed"]


def _oracle(rows: Sequence[Row]) -> str:
    """At the oracle's own λ: one adapter for all of them beside a LoRA for each."""
    picked = {0: "(0, 1)", 2: "(0.2, 0.8)", 5: "(0.5, 0.5)", 8: "(0.8, 0.2)", 10: "(1, 0)"}
    per_preference = (OWN_STEPS, "lora_per_preference")
    where_run = {_cell(row) for row in rows if row["method"] in per_preference}
    lines = []
    for row in rows:
        if _cell(row) not in where_run or row["method"] not in (FIRST, "dpo", *per_preference):
            continue
        shares = [f"{row['gain_by_point'][i] / row['attainable_by_point'][i]:.3f}" for i in picked]
        where = f"{row['steps']:,} steps, {row['labels']}, seed {row['seed']}"
        lines.append([f"`{row['method']}`", where, f"{row['trained_steps']:,}", *shares])
    lines.sort(key=lambda line: line[1])
    return _table(["method", "cell", "steps in all", *(f"λ = {λ}" for λ in picked.values())], lines)


def _costs(rows: Sequence[Row]) -> str:
    """Of the cells with most steps and m = 2."""
    steps = max(row["steps"] for row in rows)
    shown: dict[str, Callable[[list[Row]], str]] = {
        "steps": lambda rs: f"{mean(r['trained_steps'] for r in rs):,.0f}",
        "tokens trained on": lambda rs: f"{mean(r['tokens'] for r in rs) / 1e6:.1f} M",
        "adapters": lambda rs: f"{rs[0]['adapters']}",
        "stored parameters": lambda rs: f"{rs[0]['stored_parameters']:,}",
        "forwards per token": lambda rs: f"{rs[0]['forwards_per_token']}",
        "KL, nats": lambda rs: f"{mean(r['kl'] for r in rs):.2f}",
        "outside the grammar": lambda rs: f"{mean(r['outside_mass'] for r in rs):.2%}",
    }
    lines = []
    for method in _methods(rows):
        of = [r for r in rows if (r["method"], r["m"], r["steps"]) == (method, 2, steps)]
        if of:
            lines.append([f"`{method}`", *(cell(of) for cell in shown.values())])
    return COSTS.format(steps=f"{steps:,}") + _table(["method", *shown], lines)


def _search(rows: Sequence[Row]) -> str:
    rates = sorted({row["rate"] for row in rows})
    lines = []
    for method in _methods(rows):
        found = {row["rate"]: value_ratio(row) for row in rows if row["method"] == method}
        best = max(found.values())
        cells = [f"{found[rate]:.3f}" if rate in found else "–" for rate in rates]
        marked = [
            f"**{c}**" if found.get(r) == best else c for c, r in zip(cells, rates, strict=True)
        ]
        lines.append([f"`{method}`", *marked])
    return _table(["method", *(f"{rate:g}" for rate in rates)], lines)


def _other_rates(rows: Sequence[Row], cells: Sequence[Row], rates: Mapping[str, float]) -> str:
    """Each cell at another rate beside the same one at its method's own."""
    own = {(row["method"], *_cell(row)): row for row in cells}
    lines = []
    for row in sorted(rows, key=lambda row: (row["method"], *_cell(row), row["rate"])):
        m, steps, labels, seed = place = _cell(row)
        beside = [own[key]] if (key := (row["method"], *place)) in own else []
        where = f"m = {m}, {steps:,} steps, {labels}, seed {seed}"
        told = [f"{row['rate']:g}", _shown([row]), _outside([row])]
        told += [f"{rates[row['method']]:g}", _shown(beside), _outside(beside)]
        lines.append([f"`{row['method']}`", where, *told])
    header = ["method", "cell", "rate", "value ratio", "outside", "its own rate", "value ratio"]
    return _table([*header, "outside"], lines)


def _about(rows: Sequence[Row]) -> str:
    counts = sorted({row["n"] for row in rows})
    n = f"{counts[0]:,} to {counts[-1]:,} a cell"
    return ABOUT.rstrip().format(prompts=len(rows[0]["gain_by_prompt"]), n=n)


def write_page(rows: Sequence[Row], rates: Mapping[str, float], page: Path) -> None:
    """Write the Markdown page of all cells that are there; `rates` are the methods' own."""
    search = [row for row in rows if row["seed"] == SEARCH_SEED]
    trained = [row for row in rows if row["seed"] != SEARCH_SEED]
    cells = [row for row in trained if row["rate"] == rates[row["method"]]]
    others = [row for row in trained if row["rate"] != rates[row["method"]]]
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    parts = [
        "# Every method, measured with the exact ruler",
        f"`python -m benchmarks.methods`, {date.today()}; {len(cells)} cells. "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {libraries}. "
        "The lines of all cells are in [methods.jsonl](methods.jsonl).",
        _about(rows),
    ]
    for labels in ("gold", "noisy"):
        if of := [row for row in cells if row["labels"] == labels]:
            parts += [f"## Value ratio, {labels} labels", _by_cell(of, _shown)]
            parts += [f"Answers outside the grammar, {labels} labels:", _by_cell(of, _outside)]
    if cells:
        parts += ["## Is distillation beaten?", _beaten(cells)]
        parts += ["## Why the others miss", WHY.rstrip()]
        parts += ["## One adapter beside a LoRA for each λ", _oracle(cells)]
        parts += ["## What it costs", _costs(cells)]
    if search:
        parts += [
            "## Learning rates",
            "Value ratio, m = 2, 400 steps of 32 pairs, gold labels, a seed of its own, no tail "
            "penalty.",
            _search(search),
        ]
    if others:
        parts += ["At 64 pairs a step, beside the same cell at the method's own rate:"]
        parts += [_other_rates(others, cells, rates)]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
