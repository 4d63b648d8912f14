"""What rules cost: beside one plain DuckDB query, and beside tokenising alone.

    .venv/bin/python -m benchmarks.labelling_rules --out benchmarks/labelling_rules.md

The responses are random English-like words, some 180 in the median, a pair of responses per prompt.
The tokenizer is a byte-level BPE trained on them, of the kind that most models have.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.ratios import MIN_PAIRS, Ratio, measure_ratio
from panacea_lib.labelling.rules import rule_annotations, rule_expression
from panacea_lib.models.chat import Tokenizer
from panacea_lib.problem_labelling import Conciseness, Length, Matches, Readability, Rule

LIBRARIES = ("duckdb", "pyarrow", "tokenizers", "transformers")
COLUMN_TARGET, TOKEN_TARGET = 2.0, 1.2
COLUMN_RULES = [
    Length(kind="length", unit="characters"),
    Length(kind="length", unit="words"),
    Matches(kind="matches", pattern=r"(?i)\b(?:sorry|cannot|unable)\b", prefer="fewer"),
    Readability(kind="readability", temperature=4.0),
]
TOKEN_RULES = [Conciseness(kind="conciseness"), Length(kind="length", unit="tokens")]
# The scores and the label, and the same columns beside them.
PLAIN = """
with texts as (
    select
        pair_id,
        replace(response_a, chr(13) || chr(10), chr(10)) as text_a,
        replace(response_b, chr(13) || chr(10), chr(10)) as text_b
    from pairs
),
scores as (
    select pair_id, ({a})::double as score_a, ({b})::double as score_b from texts
)
select
    pair_id, 'd' as dimension, 'rule' as source, 'k' as annotator, {label} as label,
    score_a, score_b, null::varchar as shown_first, 'ok' as status, null::varchar as reason
from scores
"""
WINS = "case when score_a = score_b then 0.5e0 when score_a > score_b then 1e0 else 0e0 end"


def synthetic_pairs(count: int, seed: int = 0) -> pa.Table:
    """Pairs of responses of random words; half of the responses stand in two pairs."""
    rng = np.random.default_rng(seed)
    letters = np.array([*"eeetttaaoinshrdlucmfwypvbgk"])
    words = ["".join(rng.choice(letters, size=n)) for n in rng.integers(2, 11, size=4_000)]
    words += ["Sorry,", "cannot", "I", "-", "2026.", "naïve"]

    def response() -> str:
        length = int(np.clip(rng.lognormal(5.2, 0.7), 5, 1_500))
        drawn = [words[i] for i in rng.integers(len(words), size=length)]
        for end in range(12, length, 14):
            drawn[end] += ".\n" if end % 5 == 0 else "."
        return " ".join(drawn)

    a = [response() for _ in range(count)]
    b = [response() if i % 2 else a[i - 1] for i in range(count)]
    ids = [f"{i:016x}" for i in range(count)]
    return pa.table({"pair_id": ids, "prompt": ids, "response_a": a, "response_b": b})


def trained_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE of 8,000 tokens."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=8_000, show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, unk_token="<unk>")


def plain_query(rule: Length | Matches | Readability, pairs: pa.Table) -> Callable[[], pa.Table]:
    """The same scores and labels in one query of DuckDB on the same Arrow table."""
    label = WINS
    if rule.temperature is not None:
        label = f"1 / (1 + exp((score_b - score_a) / {rule.temperature}))"
    sql = PLAIN.format(
        a=rule_expression(rule, "text_a"), b=rule_expression(rule, "text_b"), label=label
    )
    parameters = {"pattern": rule.pattern} if isinstance(rule, Matches) else None

    def ask() -> pa.Table:
        with duckdb.connect() as connection:
            connection.register("pairs", pairs)
            return connection.sql(sql, params=parameters).to_arrow_table()

    return ask


def tokenise(pairs: pa.Table, tokenizer: Tokenizer) -> Callable[[], int]:
    """Every distinct response through the tokenizer, all in one call."""
    texts = list(
        dict.fromkeys([*pairs["response_a"].to_pylist(), *pairs["response_b"].to_pylist()])
    )

    def encode() -> int:
        return len(tokenizer(texts, add_special_tokens=False)["input_ids"])

    return encode


def measure(pairs: pa.Table, repeats: int) -> list[str]:
    """A line of Markdown per rule."""
    tokenizer = trained_tokenizer(pairs["response_a"].to_pylist()[:2_000])
    alone = tokenise(pairs, tokenizer)
    lines = []
    for rule in (*COLUMN_RULES, *TOKEN_RULES):
        if isinstance(rule, Conciseness) or (isinstance(rule, Length) and rule.unit == "tokens"):
            theirs, target = alone, TOKEN_TARGET
        else:
            theirs, target = plain_query(rule, pairs), COLUMN_TARGET
            _check_equal(rule, pairs, theirs())
        ratio = measure_ratio(
            lambda rule=rule: rule_annotations(rule, "d", pairs, tokenizer), theirs, repeats, 1
        )
        lines.append(_line(rule, ratio, target))
        print(lines[-1], flush=True)
    return lines


def _check_equal(rule: Rule, pairs: pa.Table, plain: pa.Table) -> None:
    """Both ways must say the same of every pair; SystemExit where they do not."""
    ours = rule_annotations(rule, "d", pairs)
    if not ours["pair_id"].equals(plain["pair_id"]):
        sys.exit(f"{rule}: the plain query has another order")
    for name in ("score_a", "score_b", "label"):
        if not np.allclose(ours[name].to_numpy(), plain[name].to_numpy(), rtol=0, atol=1e-9):
            sys.exit(f"{rule}: the plain query has another {name}")


def _line(rule: Rule, ratio: Ratio, target: float) -> str:
    cells = [
        rule.kind + (f", {rule.unit}" if isinstance(rule, Length) else ""),
        f"{ratio.ours:.3f}",
        f"{ratio.theirs:.3f}",
        f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        str(ratio.pairs),
        f"≤ {target:g}",
        ratio.verdict(target),
    ]
    return f"| {' | '.join(cells)} |"


HEADER = """\
| rule | ours, s | alone, s | ratio (95 % interval) | pairs | target | |
|---|---:|---:|---|---:|---|---|"""


def page(lines: list[str], pairs: pa.Table, command: str, machine: str) -> str:
    """The Markdown page."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    characters = sum(len(text) for text in pairs["response_a"].to_pylist()) / pairs.num_rows
    table = "\n".join([HEADER, *lines])
    return f"""# What rules cost

`{command}`, {date.today()}. {machine}; Python {platform.python_version()}, {libraries}.

{pairs.num_rows:,} pairs of synthetic responses, {characters:,.0f} characters each on average. Ours
is `rule_annotations`: from the Arrow table of pairs to the Arrow table of annotations. Alone is,
for lengths in characters or words, matches and readability, one plain DuckDB query of the same
scores and labels on the same table (the benchmark checks that both say the same); for the two
rules that count tokens, the tokenizer on every distinct response. The ratio is the median of
interleaved pairs with its 95 % interval (`benchmarks/ratios.py`).

{table}
"""


def main() -> None:
    """Measure, print each figure as it comes, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000, help="pairs of responses")
    parser.add_argument("--pairs", type=int, default=30, help=f"of timings, at least {MIN_PAIRS}")
    parser.add_argument("--out", type=Path, help="the page's file")
    given = parser.parse_args()
    load_before = os.getloadavg()[0]
    pairs = synthetic_pairs(given.rows)
    print(HEADER, flush=True)
    lines = measure(pairs, given.pairs)
    if given.out:
        command = " ".join(["python -m benchmarks.labelling_rules", *sys.argv[1:]])
        load = f"{load_before:.1f} before and {os.getloadavg()[0]:.1f} after"
        machine = f"{len(os.sched_getaffinity(0))} cores, load average {load}"
        given.out.write_text(page(lines, pairs, command, machine), encoding="utf-8")


if __name__ == "__main__":
    main()
