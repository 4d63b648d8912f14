"""`train(config, out_dir)`: one adapter, by any method, resumable; also with a JSON config.

    python -m panacea_lib.training.train config.json out_dir

A run that died goes on from its last complete checkpoint in `out_dir/checkpoints`. SIGTERM and
SIGINT make the command save one and end.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from panacea_lib.errors import InputError, NotEnoughMemoryError, TrainingStoppedError
from panacea_lib.memory import TRAINING_REMEDY, memory_shortage_told
from panacea_lib.models.base import load_base_model
from panacea_lib.stop_wish import StopWish
from panacea_lib.train_result import StepListener, TrainResult
from panacea_lib.trainers import (
    ProgressCallback,
    checkpoints_and_logs,
    last_complete_checkpoint,
    quiet,
    trainer_device,
)
from panacea_lib.training.config import TrainConfig, read_config
from panacea_lib.training.processes import rows_per_process
from panacea_lib.training.record import check_same_training, record_training


def train(
    config: TrainConfig,
    out_dir: Path,
    on_step: StepListener | None = None,
    stop_wanted: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train and save the adapter in `out_dir/adapter`; `out_dir/result.json` is written last.

    `training.batch_size` is the rows of all processes together. Once `stop_wanted()`, the step is
    finished, a checkpoint saved, and TrainingStoppedError raised. NotEnoughMemoryError where
    memory runs out; InputError where the rows cannot be shared by the processes, or `out_dir` holds
    another training.
    """
    from panacea_lib.training.logs import TimeCallback, training_curves
    from panacea_lib.training.stopping import StopCallback

    check_same_training(config, out_dir)
    clock = TimeCallback()
    stop = StopCallback(stop_wanted) if stop_wanted else None
    callbacks = [clock, *([stop] if stop else [])]
    with memory_shortage_told("the training", TRAINING_REMEDY):
        trainer = _build_trainer(config, out_dir / "checkpoints", on_step, callbacks)
        if trainer.accelerator.is_main_process:
            record_training(config, out_dir)
        trainer.train(resume_from_checkpoint=last_complete_checkpoint(out_dir / "checkpoints"))
    if stop:
        stop.raise_if_stopped(trainer.state)
    model = trainer.accelerator.unwrap_model(trainer.model)
    details = {
        "steps": trainer.state.global_step,
        "seconds": clock.seconds(),
        "tokens": trainer.tokens_seen(),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    result = TrainResult(details, training_curves(trainer.state.log_history, config.dimensions))
    if trainer.accelerator.is_main_process:
        model.save_pretrained(out_dir / "adapter")
        (out_dir / "result.json").write_text(json.dumps(asdict(result)), encoding="utf-8")
    return result


def _build_trainer(
    config: TrainConfig,
    checkpoints: Path,
    on_step: StepListener | None,
    callbacks: list[TrainerCallback],
) -> Any:
    from panacea_lib.training.logs import ScaleCallback
    from panacea_lib.training.pair_trainer import build_pair_trainer
    from panacea_lib.training.rloo_trainer import build_rloo_trainer
    from panacea_lib.training.sft_trainer import build_sft_trainer

    numbers = config.training
    rows = rows_per_process(numbers.batch_size)
    model, tokenizer = load_base_model(Path(config.base_model), config.quantization)
    arguments = {
        "output_dir": str(checkpoints),
        "max_steps": numbers.steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": numbers.accumulation,
        "learning_rate": numbers.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, round(numbers.warmup * numbers.steps)),
        "seed": config.seed,
        **checkpoints_and_logs(numbers.steps, numbers.checkpoint_every, logs=50),
        **trainer_device(),
        "gradient_checkpointing": numbers.gradient_checkpointing,
    }
    builders = {"sft": build_sft_trainer, "rloo": build_rloo_trainer}
    build = builders.get(config.method, build_pair_trainer)
    callbacks = [ProgressCallback(on_step), ScaleCallback(), *callbacks]
    trainer = build(config, model, tokenizer, arguments, _adapter_config(config, model), callbacks)
    quiet(trainer)
    return trainer


def _adapter_config(config: TrainConfig, model: Any) -> Any:
    """The Panacea adapter of rank k + m, or a LoRA of the same rank and scaling, on the same
    layers."""
    from peft import LoraConfig

    from panacea_lib.adapter import PanaceaConfig
    from panacea_lib.adapter.model import default_targets

    numbers, m = config.training, len(config.dimensions)
    targets = config.target_modules or default_targets(model)
    if config.adapter == "panacea":
        return PanaceaConfig(
            dimensions=config.dimensions,
            r=numbers.rank,
            alpha=numbers.alpha,
            target_modules=targets,
        )
    rank = numbers.rank + m
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=int(numbers.alpha * rank / numbers.rank),
        target_modules=targets,
    )


def main() -> None:
    """`python -m panacea_lib.training.train config.json out_dir`."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m panacea_lib.training.train CONFIG.json OUT_DIR")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    wish = StopWish()
    wish.hear_signals()
    try:
        config = read_config(Path(sys.argv[1]))
        result = train(config, Path(sys.argv[2]), stop_wanted=wish.is_wanted)
    except (InputError, NotEnoughMemoryError, TrainingStoppedError, FloatingPointError) as error:
        sys.exit(str(error))
    print(json.dumps(result.details))


if __name__ == "__main__":
    main()
