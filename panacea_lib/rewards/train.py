"""Reward models: TRL's RewardTrainer on a trunk with a score head for each of its dimensions.

A trunk serves one dimension (a model each) or all of them (one LoRA, m heads, one forward).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from panacea_lib.memory import memory_shortage_told
from panacea_lib.models.base import model_source, quantized_loading, settle
from panacea_lib.models.chat import Tokenizer, encode_prompts, encode_responses
from panacea_lib.problem_training import RewardTraining
from panacea_lib.problem_types import Quantization
from panacea_lib.train_result import StepListener, TrainResult
from panacea_lib.trainers import (
    ProgressCallback,
    checkpoints_and_logs,
    last_complete_checkpoint,
    quiet,
    trainer_device,
)

_REMEDY = "lower rewards.batch_size, or train the score head alone with rewards.trained: head"


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two responses to one prompt and P(a preferred over b) on one dimension, in [0, 1].

    margin: how much better a is by graded scores (negative: b is), in any unit of its dimension's;
    None where nobody graded them.
    """

    prompt: str
    response_a: str
    response_b: str
    label: float
    margin: float | None = None


LabelledTexts = tuple[str, str, str]
"""Prompt, response a, response b."""


@dataclass(frozen=True)
class LabelledRows:
    """Pairs beside their labels on every dimension: `label` (N, m), NaN where it is unknown, and
    `margin` (N, m) in logits, 0 where there is none."""

    pairs: list[LabelledTexts]
    label: np.ndarray
    margin: np.ndarray

    @property
    def coverage(self) -> np.ndarray:
        """The share of rows with a label, (m,)."""
        return np.isfinite(self.label).mean(axis=0)


def labelled_rows(
    by_dimension: Mapping[str, Sequence[LabelledPair]], margin: float
) -> LabelledRows:
    """One row per pair of texts, in the order in which they are first met.

    margin: logits of a score difference as large as the root mean square of its dimension's.
    Raises ValueError, naming the dimension, where no pair prefers one side.
    """
    labels: dict[tuple[LabelledTexts, int], list[float]] = {}
    margins: dict[tuple[LabelledTexts, int], list[float]] = {}
    m = len(by_dimension)
    for i, (name, pairs) in enumerate(by_dimension.items()):
        if all(pair.label == 0.5 for pair in pairs):
            where = f" on {name}" if name else ""
            raise ValueError(f"no pair with a preference to train a reward model on{where}")
        unit = _unit([pair.margin for pair in pairs], margin)
        seen: Counter[LabelledTexts] = Counter()
        for pair in pairs:
            texts = (pair.prompt, pair.response_a, pair.response_b)
            key = (texts, seen[texts])  # the same texts twice on one dimension are two rows
            seen[texts] += 1
            labels.setdefault(key, [nan] * m)[i] = pair.label
            margins.setdefault(key, [0.0] * m)[i] = unit * (pair.margin or 0.0)
    label, offset = (np.array(list(values.values())) for values in (labels, margins))
    return LabelledRows([texts for texts, _ in labels], label, offset)


def _unit(differences: list[float | None], margin: float) -> float:
    """Logits per unit of score, so that a difference of the usual size is worth `margin`."""
    known = [value for value in differences if value is not None]
    size = sqrt(sum(value**2 for value in known) / len(known)) if known else 0.0
    return margin / size if size else 0.0


def load_classifier(
    base_folder: Path, quantization: Quantization, heads: int = 1
) -> tuple[Any, Tokenizer]:
    """The base model with a new head of `heads` scores, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source, options = model_source(base_folder)
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="right", **options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=1, **options, **quantized_loading(quantization)
    )
    if heads > 1:
        _widen_head(model, heads)
    model.config.pad_token_id = tokenizer.pad_token_id
    return settle(model), tokenizer


def _widen_head(model: Any, heads: int) -> None:
    """A new head of several scores, drawn as transformers draws one.

    The configuration goes on saying one label: TRL trains no other number.
    """
    import torch

    old = model.score
    model.score = torch.nn.Linear(
        old.in_features, heads, bias=False, device=old.weight.device, dtype=old.weight.dtype
    )
    torch.nn.init.normal_(model.score.weight, std=model.config.initializer_range)


def _dataset(tokenizer: Tokenizer, rows: LabelledRows, longest: int) -> Any:
    import datasets

    prompts = encode_prompts(tokenizer, [prompt for prompt, _, _ in rows.pairs])
    columns: dict[str, Any] = {"label": rows.label.tolist(), "margin": rows.margin.tolist()}
    for name, texts in (
        ("chosen_ids", [a for _, a, _ in rows.pairs]),
        ("rejected_ids", [b for _, _, b in rows.pairs]),
    ):
        responses = encode_responses(tokenizer, texts)
        columns[name] = [truncate(p, r, longest) for p, r in zip(prompts, responses, strict=True)]
    return datasets.Dataset.from_dict(columns)


def truncate(prompt: list[int], response: list[int], longest: int) -> list[int]:
    """Prompt and response within `longest` tokens: the prompt's beginning goes first, since the
    score is read at the response's end."""
    response = response[: longest - 1]
    return prompt[-(longest - len(response)) :] + response


def train_reward_model(
    config: RewardTraining,
    base_folder: Path,
    quantization: Quantization,
    max_length: int,
    pairs: Sequence[LabelledPair],
    folder: Path,
    checkpoints: Path,
    seed: int,
    on_step: StepListener | None = None,
) -> TrainResult:
    """`train_reward_trunk` for one dimension."""
    given = (config, base_folder, quantization, max_length)
    return train_reward_trunk(*given, {"": pairs}, folder, checkpoints, seed, on_step)


def train_reward_trunk(
    config: RewardTraining,
    base_folder: Path,
    quantization: Quantization,
    max_length: int,
    by_dimension: Mapping[str, Sequence[LabelledPair]],
    folder: Path,
    checkpoints: Path,
    seed: int,
    on_step: StepListener | None = None,
) -> TrainResult:
    """Train on the labelled pairs of each dimension and save the adapter in `folder`; its heads are
    in the order of the mapping.

    A training that died goes on from its last complete checkpoint in `checkpoints`. Raises
    ValueError where no pair prefers one side, NotEnoughMemoryError where memory runs out. Details:
    steps, pairs, the last loss (nats).
    """
    from transformers import set_seed
    from trl.trainer.reward_config import RewardConfig

    from panacea_lib.rewards.soft_trainer import SoftLabelCollator, SoftLabelRewardTrainer

    rows = labelled_rows(by_dimension, config.margin)
    set_seed(seed)  # the new score head is drawn here, before the trainer seeds itself
    model, tokenizer = load_classifier(base_folder, quantization, len(by_dimension))
    trainer = SoftLabelRewardTrainer(
        dimensions=list(by_dimension),
        coverage=rows.coverage,
        model=model,
        args=RewardConfig(
            output_dir=str(checkpoints),
            max_steps=config.steps,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, config.steps // 20),
            max_length=max_length,
            seed=seed,
            **checkpoints_and_logs(config.steps, config.checkpoint_every, logs=20),
            **trainer_device(),
        ),
        train_dataset=_dataset(tokenizer, rows, max_length),
        processing_class=tokenizer,
        data_collator=SoftLabelCollator(tokenizer.pad_token_id),
        peft_config=_adapter(config),
        callbacks=[ProgressCallback(on_step)],
    )
    quiet(trainer)
    with memory_shortage_told("the training of a reward model", _REMEDY):
        trainer.train(resume_from_checkpoint=last_complete_checkpoint(checkpoints))
    trainer.model.save_pretrained(folder)
    curve = trainer.curves()
    losses = [row["value"] for row in curve if row["metric"] == "loss"]
    details = {"steps": config.steps, "pairs": len(rows.pairs), "loss": losses[-1]}
    return TrainResult(details, curve)


def _adapter(config: RewardTraining) -> Any:
    """What is trained, as PEFT has it: for SEQ_CLS the score head is, whatever else."""
    from peft import LoraConfig
    from peft.utils.constants import DUMMY_TARGET_MODULES

    if config.trained == "head":
        return LoraConfig(task_type="SEQ_CLS", r=1, target_modules=DUMMY_TARGET_MODULES)
    return LoraConfig(
        task_type="SEQ_CLS",
        r=config.rank,
        lora_alpha=2 * config.rank,
        target_modules="all-linear",
    )
