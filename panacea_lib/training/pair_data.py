"""Pairs as token ids, with the reference policy's log probabilities: what pair trainers read."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from datasets import Dataset, Features, List, Value

from panacea_lib.batches import BATCH_TOKENS, by_length
from panacea_lib.errors import InputError
from panacea_lib.generation import TokenRows, sequence_logprobs
from panacea_lib.models.chat import Tokenizer, encode_prompts, encode_responses
from panacea_lib.prompt_preference import with_preference
from panacea_lib.training.config import TrainConfig

_FEATURES = Features(
    {
        "prompt_ids": List(Value("int32")),
        "chosen_ids": List(Value("int32")),
        "rejected_ids": List(Value("int32")),
        "ref_chosen_logps": Value("float32"),
        "ref_rejected_logps": Value("float32"),
        "row": Value("int64"),
        "label": List(Value("float32")),
        "reward_delta": List(Value("float32")),
    }
)


def pair_dataset(config: TrainConfig, model: Any, tokenizer: Tokenizer) -> Dataset:
    """The pairs of `config.pairs` under TRL's column names, and `row`, their place in the file.

    Prompts lose their beginning, so that every response is seen whole; no row is longer than
    `max_length`. `model` is still the bare base model: the reference policy. Where λ is told in
    words, prompts hold a place for them, which the reference has not seen.

    InputError where there is no pair, a column is missing or holds what the method cannot use.
    """
    table = _read_pairs(config)
    seen = _rows_to_see(table.num_rows, config)
    table = table.take(pa.array(seen))
    m = len(config.dimensions) if config.adapter == "prompt_lora" else 0
    longest = config.max_length - m
    a = encode_responses(tokenizer, table["response_a"].to_pylist())
    b = encode_responses(tokenizer, table["response_b"].to_pylist())
    prompts = encode_prompts(tokenizer, table["prompt"].to_pylist())
    a, b = ([row[: longest - 1] for row in rows] for rows in (a, b))
    room = [longest - max(len(x), len(y)) for x, y in zip(a, b, strict=True)]
    prompts = [p[-keep:] for p, keep in zip(prompts, room, strict=True)]
    logps = reference_logprobs(model, tokenizer, prompts + prompts, a + b)
    if m:
        prompts = with_preference(prompts, tokenizer, torch.zeros(len(prompts), m))
    return Dataset.from_dict(
        {
            "prompt_ids": prompts,
            "chosen_ids": a,
            "rejected_ids": b,
            "ref_chosen_logps": logps[: len(a)],
            "ref_rejected_logps": logps[len(a) :],
            "row": seen,
            "label": table["label"].to_pylist(),
            "reward_delta": table["reward_delta"].to_pylist(),
        },
        features=_FEATURES,
    )


def _read_pairs(config: TrainConfig) -> pa.Table:
    """The pairs file with all columns, those that the method does not read filled with NaN."""
    table = parquet.read_table(config.pairs)
    if table.num_rows == 0:
        raise InputError(f"{config.pairs}: no pair to train on")
    needed = "label" if config.method == "dpo" else "reward_delta"
    texts = ("prompt", "response_a", "response_b")
    if missing := [name for name in (*texts, needed) if name not in table.column_names]:
        raise InputError(f"{config.pairs}: no column {missing}; {config.method} needs it")
    m = len(config.dimensions)
    for name in ("label", "reward_delta"):
        if name not in table.column_names:
            unknown = pa.array([[float("nan")] * m] * table.num_rows)
            table = table.append_column(name, unknown)
        rows = table[name].to_pylist()
        if wrong := [i for i, row in enumerate(rows) if row is None or len(row) != m]:
            raise InputError(
                f"{config.pairs}: row {wrong[0]}, column {name}: needs a number for each of "
                f"{config.dimensions}"
            )
    values = np.array(table[needed].to_pylist(), dtype=float)
    _check_values(values, needed, config)
    return table


def _check_values(values: np.ndarray, column: str, config: TrainConfig) -> None:
    """InputError where labels are no probabilities or no label is known, or a reward unknown."""
    if column == "label":
        bad = (values < 0) | (values > 1)
        rule = "is not a probability; NaN is unknown"
    else:
        bad = ~np.isfinite(values)
        rule = "is not a finite number; score both responses"
    if bad.any():
        row, i = (int(place) for place in np.argwhere(bad)[0])
        raise InputError(
            f"{config.pairs}: row {row}, column {column}: {values[row, i]} on "
            f"{config.dimensions[i]} {rule}"
        )
    bare = np.flatnonzero(np.isnan(values).all(axis=0))
    if len(bare):
        names = [config.dimensions[i] for i in bare]
        raise InputError(
            f"{config.pairs}: no label on {names}: DPO cannot learn a dimension nobody labelled"
        )


def _rows_to_see(count: int, config: TrainConfig) -> np.ndarray:
    """At most as many pairs as the steps have room for, drawn by the seed: where pairs are many
    and steps few, the reference's pass over the others would cost more than the training."""
    numbers = config.training
    room = numbers.steps * numbers.batch_size * numbers.accumulation
    if count <= room:
        return np.arange(count)
    return np.sort(np.random.default_rng(config.seed).permutation(count)[:room])


def reference_logprobs(
    model: Any, tokenizer: Tokenizer, prompts: TokenRows, responses: TokenRows
) -> list[float]:
    """log π_ref of each response in nats; equal (prompt, response) rows are computed once.

    TRL's own pass goes pair by pair; here a response costs one forward however many pairs it is
    in, in batches of like length.
    """
    rows = [(tuple(p), tuple(r)) for p, r in zip(prompts, responses, strict=True)]
    unique = sorted(set(rows))
    logps: dict[Any, float] = {}
    lengths = [len(prompt) + len(response) for prompt, response in unique]
    for batch in by_length(lengths, BATCH_TOKENS):
        chunk = [unique[i] for i in batch]
        asked, answered = [list(p) for p, _ in chunk], [list(r) for _, r in chunk]
        values = sequence_logprobs(model, tokenizer, asked, answered).tolist()
        logps |= dict(zip(chunk, values, strict=True))
    return [logps[row] for row in rows]


def order_of_passes(pairs: int, count: int, seed: int) -> np.ndarray:
    """Positions of `count` rows, shape (count,): pass after pass over all pairs, each in another
    order.

    A batch may end one pass and begin the next. A trainer that shuffles every epoch by itself ends
    each with a smaller batch, whose rows weigh more: then accumulation, or another number of
    processes, would change the result. The orders are those of that shuffling (accelerate 1.15,
    `SeedableRandomSampler`), and a longer training begins as a shorter one does.
    """
    orders = [
        torch.randperm(pairs, generator=torch.Generator().manual_seed(seed + i)).numpy()
        for i in range(-(-count // pairs))
    ]
    return np.concatenate(orders)[:count]


def pair_tokens(dataset: Dataset) -> np.ndarray:
    """Tokens of every pair: both responses, each with its prompt, padding not counted."""
    columns = (dataset[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    return np.array([2 * len(p) + len(a) + len(b) for p, a, b in zip(*columns, strict=True)])
