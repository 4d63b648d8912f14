"""A training stops at the first loss or gradient that is no finite number."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from panacea_lib.training.processes import process_rank


class FiniteGuard(TrainerCallback):
    """Stops a training before a NaN or an infinity reaches the adapter.

    The batches of the step are written aside, into `folder`; each process writes its own, in a file
    of its own. Checkpoints are left as they are: no
    step was taken since the last of them that was not finite.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._step = 0
        self._batches: list[dict[str, Any]] = []

    def check(self, loss: Tensor, batch: dict[str, Any]) -> None:
        """FloatingPointError unless the `loss` of this `batch` is finite."""
        self._batches.append(batch)
        self._stop_unless_finite("loss", loss, [batch])

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A new optimiser step: what came before it is innocent."""
        self._step = state.global_step
        self._batches.clear()

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any
    ) -> None:
        """A finite loss may have a gradient that is not."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._stop_unless_finite("gradient", norm, self._batches)

    def _stop_unless_finite(
        self, what: str, value: Tensor, batches: Sequence[dict[str, Any]]
    ) -> None:
        if torch.isfinite(value).all():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        rank = process_rank()
        of_process = f"_process_{rank}" if rank else ""
        aside = self._folder / f"not_finite_step_{self._step}{of_process}.json"
        told = {"what": what, "step": self._step, "batches": [_as_json(b) for b in batches]}
        aside.write_text(json.dumps(told), encoding="utf-8")
        raise FloatingPointError(
            f"the {what} at step {self._step} is not a finite number: lower the learning rate, or "
            f"look at the rows of its batch, which are in {aside}"
        )


def _as_json(batch: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
