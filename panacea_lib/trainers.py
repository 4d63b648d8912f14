"""What every `transformers.Trainer` here shares: where it runs, and how its progress is told."""

from collections.abc import Callable
from typing import Any

from transformers import PrinterCallback, TrainerCallback

StepListener = Callable[[int, int, dict[str, float]], None]
"""Called with (step, total steps, latest logged metrics)."""


class ProgressCallback(TrainerCallback):
    """Calls a listener after every optimiser step."""

    def __init__(self, listener: StepListener | None) -> None:
        self._listener = listener
        self._metrics: dict[str, float] = {}

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


def keep_trained_in_float32(model: Any) -> None:
    """Undo TRL's cast of trained parameters to bf16 on quantised bases (trl 1.16).

    Steps at the end of a schedule are smaller than bf16 can add, and a score head in bf16 does not
    take a base's float32 on a CPU.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
