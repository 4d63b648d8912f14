"""The process that trains a policy for a run, alone or as one of several.

    python -m orchestration.training_process LAUNCH_FOLDER

Its run holds the other end of stdin: when that closes, or at SIGTERM or SIGINT, a checkpoint is
saved at the end of the step, in all processes, and they end. Progress goes to the run through
Dagster Pipes, how it ended into the launch folder (`orchestration.training_job`). It knows Pipes,
but no Dagster.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from dagster_pipes import PipesContext, open_dagster_pipes

from orchestration.environment import keep_freed_memory
from orchestration.training_job import LaunchFolder, Told, train_here
from panacea_lib.stop_wish import StopWish
from panacea_lib.train_result import StepListener

_TELL_EVERY = 0.5  # seconds: a run that lasts days keeps all that it was told


def main() -> int:
    """Train; 0, or 1 where there is no result."""
    wish = StopWish()
    wish.hear_signals()
    wish.watch_lifeline()
    keep_freed_memory()
    from panacea_lib.training.processes import is_main_process

    folder = LaunchFolder(Path(sys.argv[1]))
    try:
        with _told_steps(is_main_process()) as on_step:
            result = train_here(folder.job(), folder.adapters, on_step, wish.is_wanted)
    except Exception as error:  # whatever it is: the run that waits for it must learn it
        traceback.print_exc()
        if not _another_died(error):
            folder.tell(Told(error=type(error).__name__, message=str(error)))
        return 1
    if is_main_process():
        folder.tell(Told(result))
    return 0


@contextmanager
def _told_steps(is_main: bool) -> Iterator[StepListener | None]:
    """A listener that tells the run of steps, in the one process that does."""
    if not is_main:
        yield None
        return
    with open_dagster_pipes() as pipes:
        yield _Teller(pipes).step


class _Teller:
    """Tells the run where the training is: its first and last step, and now and then."""

    def __init__(self, pipes: PipesContext) -> None:
        self._pipes = pipes
        self._next = 0.0

    def step(self, step: int, total: int, metrics: dict[str, float]) -> None:
        """A `StepListener`."""
        if step < total and monotonic() < self._next:
            return
        self._next = monotonic() + _TELL_EVERY
        told = {"step": step, "total": total, "metrics": metrics}
        self._pipes.report_custom_message(told)


def _another_died(error: Exception) -> bool:
    """Whether this process fails only because another of the same training is gone."""
    import torch

    lost = isinstance(error, torch.distributed.DistError)
    # gloo raises a plain RuntimeError, which begins with the place in its own source.
    return lost or "gloo/transport" in str(error)


if __name__ == "__main__":
    sys.exit(main())
