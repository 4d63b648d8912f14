"""The metrics of a training as rows, picked up from its progress."""

import pyarrow as pa

from orchestration.progress import StepListener

_KEPT = ("loss", "accuracy", "mean_token_accuracy")


class CurveRecorder:
    """Passes progress on, and remembers what was logged."""

    def __init__(self, method: str, dimension: str, listener: StepListener) -> None:
        self._method = method
        self._dimension = dimension
        self._listener = listener
        self._points: dict[tuple[int, str], float] = {}
        self._last: dict[str, float] = {}

    def __call__(self, step: int, total: int, metrics: dict[str, float]) -> None:
        """After optimiser step `step`; `metrics` were logged after the step before, or earlier."""
        kept = {name: metrics[name] for name in _KEPT if name in metrics}
        if kept != self._last:
            self._points.update({(step - 1, name): value for name, value in kept.items()})
            self._last = kept
        self._listener(step, total, metrics)

    def table(self) -> pa.Table:
        """Rows of facts.training_curves."""
        n = len(self._points)
        return pa.table(
            {
                "method": pa.array([self._method] * n, pa.string()),
                "step": pa.array([step for step, _ in self._points], pa.int64()),
                "dimension": pa.array([self._dimension] * n, pa.string()),
                "metric": pa.array([metric for _, metric in self._points], pa.string()),
                "value": pa.array(list(self._points.values()), pa.float64()),
            }
        )
