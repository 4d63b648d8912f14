"""What a training gives back and whom it tells of its steps; imports nothing heavy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainResult:
    """What a finished training says of itself; `curves` rows: step, dimension, metric, value."""

    details: dict[str, Any]
    curves: list[dict[str, Any]]


StepListener = Callable[[int, int, dict[str, float]], None]
"""Called with (step, total steps, latest logged metrics)."""
