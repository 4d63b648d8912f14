"""A training that is asked to stop saves a checkpoint first, in all its processes at one step."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from panacea_lib.errors import TrainingStoppedError


class StopCallback(TrainerCallback):
    """Ends a training after the step in which a stop was wanted, with a checkpoint and a log line.

    Without the line, the loss of the steps since the last one would be in no line at all. A wish
    that comes in the last step changes nothing: the training is done.
    """

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self._is_wanted = is_wanted
        self._stopped_at: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """TrainingStoppedError where no step need be taken."""
        if self._agreed(args):
            self._stopped_at = state.global_step
            self.raise_if_stopped(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log, save and stop."""
        if state.global_step < state.max_steps and self._agreed(args):
            control.should_log = control.should_save = control.should_training_stop = True
            self._stopped_at = state.global_step

    def raise_if_stopped(self, state: Any) -> None:
        """TrainingStoppedError where this ended the training."""
        if self._stopped_at is not None:
            raise TrainingStoppedError(
                f"the training was asked to stop, after step {self._stopped_at} of "
                f"{state.max_steps}; the next one goes on there"
            )

    def _agreed(self, args: Any) -> bool:
        """Whether any of the processes was asked: the signal may reach one of them a step late."""
        wanted = self._is_wanted()
        if args.world_size == 1:
            return wanted
        asked = torch.tensor(float(wanted), device=args.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked.item())
