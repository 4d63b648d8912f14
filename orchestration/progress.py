"""Progress of long steps: a line per tenth in Dagster's log, or a live display in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Protocol

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

StepListener = Callable[[int, int, dict[str, float]], None]
Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext
_SHOWN_METRICS = ("loss", "accuracy", "kl")


class Display(Protocol):
    """Who is told how an asset gets on, in place of Dagster's log."""

    def begin(self, what: str) -> None:
        """Something that may take long begins."""
        ...

    def step(self, what: str, step: int, total: int, metrics: dict[str, float]) -> None:
        """It has come so far."""
        ...

    def end(self, what: str, summary: str) -> None:
        """It is done."""
        ...


# Set by the command line around a run in its own process; Dagster's run workers have none.
_display: ContextVar[Display | None] = ContextVar("display", default=None)


@contextmanager
def shown_on(display: Display) -> Iterator[None]:
    """Within, progress goes to `display`."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


class Reporter:
    """Tells of one stage's progress, wherever that is shown."""

    def __init__(self, context: Context, stage: str) -> None:
        self._log = context.log
        self._stage = stage
        self._display = _display.get()
        self._tenth = -1

    def begin(self, part: str) -> None:
        """A part of the stage is being made."""
        self._tenth = -1
        if self._display:
            self._display.begin(self._name(part))

    def listener(self, part: str) -> StepListener:
        """To be called with (step, total steps, latest metrics)."""
        name = self._name(part)

        def on_step(step: int, total: int, metrics: dict[str, float]) -> None:
            if self._display:
                self._display.step(name, step, total, metrics)
            elif (tenth := 10 * step // max(total, 1)) != self._tenth:
                self._tenth = tenth
                self._log.info(f"{name}: {step} of {total} {_format_metrics(metrics)}".rstrip())

        return on_step

    def end(self, part: str, summary: str) -> None:
        """A part is done: made, or found."""
        self._log.info(f"{self._name(part)}: {summary}")
        if self._display:
            self._display.end(self._name(part), summary)

    def _name(self, part: str) -> str:
        return f"{self._stage} {part}".rstrip()


class TerminalDisplay:
    """One live bar for what is going on, and a line for everything that is done."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._begun = perf_counter()

    def __enter__(self) -> "TerminalDisplay":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, what: str) -> None:
        """Show a bar that waits for its first step."""
        self._clear()
        self._task = self._progress.add_task(what, total=None, state="")

    def step(self, what: str, step: int, total: int, metrics: dict[str, float]) -> None:
        """Move the bar."""
        if self._task is None:
            self.begin(what)
        state = f"{step}/{total} {_format_metrics(metrics)}"
        assert self._task is not None
        self._progress.update(
            self._task, description=what, completed=step, total=total, state=state
        )

    def end(self, what: str, summary: str) -> None:
        """Replace the bar by a line."""
        self._clear()
        clock = f"{perf_counter() - self._begun:6.1f} s"
        self._progress.console.print(f"[dim]{clock}[/dim]  [green]✓[/green] {what}  {summary}")

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def _format_metrics(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {metrics[name]:.3f}" for name in _SHOWN_METRICS if name in metrics)
