"""A reward model for one dimension: TRL's RewardTrainer on the base model, LoRA + score head."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from panacea_lib.models.base import model_source, quantized_loading, settle
from panacea_lib.models.chat import Tokenizer, encode_prompts, encode_responses
from panacea_lib.problem import Quantization, RewardTraining
from panacea_lib.training.progress import ProgressCallback, StepListener, quiet


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


def _dataset(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str, str]], longest: int) -> Any:
    import datasets

    prompts = encode_prompts(tokenizer, [prompt for prompt, _, _ in pairs])
    columns = {}
    for name, position in (("chosen_ids", 1), ("rejected_ids", 2)):
        responses = encode_responses(tokenizer, [pair[position] for pair in pairs])
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
    pairs: Sequence[tuple[str, str, str]],
    folder: Path,
    seed: int,
    on_step: StepListener | None = None,
) -> dict[str, float]:
    """Train on (prompt, chosen, rejected) texts and save the adapter in `folder`.

    Raises ValueError without a single pair. Returns steps, pairs and the last losses (nats).
    """
    from peft import LoraConfig
    from transformers import set_seed
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    if not pairs:
        raise ValueError("no pair with a preference to train a reward model on")
    set_seed(seed)  # the new score head is drawn here, before the trainer seeds itself
    model, tokenizer = load_classifier(base_folder, quantization)
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            output_dir=str(folder / "trainer"),
            max_steps=config.steps,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, config.steps // 20),
            max_length=max_length,
            seed=seed,
            save_strategy="no",
            logging_steps=max(1, config.steps // 20),
            **trainer_device(),
        ),
        train_dataset=_dataset(tokenizer, pairs, max_length),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="SEQ_CLS",
            r=config.rank,
            lora_alpha=2 * config.rank,
            target_modules="all-linear",
        ),
        callbacks=[ProgressCallback(on_step)],
    )
    quiet(trainer)
    trainer.train()
    trainer.model.save_pretrained(folder)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"steps": config.steps, "pairs": len(pairs), "loss": losses[-1]}


def trainer_device() -> dict[str, Any]:
    """The arguments every TRL trainer here shares; TRL's defaults assume a GPU with bf16."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "gradient_checkpointing": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
    }
