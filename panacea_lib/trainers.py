"""What every `transformers.Trainer` here shares: where it runs, how its progress is told, and from
where it goes on."""

import json
import math
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback

from panacea_lib.train_result import StepListener


class ProgressCallback(TrainerCallback):
    """Calls a listener after every optimiser step."""

    def __init__(self, listener: StepListener | None) -> None:
        self._listener = listener
        self._metrics: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell where a training goes on that died."""
        if self._listener is not None and state.global_step:
            self._listener(state.global_step, state.max_steps, self._metrics)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Remember the numbers of the latest log line."""
        self._metrics = {k: v for k, v in (logs or {}).items() if isinstance(v, (int, float))}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the listener."""
        if self._listener is not None:
            self._listener(state.global_step, state.max_steps, self._metrics)


def quiet(trainer: Any) -> None:
    """Stop a trainer from printing each log line: a listener tells what there is to tell."""
    trainer.remove_callback(PrinterCallback)


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


def curve_rows(log_history: list[dict[str, Any]], *metrics: str) -> list[dict[str, Any]]:
    """The metrics of transformers' log as tidy rows; they outlive a resumption."""
    return [
        {"step": entry["step"], "dimension": "", "metric": name, "value": float(entry[name])}
        for entry in log_history
        for name in metrics
        if name in entry
    ]


def checkpoints_and_logs(steps: int, checkpoint_every: int, logs: int) -> dict[str, Any]:
    """The arguments for checkpoints and for about `logs` log lines in all.

    A checkpoint is rounded up to the next log line: a resumed run averages the loss since it
    began, so between two lines it would log another number than an uninterrupted one.
    """
    log_every = max(1, steps // logs)
    return {
        "save_strategy": "steps",
        "save_steps": math.ceil(checkpoint_every / log_every) * log_every,
        "save_total_limit": 2,
        "logging_steps": log_every,
    }


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; None without one.

    transformers writes `trainer_state.json` after model, optimiser and scheduler.
    """
    states = [path for path in folder.glob("checkpoint-*/trainer_state.json") if _is_whole(path)]
    newest = max(states, key=lambda path: int(path.parent.name.split("-")[1]), default=None)
    return str(newest.parent) if newest else None


def _is_whole(state: Path) -> bool:
    try:
        json.loads(state.read_text(encoding="utf-8"))
    except ValueError:  # the run died while it was written
        return False
    return True


def keep_trained_in_float32(model: Any) -> None:
    """Undo TRL's cast of trained parameters to bf16 on quantised bases (trl 1.16).

    Steps at the end of a schedule are smaller than bf16 can add, and a score head in bf16 does not
    take a base's float32 on a CPU.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
