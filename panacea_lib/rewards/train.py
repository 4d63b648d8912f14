"""A reward model for one dimension: TRL's RewardTrainer on the base model, LoRA + score head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panacea_lib.models.base import model_source, quantized_loading, settle
from panacea_lib.models.chat import Tokenizer, encode_prompts, encode_responses
from panacea_lib.problem_training import RewardTraining
from panacea_lib.problem_types import Quantization
from panacea_lib.trainers import (
    ProgressCallback,
    StepListener,
    TrainResult,
    checkpoints_and_logs,
    curve_rows,
    last_complete_checkpoint,
    quiet,
    trainer_device,
)


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two responses to one prompt and P(a preferred over b) on one dimension, in [0, 1]."""

    prompt: str
    response_a: str
    response_b: str
    label: float


def load_classifier(base_folder: Path, quantization: Quantization) -> tuple[Any, Tokenizer]:
    """The base model with a new head of one score, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source, options = model_source(base_folder)
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="right", **options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=1, **options, **quantized_loading(quantization)
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    return settle(model), tokenizer


def _dataset(tokenizer: Tokenizer, pairs: Sequence[LabelledPair], longest: int) -> Any:
    import datasets

    prompts = encode_prompts(tokenizer, [pair.prompt for pair in pairs])
    columns: dict[str, Any] = {"label": [pair.label for pair in pairs]}
    for name, texts in (
        ("chosen_ids", [pair.response_a for pair in pairs]),
        ("rejected_ids", [pair.response_b for pair in pairs]),
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
    """Train on labelled pairs and save the adapter in `folder`.

    A training that died goes on from its last complete checkpoint in `checkpoints`. Raises
    ValueError where no pair prefers one side. Details: steps, pairs, the last loss (nats).
    """
    from peft import LoraConfig
    from transformers import set_seed
    from trl.trainer.reward_config import RewardConfig

    from panacea_lib.rewards.soft_trainer import SoftLabelCollator, SoftLabelRewardTrainer

    if all(pair.label == 0.5 for pair in pairs):
        raise ValueError("no pair with a preference to train a reward model on")
    set_seed(seed)  # the new score head is drawn here, before the trainer seeds itself
    model, tokenizer = load_classifier(base_folder, quantization)
    trainer = SoftLabelRewardTrainer(
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
        train_dataset=_dataset(tokenizer, pairs, max_length),
        processing_class=tokenizer,
        data_collator=SoftLabelCollator(tokenizer.pad_token_id),
        peft_config=LoraConfig(
            task_type="SEQ_CLS",
            r=config.rank,
            lora_alpha=2 * config.rank,
            target_modules="all-linear",
        ),
        callbacks=[ProgressCallback(on_step)],
    )
    quiet(trainer)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(checkpoints))
    trainer.model.save_pretrained(folder)
    curve = curve_rows(trainer.state.log_history, "loss", "accuracy")
    losses = [row["value"] for row in curve if row["metric"] == "loss"]
    return TrainResult({"steps": config.steps, "pairs": len(pairs), "loss": losses[-1]}, curve)
