"""The page of `benchmarks.evaluation`: what was measured, as Markdown."""

import platform
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version

from benchmarks.ratios import MIN_PAIRS, Ratio

LIBRARIES = ("torch", "transformers", "peft")
TARGET, SCORING_TARGET = 1.3, 0.1
POINTS, SAMPLES = 21, 4
PARTS = ("answers", "reference", "proxy", "gold", "metrics")


@dataclass(frozen=True)
class Measured:
    """What one size took.

    Attributes:
        answers, distinct, tokens: Of one evaluation.
        ratio: Evaluating over plain generating of as many tokens.
        scoring: Share of rewards and metrics in an evaluation: median, low, high.
        spent: Median seconds of each of PARTS.
    """

    answers: int
    distinct: int
    tokens: int
    ratio: Ratio
    scoring: tuple[float, float, float]
    spent: dict[str, float]


def scoring_share(seconds: dict[str, float]) -> float:
    """Rewards and metrics in the seconds of one evaluation, by part."""
    return sum(seconds[part] for part in ("proxy", "gold", "metrics")) / sum(seconds.values())


def _verdict(low: float, high: float, target: float, pairs: int) -> str:
    if pairs < MIN_PAIRS:
        return "–"
    return Ratio((low + high) / 2, low, high, pairs, 0.0, 0.0).verdict(target)


def line(name: str, found: Measured) -> str:
    """A measured size as a line of Markdown."""
    ratio, pairs = found.ratio, found.ratio.pairs

    def interval(value: float, low: float, high: float) -> str:
        return f"{value:.2f}" if pairs < MIN_PAIRS else f"{value:.2f} ({low:.2f} to {high:.2f})"

    cells = [
        name,
        f"{found.answers:,} ({found.distinct:,})",
        f"{found.tokens:,}",
        f"{ratio.ours:.1f}",
        f"{ratio.theirs:.1f}",
        interval(ratio.value, ratio.low, ratio.high),
        _verdict(ratio.low, ratio.high, TARGET, pairs),
        interval(*found.scoring),
        _verdict(*found.scoring[1:], SCORING_TARGET, pairs),
        str(pairs),
    ]
    return f"| {' | '.join(cells)} |"


HEADER = f"""\
| prompts | answers (different) | tokens | evaluating, s | plain, s | ratio, at most {TARGET:g} | \
| rewards and metrics, at most {SCORING_TARGET:g} | | pairs |
|---:|---:|---:|---:|---:|---|---|---|---|---:|"""


def parts_table(sizes: dict[str, Measured]) -> str:
    """Seconds of each part, and its share of plain generating."""
    told = {
        "answers": "answers with their log probabilities",
        "reference": "log probabilities under the reference",
        "proxy": "proxy rewards, a model per dimension",
        "gold": "gold rewards",
        "metrics": "fronts and figures by both judges, with intervals",
    }
    header = "| part | " + " | ".join(f"{name} prompts, s | / plain" for name in sizes) + " |"
    lines = [header, "|---|" + "---:|" * (2 * len(sizes))]
    for part, what in told.items():
        cells = [
            f"{found.spent[part]:.2f} | {found.spent[part] / found.ratio.theirs:.2f}"
            for found in sizes.values()
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(
    sizes: dict[str, Measured],
    speeds: dict[int, float],
    batch_size: int,
    command: str,
    machine: str,
) -> str:
    """The Markdown page."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    rows = "\n".join(line(name, found) for name, found in sizes.items())
    tried = ", ".join(f"{size}: {speed:,.0f}" for size, speed in speeds.items())
    return f"""# Evaluating beside generating

`{command}`, {date.today()}. {machine}; Python {platform.python_version()}, {libraries}.

{HEADER}
{rows}

The policy is the demo's Panacea adapter, asked for {POINTS} λ with {SAMPLES} samples at each, in
batches of {batch_size} rows; the ruler and loading are not timed. Plain is transformers' `generate`
of the base model, on the same prompts with the same sampling, at the batch size that was its
fastest (tokens/s by rows: {tried}); its seconds are scaled to as many
tokens, as its answers are shorter. The ratio is the median of interleaved pairs with its 95 %
interval (`benchmarks/ratios.py`); the full size was run once, after them.

Where the time goes beside drawing: each different answer costs one forward of the reference and one
of every reward model, and here all of them are as large as the policy.

{parts_table(sizes)}
"""
