"""Supervised fine-tuning with one data set per dimension (arXiv 2402.02030, the chat problems).

The objective of dimension i is the log-likelihood of its own data: a row's loss is the negative
log-likelihood of its response, averaged over the response's tokens. The dimensions take turns in
giving the rows, however large their data sets are: so every batch speaks of all of them equally,
λ weighs what it says, and a Tchebycheff maximum never misses one. (Rows drawn by size and divided
by their share have the same mean, but the large gradients of a small data set are then clipped.)

TRL does the schedule and the checkpoints; one override of its loss does the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import torch
import torch.nn.functional as F
from datasets import Dataset, Features, List, Value
from torch import Tensor
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from panacea_lib.errors import InputError
from panacea_lib.models.chat import Tokenizer, encode_prompts, encode_responses
from panacea_lib.problem_training import Scalarization
from panacea_lib.trainers import keep_trained_in_float32
from panacea_lib.training.config import TrainConfig
from panacea_lib.training.guard import FiniteGuard
from panacea_lib.training.preferences import PreferenceDraws
from panacea_lib.training.scalarization import scalarize


@dataclass(frozen=True)
class SftRows:
    """What each dimension has to learn; `row` is the row of the file, which λ is drawn for."""

    prompt: list[str]
    response: list[str]
    dimension: list[int]
    row: list[int]


@dataclass
class SftCollator(DataCollatorForLanguageModeling):
    """TRL's collator, and the columns that the loss reads."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """`row` (B,) and `dimension` (B,) beside TRL's tensors."""
        batch = super().torch_call(examples)
        for name in ("row", "dimension"):
            batch[name] = torch.tensor([example[name] for example in examples])
        return batch


class PanaceaSftTrainer(SFTTrainer):
    """Trains a Panacea adapter, or a plain LoRA at one λ (`draws.fixed`), on responses.

    The dataset holds token ids (`input_ids`, `labels` with -100 on the prompt), `row` and
    `dimension`, in the order in which they are trained on. At a fixed λ the model is called
    without it. `turns`: the dimensions that take turns in the dataset.
    """

    model: Any  # transformers' annotation allows None; a trainer that was built has one
    train_dataset: Any  # as above

    def __init__(
        self,
        *,
        dimensions: list[str],
        turns: list[int],
        scalarization: Scalarization,
        draws: PreferenceDraws,
        **kwargs: Any,
    ) -> None:
        self._dimensions = dimensions
        self._turns = turns
        self._scalarization = scalarization
        self._draws = draws
        super().__init__(**kwargs)
        # The loss is a mean over rows, whatever they count in tokens: each of the (equal) parts of
        # an accumulated batch has its share.
        self.loss_is_scaled_for_ga = False
        self._guard = FiniteGuard(Path(str(self.args.output_dir)))
        self.add_callback(self._guard)
        keep_trained_in_float32(self.model)

    def tokens_seen(self) -> int:
        """Tokens of the responses and their prompts, over all steps, padding not counted."""
        done = self.state.global_step / self.state.max_steps
        return round(done * sum(map(len, self.train_dataset["input_ids"])))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # the tokens of an accumulated batch: not what we divide by
    ) -> Any:
        """The scalarized loss of one batch, averaged over its rows."""
        preference = self._draws.of(self.state.global_step, inputs["row"])
        keywords = {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}
        if self._draws.fixed is None:
            keywords["preference"] = preference
        outputs = model(**keywords, use_cache=False, fused_lm_head=True)
        nll = -outputs.log_probs.float().sum(1) / outputs.label_mask.sum(1)
        speaks = F.one_hot(inputs["dimension"], len(self._dimensions))
        losses = speaks * nll[:, None] / self._share(speaks)
        loss = scalarize(losses, preference, self._scalarization)
        self._guard.check(loss, inputs)
        self._record(nll.detach(), speaks)
        return (loss, outputs) if return_outputs else loss

    def _share(self, speaks: Tensor) -> Tensor:
        """The share of rows that speak of each dimension, as `scalarize` wants it.

        A linear loss needs that of the training, so that no part of a batch weighs more than
        another; a Tchebycheff one compares the means of this very batch. speaks: (B, m), 0 or 1.
        """
        if self._scalarization.kind == "linear":
            return torch.tensor(1 / len(self._turns), device=speaks.device)
        return speaks.sum(0).clamp(min=1) / len(speaks)

    def _record(self, nll: Tensor, speaks: Tensor) -> None:
        """The mean loss of each dimension's rows, over all processes."""
        both = torch.stack([(speaks * nll[:, None]).sum(0), speaks.sum(0).float()])
        everywhere: Any = self.accelerator.reduce(both, "sum")
        total, count = everywhere.tolist()
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, loss, rows in zip(self._dimensions, total, count, strict=True):
            if rows:
                metrics[f"loss/{name}"].append(loss / rows)


def build_sft_trainer(
    config: TrainConfig,
    model: Any,
    tokenizer: Tokenizer,
    arguments: dict[str, Any],
    peft_config: Any,
    callbacks: list[Any],
) -> PanaceaSftTrainer:
    """A trainer of `config` on the bare base `model`; `arguments` go to TRL's configuration.

    InputError where the data file has nothing to train a dimension on (`read_rows`), or a batch
    has not room for a row of each under Tchebycheff.
    """
    sft = SFTConfig(
        **arguments,
        max_length=None,  # `_dataset` cuts rows
        train_sampling_strategy="sequential",  # and orders them
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    fixed = config.fixed_preference
    turns = [i for i in range(len(config.dimensions)) if fixed is None or fixed[i] > 0]
    scalarization, batch = config.training.scalarization, sft.per_device_train_batch_size
    if scalarization.kind != "linear" and batch < len(turns):
        raise InputError(
            f"batch_size: must be at least {len(turns)} with {scalarization.kind}, a row for each "
            f"dimension, not {batch}"
        )
    rows = read_rows(Path(config.pairs), config.dimensions)
    count = sft.max_steps * batch * sft.gradient_accumulation_steps * sft.world_size
    order = order_in_turns(rows.dimension, turns, count, config.seed)
    return PanaceaSftTrainer(
        dimensions=config.dimensions,
        turns=turns,
        scalarization=scalarization,
        draws=PreferenceDraws.of_training(config),
        model=model,
        args=sft,
        train_dataset=_dataset(rows, order, tokenizer, config.max_length),
        processing_class=tokenizer,
        data_collator=SftCollator(tokenizer.pad_token_id),
        peft_config=peft_config,
        callbacks=callbacks,
    )


def read_rows(path: Path, dimensions: list[str]) -> SftRows:
    """The data sets of all dimensions.

    path: a Parquet file with prompt, response and dimension (a name), or the pairs file (prompt,
    response_a, response_b and label: m shares, NaN unknown). There dimension i learns the response
    that it prefers of every pair; ties and unknown labels teach it nothing.
    InputError where the file is neither, names another dimension or has no row for one of them.
    """
    table = parquet.read_table(path)
    if "dimension" in table.column_names:
        rows = _own_rows(_columns(path, table, "prompt", "response", "dimension"), path, dimensions)
    else:
        names = ("prompt", "response_a", "response_b", "label")
        rows = _preferred_rows(_columns(path, table, *names), path, dimensions)
    bare = [name for i, name in enumerate(dimensions) if i not in set(rows.dimension)]
    if bare:
        raise InputError(f"{path}: no row to train {bare} on; add some, or drop the dimension")
    return rows


def _columns(path: Path, table: pa.Table, *names: str) -> list[list[Any]]:
    """The named columns, none of them missing, empty or with an empty cell."""
    if missing := [name for name in names if name not in table.column_names]:
        raise InputError(
            f"{path}: no column {missing}; sft needs prompt, response and dimension, or prompt, "
            "response_a, response_b and label"
        )
    if table.num_rows == 0:
        raise InputError(f"{path}: no row to train on")
    columns = [table[name].to_pylist() for name in names]
    for name, column in zip(names, columns, strict=True):
        if None in column:
            raise InputError(f"{path}: row {column.index(None)}, column {name}: no value")
    return columns


def _own_rows(columns: list[list[Any]], path: Path, dimensions: list[str]) -> SftRows:
    prompts, responses, names = columns
    for row, name in enumerate(names):
        if name not in dimensions:
            raise InputError(
                f"{path}: row {row}, column dimension: unknown {name!r}; the dimensions are "
                f"{dimensions}"
            )
    return SftRows(
        prompts, responses, [dimensions.index(name) for name in names], list(range(len(names)))
    )


def _preferred_rows(columns: list[list[Any]], path: Path, dimensions: list[str]) -> SftRows:
    rows = SftRows([], [], [], [])
    for row, (prompt, a, b, label) in enumerate(zip(*columns, strict=True)):
        if len(label) != len(dimensions):
            raise InputError(
                f"{path}: row {row}, column label: {len(label)} values for {len(dimensions)} "
                "dimensions"
            )
        for i, share in enumerate(label):
            if share > 0.5 or share < 0.5:  # NaN is neither
                rows.prompt.append(prompt)
                rows.response.append(a if share > 0.5 else b)
                rows.dimension.append(i)
                rows.row.append(row)
    return rows


def order_in_turns(
    dimension: Sequence[int], turns: Sequence[int], count: int, seed: int
) -> list[int]:
    """Positions of `count` rows: the dimensions in `turns` take turns, and each goes through its
    rows again and again, every time in another order.

    A function of (seed, place in the order): a longer training begins as a shorter one does.
    """
    order = np.empty(count, dtype=np.int64)
    for turn, i in enumerate(turns):
        rng = np.random.default_rng((seed, i))
        own = np.flatnonzero(np.asarray(dimension) == i)
        places = order[turn :: len(turns)]
        for start in range(0, len(places), len(own)):
            places[start : start + len(own)] = rng.permutation(own)[: len(places) - start]
    return order.tolist()


def _dataset(rows: SftRows, order: list[int], tokenizer: Tokenizer, max_length: int) -> Dataset:
    """The rows in their order, as token ids.

    Prompts lose their beginning, so that every response is seen whole; no row is longer than
    `max_length`. What the order does not name is not tokenised.
    """
    used = sorted(set(order))
    prompts = encode_prompts(tokenizer, [rows.prompt[i] for i in used])
    responses = encode_responses(tokenizer, [rows.response[i] for i in used])
    responses = [row[: max_length - 1] for row in responses]
    prompts = [p[len(r) - max_length :] for p, r in zip(prompts, responses, strict=True)]
    dataset = Dataset.from_dict(
        {
            "input_ids": [p + r for p, r in zip(prompts, responses, strict=True)],
            "labels": [[-100] * len(p) + r for p, r in zip(prompts, responses, strict=True)],
            "row": [rows.row[i] for i in used],
            "dimension": [rows.dimension[i] for i in used],
        },
        features=Features(
            {
                "input_ids": List(Value("int32")),
                "labels": List(Value("int64")),
                "row": Value("int64"),
                "dimension": Value("int64"),
            }
        ),
    )
    return dataset.select(np.searchsorted(used, order))
