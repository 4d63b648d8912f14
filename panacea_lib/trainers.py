"""What every `transformers.Trainer` here shares: where it runs, how its progress is told, and from
where it goes on."""

import json
import math
import zipfile
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
    """The newest checkpoint to go on from, written to its end and every file of it whole; or None.

    transformers writes `trainer_state.json` after model, optimiser and scheduler. A power cut or a
    full disk can leave that whole and an earlier file cut short. One of the last step does not
    count either: transformers goes on from it with a step too many.
    """
    states = folder.glob("checkpoint-*/trainer_state.json")
    whole = [path for path in states if all(map(_is_whole, path.parent.iterdir()))]
    useful = [path.parent for path in whole if _has_steps_left(path)]
    newest = max(useful, key=lambda path: int(path.name.split("-")[1]), default=None)
    return str(newest) if newest else None


def _has_steps_left(state: Path) -> bool:
    told = json.loads(state.read_text(encoding="utf-8"))
    return told["global_step"] < told["max_steps"]


def _is_whole(file: Path) -> bool:
    """Whether a file has the length that it tells of itself; of other kinds than these, True."""
    match file.suffix:
        case ".json":
            return _is_json(file.read_bytes())
        case ".safetensors":
            return _has_all_tensors(file)
        case ".pt" | ".pth":  # torch's are zip archives, whose table of contents comes last
            return zipfile.is_zipfile(file)
    return True


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:  # the run died while it was written
        return False
    return True


def _has_all_tensors(file: Path) -> bool:
    """A safetensors file is 8 bytes (the length of its header), the header, and the tensors."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = opened.read(length) if length < file.stat().st_size else b""
    if not _is_json(header):
        return False
    ends = [t["data_offsets"][1] for name, t in json.loads(header).items() if name[:2] != "__"]
    return file.stat().st_size == 8 + length + max(ends, default=0)


def keep_trained_in_float32(model: Any) -> None:
    """Undo TRL's cast of trained parameters to bf16 on quantised bases (trl 1.16).

    Steps at the end of a schedule are smaller than bf16 can add, and a score head in bf16 does not
    take a base's float32 on a CPU.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
