"""`train(config, out_dir)`: one adapter from pairs, resumable; also `python -m` with a JSON config.

    python -m panacea_lib.training.train config.json out_dir

A run that died goes on from its last complete checkpoint in `out_dir/checkpoints`.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from panacea_lib.batches import BATCH_TOKENS, by_length
from panacea_lib.generation import TokenRows, sequence_logprobs
from panacea_lib.models.base import load_base_model
from panacea_lib.models.chat import Tokenizer, encode_prompts, encode_responses
from panacea_lib.problem import Method, PolicyTraining, Quantization, Strict
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

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class TrainConfig(Strict):
    """Everything a training process needs, as one JSON file."""

    base_model: str
    quantization: Quantization = "none"
    dimensions: list[str]
    beta: float
    max_length: int
    method: Method
    adapter: Literal["panacea", "lora"] = "panacea"
    fixed_preference: list[float] | None = None  # (m,); a LoRA has no λ and needs one
    training: PolicyTraining
    pairs: str  # a Parquet file: prompt, response_a, response_b, label (m), reward_delta (m)
    seed: int = 0


def train(config: TrainConfig, out_dir: Path, on_step: StepListener | None = None) -> TrainResult:
    """Train and save the adapter in `out_dir/adapter`; `out_dir/result.json` is written last."""
    started = time.monotonic()
    trainer = _build_trainer(config, out_dir / "checkpoints", on_step)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(out_dir / "checkpoints"))
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.accelerator.is_main_process:
        model.save_pretrained(out_dir / "adapter")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    details = {
        "steps": trainer.state.global_step,
        "seconds": time.monotonic() - started,
        "tokens": _tokens_seen(trainer),
        "trained_parameters": trained,
    }
    result = TrainResult(details, _curves(trainer.state.log_history, config.dimensions))
    (out_dir / "result.json").write_text(json.dumps(asdict(result)), encoding="utf-8")
    return result


def _build_trainer(config: TrainConfig, checkpoints: Path, on_step: StepListener | None) -> Any:
    from trl.trainer.dpo_config import DPOConfig

    from panacea_lib.training.pair_trainer import PairCollator, PanaceaPairTrainer

    model, tokenizer = load_base_model(Path(config.base_model), config.quantization)
    numbers = config.training
    arguments = DPOConfig(
        output_dir=str(checkpoints),
        beta=config.beta,
        max_steps=numbers.steps,
        per_device_train_batch_size=numbers.batch_size,
        gradient_accumulation_steps=numbers.accumulation,
        learning_rate=numbers.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(numbers.warmup * numbers.steps)),
        seed=config.seed,
        **checkpoints_and_logs(numbers.steps, numbers.checkpoint_every, logs=50),
        **{**trainer_device(), "gradient_checkpointing": numbers.gradient_checkpointing},
    )
    trainer = PanaceaPairTrainer(
        method=config.method,
        dimensions=config.dimensions,
        preferences=numbers.preferences,
        fixed_preference=config.fixed_preference,
        model=model,
        args=arguments,
        train_dataset=_dataset(config, model, tokenizer),
        processing_class=tokenizer,
        data_collator=PairCollator(tokenizer.pad_token_id, max_length=config.max_length),
        peft_config=_adapter_config(config),
        callbacks=[ProgressCallback(on_step)],
    )
    quiet(trainer)
    return trainer


def _adapter_config(config: TrainConfig) -> Any:
    """The Panacea adapter of rank k + m, or a LoRA of the same rank and scaling."""
    numbers, m = config.training, len(config.dimensions)
    if config.adapter == "panacea":
        from panacea_lib.adapter import PanaceaConfig

        return PanaceaConfig(dimensions=config.dimensions, r=numbers.rank, alpha=numbers.alpha)
    from peft import LoraConfig

    rank = numbers.rank + m
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=int(numbers.alpha * rank / numbers.rank),
        target_modules=LORA_TARGETS,
    )


def _dataset(config: TrainConfig, model: Any, tokenizer: Tokenizer) -> Any:
    """The pairs file as token ids with the reference's log probabilities.

    Prompts lose their beginning, so that every response is seen whole; no row is longer than
    `max_length`. `model` is still the bare base model: the reference policy.
    """
    import datasets
    import pyarrow.parquet as parquet

    table = parquet.read_table(config.pairs)
    if table.num_rows == 0:
        raise ValueError(f"{config.pairs}: no pair to train on")
    table = _rows_to_see(table, config)
    a = encode_responses(tokenizer, table["response_a"].to_pylist())
    b = encode_responses(tokenizer, table["response_b"].to_pylist())
    prompts = encode_prompts(tokenizer, table["prompt"].to_pylist())
    a, b = ([row[: config.max_length - 1] for row in rows] for rows in (a, b))
    room = [config.max_length - max(len(x), len(y)) for x, y in zip(a, b, strict=True)]
    prompts = [p[-keep:] for p, keep in zip(prompts, room, strict=True)]
    logps = reference_logprobs(model, tokenizer, prompts + prompts, a + b)
    return datasets.Dataset.from_dict(
        {
            "prompt_ids": prompts,
            "chosen_ids": a,
            "rejected_ids": b,
            "ref_chosen_logps": logps[: len(a)],
            "ref_rejected_logps": logps[len(a) :],
            "row": list(range(table.num_rows)),
            "label": table["label"].to_pylist(),
            "reward_delta": table["reward_delta"].to_pylist(),
        },
        features=datasets.Features(
            {
                **{
                    name: datasets.List(datasets.Value("int32"))
                    for name in ("prompt_ids", "chosen_ids", "rejected_ids")
                },
                "ref_chosen_logps": datasets.Value("float32"),
                "ref_rejected_logps": datasets.Value("float32"),
                "row": datasets.Value("int64"),
                "label": datasets.List(datasets.Value("float32")),
                "reward_delta": datasets.List(datasets.Value("float32")),
            }
        ),
    )


def _rows_to_see(table: Any, config: TrainConfig) -> Any:
    """At most as many pairs as the steps have room for, drawn by the seed: where pairs are many
    and steps few, the reference's pass over the others would cost more than the training."""
    import numpy as np

    numbers, processes = config.training, int(os.environ.get("WORLD_SIZE", "1"))
    room = numbers.steps * numbers.batch_size * numbers.accumulation * processes
    if table.num_rows <= room:
        return table
    drawn = np.random.default_rng(config.seed).permutation(table.num_rows)[:room]
    return table.take(np.sort(drawn))


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


def _tokens_seen(trainer: Any) -> int:
    """Tokens of both responses and their prompts, over all steps, padding not counted."""
    dataset = trainer.train_dataset
    lengths = (2 * len(p) + len(a) + len(b) for p, a, b in _token_columns(dataset))
    mean = sum(lengths) / len(dataset)
    arguments = trainer.args
    rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    return round(mean * rows * trainer.state.global_step)


def _token_columns(dataset: Any) -> Any:
    return zip(dataset["prompt_ids"], dataset["chosen_ids"], dataset["rejected_ids"], strict=True)


def _curves(log_history: list[dict[str, Any]], dimensions: list[str]) -> list[dict[str, Any]]:
    """TRL's log as tidy rows; dimension is '' for a metric of the whole step."""
    rows = curve_rows(log_history, "loss", "grad_norm", "learning_rate")
    for metric in ("loss", "accuracy", "margin"):
        for dimension in dimensions:
            found = curve_rows(log_history, f"{metric}/{dimension}")
            rows += [row | {"dimension": dimension, "metric": metric} for row in found]
    return rows


def main() -> None:
    """`python -m panacea_lib.training.train config.json out_dir`."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m panacea_lib.training.train CONFIG.json OUT_DIR")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    config = TrainConfig.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out_dir = Path(sys.argv[2])
    out_dir.mkdir(parents=True, exist_ok=True)
    print(json.dumps(train(config, out_dir).details))


if __name__ == "__main__":
    main()
